"""Answers that tuned models wrote, asked as they were tuned: their form and their content apart.

The *form* of an answer is right where it ends by itself and, among given answers, names one and no
other; of text, where it is at most twice as long as the right one, and at least half. Its *content*
is the score of answers in the right form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import pandas as pd

from pretune.analysis import contrasts
from pretune.analysis.matching import MODEL
from pretune.analysis.results import Results
from pretune.analysis.scores import Scores, Term
from pretune.plan.needs import Need, asked_sets, is_single
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

CLOSE = 2.0  # times as long as the right text, or as short, that its form may be


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
    return contrasts.mean_of(targets(page, recipe), recipe, weight, steps)


def by_set(names: Iterable[str]) -> list[float]:
    """Weights with which a mean counts every set once, however often it stands among `names`."""
    some = list(names)
    return [1 / len(set(some)) / some.count(name) for name in some]


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


def steps(page: Results) -> list[int]:
    """The checkpoints at which amounts of data are compared: all at which the grid is run but one
    that has read nothing, of which there is no doubling.
    """
    grid = page.study.grid
    at = grid.steps if grid else page.scores.steps
    return [step for step in page.scores.steps if step in at and page.tokens[step]]


def whens(page: Results) -> list[tuple[str, tuple[int, ...]]]:
    """The first of them, and the late checkpoints."""
    return [("early", (steps(page)[0],)), ("late", page.scores.late)]
