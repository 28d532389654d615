"""What came out of a finding: the box at the head of its page, the verdicts at its end, and both
beside those by another rule.
"""

from __future__ import annotations

import html
from types import ModuleType

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import display, theme
from pretune.analysis.claims import CHANGED, CHANGED_IN, Verdict, told
from pretune.analysis.display import say, sentence
from pretune.analysis.results import Results, ranged

NO_VERDICT = (
    "This page shows one checkpoint and gives no verdict: claims are about curves. The page for "
    "all checkpoints does."
)


def summary(page: Results, finding: ModuleType) -> None:
    """What came out, before all else: of every claim the verdict and what it means, what that
    rests on, and the one figure that shows it. Of one checkpoint, what it shows.
    """
    if page.explored:
        say(f"**Explored, not judged:** {page.explored}. What follows is not by the rule.")
    if not page.is_whole:
        return say(f"{finding.checkpoint_answer(page)} {NO_VERDICT}")
    display.answers([_answer(verdict) for verdict in finding.verdicts(page)], rests_on(page))
    finding.at_a_glance(page)


def _answer(verdict: Verdict) -> tuple[str, str, str, str]:
    """Colour, head, sentence and small print of a claim's answer."""
    head = html.escape(f"{verdict.word}: {verdict.claim} {verdict.about.text}.")
    colour, effect = theme.COLOURS[verdict.verdict], verdict.effect
    if effect is None or np.isnan(effect.value):
        return colour, head, html.escape(verdict.why), ""
    small = verdict.widened.capitalize() + "; held" if verdict.widened else "Held"
    small += f" against {verdict.margin:g}"
    if not np.isnan(verdict.smallest):
        small += f"; from {verdict.smallest:+.2f} on it would be found in 80 % of trials"
    return colour, head, verdict.about.meaning.format(ranged(effect)), f"{small}."


def rests_on(page: Results) -> str:
    """What the answers of a page rest on, in a line."""
    study, points = page.study, page.tokens
    many = study.replicates
    unit = "pre-training run" if study.runs > 1 else "seed"
    items = page.rows.groupby("dataset")["item"].nunique() if page.has_items else page.rows["n"]
    return (
        f"Study: {sentence(study.title)} {len(points)} checkpoints up to "
        f"{max(points.values()):,} tokens, {many} {unit}{'s' * (many > 1)}, {len(page.titles)} "
        f"datasets with up to {int(items.max()):,} items. {_measured_at(page)}In brackets 95 % "
        "intervals."
    )


def _measured_at(page: Results) -> str:
    """Which code measured the rows, and on what where that was more than one kind of device."""
    if not page.has_items:
        return ""
    about = records.provenance(page.plan)
    commits = sorted({(one or "none")[:7] for one in about["commit"]})
    said = f"All was measured at commit{'s' * (len(commits) > 1)} {', '.join(commits)}. "
    kinds = sorted(set(about["device"].str.partition(",")[0]))  # threads are no matter
    if len(kinds) == 1:
        return said
    return (
        f"{said}<b>It was measured on {len(kinds)} kinds of device ({', '.join(kinds)})</b>, which "
        "round differently: the same cell gives other rows on another. "
    )


def compared(finding: ModuleType, page: Results, other: Results) -> pd.DataFrame:
    """The verdicts of a page beside those by another rule; empty for one checkpoint."""
    lines = {}
    for label, some in (("by the rule", page), (other.explored or "the same", other)):
        for verdict in finding.verdicts(some) if some.is_whole else ():
            effect = ranged(verdict.effect) if verdict.effect else "–"
            line = lines.setdefault(f"{verdict.claim} {verdict.about.text}", {})
            line |= {f"effect, {label}": effect, f"verdict, {label}": verdict.word}
    return pd.DataFrame(lines).T.fillna("–")


def answer(page: Results, finding: ModuleType) -> None:
    """The verdicts of the finding's claims, or for one checkpoint what it shows, which is no
    verdict.
    """
    if page.is_whole:
        changed = [CHANGED] if min(finding.CLAIMS) in CHANGED_IN else []
        return say("\n\n".join([*map(told, finding.verdicts(page)), *changed]))
    say(f"{finding.checkpoint_answer(page)} {NO_VERDICT}")
