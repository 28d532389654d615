"""Finding 3, task format: does tuning fit the model to one prompt format, and does more
pre-training loosen that?

Claims 3a and 3b, for each format that is not tuned on.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, curves, display, figures, groups, labels, statistics, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.figures import Line
from pretune.analysis.results import Results, ranged, recipes
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import Estimate
from pretune.plan.needs import Need, is_single, own_sets
from pretune.study.config import Study
from pretune.tasks.example import FORMATS
from pretune.tasks.registry import REGISTRY

CLAIMS = {
    "3a": Claim(
        "Tuning fits the model to the training format",
        "mean over own sets of (default - other format) after tuning at late, minus the "
        "same before",
        "Tuning on prompts of one format puts that format {} further ahead of another one than "
        "it was.",
    ),
    "3b": Claim(
        "More pre-training loosens it",
        "(default - other format) after tuning, at the first checkpoint where tuning "
        "works (on half A) minus at late (on half B)",
        "From the first checkpoint at which tuning works to the last ones, the lead of the "
        "format that is tuned on shrinks by {}.",
        reference="relative gap to instruct .42 at the first, .12 at the last checkpoint",
    ),
}
NO_FORMATS = "No dataset that is tuned on here can be asked in another format."
OTHER = FORMATS[1:3]  # the formats that are never tuned on: a plain request, the bare inputs


def needs(study: Study, recipe: str) -> list[Need]:
    """Own sets in every format, with and without shots."""
    if recipe not in study.recipes or study.is_beside(recipe):
        return []
    if recipe != "base" and not is_single(study, recipe):
        return []
    found = []
    sets = [name for name in own_sets(study, recipe) if _has_formats(name)]
    for name, form in product(sets, FORMATS[:3]):
        found += [Need(name, shots, form) for shots in (study.probing.shots, 0)]
    return found


def recipes_of(page: Results) -> dict[str, str]:
    """Recipes whose dataset can be asked in other formats, each with that dataset."""
    return {recipe: name for recipe, name in recipes(page).items() if _has_formats(name)}


def _has_formats(name: str) -> bool:
    return set(OTHER) <= set(REGISTRY[name].formats)


def gap(
    page: Results,
    name: str,
    recipe: str,
    form: str,
    steps: tuple[int, ...] = (),
    weight: float = 1.0,
    shots: int | None = None,
) -> list[Term]:
    """s(default) - s(form) after `recipe`, at late or at `steps`."""
    return [
        Term(weight, name, recipe, steps, shots=shots),
        Term(-weight, name, recipe, steps, form, shots),
    ]


def fitted(
    page: Results,
    name: str,
    recipe: str,
    form: str,
    steps: tuple[int, ...] = (),
    weight: float = 1.0,
) -> list[Term]:
    """What tuning adds to the gap: that of the tuned model minus that of base."""
    tuned = gap(page, name, recipe, form, steps, weight)
    return tuned + gap(page, name, "base", form, steps, -weight)


def show_formats(page: Results) -> None:
    """Tuned and base score in each format along pre-training, one panel a dataset."""
    pairs = recipes_of(page).items()
    shown = {REGISTRY[name].title: _lines(page, name, recipe) for recipe, name in pairs}
    if not shown:
        return display.say(NO_FORMATS)
    figures.show_curves(
        shown,
        f"Own-task score by prompt format after tuning on default{page.world}, 95 % interval over "
        "items",
        f"Tuned and base score in default, instruct and io format for {', '.join(shown)}.",
    )


def _lines(page: Results, name: str, recipe: str) -> list[Line]:
    """The curves of a dataset in each format, tuned and base."""
    lines = []
    for form, colour in zip(FORMATS[:3], theme.many_colours(3), strict=True):
        tuned, base = (curves.curve(page.of(name, which, form)) for which in (recipe, "base"))
        lines.append(Line(tuned, colour, f"tuned, {form}"))
        lines.append(Line(base, colour, f"base, {form}", dashed=True))
    return lines


def by_format(page: Results) -> pd.DataFrame:
    """Scores in the three formats at the last checkpoint shown, base and tuned."""
    lines, last = {}, int(page.rows["step"].max())
    for recipe, name in recipes_of(page).items():
        for which in ("base", recipe):
            lines[f"{page.title(name)}, {'base' if which == 'base' else 'tuned'}"] = {
                form: ranged(_at(page, name, which, form, last), signed=False)
                for form in FORMATS[:3]
            }
    return pd.DataFrame(lines).T


def _at(page: Results, name: str, recipe: str, form: str, step: int) -> Estimate:
    rows = page.of(name, recipe, form)
    return statistics.over_items(rows[rows["step"] == step])


def gaps(page: Results) -> pd.DataFrame:
    """What tuning adds to the gap at late, per dataset and format, as claims ask it and with
    examples before and after tuning.
    """
    lines, shots = {}, page.study.probing.shots
    for recipe, name in recipes_of(page).items():
        line = {}
        for form in OTHER:
            found = contrasts.effect(page.scores, fitted(page, name, recipe, form))
            line[f"default minus {form}"] = ranged(found)
            same = gap(page, name, recipe, form, shots=shots)
            same += gap(page, name, "base", form, weight=-1, shots=shots)
            said = f"the same, both with examples ({form})"
            line[said] = ranged(contrasts.effect(page.scores, same))
        lines[page.title(name)] = line
    return pd.DataFrame(lines).T


def trend(page: Results) -> pd.DataFrame:
    """The gap that tuning leaves, averaged over datasets, at every checkpoint: value and
    interval per format.
    """
    lines = []
    for form in OTHER:
        for step in page.scores.steps:
            found = _mean_gap(page, form, step)
            lines.append(
                {
                    "format": form,
                    "step": step,
                    "tokens": page.tokens[step],
                    "score": found.value,
                    "low": found.low,
                    "high": found.high,
                }
            )
    return pd.DataFrame(lines)


def _mean_gap(page: Results, form: str, step: int, tuned: bool = True) -> Estimate:
    """The gap averaged over the datasets that are tuned on, after their tuning or before it."""
    pairs = recipes_of(page)
    terms = joined(
        gap(page, name, recipe if tuned else "base", form, (step,), 1 / len(pairs))
        for recipe, name in pairs.items()
    )
    return contrasts.effect(page.scores, terms, noise=False)


def at_a_glance(page: Results) -> None:
    """How far the format that was tuned on is ahead of each other one, along pre-training."""
    if not recipes_of(page):
        return display.say(NO_FORMATS)
    every, [axes] = trend(page), figures.panels(1, 3.0)
    every = every.assign(panel="over " + every["format"], curve="")
    lines = [every[every["format"] == form] for form in OTHER]
    for line, dashed in zip(lines, (False, True), strict=True):
        figures.plain_curve(axes, line, "tuned", "_", dashed)
    axes.axhline(0, color="0.5", lw=1)
    axes.set(ylabel="score in the tuned format minus other")
    figures.name_ends(axes, lines)
    figures.show(
        [axes],
        f"How far a tuned model fits its own format{page.world}: mean gap, 95 % interval",
        "The gap between the training format and each other format after tuning, along "
        "pre-training.",
        figures.along(every),
    )


def verdicts(page: Results) -> list[Verdict]:
    """Claims 3a and 3b for each other format, judged by the rules above the data."""
    effects = {f"3a ({form})": _claim_3a(page, form) for form in OTHER}
    effects |= {f"3b ({form})": _claim_3b(page, form) for form in OTHER}
    return judged(page, CLAIMS, effects)


def _claim_3a(page: Results, form: str) -> tuple[Estimate | None, str]:
    pairs = recipes_of(page).items()
    asked = {recipe: name for recipe, name in pairs if page.beats_no_skill(name, recipe)}
    why = f"Asked of {page.named(asked.values())}."
    if not asked:
        return None, why
    terms = joined(
        fitted(page, name, recipe, form, weight=1 / len(asked)) for recipe, name in asked.items()
    )
    return contrasts.effect(page.scores, terms), why


def _claim_3b(page: Results, form: str) -> tuple[Estimate | None, str]:
    """The gap where tuning first works minus that at late, on half B; where it first works is
    told from half A.
    """
    pairs = recipes_of(page)
    one, two = (Scores(groups.half(page.rows, which)) for which in "AB")
    first = {recipe: _first(page, one, name, recipe) for recipe, name in pairs.items()}
    asked = {
        recipe: step
        for recipe, step in first.items()
        if step is not None and step not in page.scores.late
    }
    if not asked:
        return None, (
            "No tuned model beats no skill by the margin, with its interval on half A, before late."
        )
    terms, share = [], 1 / len(asked)
    for recipe, step in asked.items():
        terms += gap(page, pairs[recipe], recipe, form, (step,), share)
        terms += gap(page, pairs[recipe], recipe, form, (), -share)
    said = [f"{page.title(pairs[recipe])} from step {step}" for recipe, step in asked.items()]
    why = f"Asked of {', '.join(said)}."
    if not page.has_items:
        why += " Means cannot be cut into halves: it is asked of the same scores, and too large."
    return contrasts.effect(two, terms), why


def _first(page: Results, scores: Scores, name: str, recipe: str) -> int | None:
    """The first checkpoint after step 0 where the tuned default beats no skill by the margin,
    with its interval.
    """
    for step in (one for one in scores.steps if one > 0):
        above = contrasts.lift(name, recipe, (step,))
        if contrasts.effect(scores, above).low > page.margin:
            return step
    return None


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    return [
        "The gap of the untuned model is subtracted; eight of its cells are missing there.",
        "The templates are the same, and they differ in more than form: instruct also names the "
        "task, io says nothing of it.",
    ]


def checkpoint_answer(page: Results) -> str:
    """At one checkpoint: the mean gap of tuned models and of base, per format."""
    said, step = [], int(page.rows["step"].max())
    for form in OTHER:
        tuned, base = (ranged(_mean_gap(page, form, step, after)) for after in (True, False))
        said.append(f"default minus {form} is {tuned} after tuning and {base} before")
    count = len(recipes_of(page))
    return f"At {page.checkpoint}, averaged over {count} datasets, {'; '.join(said)}."


def label_shares_other(page: Results) -> pd.DataFrame:
    """Most frequent prediction of tuned classifiers in each format at late: a low score may be a
    constant answer there.
    """
    lines = {}
    for recipe, name in recipes_of(page).items():
        rows = page.of(name, recipe)
        if len(rows) and (rows["prediction"] >= 0).all():
            last = rows["step"].max()
            lines[page.title(name)] = {
                form: _share(page.of(name, recipe, form), last) for form in FORMATS[:3]
            }
    return pd.DataFrame(lines).T


def _share(rows: pd.DataFrame, step: int) -> str:
    label, found = labels.most_frequent(rows[rows["step"] == step])
    return f"choice {label + 1}: {found.value:.0%}" if np.isfinite(found.value) else "–"
