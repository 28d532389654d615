"""Methods of tuning: recipes on the same rows that differ in which weights they train, or in the
text of pre-training that is mixed in; and where several of them reach the same score.

A method is held against others at an own score that they reach: along its rates, from the lowest to
the one of the best score, in a straight line between two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import matching, shift
from pretune.analysis.forgetting import knowledge
from pretune.analysis.matching import RESAMPLES, Unit, Weights
from pretune.analysis.results import Results, of_grid
from pretune.analysis.statistics import Estimate
from pretune.plan.needs import is_single
from pretune.recipes.sft import Sft
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

FULL = shift.FULL
LEAST = 4  # methods through which a line is drawn
REACH = 0.8  # share of the best own score of all weights at which methods are compared


def replayed(study: Study, recipe: str) -> float:
    """The share of a recipe's rows that are of a text, mixed in."""
    how = study.recipe(recipe)
    beside = how.beside if isinstance(how, Sft) else {}
    rows = sum(count for name, count in beside.items() if REGISTRY[name].kind == "text")
    return rows / how.count(study.tuning_of(recipe).examples)


def named(study: Study, recipe: str) -> str:
    """What a method is called: which weights are trained, and what is replayed."""
    share = replayed(study, recipe)
    return shift.method(study, recipe) + (f", {share:.0%} text" if share else "")


def by_set(page: Results) -> dict[str, dict[str, str]]:
    """Of every set that is tuned on by several methods the recipes, by what they are called; all
    weights first.
    """
    found: dict[str, dict[str, str]] = {}
    for recipe, how in page.study.recipes.items():
        if _is_method(page, recipe):
            found.setdefault(how.dataset, {})[named(page.study, recipe)] = recipe
    return {own: some for own, some in found.items() if FULL in some and len(some) > 1}


def _is_method(page: Results, recipe: str) -> bool:
    how = page.study.recipes[recipe]
    plain = isinstance(how, Sft) and not how.after and how.dataset in page.titles
    return plain and is_single(page.study, recipe)


def alike(page: Results, own: str) -> dict[str, str]:
    """Of a set the methods that train on the same rows."""
    there = by_set(page)[own]
    return {how: recipe for how, recipe in there.items() if not replayed(page.study, recipe)}


def costs(page: Results) -> pd.DataFrame:
    """What each recipe or variant trains and takes, means over its models: `weights` that are
    trained, `bytes` that are kept, `seconds` of training, `memory` of the process in GB (of a GPU,
    where one trained it).
    """
    return page.once("costs", partial(_costs, page))


def _costs(page: Results) -> pd.DataFrame:
    about = records.provenance(page.plan)
    about = about.reindex(columns=[*about, *{"trained_weights", "kept_bytes"} - set(about)])
    table = pd.DataFrame(
        {
            "recipe": [name.partition(".")[2].rpartition(".")[0] for name in about["model"]],
            "weights": about["trained_weights"],
            "bytes": about["kept_bytes"],
            "seconds": [one.get("tune", np.nan) for one in about["seconds"]],
            "memory": about["peak_gpu_memory_gb"].fillna(about["peak_memory_gb"]),
        }
    )
    return table.groupby("recipe").mean().astype(float)


def own_scores(page: Results, own: str, unit: Unit | None = None) -> pd.DataFrame:
    """Items by variants: the scores on a set of what was tuned on it, at the last checkpoint of the
    grid, of one run or the mean of all.
    """
    return page.once(f"own scores {own} {unit}", partial(_own_scores, page, own, unit))


def _own_scores(page: Results, own: str, unit: Unit | None) -> pd.DataFrame:
    rows = page.rows[(page.rows["dataset"] == own) & page.rows["as_asked"]]
    rows = rows[(rows["step"] == matching.last_of_grid(page)) & (rows["recipe"] != "base")]
    rows = of_grid(page.study, rows[rows["format"] == "default"])
    if unit is not None:
        rows = rows[(rows["run"] == unit[0]) & (rows["seed"] == unit[1])]
    return rows.pivot_table("score", "item", "recipe").dropna()


def reached(page: Results, own: str, scores: pd.Series, names: Sequence[str]) -> dict[str, Weights]:
    """Of the methods in `names` those that reach `REACH` of the best own score of all weights, by
    `scores` of variants: with which weights their variants have that score.
    """
    some, worse = alike(page, own), -scores
    paths = {
        how: matching.to_the_best(worse, there)
        for how in names
        if worse.reindex(there := matching.rates(page, some[how])).notna().all() and there
    }
    if FULL not in paths:
        return {}
    wanted = REACH * paths[FULL].iloc[-1]
    fit = {how: path for how, path in paths.items() if path.iloc[-1] <= wanted <= path.iloc[0]}
    return {how: matching.between(path, wanted) for how, path in fit.items()}


def comparable(page: Results, own: str) -> list[str]:
    """The methods of a set that reach the same own score in every run; none where they are too few
    for a line.
    """
    return page.once(f"comparable {own}", partial(_comparable, page, own))


def _comparable(page: Results, own: str) -> list[str]:
    every = list(alike(page, own))
    names = every
    for unit in matching.units_of(page, _kept_knowledge(page)):
        found = reached(page, own, own_scores(page, own, unit).mean(), every)
        names = [how for how in names if how in found]
    sizes = {_size(page, own, how) for how in names}
    return names if len(names) >= LEAST and len(sizes) > 1 else []


def _size(page: Results, own: str, how: str) -> float:
    """log10 of the weights that a method trains."""
    return float(np.log10(costs(page).loc[alike(page, own)[how], "weights"]))


def _slope(page: Results, own: str, given: dict[str, Weights]) -> Weights:
    """The weights of variants in the least-squares slope of what is forgotten over log10 trained
    weights: minus those of the score, since base is the same for all.
    """
    sizes = np.array([_size(page, own, how) for how in given])
    away, total = sizes - sizes.mean(), {}
    for part, weights in zip(away / (away**2).sum(), given.values(), strict=True):
        for name, share in weights.items():
            total[name] = total.get(name, 0.0) - part * share
    return total


def _of_knowledge(page: Results) -> pd.DataFrame:
    """Rows of knowledge that base has, as claims ask for it."""
    return page.once("rows of knowledge", partial(_knowledge_rows, page))


def _kept_knowledge(page: Results) -> pd.DataFrame:
    """The same of what was tuned."""
    rows = _of_knowledge(page)
    return rows[rows["recipe"] != "base"]


def _knowledge_rows(page: Results) -> pd.DataFrame:
    owns = {recipe.dataset for recipe in page.study.recipes.values()}
    kept = set(knowledge(page)) - owns
    rows = page.rows[page.rows["as_asked"] & page.rows["dataset"].isin(kept)]
    return rows[rows["format"] == "default"]


def forgetting_by_size(page: Results, sets: Sequence[str]) -> Estimate | None:
    """The slope of forgetting over log10 trained weights at equal own score, mean over `sets`; None
    where methods do not reach it in some run.
    """
    names = {own: comparable(page, own) for own in sets}

    def slopes(scores: dict[str, pd.Series]) -> list[Weights] | None:
        found = {own: reached(page, own, some, names[own]) for own, some in scores.items()}
        if any(set(found[own]) != set(names[own]) for own in sets):
            return None
        return [_slope(page, own, found[own]) for own in sets]

    def weights(unit: Unit) -> list[Weights] | None:
        return slopes({own: own_scores(page, own, unit).mean() for own in sets})

    rows = _kept_knowledge(page)
    doubt = partial(_of_own_items, page, rows, sets, slopes)
    return matching.weighted(page, rows, "score", weights, doubt)


def _of_own_items(
    page: Results, rows: pd.DataFrame, sets: Sequence[str], slopes, unit: Unit
) -> float:
    """The variance that the doubt in own scores brings in, by resampling their items; NaN where
    resampled scores are often not reached.
    """
    here = of_grid(page.study, rows)
    here = here[(here["step"] == matching.last_of_grid(page)) & (here["run"] == unit[0])]
    means = here.groupby(["recipe", "dataset"])["score"].mean().groupby(level="recipe").mean()
    tables, draw = {own: own_scores(page, own, unit) for own in sets}, np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        scores = {
            own: table.iloc[draw.integers(len(table), size=len(table))].mean()
            for own, table in tables.items()
        }
        if (found := slopes(scores)) is not None:
            values.append(np.mean([sum(means[n] * w for n, w in one.items()) for one in found]))
    return float(np.var(values, ddof=1)) if len(values) > RESAMPLES / 2 else np.nan


def at_equal_score(page: Results, own: str) -> pd.DataFrame:
    """A line for each method that can be compared: `weights` that it trains, `forgot` at the own
    score that all reach, the mean over runs, and the rates between which that lies.
    """
    names, lines = comparable(page, own), {}
    if not names:
        return pd.DataFrame()
    found = reached(page, own, own_scores(page, own).mean(), names)
    rows = of_grid(page.study, _of_knowledge(page))
    rows = rows[rows["step"] == matching.last_of_grid(page)]
    means = rows.groupby(["recipe", "dataset"])["score"].mean().groupby(level="recipe").mean()
    untuned = rows[rows["recipe"] == "base"]["score"].groupby(rows["dataset"]).mean().mean()
    for how, weights in found.items():
        rates = [f"{page.study.tuning_of(name).learning_rate:g}" for name in weights]
        forgot = untuned - sum(means[name] * share for name, share in weights.items())
        size = costs(page).loc[alike(page, own)[how], "weights"]
        lines[how] = {"weights": size, "forgot": forgot, "rates": " to ".join(rates)}
    return pd.DataFrame(lines).T


def replays(page: Results, own: str) -> dict[float, str]:
    """The recipes of a set that replay text while all weights are trained, by their shares."""
    there = by_set(page)[own].values()
    plain = [one for one in there if page.study.recipes[one].trainable is None]
    shares = {replayed(page.study, recipe): recipe for recipe in plain}
    return {share: recipe for share, recipe in sorted(shares.items()) if share}
