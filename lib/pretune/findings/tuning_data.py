"""Finding 9, tuning data: how many examples, and which? Form and content apart, over the amount of
data and of pre-training together. Claims 9a to 9c.

Hundreds of models are tuned for it: a study has it by naming it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import (
    amounts,
    contrasts,
    display,
    figures,
    theme,
    treatments,
    written,
)
from pretune.analysis.amounts import ARMS, LAWS, Surface
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.results import Results, ranged
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import Estimate
from pretune.plan.needs import Need, is_single, own_sets
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

ASKED, CHECKPOINTS = "by name", "all"
CLAIMS = {
    "9a": Claim(
        "Form needs few examples, content many",
        "what the last tenfold of examples adds to content, minus what it adds to form, equal "
        "steps, at late",
        "The last tenfold of examples adds {} more to what answers say than to their form.",
        reference="style saturates within about 100 examples, reasoning does not (arXiv "
        "2410.03717); 1,000 examples suffice (LIMA)",
    ),
    "9b": Claim(
        "Pre-training replaces examples",
        "slope of the tuned score per doubling of pre-training tokens over that per doubling of "
        "examples, equal steps, corners of the surface left out",
        "A doubling of pre-training is worth {} doublings of examples.",
        "doublings of examples",
        margin=0.25,
        two_sided=False,
        reference="exponents of .030 over tokens of one run (Zhang et al., arXiv 2402.17193)",
    ),
    "9c": Claim(
        "Few clean examples beat many noisy ones",
        "tuned score with an eighth of the examples, all right, minus that with all of them, two "
        "fifths wrong, equal steps, at late",
        "An eighth of the examples, without a wrong one, gives {} more than all with two fifths "
        "wrong.",
        reference="9,000 chosen of 52,000 (AlpaGasus)",
    ),
}
LEAST = 0.2  # share of answers in the right form below which content is not read
WITHIN = 0.02  # of the most: what is called enough
NOTHING = "No recipe of this study has a grid of examples in equal steps."


def needs(study: Study, recipe: str) -> list[Need]:
    """What a recipe is asked, as it was tuned, and what it writes where answers are given; of base
    all of that.
    """
    if recipe == "base":
        names = [name for name in study.recipes if name != "base"]
        found = [one for name in names for one in written.asked(study, name)]
        found += [Need(name, study.probing.shots) for name in own_sets(study, "base")]
    else:
        found = written.asked(study, recipe)
    writes = [
        one._replace(measure="writing")
        for one in found
        if one.shots == 0 and REGISTRY[one.dataset].kind in ("classification", "choices")
    ]
    return list(dict.fromkeys([*found, *writes]))


def title(page: Results, surface: Surface, world: str = "") -> str:
    """Its set; with the recipe where another has the same."""
    name = REGISTRY[surface.own].title + world
    name += "" if is_single(page.study, surface.recipe) else ", asked in chat"
    same = [one for one in amounts.surfaces(page, surface.arm) if one.own == surface.own]
    return f"{name} ({surface.recipe})" if len(same) > 1 else name


def at_a_glance(page: Results) -> None:
    """The tuned score over examples and tokens, a panel a set: a contour every tenth."""
    some = amounts.surfaces(page)
    if not some:
        return display.say(NOTHING)
    axes, numbers = figures.panels(len(some), 2.8), {}
    for panel, surface in zip(axes, some, strict=True):
        table = amounts.cells(page, surface, page.scores)
        figures.surface(panel, table, title(page, surface))
        for size, line in table.iterrows():
            named = {f"{tokens / 1e6:.2g} M tokens": value for tokens, value in line.items()}
            numbers[f"{title(page, surface)}, {size:,} examples"] = named
    figures.show(
        axes,
        f"What examples and pre-training give together{page.world}: tuned score, equal steps",
        "Tuned score over pre-training tokens and examples, both logarithmic, with contours every "
        f"tenth, for {', '.join(title(page, one) for one in some)}.",
        pd.DataFrame(numbers).T,
    )


def show_slices(page: Results, arm: str) -> None:
    """Tuned score over examples in one arm, a line for each checkpoint."""
    some = amounts.surfaces(page, ARMS[arm])
    if not some:
        return display.say(f"No recipe of this study has a grid of examples in {ARMS[arm]}.")
    axes, numbers = figures.panels(len(some), 2.5), []
    inks = theme.rising(len(written.steps(page)))
    for panel, surface in zip(axes, some, strict=True):
        for step, ink in zip(written.steps(page), inks, strict=True):
            line = _over_sizes(
                page.scores,
                surface,
                lambda name, at=step: written.terms(page, name, 1.0, (at,)),
            )
            figures.over_examples(panel, line, ink, f"step {step:,}")
            numbers.append(line.assign(panel=title(page, surface), curve=f"step {step:,}"))
        panel.set(title=title(page, surface), ylabel="tuned score, 0 to 1", ylim=(-0.03, 1.03))
    figures.show(
        axes,
        f"Tuned score over examples in {ARMS[arm]}{page.world}, 95 % intervals",
        "Tuned score against examples, a line for each checkpoint.",
        figures.along(pd.concat(numbers), "examples"),
    )


def _over_sizes(
    scores: Scores, surface: Surface, make: Callable[[str], list[Term]]
) -> pd.DataFrame:
    """A line for each number of examples: the effect with its interval."""
    lines = []
    for size, name in surface.sizes.items():
        found = contrasts.effect(scores, make(name), noise=False)
        line = {"examples": size, "score": found.value}
        lines.append(line | {"low": found.low, "high": found.high})
    return pd.DataFrame(lines)


def show_form_and_content(page: Results) -> None:
    """Form and content over examples, at early (dashed) and at late."""
    some = amounts.surfaces(page)
    if not some:
        return display.say(NOTHING)
    axes, numbers = figures.panels(len(some), 2.5), []
    parts = {name: written.scores_of(page, lambda rows, key=name: rows[key]) for name in PARTS}
    for panel, surface in zip(axes, some, strict=True):
        for (name, ink), (when, steps) in product(PARTS.items(), written.whens(page)):
            line = _over_sizes(
                parts[name],
                surface,
                lambda one, at=steps: written.terms(page, one, 1.0, at),
            )
            figures.over_examples(panel, line, ink, f"{name}, {when}", dashed=when == "early")
            numbers.append(line.assign(panel=title(page, surface), curve=f"{name}, {when}"))
        panel.set(title=title(page, surface), ylabel="share, or score, 0 to 1", ylim=(-0.03, 1.03))
    figures.show(
        axes,
        f"Form and content over examples{page.world}: equal steps, 95 % intervals",
        "The share of answers in the right form, and the score of those, against examples, at "
        "early and at late.",
        figures.along(pd.concat(numbers), "examples"),
    )


PARTS = {"form": theme.PALETTE[0], "content": theme.PALETTE[3]}


def saturation(page: Results) -> pd.DataFrame:
    """The fewest examples with which score, form and content are within .02 of the most, a line for
    each set and checkpoint.
    """
    every = {"score": page.scores}
    every |= {name: written.scores_of(page, lambda rows, key=name: rows[key]) for name in PARTS}
    lines = {}
    for surface in amounts.surfaces(page):
        tables = {name: amounts.cells(page, surface, scores) for name, scores in every.items()}
        for step in written.steps(page):
            lines[f"{title(page, surface, page.world)}, step {step:,}"] = {
                name: amounts.enough(table[page.tokens[step]], WITHIN)
                for name, table in tables.items()
            }
    table = pd.DataFrame(lines).T
    return table.map(lambda value: "–" if np.isnan(value) else f"{value:,.0f}")


def to_take_home(page: Results) -> pd.DataFrame:
    """Of every set and checkpoint: how many examples get within .02 of the most that any number
    of examples gives there, what that score is, and what the untuned model has with examples in
    its prompt; no number of examples where the most does not beat no skill.
    """
    lines = {}
    for surface, step in product(amounts.surfaces(page), written.steps(page)):
        means = amounts.cells(page, surface, page.scores)[page.tokens[step]]
        beats = means.max() - _no_skill(page, surface, step) > page.margin
        fewest = amounts.enough(means, WITHIN) if beats else np.nan
        lines[f"{title(page, surface, page.world)}, step {step:,}"] = {
            "examples": "–" if np.isnan(fewest) else f"{fewest:,.0f}",
            "score with them": means.get(fewest, np.nan),
            "most": means.max(),
            "untuned, few-shot": page.mean(surface.own, "base", step),
        }
    return pd.DataFrame(lines).T.fillna("–")


def _no_skill(page: Results, surface: Surface, step: int) -> float:
    """What needs no skill, mean over what a recipe is asked."""
    rows = page.rows[(page.rows["recipe"] == surface.recipe) & (page.rows["step"] == step)]
    asked = [one.dataset for one in written.targets(page, surface.recipe)]
    return float(rows[rows["dataset"].isin(asked)].groupby("dataset")["baseline"].mean().mean())


def exchanges(page: Results) -> pd.DataFrame:
    """The slopes of every set, what one doubling of pre-training is worth, and how far its cells
    are from the plane whose slopes these are.
    """
    lines = {}
    for surface in amounts.planes(page):
        parts = amounts.slopes(page, surface)
        found = {
            f"per doubling of {name}": contrasts.effect(page.scores, some)
            for name, some in parts.items()
        }
        ratio, _ = amounts.exchange(page, [surface])
        line = {name: ranged(one) for name, one in found.items()}
        line |= {"doublings of examples": ranged(ratio)}
        line |= {"off the plane": f"{amounts.off_the_plane(page, surface):.2f}"}
        lines[title(page, surface, page.world)] = line
    return pd.DataFrame(lines).T


def laws(page: Results) -> pd.DataFrame:
    """Two laws of the loss on right answers over tokens and examples, by how far they are off at
    cells left out one by one, and at the corners, fitted to all others; and their exponents, where
    the law says more than the mean of the cells.
    """
    lines = {}
    for surface in amounts.surfaces(page):
        table = amounts.losses(page, surface)
        inner = set(amounts.inner(page, surface))
        places = list(zip(table["examples"], table["step"], strict=True))
        corners = [place for place, one in enumerate(places) if one not in inner]
        spread = float(table["loss"].std())
        for law in LAWS:
            found, off = amounts.fitted(law, table), [[at] for at in range(len(table))]
            tokens, examples = (1, 2) if law == "multiplicative" else (1, 3)
            off = amounts.missed(law, table, off)
            found = found if off < spread else [np.nan] * 4
            lines[f"{title(page, surface, page.world)}, {law}"] = {
                "off, one by one": off,
                "off, corners": amounts.missed(law, table, [corners]),
                "spread of cells": spread,
                "exponent of tokens": found[tokens],
                "exponent of examples": found[examples],
            }
    return pd.DataFrame(lines).T.map(lambda one: "–" if np.isnan(one) else f"{one:.2f}")


def show_imitation(page: Results) -> None:
    """Form and right answers of students, over their own pre-training, a line for each amount of
    the teacher's answers; the teacher and the untuned model dashed.
    """
    lines = treatments.imitation(page)
    if lines.empty:
        return display.say("No recipe of this study is tuned on the answers of another model.")
    axes = figures.panels(2, 2.6)
    for panel, (name, what) in zip(axes, TOLD.items(), strict=True):
        part = lines[lines["panel"] == name]
        names = list(dict.fromkeys(part["curve"]))
        for curve, ink in zip(names, theme.many_colours(len(names)), strict=True):
            one = part[part["curve"] == curve]
            figures.plain_curve(panel, one, ink, curve, dashed="answers" not in curve)
        panel.set(title=name, ylabel=what, ylim=(-0.03, 1.03))
    figures.show(
        axes,
        f"Students of a later model{page.world}: the form of all their answers, and their score",
        "Share of answers in the right form and share that are right against pre-training of the "
        "student, a line for each amount of the teacher's answers.",
        figures.along(lines),
    )


TOLD = {"form": "share in the right form", "right": "score of all that is written"}


def last_tenfold(page: Results) -> list[tuple[Surface, Need]]:
    """The surfaces and what they are asked, of which the last tenfold of examples is there, every
    model's answers have the right form often enough before and after it, and what they say, mean of
    both, beats no skill.
    """
    rows, found = written.written(page), []
    rows, place = rows[rows["late"]], ["recipe", "dataset", "format"]
    means = rows.groupby(place)[["content", "baseline"]].mean()
    least = rows.groupby([*place, "step", "run", "seed"])["form"].mean().groupby(place).min()
    for surface in amounts.surfaces(page):
        most = max(surface.sizes)
        names = [surface.sizes.get(size) for size in (most // 10, most)]
        for one in written.targets(page, surface.recipe) if all(names) else ():
            keys = [(name, one.dataset, one.format) for name in names]
            if all(key in means.index for key in keys):
                beats = (means.loc[keys, "content"] - means.loc[keys, "baseline"]).mean()
                if beats > page.margin and (least.loc[keys] >= LEAST).all():
                    found.append((surface, one))
    return found


def tenfold(page: Results) -> pd.DataFrame:
    """What the last tenfold of examples adds to form and to content, of each set, at late."""
    lines = {}
    for surface, one in last_tenfold(page):
        line = {}
        for name in PARTS:
            scores = written.scores_of(page, lambda rows, key=name: rows[key])
            line[name] = ranged(contrasts.effect(scores, _last(surface, one, 1.0)))
        said = (
            ""
            if is_single(page.study, surface.recipe)
            else f", after {title(page, surface, page.world)}"
        )
        lines[page.title(one.dataset) + said] = line
    return pd.DataFrame(lines).T


def _last(surface: Surface, asked: Need, weight: float) -> list[Term]:
    most = max(surface.sizes)
    return [
        *contrasts.mean_of([asked], surface.sizes[most], weight),
        *contrasts.mean_of([asked], surface.sizes[most // 10], -weight),
    ]


def verdicts(page: Results) -> list[Verdict]:
    """Claims 9a to 9c, judged by the rules above the data."""
    return judged(
        page, CLAIMS, {"9a": _claim_9a(page), "9b": _claim_9b(page), "9c": _claim_9c(page)}
    )


def _claim_9a(page: Results) -> tuple[Estimate | None, str]:
    some = last_tenfold(page)
    if not some:
        return None, (
            "No set with a tenth of its most examples has answers in the right form often enough "
            "and beats no skill with what they say."
        )
    scores = written.scores_of(page, lambda rows: rows["content"] - rows["form"])
    shares = written.by_set(one.dataset for _, one in some)
    terms = joined(_last(*pair, share) for pair, share in zip(some, shares, strict=True))
    said = ", ".join(f"{REGISTRY[one.dataset].title} after `{by.recipe}`" for by, one in some)
    asked = {by.recipe for by, _ in some}
    left = [f"`{one.recipe}`" for one in amounts.surfaces(page) if one.recipe not in asked]
    why = f"Asked of {said}."
    if left:
        why += (
            f" Not of {', '.join(left)}: no tenth of its most examples, the right form too seldom, "
            "or no better than no skill."
        )
    return contrasts.effect(scores, terms), why


def _claim_9b(page: Results) -> tuple[Estimate | None, str]:
    some = [
        one
        for one in amounts.planes(page)
        if is_single(page.study, one.recipe)
        and page.beats_no_skill(one.own, one.sizes[max(one.sizes)])
    ]
    named = page.named(one.own for one in some)
    if not some:
        return None, (
            "No set of one task has a surface that a plane can be laid through and beats no skill "
            "with the most examples."
        )
    ratio, below = amounts.exchange(page, some)
    if not below.low > 0:
        return None, (
            f"Asked where examples help: their slope is {below} per doubling, over {named}."
        )
    return ratio, f"Mean slopes over {named}; a doubling of examples adds {below}."


def _claim_9c(page: Results) -> tuple[Estimate | None, str]:
    some = treatments.noisy(page)
    if not some:
        return None, (
            "No recipe with two fifths of its answers wrong stands beside one that differs in "
            "nothing but an eighth of the examples, all right."
        )
    parts = []
    for clean, other in some:
        parts += written.terms(page, clean, 1 / len(some))
        parts += written.terms(page, other, -1 / len(some))
    study, other = page.study, some[0][1]
    named = page.named(study.recipe(one).dataset for _, one in some)
    return contrasts.effect(page.scores, parts), (
        f"Asked of {named}: {study.tuning_of(some[0][0]).examples:,} right examples against "
        f"{study.tuning_of(other).examples:,} with {study.recipe(other).wrong:.0%} wrong."
    )


def differences(page: Results) -> list[str]:
    """What differs from the studies that it redoes."""
    over = "runs" if page.study.runs > 1 else "items and neighbouring checkpoints"
    return [
        "LIMA, AlpaGasus, LIMIT and *The False Promise* look at one checkpoint of each size, by "
        "preference or benchmark, without intervals. Here examples and pre-training vary together, "
        f"form and content are scored apart, and intervals are over {over}.",
        "In those studies more examples are more steps. Here one arm has equal steps.",
        "Zhang et al. fit their law to the loss, over checkpoints of one run, and give no "
        "intervals. Their two laws are compared here on cells that were left out.",
    ]
