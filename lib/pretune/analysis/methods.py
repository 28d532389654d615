"""Methods of tuning: recipes on the same rows that differ in which weights they train, or in the
text that is mixed in; and where several of them have the same score.

A method is held against others at an own score that they reach: along its rates, from the lowest to
the one of the best score, in a straight line between two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import forgetting, matching, shift
from pretune.analysis.matching import Unit, Weights
from pretune.analysis.results import Results, of_grid, ranged
from pretune.analysis.statistics import Estimate, estimate
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
    rows = sum(count for name, count in how.beside.items() if REGISTRY[name].kind == "text")
    return rows / how.count(study.tuning_of(recipe).examples)


def percent(share: float) -> str:
    """A share of rows as it is said: of less than one in a hundred with a digit more."""
    return f"{share:.0%}" if share >= 0.0095 else f"{share:.1%}"


def by_set(page: Results) -> dict[str, dict[str, str]]:
    """Of every set that is tuned on by several methods the recipes, by what they are called, by
    their names too where two are called the same; all weights first.
    """
    return page.once("methods", partial(_by_set, page))


def _by_set(page: Results) -> dict[str, dict[str, str]]:
    alike: dict[str, dict[str, list[str]]] = {}
    for recipe, how in page.study.recipes.items():
        if isinstance(how, Sft) and is_single(page.study, recipe) and how.dataset in page.titles:
            some = alike.setdefault(how.dataset, {})
            some.setdefault(_rows_of(page.study, recipe), []).append(recipe)
    found = {}
    for own, groups in alike.items():
        for some in map(partial(_called, page.study), groups.values()):
            if FULL in some and len(some) > 1:
                found.setdefault(own, some)
    return found


def _rows_of(study: Study, recipe: str) -> str:
    """All that is done to a checkpoint but which weights are trained, at which rate, and the text
    that is mixed in.
    """
    how = study.recipes[recipe]
    apart = {"trainable", "grid", "learning_rate", "beside", "models"}
    others = {name: n for name, n in how.beside.items() if REGISTRY[name].kind != "text"}
    tuning = study.tuning_of(recipe).model_dump(exclude={"learning_rate"})
    return repr((how.model_dump(exclude=apart), others, tuning))


def _called(study: Study, recipes: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for recipe in recipes:
        share, name = replayed(study, recipe), shift.method(study, recipe)
        said = f"{name}, {percent(share)} text" if share else name
        found[f"{said} ({recipe})" if said in found else said] = recipe
    return dict(sorted(found.items(), key=lambda one: one[0] != FULL))


def alike(page: Results, own: str) -> dict[str, str]:
    """Of a set the methods without text mixed in."""
    there = by_set(page)[own]
    return {how: recipe for how, recipe in there.items() if not replayed(page.study, recipe)}


def replays(page: Results) -> dict[str, list[tuple[str, str]]]:
    """By the share of their rows, as it is said, the recipes that mix text in while they train all
    weights: (set, recipe).
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for own, some in by_set(page).items():
        for recipe in some.values():
            share = replayed(page.study, recipe)
            if share and page.study.recipes[recipe].trainable is None:
                found.setdefault(percent(share), []).append((own, recipe))
    return found


def known(page: Results) -> list[str]:
    """Knowledge that base has and that no method is tuned on."""
    return [name for name in forgetting.knowledge(page) if name not in by_set(page)]


def costs(page: Results) -> pd.DataFrame:
    """What each recipe or variant takes, means over its models: `weights` that are trained, `bytes`
    that are kept, `seconds` of training, and `held`: bytes of weights, gradients and moments.
    """
    return page.once("costs", partial(_costs, page))


def _costs(page: Results) -> pd.DataFrame:
    about, columns = records.provenance(page.plan), ("trained_weights", "kept_bytes")
    about = about.reindex(
        columns=[*about, *sorted({*columns, "training_seconds"} - set(about.columns))]
    )
    table = pd.DataFrame(
        {
            "recipe": [name.partition(".")[2].rpartition(".")[0] for name in about["model"]],
            "weights": about["trained_weights"],
            "bytes": about["kept_bytes"],
            "seconds": about["training_seconds"],
            "held": 4 * about["parameters"] + 12 * about["trained_weights"],
        }
    )
    return table.groupby("recipe").mean().astype(float).reindex(list(page.study.variants))


def own_scores(page: Results, own: str, unit: Unit | None = None) -> pd.DataFrame:
    """Items by variants: the scores on a set of methods that were tuned on it, at the last
    checkpoint of the grid, of one run or the mean of all.
    """
    return page.once(f"own scores {own} {unit}", partial(_own_scores, page, own, unit))


def _own_scores(page: Results, own: str, unit: Unit | None) -> pd.DataFrame:
    names = [name for recipe in alike(page, own).values() for name in matching.rates(page, recipe)]
    rows = page.rows[(page.rows["dataset"] == own) & page.rows["as_asked"]]
    rows = rows[(rows["step"] == matching.last_of_grid(page)) & rows["recipe"].isin(names)]
    rows = of_grid(page.study, rows[rows["format"] == "default"])
    if unit is not None:
        rows = rows[(rows["run"] == unit[0]) & (rows["seed"] == unit[1])]
    return rows.pivot_table("score", "item", "recipe").dropna()


def reached(page: Results, own: str, scores: pd.Series, names: Sequence[str]) -> dict[str, Weights]:
    """Of the methods in `names` those that have `REACH` of the best own score of all weights, and
    less at their lowest rate, by `scores` of variants: with which weights their variants have it.
    """
    some, worse, paths = alike(page, own), -scores, {}
    for how in {FULL: None} | dict.fromkeys(names):
        there = matching.rates(page, some[how])
        if there and worse.reindex(there).notna().all():
            paths[how] = matching.to_the_best(worse, there)
    if FULL not in paths:
        return {}
    wanted, found = REACH * paths[FULL].iloc[-1], {}
    for how in names:
        if how in paths and paths[how].iloc[-1] <= wanted <= paths[how].iloc[0]:
            found[how] = matching.between(paths[how], wanted)
    return found


def comparable(page: Results, own: str) -> list[str]:
    """The methods of a set that reach the same own score in every run; none where they are too few
    for a line.
    """
    return page.once(f"comparable {own}", partial(_comparable, page, own))


def _comparable(page: Results, own: str) -> list[str]:
    every, units = list(alike(page, own)), matching.units_of(page, _of_tuned(page))
    names = [how for how in every if np.isfinite(_size(page, own, how))] if units else []
    for unit in units:
        found = reached(page, own, own_scores(page, own, unit).mean(), every)
        names = [how for how in names if how in found]
    sizes = {_size(page, own, how) for how in names}
    return names if len(names) >= LEAST and len(sizes) > 1 else []


def _size(page: Results, own: str, how: str) -> float:
    """log10 of the weights that a method trains; NaN where no record says how many."""
    return float(np.log10(costs(page).loc[alike(page, own)[how], "weights"]))


def _slope(sizes: np.ndarray, given: Sequence[Weights]) -> Weights:
    """The weights of variants in the least-squares slope of what is forgotten over log10 trained
    weights: minus those of the score, since base is the same for all.
    """
    away, total = sizes - sizes.mean(), {}
    for part, weights in zip(away / (away**2).sum(), given, strict=True):
        for name, share in weights.items():
            total[name] = total.get(name, 0.0) - part * share
    return total


def _of_knowledge(page: Results) -> pd.DataFrame:
    """Rows of what base knows, as claims ask for it."""
    return page.once("rows of knowledge", partial(_knowledge_rows, page))


def _knowledge_rows(page: Results) -> pd.DataFrame:
    rows = page.rows[page.rows["as_asked"] & page.rows["dataset"].isin(known(page))]
    return rows[rows["format"] == "default"]


def _of_tuned(page: Results) -> pd.DataFrame:
    rows = _of_knowledge(page)
    return rows[rows["recipe"] != "base"]


def forgetting_by_size(page: Results, sets: Sequence[str]) -> Estimate | None:
    """The slope of forgetting over log10 trained weights at equal own score, mean over `sets`, with
    the doubt of items, of runs, and of methods, which do not lie on a line.
    """
    names = {own: comparable(page, own) for own in sets}
    sizes = {own: np.array([_size(page, own, how) for how in names[own]]) for own in sets}

    def weights(unit: Unit) -> list[Weights]:
        found = {
            own: reached(page, own, own_scores(page, own, unit).mean(), names[own]) for own in sets
        }
        return [_slope(sizes[own], list(found[own].values())) for own in sets]

    def doubt(_: Sequence[Unit]) -> list[tuple[float, float]]:
        return [_off_the_line(page, own, 1 / len(sets)) for own in sets]

    return matching.weighted(page, _of_tuned(page), "score", weights, doubt)


def _off_the_line(page: Results, own: str, share: float) -> tuple[float, float]:
    """The variance that a slope has because methods lie off their line, and its degrees of
    freedom.
    """
    lines = at_equal_score(page, own)
    sizes, lost = np.log10(lines["weights"].astype(float)), lines["forgot"].astype(float)
    off = lost - np.polyval(np.polyfit(sizes, lost, 1), sizes)
    freedom = len(lines) - 2
    spread = float((off**2).sum()) / freedom / float(((sizes - sizes.mean()) ** 2).sum())
    return spread * share**2, freedom


def at_equal_score(page: Results, own: str) -> pd.DataFrame:
    """A line for each method that can be compared: `weights` that it trains, `forgot` at the own
    score that all reach within each run, the mean over runs (or seeds) with its interval (`low`,
    `high`, and as it is `said`), and `rates` around it on average.
    """
    names, lines = comparable(page, own), {}
    rows = of_grid(page.study, _of_knowledge(page))
    rows = rows[rows["step"] == matching.last_of_grid(page)]
    lost = {how: [] for how in names}
    for unit in matching.units_of(page, _of_tuned(page)) if names else ():
        here = rows[rows["run"] == unit[0]]
        means = here.groupby(["recipe", "dataset"])["score"].mean().groupby(level="recipe").mean()
        found = reached(page, own, own_scores(page, own, unit).mean(), names)
        for how, weights in found.items():
            lost[how].append(means["base"] - sum(means[name] * w for name, w in weights.items()))
    between = reached(page, own, own_scores(page, own).mean(), names) if names else {}
    for how in names:
        rates = [f"{page.study.tuning_of(name).learning_rate:g}" for name in between.get(how, ())]
        size = costs(page).loc[alike(page, own)[how], "weights"]
        of_runs = np.var(lost[how], ddof=1) / len(lost[how]) if len(lost[how]) > 1 else np.nan
        mean = estimate(np.mean(lost[how]), [(of_runs, len(lost[how]) - 1)], len(lost[how]))
        lines[how] = {"weights": size, "forgot": mean.value, "low": mean.low, "high": mean.high}
        lines[how] |= {"said": ranged(mean), "rates": " to ".join(rates)}
    return pd.DataFrame(lines).T
