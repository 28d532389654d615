"""Finding 3, task format: does tuning fit the model to one prompt format, and does more
pre-training loosen that?

Claims 3a and 3b, for each format that is not tuned on.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, curves, display, figures, groups, labels, statistics
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import Scores, Term
from pretune.analysis.figures import Line
from pretune.analysis.results import Results, ranged, recipes
from pretune.analysis.statistics import MARGIN, Estimate
from pretune.plan.needs import Need, is_single, own_sets
from pretune.study.config import Study
from pretune.tasks.example import FORMATS

CLAIMS = {
    "3a": Claim(
        "Tuning fits the model to the training format",
        "mean over own sets of (default - other format) after tuning at late, minus the "
        "same before",
    ),
    "3b": Claim(
        "More pre-training loosens it",
        "(default - other format) after tuning, at the first checkpoint where tuning "
        "works (on half A) minus at late (on half B)",
        reference="relative gap to instruct .42 at the first, .12 at the last checkpoint",
    ),
}


OTHER = FORMATS[1:3]  # the formats that are never tuned on: a plain request, the bare inputs


def needs(study: Study, recipe: str) -> list[Need]:
    """Own sets in every format, with and without shots."""
    if recipe not in study.recipes or study.is_beside(recipe):
        return []
    if recipe != "base" and not is_single(study, recipe):
        return []
    found = []
    for name, form in product(own_sets(study, recipe), FORMATS[:3]):
        found += [Need(name, shots, form) for shots in (study.probing.shots, 0)]
    return found


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
    shots = page.study.probing.shots if shots is None else shots
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
    return gap(page, name, recipe, form, steps, weight) + gap(
        page, name, "base", form, steps, -weight
    )


def show_formats(page: Results) -> None:
    """Tuned and base score in each format along pre-training, one panel a dataset."""
    sets, colours = recipes(page), figures.many_colours(3)
    shown = {
        page.title(name): [
            Line(
                curves.curve(page.of(name, which, form)),
                colour,
                f"{label}, {form}",
                which == "base",
            )
            for form, colour in zip(FORMATS[:3], colours, strict=True)
            for which, label in ((recipe, "tuned"), ("base", "base"))
        ]
        for recipe, name in sets.items()
    }
    figures.show_curves(
        shown,
        "Own-task score by prompt format after tuning on default, 95 % interval over items",
        f"Tuned and base score in default, instruct and io format for {', '.join(shown)}.",
    )


def by_format(page: Results) -> pd.DataFrame:
    """Scores in the three formats at the last checkpoint shown, base and tuned."""
    lines, last = {}, int(page.rows["step"].max())
    for recipe, name in recipes(page).items():
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
    """What tuning adds to the gap at late, per dataset and format, with shots and without."""
    lines = {}
    for recipe, name in recipes(page).items():
        line = {}
        for form in OTHER:
            line[f"default minus {form}"] = ranged(
                contrasts.effect(page.scores, fitted(page, name, recipe, form))
            )
            bare = gap(page, name, recipe, form, shots=0) + gap(
                page, name, "base", form, weight=-1, shots=0
            )
            line[f"the same, zero-shot ({form})"] = ranged(contrasts.effect(page.scores, bare))
        lines[page.title(name)] = line
    return pd.DataFrame(lines).T


def trend(page: Results) -> pd.DataFrame:
    """The gap that tuning leaves, averaged over datasets, at every checkpoint: value and
    interval per format.
    """
    pairs, lines = recipes(page), []
    for form in OTHER:
        for step in page.scores.steps:
            terms = [
                term
                for recipe, name in pairs.items()
                for term in gap(page, name, recipe, form, (step,), 1 / len(pairs))
            ]
            found = contrasts.effect(page.scores, terms, noise=False)
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


def show_trend(page: Results) -> None:
    lines = trend(page)
    figure, axes = figures.panels(1, height=3.2)
    for form, colour in zip(OTHER, figures.many_colours(3)[1:], strict=True):
        figures.plain_curve(
            axes[0], lines[lines["format"] == form], colour, f"default minus {form}"
        )
    axes[0].axhline(0, color="0.5", lw=1)
    axes[0].set(
        ylabel="gap in score",
        title="Mean gap of tuned models over their own datasets, 95 % interval",
    )
    axes[0].legend(fontsize="small")
    display.show(
        figure,
        alt=(
            "The gap between the training format and each other format after tuning, along "
            "pre-training."
        ),
    )


def verdicts(page: Results) -> list[Verdict]:
    """Claims 3a and 3b for each other format, judged by the rules above the data."""
    asked = {"3a": _claim_3a, "3b": _claim_3b}
    return judged(
        page,
        CLAIMS,
        {f"{claim} ({form})": ask(page, form) for claim, ask in asked.items() for form in OTHER},
    )


def _claim_3a(page: Results, form: str) -> tuple[Estimate | None, str]:
    asked = {
        recipe: name for recipe, name in recipes(page).items() if page.beats_no_skill(name, recipe)
    }
    why = f"Asked of {page.named(asked.values())}."
    if not asked:
        return None, why
    terms = [
        term
        for recipe, name in asked.items()
        for term in fitted(page, name, recipe, form, weight=1 / len(asked))
    ]
    return contrasts.effect(page.scores, terms), why


def _claim_3b(page: Results, form: str) -> tuple[Estimate | None, str]:
    """The gap where tuning first works minus that at late, on half B; where it first works is
    told from half A.
    """
    pairs, one, two = recipes(page), *(Scores(groups.half(page.rows, which)) for which in "AB")
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
        terms += gap(page, pairs[recipe], recipe, form, (step,), share) + gap(
            page, pairs[recipe], recipe, form, (), -share
        )
    said = ", ".join(
        f"{page.title(pairs[recipe])} from step {step}" for recipe, step in asked.items()
    )
    how = (
        ""
        if page.has_items
        else " Means cannot be cut into halves: it is asked of the same scores, and too large."
    )
    return contrasts.effect(two, terms), f"Asked of {said}.{how}"


def _first(page: Results, scores: Scores, name: str, recipe: str) -> int | None:
    """The first checkpoint after step 0 where the tuned default beats no skill by the margin,
    with its interval.
    """
    shots = page.study.probing.shots
    above = (
        (step, contrasts.effect(scores, contrasts.lift(name, recipe, (step,), shots)))
        for step in scores.steps
        if step > 0
    )
    return next((step for step, found in above if found.low > MARGIN), None)


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    said = ["The gap of the untuned model is subtracted; eight of its cells are missing there."]
    return said + [
        "The templates are the same, and they differ in more than form: instruct also names the "
        "task, io says nothing of it."
    ]


def checkpoint_answer(page: Results) -> str:
    """At one checkpoint: the mean gap of tuned models and of base, per format."""
    pairs, said, step = recipes(page), [], (int(page.rows["step"].max()),)
    for form in OTHER:
        tuned, base = (
            contrasts.effect(
                page.scores,
                [
                    term
                    for recipe, name in pairs.items()
                    for term in gap(page, name, which or recipe, form, step, 1 / len(pairs))
                ],
                noise=False,
            )
            for which in ("", "base")
        )
        said.append(
            f"default minus {form} is {ranged(tuned)} after tuning and {ranged(base)} before"
        )
    return f"At {page.checkpoint}, averaged over {len(pairs)} datasets, " + "; ".join(said) + "."


def label_shares_other(page: Results) -> pd.DataFrame:
    """Most frequent prediction of tuned classifiers in each format at late: a low score may be a
    constant answer there.
    """
    lines = {}
    for recipe, name in recipes(page).items():
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
