"""The rules of the claims: datasets sorted into learned and not learned, effects held against a
margin, families of claims.

A verdict says where the interval of an effect lies: beyond the margin in the claimed direction
(*supported*), within both margins (*no effect*), beyond the margin in the other direction
(*opposite*), below the margin and neither (*not supported*), around it (*undecided*); *not
asked* where the condition for asking is not met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pretune.statistics import LEVEL, MARGIN, Estimate, Scores, Term, effect

VERDICTS = ("supported", "no effect", "opposite", "not supported", "undecided", "not asked")
POWER = 0.8  # share of trials in which an effect of the smallest size told is decided


def gain(scores: Scores, dataset: str, recipe: str = "base", weight: float = 1.0) -> list[Term]:
    """s(late) - s(early)."""
    return [Term(weight, dataset, recipe), Term(-weight, dataset, recipe, (scores.early,))]


def lift(
    dataset: str, recipe: str = "base", steps: tuple[int, ...] = (), shots: int | None = None
) -> list[Term]:
    """s - b at late, or at `steps`: what the model has beyond the best answer without a skill."""
    return [
        Term(1, dataset, recipe, steps, shots=shots),
        Term(-1, dataset, recipe, steps, shots=shots, column="baseline"),
    ]


def half(rows: pd.DataFrame, which: str) -> pd.DataFrame:
    """Half A or half B of the items: datasets are sorted on one and compared on the other. Cut
    by rank of the item. Summaries cannot be cut.
    """
    if "standard_error" in rows:
        return rows
    rank = rows.groupby("dataset")["item"].rank(method="dense").astype(int)
    return rows[(rank % 2 == 0) == (which == "A")]


def sort_datasets(rows: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """One line per dataset: gain, lift and group, by the rule of claim 1a, on the rows given (of
    base).

    learned before: the interval of the lift at the first checkpoint lies above the margin.
    learned: that of the gain lies above the margin and that of the lift at late above 0. not
    learned: the interval of the lift at late lies below the margin, or that of the gain within
    both margins. Otherwise undecided.
    """
    scores, lines = Scores(rows), []
    for dataset in rows["dataset"].unique():
        first = effect(scores, lift(dataset, steps=(scores.early,)))
        grown, above = effect(scores, gain(scores, dataset)), effect(scores, lift(dataset))
        lines.append(
            {
                "dataset": dataset,
                "group": _group(first, grown, above, margin),
                "gain": grown,
                "lift": above,
                "lift at first": first,
            }
        )
    return pd.DataFrame(lines).set_index("dataset")


def _group(first: Estimate, grown: Estimate, above: Estimate, margin: float) -> str:
    if first.low > margin:
        return "learned before"
    if grown.low > margin and above.low > 0:
        return "learned"
    flat = -margin < grown.low and grown.high < margin
    return "not learned" if above.high < margin or flat else "undecided"


def groups_apart(groups: pd.Series, make: Callable[[str, float], list[Term]]) -> list[Term] | None:
    """Mean of `make(dataset, weight)` over the learned minus that over the not learned sets;
    None unless both have two.
    """
    sets = {name: list(groups.index[groups == name]) for name in ("learned", "not learned")}
    if min(len(some) for some in sets.values()) < 2:
        return None
    weights = {"learned": 1 / len(sets["learned"]), "not learned": -1 / len(sets["not learned"])}
    return [
        term
        for name, some in sets.items()
        for dataset in some
        for term in make(dataset, weights[name])
    ]


@dataclass(frozen=True)
class Verdict:
    """A claim judged by its rule. `effect` is None where the condition for asking is not met, and
    `why` says which.

    `p` is the one-sided probability of an effect this far from `margin`; of a family, as Holm
    adjusts it. `smallest` is the smallest effect that would have been found supported in 80 % of
    trials. Where not `two_sided`, the margin is no band around nothing, and below it there is
    neither no effect nor an opposite.
    """

    claim: str
    verdict: str  # one of VERDICTS
    provisional: bool
    effect: Estimate | None
    why: str
    margin: float = MARGIN
    two_sided: bool = True
    p: float = np.nan
    smallest: float = np.nan


def judge(
    claim: str,
    effect: Estimate | None,
    provisional: bool,
    why: str,
    margin: float = MARGIN,
    two_sided: bool = True,
) -> Verdict:
    """The verdict on a claimed increase: `effect` against `margin`, taken by itself."""
    verdict = Verdict(claim, "not asked", provisional, effect, why, margin, two_sided)
    if effect is None or np.isnan(effect.value):
        return verdict
    if np.isnan(effect.low):  # of one late checkpoint the noise is not known
        return replace(verdict, verdict="undecided")
    return _decided(replace(verdict, p=effect.beyond(abs(effect.value - margin))), 1.0, 1)


def holm(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one finding, whose claims are a family: probabilities adjusted by Holm's
    step-down rule (1979).

    A claim whose probability is raised so many times is held against an interval that is as much
    wider.
    """
    asked = sorted(
        (verdict for verdict in verdicts if not np.isnan(verdict.p)), key=lambda verdict: verdict.p
    )
    adjusted, worst = {}, 0.0
    for place, verdict in enumerate(asked):
        worst = max(worst, min(0.5, (len(asked) - place) * verdict.p))
        adjusted[verdict.claim] = _decided(replace(verdict, p=worst), worst / verdict.p, len(asked))
    return [adjusted.get(verdict.claim, verdict) for verdict in verdicts]


def _decided(verdict: Verdict, times: float, claims: int) -> Verdict:
    """The word for the place of an effect whose probability was raised so many `times`, in a
    family of so many `claims`, and the smallest effect that could have been decided there (Bloom
    1995: the reaches of both errors, above the margin).
    """
    found, margin = verdict.effect, verdict.margin
    reach = found.reach(1 - (1 - LEVEL) / times)
    low, high = found.value - reach, found.value + reach
    word = "supported" if low > margin else "not supported" if high < margin else "undecided"
    if verdict.two_sided and high < margin and low > -margin:
        word = "no effect"
    elif verdict.two_sided and high < -margin:
        word = "opposite"
    smallest = margin + found.reach(1 - (1 - LEVEL) / claims) + found.reach(2 * POWER - 1)
    return replace(verdict, verdict=word, smallest=smallest)
