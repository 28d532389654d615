"""Finding 7, capability dynamics: do scores of one domain move together, do sizes move alike, and
does an early score say what tuning will make of a model?

Claims 7a to 7c, on several sizes of a model with several runs each, after The Fine Line (arXiv
2404.01204), which shows curves and judges them by eye. A *model* here is a run of a size. Intervals
are over models: each is left out once (jackknife, within sizes, which are what is compared).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when they are first used

from pretune.analysis import figures, several, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.dynamics import (
    accuracy,
    at_losses,
    correlations,
    residuals,
    sets,
    shared_losses,
    within_across,
)
from pretune.analysis.results import Results
from pretune.analysis.statistics import MARGIN, Estimate, jackknife
from pretune.plan.needs import Need, own_sets, shots_of
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHECKPOINTS, MODELS = "all", "several"
LEAST = {"checkpoints": 8, "runs": 3, "sizes": 3, "models": 9}  # that claims are asked of
ASKED_OF = {"7a": ("checkpoints", "runs"), "7b": ("sizes",), "7c": ("models",)}
EARLY = 0.25  # share of the tokens after which 7c predicts
ENOUGH = 0.8  # decision accuracy that is called early enough
PERMUTATIONS = 2000
CLAIMS = {
    "7a": Claim(
        "Sets of one domain move together, beyond what held-out loss explains",
        "correlation of the increments of scores between neighbouring checkpoints, residual to "
        "the increment of held-out loss, mean within domains minus mean across",
        "Scores of one domain move together more than scores of two, by a correlation of {}.",
        "correlation",
        0.1,
    ),
    "7b": Claim(
        "The curve of a set against held-out loss is the same at every size",
        "minus the mean over sets and pairs of sizes of the absolute difference of scores at equal "
        "held-out loss",
        "At equal held-out loss, scores of two sizes are {} apart (with a minus).",
        margin=-MARGIN,
        two_sided=False,
    ),
    "7c": Claim(
        "An early score predicts the tuned one",
        "share of pairs of models that the base score at a quarter of the tokens puts in the order "
        "of their final tuned scores, mean over sets that are tuned on",
        "A quarter into pre-training, the untuned score puts {} of pairs of models in the order "
        "that tuning gives them.",
        "share of pairs",
        0.65,
        two_sided=False,
    ),
}


def needs(study: Study, recipe: str) -> list[Need]:
    """Of base every set and held-out text, of a recipe its own set."""
    if len(study.models) < 2 or recipe not in study.recipes:
        return []
    if recipe == "base":
        return [Need(name, shots_of(study, name)) for name in study.probing.datasets]
    return [Need(name, shots_of(study, name, recipe)) for name in own_sets(study, recipe)[:1]]


def domain(name: str) -> str:
    """The task that a set belongs to: that of its partner, knowledge, or its own."""
    about = REGISTRY[name]
    return about.partner or ("knowledge" if about.knowledge else name)


def _moves(page: Results) -> dict[tuple, pd.DataFrame]:
    """Of each model what its scores move by beyond the loss."""
    models = several.of_models(several.apart_from(page))
    return {key: residuals(lines) for key, lines in models.items()}


def together(page: Results) -> Estimate:
    """The effect of 7a."""
    parts = {
        key: residuals(lines) for key, lines in several.of_models(several.apart_from(page)).items()
    }

    def effect(kept: Sequence[tuple]) -> float:
        matrix = _over_sizes(parts, kept)
        return within_across(matrix, [domain(name) for name in matrix.columns])

    return jackknife(effect, {key: key[0] for key in parts}, _items(page))


def _over_sizes(parts: dict[tuple, pd.DataFrame], kept: Sequence[tuple]) -> pd.DataFrame:
    """The mean over sizes of what sets correlate by in the models of each."""
    found = [correlations(parts[key] for key in some) for some in several.by_size(kept)]
    return sum(found) / len(found)


def permuted(page: Results, seed: int = 0) -> tuple[float, float]:
    """The effect of 7a where domains are dealt to the sets at random: how large it is in 95 % of
    deals at most, and the share of deals in which it is as large as what was found, which is one of
    them.
    """
    parts = {
        key: residuals(lines) for key, lines in several.of_models(several.apart_from(page)).items()
    }
    matrix, draw = _over_sizes(parts, list(parts)), np.random.default_rng(seed)
    domains = [domain(name) for name in matrix.columns]
    found = within_across(matrix, domains)
    dealt = [within_across(matrix, draw.permutation(domains)) for _ in range(PERMUTATIONS)]
    as_large = 1 + np.sum(np.array(dealt) >= found)
    return float(np.quantile(dealt, 0.95)), float(as_large / (PERMUTATIONS + 1))


def apart(page: Results) -> pd.DataFrame:
    """Absolute difference of scores at equal held-out loss, a line for every pair of sizes, a
    column for every set, over all runs.
    """
    parts = several.of_models(several.apart_from(page))
    return pd.DataFrame(
        {f"{one} and {two}": gap for (one, two), gap in _gaps(parts, list(parts)).items()}
    ).T


def _gaps(parts: dict, kept: Sequence[tuple]) -> dict[tuple[str, str], pd.Series]:
    found = {}
    for one, two in combinations(dict.fromkeys(key[0] for key in kept), 2):
        some, others = ([parts[key] for key in kept if key[0] == size] for size in (one, two))
        losses = shared_losses([*some, *others])
        if len(losses):
            difference = at_losses(some, losses) - at_losses(others, losses)
            found[one, two] = difference.abs().mean()
    return found


def alike(page: Results) -> Estimate:
    """The effect of 7b."""
    parts = several.of_models(several.apart_from(page))

    def effect(kept: Sequence[tuple]) -> float:
        gaps = _gaps(parts, kept)
        return -float(np.mean([gap.mean() for gap in gaps.values()])) if gaps else np.nan

    return jackknife(effect, {key: key[0] for key in parts}, _items(page))


def runs_apart(page: Results) -> float:
    """What 7b would be between two halves of the runs of one size: noise alone, as two runs of one
    size are apart, over the square root of how many are averaged.
    """
    found = []
    for some in several.by_size(parts := several.of_models(several.apart_from(page))):
        for one, two in combinations(some, 2):
            losses = shared_losses([parts[one], parts[two]])
            if len(losses):
                gap = at_losses([parts[one]], losses) - at_losses([parts[two]], losses)
                found.append(gap.abs().mean().mean() / np.sqrt(len(some)))
    return float(np.mean(found)) if found else np.nan


def early_step(page: Results) -> int:
    """The last checkpoint within a quarter of the tokens."""
    last = max(page.tokens.values())
    early = [step for step, tokens in page.tokens.items() if 0 < tokens <= EARLY * last]
    return max(early, default=min(page.tokens))


def early_says(page: Results, predictor: str = "base score", step: int | None = None) -> Estimate:
    """The effect of 7c, of any predictor at any checkpoint (none: a quarter into the run)."""
    step, came = early_step(page) if step is None else step, several.final(page)
    say = several.predictors(page)[predictor]
    said = {name: say(name, step) for name in came}
    models = list(several.of_models(several.levels(page)))

    def effect(kept: Sequence[tuple]) -> float:
        some = pd.MultiIndex.from_tuples(kept, names=several.MODEL)
        found = [accuracy(said[name].reindex(some), came[name].reindex(some)) for name in came]
        return float(np.mean(found)) if found else np.nan

    return jackknife(effect, {key: key[0] for key in models}, _items(page))


def within_sizes(page: Results) -> float:
    """7c over pairs of models of one size only."""
    step, came, say = early_step(page), several.final(page), several.predictors(page)["base score"]
    found = []
    for some, name in product(several.by_size(several.of_models(several.levels(page))), came):
        models = pd.MultiIndex.from_tuples(some, names=several.MODEL)
        found.append(accuracy(say(name, step).reindex(models), came[name].reindex(models)))
    return float(np.nanmean(found)) if found else np.nan


def size_alone(page: Results) -> float:
    """7c of what knows of a model only its size, of which the larger is said to be better."""
    order = {size: place for place, size in enumerate(page.study.models)}
    came = several.final(page).values()
    found = [accuracy(one.index.to_frame()["model"].map(order), one) for one in came]
    return float(np.mean(found)) if found else np.nan


def how_early(page: Results) -> pd.DataFrame:
    """Decision accuracy, mean over sets, a line for every checkpoint by its share of the tokens, a
    column for every predictor.
    """
    came, known, last = several.final(page), several.predictors(page), max(page.tokens.values())
    table = pd.DataFrame(index=pd.Index([], name="share of tokens", dtype=float))
    for step, predictor in product((step for step in page.tokens if page.tokens[step]), known):
        found = [accuracy(known[predictor](name, step), came[name]) for name in came]
        table.loc[page.tokens[step] / last, predictor] = np.mean(found)
    return table


def to_take_home(page: Results) -> pd.DataFrame:
    """For every set that is tuned on, which predictor earliest puts the share of pairs that is
    called enough in the right order, and keeps doing so to the end, and after what share of the
    tokens.
    """
    known, lines = several.predictors(page), {}
    for name, came in several.final(page).items():
        found = {predictor: _enough_from(page, say, name, came) for predictor, say in known.items()}
        best = pd.Series(found).idxmin() if pd.Series(found).notna().any() else ""
        lines[page.title(name)] = {
            "score": best or "–",
            "share of tokens": found.get(best, np.nan),
            "of the base score": found["base score"],
        }
    return pd.DataFrame(lines).T


def _enough_from(page: Results, say: Callable, name: str, came: pd.Series) -> float:
    """The share of the tokens from which on a predictor is right often enough; NaN if never."""
    last, since = max(page.tokens.values()), np.nan
    for step, tokens in page.tokens.items():
        if not tokens or not accuracy(say(name, step), came) >= ENOUGH:
            since = np.nan
        elif np.isnan(since):
            since = tokens / last
    return since


def at_a_glance(page: Results) -> None:
    """Decision accuracy of each predictor along the run."""
    table = how_early(page)
    [axes] = figures.panels(1, 3.0)
    for colour, name in zip(theme.many_colours(len(table.columns)), table, strict=True):
        axes.plot(table.index, table[name], "o-", color=colour, ms=3.5, lw=1.4, label=name)
    axes.axhline(0.5, color="0.5", lw=1)
    axes.axvline(EARLY, color="0.5", lw=1, ls=":")
    axes.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.25, 0.5, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="share of the pre-training tokens", ylabel="pairs in the right order")
    axes.set_ylim(0, 1.03)
    figures.show(
        [axes],
        f"How early a model shows how well it will be tuned{page.world}: share of pairs of models "
        "that are put in the order of their final tuned scores",
        "Decision accuracy against the share of the tokens, a line for each predictor; at the end "
        + ", ".join(f"{name} {value:.2f}" for name, value in table.iloc[-1].items())
        + ".",
        table,
    )


def show_curves(page: Results, against: str) -> None:
    """Every set over `tokens` or held-out `loss`: a line for each size, the mean of its runs, and a
    band from the lowest run to the highest.
    """
    table, sizes = several.levels(page).reset_index(), list(page.study.models)
    names = [name for name in table if name in page.titles]
    axes = figures.panels(len(names), 2.2)
    for panel, name in zip(axes, names, strict=True):
        _draw_sizes(panel, table, sizes, name, against)
        panel.set(title=page.titles[name].removesuffix(page.world), ylim=(-0.03, 1.03))
    over = "pre-training tokens" if against == "tokens" else "held-out loss"
    lines = table.groupby(["model", "step"])[["loss", *names]].mean()
    lines.index = [f"{size}, step {step:,}" for size, step in lines.index]
    figures.show(
        axes,
        f"Untuned scores over {over}{page.world}: mean and range of the runs of each size",
        f"Score against {over} in {len(names)} panels, one a set, with a line for each of the "
        f"sizes {', '.join(sizes)}.",
        lines.rename(columns=page.titles),
    )


def _draw_sizes(
    panel: Axes, table: pd.DataFrame, sizes: list[str], name: str, against: str
) -> None:
    for colour, size in zip(theme.many_colours(len(sizes)), sizes, strict=True):
        runs = table[table["model"] == size].groupby("tokens")
        across = runs[against].mean()
        panel.fill_between(
            across, runs[name].min(), runs[name].max(), color=colour, alpha=0.15, lw=0
        )
        panel.plot(across, runs[name].mean(), "o-", color=colour, ms=2.5, lw=1.2, label=size)
    if against == "tokens":
        figures.token_axis(panel, table["tokens"])
    else:
        panel.invert_xaxis()
        panel.set_xlabel("held-out loss, nats a character")
    panel.set_ylabel("score, 0 to 1")


def show_map(page: Results) -> None:
    """What moves together: correlations of levels beside those of increments beyond the loss, the
    sets in the order in which the latter cluster.
    """
    models = several.of_models(several.levels(page)).values()
    rises = correlations(lines[sets(lines)] for lines in models)
    moves = correlations(map(residuals, models))
    far = 1 - moves.fillna(0).to_numpy()[np.triu_indices(len(moves), 1)]
    order = scipy.cluster.hierarchy.leaves_list(scipy.cluster.hierarchy.average(far))
    short = {name: page.titles[name].removesuffix(page.world) for name in moves}
    axes = figures.panels(2)
    for panel, matrix, what in zip(axes, (rises, moves), ("levels", "increments"), strict=True):
        figures.heat(
            panel, matrix.iloc[order, order].rename(short, axis=0).rename(short, axis=1), what
        )
    figures.show(
        axes,
        f"What moves together{page.world}: two scores that rise correlate, whatever they ask; "
        "beyond the loss, and from one checkpoint to the next, they need not",
        "Two maps of correlations between all sets, of levels and of increments.",
        moves.rename(short).rename(columns=short),
    )


def _items(page: Results) -> int:
    return int(page.base.groupby("dataset")["item"].nunique().sum())


def verdicts(page: Results) -> list[Verdict]:
    made = {"7a": together, "7b": alike, "7c": early_says}
    effects = {}
    for claim, effect in made.items():
        if lacking := _lacking(page, claim):
            effects[claim] = None, f"Asked of at least {', '.join(lacking)}."
        else:
            effects[claim] = effect(page), _why(page, claim)
    return judged(page, CLAIMS, effects)


def _lacking(page: Results, claim: str) -> list[str]:
    """What a claim is asked of and the page does not have."""
    table, needed = several.levels(page), ASKED_OF[claim]
    sizes = several.by_size(several.of_models(table))
    there = {
        "checkpoints": len(page.tokens),
        "runs": min(map(len, sizes)),
        "sizes": len(sizes),
        "models": sum(map(len, sizes)),
    }
    few = [one for one in needed if there[one] < LEAST[one]]
    found = [f"{LEAST[one]} {one} (here {there[one]})" for one in few]
    if claim == "7c":
        return found + ["a set that is tuned on"] * (not several.final(page))
    return found + ["a text whose loss is measured"] * bool(table["loss"].isna().all())


def _why(page: Results, claim: str) -> str:
    if claim == "7a":
        level, share = permuted(page)
        return (
            f"Where domains are dealt to the sets at random, the effect is as large in {share:.1%} "
            f"of deals, and {level:+.2f} or less in 95 %."
        )
    if claim == "7b":
        noise = runs_apart(page)
        return f"Noise alone, as between runs of one size, would make it about {-noise:.2f}."
    says, own = early_says(page, "held-out loss"), ", ".join(map(page.title, several.final(page)))
    return (
        f"At step {early_step(page):,}, over {own}. Held-out loss says {says.value:.2f}, the size "
        f"alone {size_alone(page):.2f}; of pairs of one size the untuned score says "
        f"{within_sizes(page):.2f}."
    )


def runs_said(page: Results) -> str:
    """What models of two sizes have in common."""
    runs = [set(getattr(source, "runs", ("",))) for source in page.study.models.values()]
    if len(set.union(*runs)) == sum(map(len, runs)):
        return "No two sizes share a run: all models differ in initialisation and in text."
    return "A run of one size has the seed of the run of that name of another."


def differences(page: Results) -> list[str]:
    return [
        "The Fine Line (arXiv 2404.01204) shows curves of public models and judges their likeness "
        "by eye. Here likeness is a number with an interval, which could have come out otherwise.",
    ]
