"""Recipes that make the better of two answers likelier, beside what they begin from."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, methods, written
from pretune.analysis.forgetting import mean_loss
from pretune.analysis.results import Results, ranged
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import Estimate
from pretune.plan.needs import Need
from pretune.recipes.dpo import Dpo
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

MODEL = ["step", "run", "seed", "item"]


class Pair(NamedTuple):
    """A recipe of preferences, and the one that it begins with."""

    after: str
    before: str


def pairs(study: Study) -> list[Pair]:
    """Those that begin with another recipe."""
    named = study.recipes.items()
    return [Pair(name, how.after) for name, how in named if isinstance(how, Dpo) and how.after]


def on(page: Results) -> list[Pair]:
    """Those whose preferences are asked on a page."""
    sets = {pair: page.study.recipes[pair.after].dataset for pair in pairs(page.study)}
    return [pair for pair, name in sets.items() if name in page.titles]


def tasks(study: Study, recipe: str) -> list[Need]:
    """What a recipe is asked, as it was tuned; of preferences, what they begin with."""
    first = recipe
    while isinstance(study.recipe(first), Dpo) and study.recipe(first).after:
        first = study.recipe(first).after
    return [one for one in written.asked(study, first) if REGISTRY[one.dataset].kind != "text"]


def asked(study: Study) -> list[Need]:
    """Pairs of answers, which is likelier, and what is written in the place of them; of sets that
    some recipe prefers by.
    """
    sets = dict.fromkeys(how.dataset for how in study.recipes.values() if isinstance(how, Dpo))
    found = [Need(name, 0) for name in sets if name in study.probing.datasets]
    return found + [one._replace(measure="generation") for one in found]


def preferred(page: Results, pair: Pair, which: str) -> list[Term]:
    """Share of pairs whose better answer is likelier, `before` or `after`."""
    name = page.study.recipes[pair.after].dataset
    return [Term(1.0, name, getattr(pair, which), shots=0)]


def kept(page: Results, pair: Pair, which: str) -> list[Term]:
    """The score of what was tuned on first, `before` or `after`: mean over what that is asked, as
    it was tuned.
    """
    asked_here = [one for one in tasks(page.study, pair.before) if one.dataset in page.titles]
    return contrasts.mean_of(asked_here, getattr(pair, which))


def has_a_task(page: Results, pair: Pair) -> bool:
    """Whether what was tuned on first beats no skill by the margin at late."""
    terms = kept(page, pair, "before")
    without = [replace(one, weight=-one.weight, column="baseline") for one in terms]
    return bool(contrasts.effect(page.scores, terms + without).value > page.margin)


def implicit(page: Results, pair: Pair) -> Estimate:
    """Share of pairs whose better answer gained more than the worse by the preference tuning: the
    accuracy of the reward that is implied (Rafailov et al., section 4), at late.
    """
    name = page.study.recipes[pair.after].dataset
    rows = page.rows[(page.rows["dataset"] == name) & page.rows["late"]]
    leads = {which: _leads(rows[rows["recipe"] == which]) for which in pair}
    grown = (leads[pair.after] - leads[pair.before]).dropna()
    there = rows[rows["recipe"] == pair.after].set_index(MODEL).loc[grown.index].reset_index()
    scores = Scores(there.assign(score=(grown.to_numpy() > 0).astype(float)))
    return contrasts.effect(scores, preferred(page, pair, "after"))


def _leads(rows: pd.DataFrame) -> pd.Series:
    """By how many nats the better of two answers is likelier."""
    both = zip(rows["log_likelihood"], rows["gold"], strict=True)
    values = [nats[gold] - np.delete(nats, gold).max() for nats, gold in both]
    return pd.Series(values, pd.MultiIndex.from_frame(rows[MODEL]), dtype=float)


def lengths(page: Results, pair: Pair, which: str) -> Estimate:
    """Tokens that are written in answer to what is asked, at late."""
    name = page.study.recipes[pair.after].dataset
    rows = page.measured("generation")
    rows = rows[rows["dataset"] == name]
    scores = Scores(rows.assign(score=rows["length"].astype(float)))
    return contrasts.effect(scores, [Term(1.0, name, getattr(pair, which), shots=0)])


def compared(page: Results) -> pd.DataFrame:
    """Before and after: which answers are preferred, beside an answer without a skill, how long
    answers are, the score of what was tuned on first, and what is lost of knowledge; at late.
    """
    lines = {}
    for pair in on(page):
        for which in ("before", "after"):
            likelier = preferred(page, pair, which)
            parts = {
                "better answer likelier": likelier,
                "without a skill": [replace(one, column="baseline") for one in likelier],
                "its own task": kept(page, pair, which),
                "loss of knowledge": mean_loss(page, methods.known(page), getattr(pair, which)),
            }
            line = {
                said: ranged(contrasts.effect(page.scores, terms), signed=False)
                for said, terms in parts.items()
            }
            line["tokens of an answer"] = ranged(lengths(page, pair, which), signed=False)
            gained = implicit(page, pair) if which == "after" else None
            line["better answer gained more"] = ranged(gained, signed=False) if gained else "–"
            lines[getattr(pair, which)] = line
    return pd.DataFrame(lines).T
