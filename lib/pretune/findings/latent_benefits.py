"""Finding 2, latent benefits: does more pre-training help a dataset in a way that shows only after
tuning? Claims 2a to 2c.

The procedures: *task tuning*, a recipe on the dataset's own training rows, and *instruction
tuning* on a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, curves, display, figures, groups, statistics
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.figures import Line
from pretune.analysis.groups import NOT_LEARNED, counted, counts
from pretune.analysis.results import (
    Results,
    gold_likelihood,
    instruction_recipe,
    of_grid,
    ranged,
    recipes,
)
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import MARGIN, Estimate
from pretune.plan.needs import Need, asked_sets, has_mixture, is_single, own_sets, shots_of
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

CLAIMS = {
    "2a": Claim(
        "Pre-training helps flat sets in a way that shows only after tuning",
        "mean over not-learned sets of (tuned late - tuned early) - (base late - base early)",
        "On sets that look as if pre-training taught nothing of them, late checkpoints beat the "
        "first one by {} more after tuning than before it.",
        reference="MNLI tuned .354 to .790, untuned .354 to .327",
    ),
    "2b": Claim(
        "Tuning helps not-learned sets more than learned ones",
        "mean of tuned - base at late, not-learned minus learned sets, each tuned on "
        "equally many rows of its own",
        "Tuning raises the sets that pre-training does not teach by {} more than those that it "
        "does.",
        reference="mean gain .290 against -.005 at the last checkpoint, by different procedures",
    ),
    "2c": Claim(
        "More pre-training keeps helping to the end",
        "slope of the tuned score of not-learned sets over the last third of the run",
        "In the last third of pre-training, each doubling of the text read changes their score "
        "after tuning by {}.",
        "score per doubling of tokens",
        reference="from 2.1 T to 3.1 T tokens -.023 (five instruction sets)",
    ),
}
GROUPS = ("learned", NOT_LEARNED)


def needs(study: Study, recipe: str) -> list[Need]:
    """Own sets with and without shots; base on every set, which sorts them; base and instruction
    tuning on every set also in chat markup; of other rates the set that is tuned on.
    """
    shots = study.probing.shots
    if recipe not in study.recipes:
        own = own_sets(study, recipe)[:1]
        return [Need(name, shots_of(study, name, recipe)) for name in own]
    found = [Need(*one) for one in product(own_sets(study, recipe), (shots, 0))]
    if recipe == "base":
        found += [Need(name, shots) for name in asked_sets(study)]
    if has_mixture(study) and not is_single(study, recipe):
        found += [Need(*one) for one in product(asked_sets(study), (shots,), ("default", "chat"))]
    return found


def sorted_sets(page: Results) -> pd.Series:
    """The groups of finding 1, from the base rows in the training format with the study's shots."""
    return groups_of(page, page.base[(page.base["format"] == "default") & page.base["as_asked"]])


def groups_of(page: Results, rows: pd.DataFrame) -> pd.Series:
    return groups.sort_datasets(groups.half(rows, "A"), page.margin)["group"]


def at_a_glance(page: Results) -> None:
    """The sets that pre-training does not teach, along it: as they are asked untuned, and after
    tuning on them. Means over datasets, and each one thin.
    """
    sorted_ = sorted_sets(page)
    flat = {name: one for one, name in recipes(page).items() if sorted_.get(name) == NOT_LEARNED}
    if not flat:
        return display.say("No dataset with training rows is sorted as not learned here.")
    [axes] = figures.panels(1, 3.0)
    lines = [
        groups.draw_mean(page, axes, dict.fromkeys(flat, "base"), "base", "untuned"),
        groups.draw_mean(page, axes, flat, "tuned", "tuned on it"),
    ]
    axes.set(ylabel="score, 0 to 1", ylim=(-0.03, 1.03))
    figures.name_ends(axes, lines)
    named = ", ".join(REGISTRY[name].title for name in flat)
    figures.show(
        [axes],
        f"What only tuning shows of the sets not learned{page.world}: means, 95 % intervals",
        f"Mean score of {named} along pre-training, before and after tuning.",
        figures.along(pd.concat(lines)),
    )


def show_curves(page: Results) -> None:
    """Base and tuned score of every dataset that is tuned on, side by side, along pre-training."""
    shown = {}
    for recipe, name in recipes(page).items():
        shown[REGISTRY[name].title] = [
            Line(curves.curve(page.of(name)), "base", "base"),
            Line(curves.curve(page.of(name, recipe)), "tuned", "tuned on it"),
        ]
    figures.show_curves(
        shown,
        f"Before and after tuning along pre-training{page.world}, 95 % interval over items",
        f"Base and tuned curves for {', '.join(shown)}.",
    )


def benefit(
    page: Results, name: str, recipe: str, weight: float = 1.0, shots: int | None = None
) -> list[Term]:
    """[s(late, tuned) - s(early, tuned)] - [s(late, base) - s(early, base)]: what tuning reveals
    of pre-training.
    """
    early = (page.scores.early,)
    return [
        Term(weight, name, recipe, shots=shots),
        Term(-weight, name, recipe, early, shots=shots),
        Term(-weight, name, shots=shots),
        Term(weight, name, steps=early, shots=shots),
    ]


def benefits(page: Results, calibrated: Results | None) -> pd.DataFrame:
    """The difference in differences of every dataset: as claims ask it, with examples before
    and after tuning, without, and under calibrated scoring.
    """
    lines, sorted_, shots = {}, sorted_sets(page), page.study.probing.shots
    for recipe, name in recipes(page).items():
        early, late = [Term(1, name, recipe, (page.scores.early,))], [Term(1, name, recipe)]
        terms = benefit(page, name, recipe)
        same, bare = (benefit(page, name, recipe, shots=count) for count in (shots, 0))
        line = {
            "group": sorted_.get(name, "–"),
            "tuned, early": ranged(contrasts.effect(page.scores, early), signed=False),
            "tuned, late": ranged(contrasts.effect(page.scores, late), signed=False),
            "difference in differences": ranged(contrasts.effect(page.scores, terms)),
            "both with examples": ranged(contrasts.effect(page.scores, same)),
            "both without": ranged(contrasts.effect(page.scores, bare)),
        }
        if calibrated:
            line["calibrated"] = ranged(contrasts.effect(calibrated.scores, terms))
        lines[page.title(name)] = line
    return pd.DataFrame(lines).T


def parts_of_a_gain(page: Results, calibrated: Results) -> pd.DataFrame:
    """What tuning changes at late, taken apart: score, score without label bias, likelihood of
    the gold answer, stopping.
    """
    lines, shots = {}, page.study.probing.shots
    forced = page.rows.assign(score=gold_likelihood(page.rows))
    nats = Scores(forced)
    for recipe, name in recipes(page).items():
        terms, same = (
            [Term(1, name, recipe, shots=count), Term(-1, name, shots=count)]
            for count in (None, shots)
        )
        bare = [Term(1, name, recipe, shots=0), Term(-1, name, shots=0)]
        line = {
            "score": ranged(contrasts.effect(page.scores, terms)),
            "both with examples": ranged(contrasts.effect(page.scores, same)),
            "both without": ranged(contrasts.effect(page.scores, bare)),
            "without label bias (calibrated)": ranged(contrasts.effect(calibrated.scores, terms)),
            "gold answer, nats per token": ranged(contrasts.effect(nats, terms)),
        }
        if REGISTRY[name].kind == "generation":
            line["without label bias (calibrated)"] = "–"
            late = page.rows["late"]
            stops = [
                (page.of(name, which).loc[late, "stop"] != "length").mean()
                for which in ("base", recipe)
            ]
            line["ends by itself, before and after"] = f"{stops[0]:.0%}, {stops[1]:.0%}"
        lines[page.title(name)] = line
    return pd.DataFrame(lines).T.fillna("–")


def rates(page: Results) -> pd.DataFrame:
    """The benefit at every rate of the grid: one seed of each of its runs, last checkpoint of the
    grid against its first.
    """
    if page.study.grid is None:
        return pd.DataFrame()
    first, last = page.study.grid.steps[0], page.study.grid.steps[-1]
    lines, scores = {}, Scores(of_grid(page.study, page.rows))
    for recipe, name in recipes(page).items():
        for rate, which in page.study.along(recipe, "learning_rate").items():
            tuned = [Term(1, name, which, (last,)), Term(-1, name, which, (first,))]
            base = [Term(-1, name, "base", (last,)), Term(1, name, "base", (first,))]
            found = ranged(contrasts.effect(scores, tuned + base, noise=False))
            line = lines.setdefault(page.title(name), {})
            line[f"{rate:g}"] = f"{found} *" if which == recipe else found
    return pd.DataFrame(lines).T.fillna("–")


def procedures(page: Results, calibrated: Results | None) -> pd.DataFrame:
    """Both groups under both procedures and scorings: change at late, raw and as a share of what
    was left to gain.
    """
    lines, sorted_ = {}, sorted_sets(page)
    asked = {"change": (page, _change), "share of headroom": (page, _headroom)}
    if calibrated:
        asked["change, calibrated"] = (calibrated, _change)
    for (label, form, sets), group in product(_procedures(page), GROUPS):
        names = {name: recipe for name, recipe in sets.items() if sorted_.get(name) == group}
        if names:
            line = lines[f"{label}, {group}"] = {"datasets": len(names)}
            for what, (some, make) in asked.items():
                terms = _mean(names, partial(make, some, form=form))
                line[what] = ranged(contrasts.effect(some.scores, terms))
    return pd.DataFrame(lines).T


def _procedures(page: Results) -> list[tuple[str, str, dict[str, str]]]:
    """Name, format and (dataset to recipe) of each procedure that the study has."""
    found = [("task tuning", "default", {name: recipe for recipe, name in recipes(page).items()})]
    mixture = instruction_recipe(page)
    if mixture:
        sets = {name: mixture for name in page.titles if REGISTRY[name].kind != "text"}
        for form in ("default", "chat"):
            found.append((f"instruction tuning, {form} format", form, sets))
    return found


def _change(page: Results, name: str, recipe: str, weight: float, form: str) -> list[Term]:
    return [Term(weight, name, recipe, format=form), Term(-weight, name, format=form)]


def _headroom(page: Results, name: str, recipe: str, weight: float, form: str) -> list[Term]:
    """The change as a share of 1 - s(late, base), which is taken as known."""
    base = [Term(1, name, format=form)]
    left = 1 - contrasts.effect(page.scores, base, noise=False).value
    return _change(page, name, recipe, weight / max(left, MARGIN), form)


def _mean(names: dict[str, str], make: Callable) -> list[Term]:
    return joined(make(name, recipe, 1 / len(names)) for name, recipe in names.items())


def verdicts(page: Results) -> list[Verdict]:
    """Claims 2a, 2b and 2c, judged by the rules above the data."""
    sorted_ = sorted_sets(page)
    flat = {
        name: recipe for recipe, name in recipes(page).items() if sorted_.get(name) == NOT_LEARNED
    }
    return judged(
        page,
        CLAIMS,
        {"2a": _claim_2a(page, flat), "2b": _claim_2b(page, sorted_), "2c": _claim_2c(page, flat)},
    )


def _claim_2a(page: Results, flat: dict[str, str]) -> tuple[Estimate | None, str]:
    asked = {
        name: recipe
        for name, recipe in flat.items()
        if contrasts.effect(page.scores, contrasts.lift(name, recipe)).value > page.margin
    }
    left = [page.title(name) for name in flat if name not in asked]
    why = f"Asked of {page.named(asked)}."
    if left:
        why += f" Tuned {', '.join(left)} does not beat no skill by the margin."
    if not asked:
        return None, why
    return contrasts.effect(page.scores, _mean(asked, partial(benefit, page))), why


def _claim_2b(page: Results, sorted_: pd.Series) -> tuple[Estimate | None, str]:
    """Task tuning, raw: the procedure in which both groups see rows of their own, and as many."""
    own = {name: recipe for recipe, name in recipes(page).items()}
    have = counted(page, sorted_[[name for name in sorted_.index if name in own]])
    terms = groups.groups_apart(have, lambda n, w: _change(page, n, own[n], -w, "default"))
    if terms is None:
        return None, f"Both groups need two sets with training data; {counts(have)}."
    examples = {
        name: page.study.tuning_of(own[name]).examples
        for name in have.index
        if have[name] in GROUPS
    }
    if len(set(examples.values())) > 1:
        told = ", ".join(f"{page.title(name)} {count:,}" for name, count in examples.items())
        why = f"Asked only where both groups are tuned on equally many examples; here: {told}."
        return None, why
    why = f"Task tuning on {max(examples.values()):,} examples each; {counts(have)}."
    return contrasts.effect(page.scores, terms), why


def _claim_2c(page: Results, flat: dict[str, str]) -> tuple[Estimate | None, str]:
    third, end = _last_third(page), max(page.scores.steps)
    if len(third) < 4 or not flat:
        return None, (
            f"The last third holds {len(third)} checkpoints of the four asked for; flat sets "
            f"tuned: {len(flat)}."
        )
    terms = _mean(flat, lambda n, r, w: contrasts.slope(n, r, third, w))
    found = contrasts.effect(page.scores, terms)
    turn = " That is a turn-down." if found.high < 0 else ""
    return found, (
        f"Mean slope of the tuned score per doubling of tokens over steps {min(third)} to "
        f"{end}.{turn}"
    )


def _last_third(page: Results) -> dict[int, int]:
    """Tokens read at each checkpoint of the last third of the run."""
    return {
        step: count for step, count in page.tokens.items() if step > 2 / 3 * max(page.scores.steps)
    }


def end_of_run(page: Results) -> pd.DataFrame:
    """Slope of base and tuned over the last third of the run, per doubling of tokens, and what
    it amounts to: a rise above the margin, a turn-down below 0, a plateau within both margins.
    Empty where that third holds fewer than four checkpoints.
    """
    lines, third = {}, _last_third(page)
    for recipe, name in recipes(page).items() if len(third) >= 4 else ():
        for which in ("base", recipe):
            found = contrasts.effect(page.scores, contrasts.slope(name, which, third))
            label = "base" if which == "base" else "tuned"
            line = {"slope": ranged(found), "shape": _shape(found, page.margin)}
            lines[f"{page.title(name)}, {label}"] = line
    return pd.DataFrame(lines).T


def _shape(slope: Estimate, margin: float) -> str:
    if slope.low > margin:
        return "rise"
    if slope.high < 0:
        return "turn-down"
    return "plateau" if slope.low > -margin and slope.high < margin else "undecided"


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    said, both = [], [name for name in recipes(page).values() if REGISTRY[name].knowledge]
    if both and instruction_recipe(page):
        said.append(
            "Sets of both groups are tuned on rows of their own and on a mixture of instructions; "
            "there the flat sets were tuned on their own rows and the others on an instruction "
            "mixture, so group and procedure could not be told apart."
        )
    said.append(
        "The effect is a difference in differences with an interval, as far as there are items, "
        "seeds and neighbouring checkpoints; there it was read off curves of one seed."
    )
    if page.has_items:
        said.append(
            "Tuned models are scored with shots and without: on the reference study's MNLI, the "
            "rise along pre-training is .233 with four shots and .137 with none."
        )
    return [
        *said,
        "The end of the run is tested as a slope; the reference study's tables show tuned scores "
        "turning down late at constant base scores, within the noise of one seed.",
    ]


def checkpoint_answer(page: Results) -> str:
    """At one checkpoint: what tuning reveals beyond the base score."""
    said = []
    for recipe, name in recipes(page).items():
        before, after = (statistics.over_items(page.of(name, which)) for which in ("base", recipe))
        said.append(
            f"{page.title(name)} {ranged(before, signed=False)} before, "
            f"{ranged(after, signed=False)} after"
        )
    return f"At {page.checkpoint}, tuning on a dataset's own rows: " + "; ".join(said) + "."


def biggest(page: Results) -> str:
    """The dataset whose tuned score rises most beyond its base score."""
    found = {
        name: contrasts.effect(page.scores, benefit(page, name, recipe))
        for recipe, name in recipes(page).items()
    }
    best = max(found, key=lambda name: np.nan_to_num(found[name].value, nan=-1))
    return f"The largest difference in differences is that of {page.title(best)}: {found[best]}."
