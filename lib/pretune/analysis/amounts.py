"""Tuned models over the amount of data: what recipes differ in, form and content of what is
written, slopes and laws over examples and pre-training together.

- The *form* of an answer is right where it ends by itself and, among given answers, names one and
  no other; of text, where it is at most twice as long as the right one, and at least half. Its
  *content* is the score of answers in the right form.
- Examples go over in one of two *arms*: each as often, so that more of them are more steps; or in
  equally many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when they are first used

from pretune import records
from pretune.analysis import contrasts
from pretune.analysis.matching import MODEL
from pretune.analysis.results import Results, gold_likelihood
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import UNKNOWN, Estimate
from pretune.plan.needs import Need, asked_sets, is_single
from pretune.recipes.sft import Sft
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

ARMS = {"steps": "equal steps", "epochs": "equal epochs"}
CLOSE = 2.0  # times as long as the right text, or as short, that its form may be


class Surface(NamedTuple):
    """A recipe over amounts of data: its set, its arm, and what each number of examples is called
    in rows.
    """

    recipe: str
    own: str
    arm: str
    sizes: dict[int, str]


def kind_of(study: Study, recipe: str) -> str:
    """What a recipe is there for: `plain`, or what was done to its rows."""
    how = study.recipe(recipe)
    if not isinstance(how, Sft) or how.method != "sft":
        return "other"
    said = {
        "imitation": how.answers_of,
        "filtered": how.filtered,
        "noisy": how.wrong,
        "mixture": how.beside,
        "narrow": how.opening,
    }
    return next((name for name, what in said.items() if what), "plain")


def of_kind(study: Study, *kinds: str) -> list[str]:
    """The recipes of some kinds, in the order of the study; not base."""
    return [name for name in study.recipes if name != "base" and kind_of(study, name) in kinds]


def arm_of(study: Study, recipe: str) -> str:
    return ARMS["steps" if study.tuning_of(recipe).max_steps else "epochs"]


def surfaces(page: Results, arm: str = ARMS["steps"]) -> list[Surface]:
    """The plain recipes with a grid of examples, in one arm; none where the grid is not run with
    all runs, or at one checkpoint only.
    """
    grid, found = page.study.grid, []
    if grid is None or grid.runs is not None or len(steps(page)) < 2:
        return []
    for name in of_kind(page.study, "plain"):
        sizes = {int(size): one for size, one in page.study.along(name, "examples").items()}
        own = page.study.recipe(name).dataset
        if sizes and arm_of(page.study, name) == arm and targets(page, name):
            found.append(Surface(name, own, arm, sizes))
    return found


def asked(study: Study, recipe: str) -> list[Need]:
    """What a recipe, or a variant of one, is asked, as it was tuned: its own sets, or after
    conversations all sets that ask for text, in chat markup.
    """
    if is_single(study, recipe):
        return [Need(name, 0) for name in study.recipe(recipe).drawn(1)]
    written = [name for name in asked_sets(study) if REGISTRY[name].kind == "generation"]
    return [Need(name, 0, "chat") for name in written]


def targets(page: Results, recipe: str) -> list[Need]:
    """What a recipe is asked, of the sets that the page looks at."""
    return [one for one in asked(page.study, recipe) if one.dataset not in page.without]


def terms(
    page: Results, recipe: str, weight: float = 1.0, steps: tuple[int, ...] = ()
) -> list[Term]:
    """The mean score over what a recipe is asked."""
    some = targets(page, recipe)
    return [
        Term(weight / len(some), one.dataset, recipe, steps, one.format, one.shots) for one in some
    ]


def steps(page: Results) -> list[int]:
    """The checkpoints at which amounts of data are compared: all at which the grid is run but one
    that has read nothing, of which there is no doubling.
    """
    grid = page.study.grid
    at = grid.steps if grid else page.scores.steps
    return [step for step in page.scores.steps if step in at and page.tokens[step]]


def written(page: Results) -> pd.DataFrame:
    """A row for every answer that was written: whether its `form` is right, and `content`, of which
    the mean over items is the score of those whose form is; NaN where none has it.
    """
    return page.once("written", partial(_written, page))


def _written(page: Results) -> pd.DataFrame:
    text = page.rows[[REGISTRY[name].kind == "generation" for name in page.rows["dataset"]]]
    text = text[text["shots_asked"] == 0]
    right = np.array([tokens[0] for tokens in text["choice_tokens"]])
    ended = (text["stop"] != "length").to_numpy()
    made = text["length"].to_numpy() - ended  # without the token that ended it
    far = np.abs(np.log(np.maximum(made, 0.5) / right))
    text = text.assign(form=(ended & (far <= math.log(CLOSE))).astype(float))
    given = page.measured("writing")
    form = (given["stop"] != "length") & (given["named"] == 1)
    rows = pd.concat([text, given.assign(form=form.astype(float))], ignore_index=True)
    return rows.assign(content=_given_form(rows))


def _given_form(rows: pd.DataFrame) -> np.ndarray:
    """What each item adds to the score of those in the right form, a ratio of two means: its
    linear form (Taylor), which has its mean and, over items, its variance (Woodruff 1971).
    """
    weighed = rows.assign(both=rows["form"] * rows["score"])
    each = weighed.groupby(["dataset", "format", *MODEL])
    share, both = (each[name].transform("mean").to_numpy() for name in ("form", "both"))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = both / share
        return ratio + rows["form"].to_numpy() * (rows["score"].to_numpy() - ratio) / share


def scores_of(page: Results, make: Callable[[pd.DataFrame], pd.Series]) -> Scores:
    """Answers that were written, scored by what `make` makes of their rows."""
    rows = written(page)
    return Scores(rows.assign(score=make(rows)))


def wrong_rows(page: Results) -> pd.Series:
    """Of every recipe the share of rows that were made wrong on purpose, mean over its models."""
    about = records.provenance(page.plan).reindex(columns=["model", "wrong_rows"]).dropna()
    names = [name.partition(".")[2].rpartition(".")[0] for name in about["model"]]
    rows = [page.study.recipe(name).count(page.study.tuning_of(name).examples) for name in names]
    shares = about["wrong_rows"].to_numpy(float) / rows
    return pd.Series(shares, names, dtype=float).groupby(level=0).mean()


def by_set(names: Iterable[str]) -> list[float]:
    """Weights with which a mean counts every set once, however often it stands among `names`."""
    some = list(names)
    return [1 / len(set(some)) / some.count(name) for name in some]


def cells(page: Results, surface: Surface) -> pd.DataFrame:
    """The mean score of a surface: a line for each number of examples, a column for each
    checkpoint by its tokens.
    """
    found = {}
    for size, name in surface.sizes.items():
        parts = [terms(page, name, 1, (at,)) for at in steps(page)]
        found[size] = [contrasts.effect(page.scores, some, False).value for some in parts]
    return pd.DataFrame(found, [page.tokens[step] for step in steps(page)]).T


def inner(page: Results, surface: Surface) -> list[tuple[int, int]]:
    """The (examples, step) of a surface without its corners, of which the late checkpoints are one
    end.
    """
    sizes, at = list(surface.sizes), steps(page)
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
    table, places = cells(page, surface), _places(page, surface)
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
            found[name] += terms(page, surface.sizes[size], float(share), (step,))
    return found


def exchange(page: Results, some: Sequence[Surface]) -> tuple[Estimate, Estimate]:
    """How many doublings of examples one doubling of pre-training is worth, by mean slopes over
    sets, and the slope per doubling of examples. The interval is that of the ratio's linear
    form, in which both slopes are paired.
    """
    shares = by_set(one.own for one in some)
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
    rows, some = page.rows, targets(page, surface.recipe)
    rows = rows[(rows["shots_asked"] == 0) & rows["dataset"].isin([one.dataset for one in some])]
    rows = rows[rows["format"] == some[0].format]
    rows = rows.assign(nats=[-one for one in gold_likelihood(rows)])
    means = rows.groupby(["recipe", "step", "dataset"])["nats"].mean()
    means = means.groupby(level=["recipe", "step"]).mean()
    lines = [
        {"examples": size, "step": at, "tokens": page.tokens[at], "loss": means.get((name, at))}
        for (size, name), at in product(surface.sizes.items(), steps(page))
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


def enough(means: Mapping[int, float], within: float) -> float:
    """The fewest examples with which the score is `within` of the most; NaN where some lacks."""
    values = pd.Series(means).sort_index()
    return np.nan if values.isna().any() else float((values >= values.max() - within).idxmax())
