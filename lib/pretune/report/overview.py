"""The overview: every claim with its verdict, beside the number of an earlier study and the
verdict of the control.

`findings.json` of a study holds its verdicts; the overview writes it and reads the one of the
control study, if that was run or is kept under `outputs/reference`.
"""

from __future__ import annotations

import html
import json
from collections import defaultdict
from itertools import chain

import numpy as np
import pandas as pd

from pretune import paths, records, storage
from pretune.analysis import claims, display, figures, results, theme
from pretune.analysis.claims import FAMILY, Verdict
from pretune.findings import find
from pretune.plan.cells import Plan
from pretune.report import kept, pages
from pretune.report.open import results_of
from pretune.sources import released
from pretune.study.config import Study


def judge_all(plan: Plan) -> dict[str, list[Verdict]]:
    """The verdicts of every finding of the study that has claims."""
    asked = {name: find(name) for name in plan.study.findings if find(name).CLAIMS}
    return {name: finding.verdicts(results_of(plan, name)) for name, finding in asked.items()}


def keep(plan: Plan, verdicts: dict[str, list[Verdict]]) -> None:
    """Write `findings.json`: a list of claims, each with its rule, effect, interval and verdict.
    Equal on a rerun.
    """
    lines, steps = [], [point.step for point in plan.checkpoints]
    for finding, some in verdicts.items():
        lines += [_plain(finding, verdict) | {"checkpoints": steps} for verdict in some]
    storage.write(
        paths.study_folder(plan.study.name) / "findings.json", json.dumps(lines, indent=1)
    )


def _plain(finding: str, verdict: Verdict) -> dict:
    about, effect = verdict.about, verdict.effect
    numbers = {
        name: getattr(effect, key) if effect else None
        for name, key in (
            ("effect", "value"),
            ("low", "low"),
            ("high", "high"),
            ("n", "n"),
            ("seeds", "seeds"),
        )
    }
    judged = verdict.interval or (None, None)
    numbers |= {"judged_low": judged[0], "judged_high": judged[1]}
    numbers |= {"p_holm": verdict.p, "smallest_decidable": verdict.smallest}
    numbers = {
        name: None if value is None or np.isnan(value) else value for name, value in numbers.items()
    }
    return {
        "finding": finding,
        "claim": verdict.claim,
        "verdict": verdict.verdict,
        "provisional": verdict.provisional,
        "unit": about.unit,
        "margin": about.margin,
        "rule": f"{about.rule}. {FAMILY}",
        "why": verdict.why,
    } | numbers


def table(study: Study, verdicts: dict[str, list[Verdict]]) -> pd.DataFrame:
    """One line per claim: effect, what it is held against, verdict here and in other studies
    that were run or are kept; below the claim the number that an earlier study found.
    """
    lines, others = {}, {name: kept.verdicts(name) for name in paths.BESIDE if name != study.name}
    for finding, some in verdicts.items():
        for verdict in some:
            about = verdict.about
            beside = {
                name: _elsewhere(found.get(verdict.claim))
                for name, found in others.items()
                if found
            }
            lines[verdict.claim] = {
                "claim": f"{about.text} {_note(f'elsewhere: {about.reference}')}",
                "effect": _effect(verdict, about.unit),
                "held against": _held_against(verdict),
                "verdict": f'<a href="{finding}.html">{verdict.word}</a>',
            } | beside
    return pd.DataFrame(lines).T


def on_references(study: Study) -> str:
    """What the numbers of earlier studies, below the claims, rest on, as far as `study` asks what
    those asked.
    """
    asked = [min(find(name).CLAIMS) for name in study.findings if find(name).CLAIMS]
    said = []
    if set(asked) & set(claims.CHANGED_IN):
        said = [
            "Numbers of Sun & Dredze are recomputed from the score tables that they released, "
            "which is what makes the comparison possible. They rest on one seed and have no "
            "interval over seeds.",
            claims.CHANGED,
        ]
    if set(asked) - set(claims.CHANGED_IN):
        said.append(
            "Numbers of other papers stand as those print them, for other models than these and "
            "mostly of a single checkpoint."
        )
    return "\n\n".join(said)


def elsewhere(study: Study) -> pd.DataFrame:
    """One line per claim of the findings that `study` does not ask: what the kept study says that
    can say most. Empty where it asks all.
    """
    lines = {}
    for name, line in kept.best().items():
        if line["finding"] not in study.findings:
            effect = kept.effect(line)
            lines[name] = {
                "claim": claims.claim(find(line["finding"]).CLAIMS, name).text,
                "effect": results.ranged(effect) if effect else "–",
                "verdict": claims.word(line["verdict"], line["provisional"]),
                "kept study": line["study"],
            }
    return pd.DataFrame(lines).T


def _effect(verdict: Verdict, unit: str) -> str:
    """Value and interval of an effect, its unit, and what it rests on in small print."""
    found = verdict.effect
    if found is None:
        return "–"
    said = f"{unit}; n = {found.n:,}, {found.seeds} seed{'s' * (found.seeds > 1)}"
    said += f"; {verdict.widened}" if verdict.widened else ""
    return f"{results.ranged(found)} {_note(said)}"


def _note(text: str) -> str:
    """What stands in small print below the content of a cell."""
    return f'<small class="note">{text}</small>'


def _held_against(verdict: Verdict) -> str:
    """The margin, and in small print the adjusted probability and the smallest effect that could
    be decided.
    """
    if np.isnan(verdict.p):
        return f"{verdict.margin:g}"
    said = f"p {claims.least(verdict.p)}; decidable from {verdict.smallest:+.2f}"
    return f"{verdict.margin:g} {_note(said)}"


def _elsewhere(found: dict | None) -> str:
    """The verdict of another study, as its `findings.json` has it."""
    return claims.word(found["verdict"], found["provisional"]) if found else "–"


def summary(plan: Plan, verdicts: dict[str, list[Verdict]]) -> None:
    """What came out, before all else: a line for every finding, with its claims and a link."""
    lines = []
    for finding in plan.study.findings:
        title = pages.heading(paths.NOTEBOOKS / f"{finding}.ipynb")
        some = verdicts.get(finding, [])
        said = "".join(f"<br>{_short(one)}" for one in some)
        first = some[0].verdict if some else "not asked"
        link = f'<a href="{finding}.html">{title}</a>'
        lines.append((theme.COLOURS[first], link, said, ""))
    every = list(chain.from_iterable(verdicts.values()))
    decided = [one for one in every if one.verdict not in ("undecided", "not asked")]
    display.answers(
        lines,
        f"Study: {display.sentence(plan.study.title)} {len(decided)} of {len(every)} claims are "
        f"decided. {spread(plan)} In brackets 95 % intervals.",
    )


def _short(verdict: Verdict) -> str:
    """A claim, its verdict and its effect, in a line."""
    effect = "" if verdict.effect is None else f", {results.ranged(verdict.effect)}"
    effect += f"; {verdict.widened}" if verdict.widened else ""
    text = html.escape(f"{verdict.claim} {verdict.about.text}")
    return f"{html.escape(verdict.word)}: {text}{effect}"


def glances(plan: Plan) -> None:
    """The figure of every finding that has one for readers in a hurry."""
    for name in plan.study.findings:
        if show := getattr(find(name), "at_a_glance", None):
            show(results_of(plan, name))


def show_effects(verdicts: dict[str, list[Verdict]]) -> None:
    """The effect of every claim that could be asked, with its interval and the margin it is held
    against.
    """
    every = chain.from_iterable(verdicts.values())
    asked = [one for one in every if one.effect and not np.isnan(one.effect.low)]
    if not asked:
        return display.say(
            "No claim could be asked, or none has an interval: there is no effect to draw."
        )
    shown = defaultdict(list)
    for one in asked:
        shown[one.claim[0], one.about.unit].append(one)
    axes = []
    for (_, unit), some in shown.items():
        named = [f"{one.claim}  {one.about.text}" for one in some]
        effects, margins = [one.effect for one in some], [one.margin for one in some]
        panel = figures.verdicts(named, effects, margins, [one.verdict for one in some])
        panel.set_xlabel(unit)
        axes.append(panel)
    said = "; ".join(f"{one.claim} {one.effect.value:+.2f}, {one.verdict}" for one in asked)
    figures.show(
        axes,
        "Effects and the margins they are held against, 95 % intervals",
        f"Effects of all claims with intervals and margins: {said}.",
    )


def against_reference(study: Study, verdicts: dict[str, list[Verdict]]) -> str:
    """Whether this run repeats the one that is kept under `outputs/reference`: same verdicts,
    effects in its intervals.
    """
    before = kept.verdicts(study.name, paths.REFERENCE / study.name)
    every = chain.from_iterable(verdicts.values())
    pairs = [(one, before[one.claim]) for one in every if one.claim in before]
    if not pairs:
        return "No earlier run of this study is kept to compare with."
    other = [
        f"{now.claim} ({now.verdict}, was {then['verdict']})"
        for now, then in pairs
        if now.verdict != then["verdict"]
    ]
    asked = [(now, then) for now, then in pairs if now.effect and then["low"] is not None]
    inside = sum(then["low"] <= now.effect.value <= then["high"] for now, then in asked)
    return (
        f"Compared with the run kept under `outputs/reference/{study.name}`: "
        f"{len(pairs) - len(other)} of {len(pairs)} verdicts are the "
        f"same{', but not ' + ', '.join(other) if other else ''}; {inside} of {len(asked)} "
        "effects lie in its intervals."
    )


def what_was_run(plan: Plan) -> str:
    """Models, rows, time and machine, in a sentence."""
    if plan.study.tables:
        rows = released.rows(plan.study.tables)
        return (
            f"Nothing was run: {len(rows)} mean scores that Sun & Dredze released are taken as "
            f"they are (commit {released.COMMIT[:7]}), of "
            f"{rows.groupby(['step', 'recipe']).ngroups} models."
        )
    about = records.provenance(plan)
    seconds = pd.DataFrame(list(about["seconds"])).sum().sum()
    rows = len(records.load(plan, columns=["item"]))
    return (
        f"{len(about)} records of {about['model'].nunique()} models with {rows:,} scored rows, "
        f"{seconds / 3600:.1f} process hours of loading, tuning and scoring, on "
        f"{', '.join(sorted(set(about['device'])))}. A model that had been tuned before was taken "
        "from the cache and counts with the time of loading it."
    )


def spread(plan: Plan) -> str:
    """Checkpoints, recipes, seeds, datasets in a sentence, and the pre-training run behind them."""
    study, points = plan.study, plan.checkpoints
    seeds = study.tuning.seeds
    runs = len({point.run for point in points})
    of = "one pre-training run" if runs == 1 else f"{runs} pre-training runs"
    return (
        f"{len(points)} checkpoints of {of} of {points[-1].tokens:,} tokens, {len(study.recipes)} "
        f"recipes with base, {seeds} seed{'s' * (seeds > 1)} of tuning, "
        f"{len(study.probing.datasets)} datasets with at most {study.probing.items} items each."
    )
