"""The rules of the claims: datasets sorted into learned and not learned, effects held against a margin, families of claims.

A verdict says on which side of its margin an effect lies: beyond it, on the other side, or undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from pretune.statistics import LEVEL, MARGIN, Estimate, Scores, Term, effect


def gain(scores: Scores, dataset: str, recipe: str = "base", weight: float = 1.0) -> list[Term]:
    """s(late) - s(early)."""
    return [Term(weight, dataset, recipe), Term(-weight, dataset, recipe, (scores.early,))]


def lift(dataset: str, recipe: str = "base", weight: float = 1.0) -> list[Term]:
    """s(late) - b: what the model has beyond the best answer without a skill."""
    return [Term(weight, dataset, recipe), Term(-weight, dataset, recipe, column="baseline")]


def half(rows: pd.DataFrame, which: str) -> pd.DataFrame:
    """Half A or half B of the items: datasets are sorted on one and compared on the other. Cut by rank of the item.
    Summaries cannot be cut."""
    if "standard_error" in rows:
        return rows
    rank = rows.groupby("dataset")["item"].rank(method="dense").astype(int)
    return rows[(rank % 2 == 0) == (which == "A")]


def sort_datasets(rows: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """One line per dataset: gain, lift and group, by the rule of claim 1a, on the rows given (of base).

    learned: the interval of the gain lies above the margin and that of the lift above 0. not learned: the interval
    of the lift lies below the margin, or that of the gain within both margins. Otherwise undecided.
    """
    scores, lines = Scores(rows), []
    for dataset in rows["dataset"].unique():
        grown, above = effect(scores, gain(scores, dataset)), effect(scores, lift(dataset))
        group = "undecided"
        if grown.low > margin and above.low > 0:
            group = "learned"
        elif above.high < margin or (-margin < grown.low and grown.high < margin):
            group = "not learned"
        lines.append({"dataset": dataset, "group": group, "gain": grown, "lift": above})
    return pd.DataFrame(lines).set_index("dataset")


def groups_apart(groups: pd.Series, make: Callable[[str, float], list[Term]]) -> list[Term] | None:
    """Mean of `make(dataset, weight)` over the learned minus that over the not learned sets; None unless both have two."""
    sets = {name: list(groups.index[groups == name]) for name in ("learned", "not learned")}
    if min(len(some) for some in sets.values()) < 2:
        return None
    weights = {"learned": 1 / len(sets["learned"]), "not learned": -1 / len(sets["not learned"])}
    return [term for name, some in sets.items() for dataset in some for term in make(dataset, weights[name])]


@dataclass(frozen=True)
class Verdict:
    """A claim judged by its rule. `effect` is None where the condition for asking is not met, and `why` says which.

    `p` is the one-sided probability of an effect this far from `margin`; of a family, as Holm adjusts it.
    """

    claim: str
    verdict: str  # supported, not supported or undecided
    provisional: bool
    effect: Estimate | None
    why: str
    margin: float = MARGIN
    p: float = np.nan


def judge(claim: str, effect: Estimate | None, provisional: bool, why: str, margin: float = MARGIN) -> Verdict:
    """The verdict on a claimed increase: `effect` against `margin`, taken by itself."""
    if effect is None or np.isnan(effect.low):
        return Verdict(claim, "undecided", provisional, effect, why, margin)
    distance = (effect.value - margin) / np.sqrt(effect.variance) if effect.variance else np.inf * (effect.value - margin)
    return _decided(Verdict(claim, "", provisional, effect, why, margin, float(stats.t.sf(abs(distance), effect.freedom))))


def holm(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one finding, whose claims are a family: probabilities adjusted by Holm's step-down rule (1979)."""
    asked = sorted((verdict for verdict in verdicts if not np.isnan(verdict.p)), key=lambda verdict: verdict.p)
    adjusted, worst = {}, 0.0
    for place, verdict in enumerate(asked):
        worst = max(worst, min(1.0, (len(asked) - place) * verdict.p))
        adjusted[verdict.claim] = _decided(replace(verdict, p=worst))
    return [adjusted.get(verdict.claim, verdict) for verdict in verdicts]


def _decided(verdict: Verdict) -> Verdict:
    """Supported or not where the probability is below that of one end of the interval."""
    if verdict.p >= (1 - LEVEL) / 2:
        return replace(verdict, verdict="undecided")
    return replace(verdict, verdict="supported" if verdict.effect.value > verdict.margin else "not supported")
