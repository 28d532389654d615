"""Claims: what each says and is held against, and how its verdict is reached.

A claim's margin stands fixed before the data. The claims of a page are a family: probabilities are
adjusted by Holm's rule, and each interval is widened as much before it is held against its margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretune.analysis.results import Results
from pretune.analysis.statistics import LEVEL, MARGIN, Estimate
from pretune.analysis.theme import MARKS

VERDICTS = ("supported", "no effect", "opposite", "not supported", "undecided", "not asked")
POWER = 0.8  # share of trials in which an effect of the smallest size told is decided
FAMILY = (
    "The claims of a page are a family: probabilities are adjusted by Holm's rule, and each "
    "interval is widened as much before it is held against its margin."
)
CHANGED_IN = ("1a", "2a", "3a", "4a", "5a")  # findings, by their first claims
CHANGED = (
    "The rules of 1a, 1b, 2b, 3b, 4a, 4c, 5a and 5c, the score without a skill of questions with "
    "given answers, and the words of verdicts were sharpened on 2026-11-24, after the first "
    "studies (world seeds 2 and 4, the released tables) had been seen and before any other: what "
    "is said of those is said in hindsight. Before that date a mere pair of neighbouring "
    "checkpoints was taken to say more of noise than it can: verdicts on the released tables were "
    "too sure. Having seen PAWS of the first microworld stay flat with examples and rise without, "
    "and before the studies that this judges, it was laid down that a tuned model is asked about "
    "its own set as it was tuned."
)


@dataclass(frozen=True)
class Claim:
    """`meaning` says in a plain sentence what an effect, in the place of {}, is. `reference` is
    the number of Sun & Dredze for OLMo-1B, recomputed from their released tables (commit
    8b79c39). Where not `two_sided`, the margin is a bound and no band around nothing: below it
    there is neither no effect nor an opposite.
    """

    text: str
    effect: str
    meaning: str = "The effect is {}."
    unit: str = "score, 0 to 1"
    margin: float = MARGIN
    reference: str = "–"
    two_sided: bool = True

    def at(self, margin: float) -> Claim:
        """The claim held against another margin than the usual one, if it is held against that."""
        moved = {MARGIN: margin, -MARGIN: -margin, 1 - MARGIN: 1 - margin}
        return replace(self, margin=moved.get(self.margin, self.margin))

    @property
    def rule(self) -> str:
        """The rule in a sentence, without the correction for the family, which `FAMILY` says."""
        other = "not supported where below"
        if self.two_sided:
            other = (
                f"no effect where it lies within ±{self.margin:g}, opposite where below "
                f"-{self.margin:g}, not supported where below {self.margin:g} and neither"
            )
        return (
            f"{self.effect}: supported where the 95 % interval lies above {self.margin:g}, "
            f"{other}, else undecided"
        )


PLAIN = Claim("", "")  # a change of a score beyond the margin


def claim(claims: dict[str, Claim], name: str) -> Claim:
    """The claim of a verdict: `3a (io)` is a case of 3a."""
    return claims.get(name) or claims[name.partition(" ")[0]]


@dataclass(frozen=True)
class Verdict:
    """A claim judged by its rule. `effect` is None where the condition for asking is not met, and
    `why` says which.

    `p` is the one-sided probability of an effect this far from the margin; of a family, as Holm
    adjusts it, and `interval` is what was held against the margin, widened as much. `smallest` is
    the smallest effect that would have been found supported in 80 % of trials.
    """

    claim: str
    verdict: str  # one of VERDICTS
    provisional: bool
    effect: Estimate | None
    why: str
    about: Claim = PLAIN
    p: float = np.nan
    smallest: float = np.nan
    interval: tuple[float, float] | None = None

    @property
    def widened(self) -> str:
        """The interval that was judged, where the effect's own would have another verdict."""
        if self.interval is None:
            return ""
        if _word(self.effect.low, self.effect.high, self.about) == self.verdict:
            return ""
        low, high = self.interval
        return f"widened for the claims of the page {low:+.2f} to {high:+.2f}"

    @property
    def margin(self) -> float:
        return self.about.margin

    @property
    def word(self) -> str:
        return word(self.verdict, self.provisional)


def judge(
    name: str, effect: Estimate | None, provisional: bool, why: str, about: Claim = PLAIN
) -> Verdict:
    """The verdict on a claimed increase: `effect` against the margin, taken by itself."""
    verdict = Verdict(name, "not asked", provisional, effect, why, about)
    if effect is None or np.isnan(effect.value):
        return verdict
    if np.isnan(effect.low):  # of one late checkpoint the noise is not known
        return replace(verdict, verdict="undecided")
    return _decided(replace(verdict, p=effect.beyond(abs(effect.value - about.margin))), 1.0, 1)


def holm(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of one finding, whose claims are a family: probabilities adjusted by Holm's
    step-down rule (1979).

    A claim whose probability is raised so many times is held against an interval that is as much
    wider.
    """
    asked = [verdict for verdict in verdicts if not np.isnan(verdict.p)]
    asked.sort(key=lambda verdict: verdict.p)
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
    interval = found.value - reach, found.value + reach
    word = _word(*interval, verdict.about)
    smallest = margin + found.reach(1 - (1 - LEVEL) / claims) + found.reach(2 * POWER - 1)
    return replace(verdict, verdict=word, smallest=smallest, interval=interval)


def _word(low: float, high: float, about: Claim) -> str:
    """The verdict on an interval, by the rule of the claim."""
    margin = about.margin
    if about.two_sided and high < margin and low > -margin:
        return "no effect"
    if about.two_sided and high < -margin:
        return "opposite"
    if low > margin:
        return "supported"
    return "not supported" if high < margin else "undecided"


def word(verdict: str, provisional: bool) -> str:
    """A verdict with its mark; one that rests on fewer than three seeds or runs says so wherever
    it stands.
    """
    few = ", provisional" * (provisional and verdict != "not asked")
    return f"{MARKS[verdict]}\N{NO-BREAK SPACE}{verdict}{few}"


def told(verdict: Verdict) -> str:
    """A verdict as prose."""
    few = ": fewer than three seeds or runs" * verdict.word.endswith("provisional")
    said = f"**Claim {verdict.claim}: {verdict.word}{few}.** {held(verdict)} {verdict.why}"
    return said.replace("  ", " ")


def held(verdict: Verdict) -> str:
    """The effect, what it is held against, its adjusted probability, and what could have been
    decided.
    """
    if verdict.effect is None:
        return ""
    wider = f", {verdict.widened}" if verdict.widened else ""
    said = f"Effect {verdict.effect}{wider}, held against {verdict.margin:g}"
    if np.isnan(verdict.p):
        return f"{said}."
    return (
        f"{said}; p {least(verdict.p)} after Holm's adjustment. An effect of "
        f"{verdict.smallest:+.2f} or more would be found supported in 80 % of trials."
    )


def least(p: float) -> str:
    """A probability to three digits."""
    return f"{p:.3f}" if p >= 0.001 else "below .001"


def judged(
    page: Results, claims: dict[str, Claim], effects: dict[str, tuple[Estimate | None, str]]
) -> list[Verdict]:
    """The verdicts of a finding's `claims`, of which `effects` gives the effect, or None where it
    is not asked, and why.

    A partial grid gives none; with fewer than three seeds they are provisional; the claims are a
    family (Holm).
    """
    provisional = page.study.replicates < 3
    if page.missing:
        effects = dict.fromkeys(effects, (None, "The grid is partial."))
    return holm(
        [
            _judged(claims, name, effect, provisional, why, page.margin)
            for name, (effect, why) in effects.items()
        ]
    )


def _judged(
    claims: dict[str, Claim],
    name: str,
    effect: Estimate | None,
    provisional: bool,
    why: str,
    margin: float,
) -> Verdict:
    if effect is not None and np.isnan(effect.value):
        why += " Rows that it rests on are lacking."
    return judge(name, effect, provisional, why, claim(claims, name).at(margin))
