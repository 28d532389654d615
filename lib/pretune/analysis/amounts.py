"""Tuned models over the amount of data and of pre-training together: surfaces, planes, laws.

Examples go over in one of two *arms*: each as often, so that more of them are more steps; or in
equally many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when they are first used

from pretune.analysis import contrasts, treatments, written
from pretune.analysis.results import Results, gold_likelihood
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import UNKNOWN, Estimate
from pretune.study.config import Study

ARMS = {"steps": "equal steps", "epochs": "equal epochs"}


class Surface(NamedTuple):
    """A recipe over amounts of data: its set, its arm, and what each number of examples is called
    in rows.
    """

    recipe: str
    own: str
    arm: str
    sizes: dict[int, str]


def arm_of(study: Study, recipe: str) -> str:
    return ARMS["steps" if study.tuning_of(recipe).max_steps else "epochs"]


def surfaces(page: Results, arm: str = ARMS["steps"]) -> list[Surface]:
    """The plain recipes with a grid of examples, in one arm; none where the grid is not run with
    all runs, or at one checkpoint only.
    """
    grid, found = page.study.grid, []
    if grid is None or grid.runs is not None or len(written.steps(page)) < 2:
        return []
    for name in treatments.of_kind(page.study, "plain"):
        sizes = {int(size): one for size, one in page.study.along(name, "examples").items()}
        own = page.study.recipe(name).dataset
        if sizes and arm_of(page.study, name) == arm and written.targets(page, name):
            found.append(Surface(name, own, arm, sizes))
    return found


def cells(page: Results, surface: Surface, scores: Scores) -> pd.DataFrame:
    """The mean of `scores` on a surface: a line for each number of examples, a column for each
    checkpoint by its tokens.
    """
    found = {}
    for size, name in surface.sizes.items():
        parts = [written.terms(page, name, 1, (at,)) for at in written.steps(page)]
        found[size] = [contrasts.effect(scores, some, False).value for some in parts]
    return pd.DataFrame(found, [page.tokens[step] for step in written.steps(page)]).T


def inner(page: Results, surface: Surface) -> list[tuple[int, int]]:
    """The (examples, step) of a surface without its corners, of which the late checkpoints are one
    end.
    """
    sizes, at = list(surface.sizes), written.steps(page)
    ends = set(product((sizes[0], sizes[-1]), (at[0], *page.scores.late)))
    return [one for one in product(sizes, at) if one not in ends]


def planes(page: Results) -> list[Surface]:
    """The surfaces through whose inner cells one plane goes, and no other."""
    some = surfaces(page)
    return [one for one in some if np.linalg.matrix_rank(_places(page, one)) == 3]


def _places(page: Results, surface: Surface) -> np.ndarray:
    """Of the inner cells: one, doublings of tokens, doublings of examples."""
    some = inner(page, surface)
    return np.array([[1.0, math.log2(page.tokens[at]), math.log2(size)] for size, at in some])


def off_the_plane(page: Results, surface: Surface) -> float:
    """How far inner cells are from the plane through them, root mean square."""
    table, places = cells(page, surface, page.scores), _places(page, surface)
    values = [table.loc[size, page.tokens[step]] for size, step in inner(page, surface)]
    away = np.array(values) - places @ np.linalg.pinv(places) @ np.array(values)
    return float(np.sqrt(np.mean(away**2)))


def slopes(page: Results, surface: Surface, weight: float = 1.0) -> dict[str, list[Term]]:
    """The least-squares slopes of the score per doubling of `tokens` and of `examples`, together,
    over a surface without its corners.
    """
    some, weights = inner(page, surface), np.linalg.pinv(_places(page, surface))
    found: dict[str, list[Term]] = {"tokens": [], "examples": []}
    for place, (size, step) in enumerate(some):
        for row, name in ((1, "tokens"), (2, "examples")):
            share = weight * weights[row, place]
            found[name] += written.terms(page, surface.sizes[size], float(share), (step,))
    return found


def exchange(page: Results, some: Sequence[Surface]) -> tuple[Estimate, Estimate]:
    """How many doublings of examples one doubling of pre-training is worth, by mean slopes over
    sets, and the slope per doubling of examples. The interval is that of the ratio's linear
    form, in which both slopes are paired.
    """
    shares = written.by_set(one.own for one in some)
    parts = [slopes(page, one, share) for one, share in zip(some, shares, strict=True)]
    tokens, examples = (contrasts.joined(one[name] for one in parts) for name in parts[0])
    below = contrasts.effect(page.scores, examples)
    if not below.value > 0:
        return UNKNOWN, below
    ratio = contrasts.effect(page.scores, tokens).value / below.value
    line = [replace(one, weight=one.weight / below.value) for one in tokens]
    line += [replace(one, weight=-one.weight * ratio / below.value) for one in examples]
    return contrasts.effect(page.scores, line).plus(ratio), below


def losses(page: Results, surface: Surface) -> pd.DataFrame:
    """Nats a token of right answers on a surface, forced on the model: a line for each cell, with
    `tokens`, `examples` and `loss`.
    """
    rows, some = page.rows, written.targets(page, surface.recipe)
    rows = rows[(rows["shots_asked"] == 0) & rows["dataset"].isin([one.dataset for one in some])]
    rows = rows[rows["format"] == some[0].format]
    rows = rows.assign(nats=[-one for one in gold_likelihood(rows)])
    means = rows.groupby(["recipe", "step", "dataset"])["nats"].mean()
    means = means.groupby(level=["recipe", "step"]).mean()
    lines = [
        {"examples": size, "step": at, "tokens": page.tokens[at], "loss": means.get((name, at))}
        for (size, name), at in product(surface.sizes.items(), written.steps(page))
    ]
    return pd.DataFrame(lines).astype({"loss": float}).dropna(ignore_index=True)


def multiplicative(where: tuple, rate: float, tokens: float, examples: float, rest: float):
    """L = A X^-alpha D^-beta + E (Zhang et al., arXiv 2402.17193, equation 1), of logarithms."""
    return np.exp(rate - tokens * where[0] - examples * where[1]) + rest


def additive(where: tuple, rate: float, tokens: float, other: float, examples: float, rest: float):
    """L = A X^-alpha + B D^-beta + E (as Hoffmann et al., arXiv 2203.15556, of weights)."""
    return np.exp(rate - tokens * where[0]) + np.exp(other - examples * where[1]) + rest


# each with where its parameters begin, of a loss of one nat, and the least they may be
LAWS: Mapping[str, tuple[Callable, tuple[float, ...], tuple[float, ...]]] = {
    "multiplicative": (multiplicative, (0.0, 0.1, 0.1, 0.1), (-50.0, 0.0, 0.0, 0.0)),
    "additive": (additive, (-1.0, 0.1, -1.0, 0.1, 0.1), (-50.0, 0.0, -50.0, 0.0, 0.0)),
}


def fitted(law: str, lines: pd.DataFrame) -> np.ndarray | None:
    """The parameters of a law by least squares; None where no fit is found."""
    formula, start, least = LAWS[law]
    if len(lines) < len(start):
        return None
    try:
        found, _ = scipy.optimize.curve_fit(
            formula, _where(lines), lines["loss"], start, bounds=(least, 50.0), max_nfev=5000
        )
    except RuntimeError:
        return None
    return found


def _where(lines: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.log(lines[name].to_numpy(float)) for name in ("tokens", "examples"))


def missed(law: str, lines: pd.DataFrame, held: Iterable[Sequence[int]]) -> float:
    """How far a law is off, root mean square in nats, at cells that it was not fitted to: each of
    `held` are places that are left out together.
    """
    off = []
    for places in held:
        kept = lines.drop(index=lines.index[list(places)])
        found = fitted(law, kept)
        if found is None:
            return np.nan
        left = lines.iloc[list(places)]
        off += list(LAWS[law][0](_where(left), *found) - left["loss"])
    return float(np.sqrt(np.mean(np.square(off)))) if off else np.nan


def enough(means: pd.Series, within: float) -> float:
    """The fewest examples (its rising index) with which the score is `within` of the most; NaN
    where some lacks.
    """
    return np.nan if means.isna().any() else float((means >= means.max() - within).idxmax())
