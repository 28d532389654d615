"""The numbers that the reference study printed, recomputed from the tables it released, and what
the tables cannot say.

Published numbers (`PRINTED`) are those of Sun & Dredze, arXiv 2408.06663v5: Table 6 and Section
4.3 as printed there; of Figure 5, which draws bars, the means that its bars stand for. Cells
that the tables lack are left out of a mean.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from pretune import findings
from pretune.analysis import contrasts, curves, figures, results, theme
from pretune.analysis.results import Results, partners, ranged, recipes
from pretune.analysis.scores import Term
from pretune.plan.needs import Need
from pretune.sources import released
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

OF, CHECKPOINTS, CLAIMS = "tables", "all", {}

# "learned in fine-tuning"
TUNED_GROUP = ("mnli", "mnli_mismatched", "paws", "xsum", "xlsum", "social_i_qa", "boolq")
# "learned in pre-training"
READ_GROUP = ("hellaswag", "arc_challenge", "arc_easy", "openbookqa", "sciq")
NORMAL = 1.96  # half a 95 % interval of a normal variable, in its standard deviations
SCIQ_TWICE = "learned in pre-training, SciQ twice"
PRINTED = {
    "learned in fine-tuning": (0.062, 0.149, 0.286, 0.297, 0.304, 0.297, 0.264, 0.290),
    SCIQ_TWICE: (0.048, 0.048, 0.004, 0.010, 0.030, 0.027, 0.021, -0.005),
    "classification to generation": -0.614,
    "generation to classification": 0.003,
    "MNLI": 0.246,
    "SocialIQa": 0.021,
    "XSum": -0.003,
    "PAWS": -0.182,
}


def needs(study: Study, recipe: str) -> list[Need]:
    """All that the other findings ask for, to be held against what the reference study printed; but
    for those that are asked by name, which ask for more than it measured.
    """
    found, others = {}, map(findings.find, findings.names())
    for other in others:
        if not findings.is_of_tables(other) and not findings.is_asked_by_name(other):
            found |= dict.fromkeys(other.needs(study, recipe))
    return list(found)


def verdicts(page: Results) -> list:
    """It has no claims: it recomputes what was printed."""
    return []


def score(
    page: Results,
    name: str,
    recipe: str,
    step: int,
    form: str = "default",
    shots: int | None = None,
) -> float:
    """One released score; NaN where the tables lack it."""
    rows = page.of(name, recipe, form, shots)
    return float(rows.loc[rows["step"] == step, "score"].mean())


def _along(page: Results, name: str, recipe: str, form: str = "default") -> np.ndarray:
    """The released scores at every checkpoint; NaN where the tables lack one."""
    return np.array([score(page, name, recipe, step, form) for step in page.scores.steps])


def _by_step(page: Results, values: np.ndarray) -> dict[str, float]:
    """One line of a table over checkpoints."""
    steps = [f"{step:,}" for step in page.scores.steps]
    return dict(zip(steps, values, strict=True))


def tuner(page: Results, name: str) -> str:
    """The recipe that the reference study compares a dataset by: its own task's where it has
    one, else instruction tuning.
    """
    own = REGISTRY[name].partner or name
    return next((recipe for recipe, dataset in recipes(page).items() if dataset == own), "instruct")


def gain(page: Results, name: str, step: int) -> float:
    """Tuned minus base, as the reference study pairs them."""
    return score(page, name, tuner(page, name), step) - score(page, name, "base", step)


def unused(page: Results) -> str:
    """What stands in the tables and is not used, by reason; a stray run by its name."""
    rest = released.left_out(page.study.tables)
    said = []
    for why, part in rest.groupby("why_left_out"):
        named = f": `{part['run'].item()}`" if len(part) == 1 else ""
        said.append(f"{len(part)} ({why}{named})")
    return f"Of what the tables do hold, {len(rest)} scores are not used: {'; '.join(said)}."


def group_gains(page: Results) -> pd.DataFrame:
    """Table 6: mean gain of both groups at every checkpoint, recomputed and printed."""
    once = {
        "learned in fine-tuning": TUNED_GROUP,
        SCIQ_TWICE: (*READ_GROUP, "sciq"),
        "learned in pre-training, SciQ once": READ_GROUP,
    }
    lines = {}
    for place, step in enumerate(page.scores.steps):
        line = {}
        for label, names in once.items():
            line[label] = f"{np.mean([gain(page, name, step) for name in names]):.3f}"
            if label in PRINTED:
                line[f"{label}: printed"] = f"{PRINTED[label][place]:.3f}"
        lines[f"{step:,}"] = line
    return pd.DataFrame(lines).T


def transfer_ratios(page: Results) -> pd.DataFrame:
    """Section 4.3: relative changes across kinds of task over all checkpoints, as printed and as
    a single cell cannot carry.
    """
    lines = {}
    kinds = {"classification to generation": True, "generation to classification": False}
    for label, to_generation in kinds.items():
        across = results.pairs(page, to_generation)
        tuned = np.concatenate([_along(page, name, recipe) for recipe, name in across])
        base = np.concatenate([_along(page, name, "base") for _, name in across])
        there = ~np.isnan(tuned) & ~np.isnan(base)
        tuned, base = tuned[there], base[there]
        ratios = tuned / base - 1
        worst = np.abs(ratios - np.median(ratios)).argmax()
        lines[label] = {
            "cells": len(ratios),
            "mean ratio": f"{ratios.mean():+.2%}",
            "printed": f"{PRINTED[label]:+.1%}",
            "median": f"{np.median(ratios):+.1%}",
            "ratio of sums": f"{tuned.sum() / base.sum() - 1:+.1%}",
            "farthest cell": f"{ratios[worst]:+.2f}, base {base[worst]:.3f}",
            "mean without it": f"{np.delete(ratios, worst).mean():+.1%}",
        }
    return pd.DataFrame(lines).T


def domain_changes(page: Results) -> pd.DataFrame:
    """Figure 5: mean change of out-of-domain sets over all checkpoints, per task, and of each of
    its sets.
    """
    lines = {}
    for recipe, own in recipes(page).items():
        changes = {
            name: _along(page, name, recipe) - _along(page, name, "base")
            for name in partners(page, own, "out")
        }
        lines[page.title(own)] = {
            "recomputed": f"{np.nanmean(np.concatenate(list(changes.values()))):+.3f}",
            "bar of Figure 5": f"{PRINTED[REGISTRY[own].title]:+.3f}",
            "of each set": ", ".join(
                f"{page.title(name)} {np.nanmean(part):+.3f}" for name, part in changes.items()
            ),
            "labels": "hidden" if set(changes) & set(released.HIDDEN) else "public",
        }
    return pd.DataFrame(lines).T


def format_gaps(page: Results) -> pd.DataFrame:
    """Own-task score after tuning, training format minus each other, and the mean gap relative
    to the training format.
    """
    lines = {}
    for form in ("instruct", "io"):
        relative = []
        for recipe, name in recipes(page).items():
            own = _along(page, name, recipe)
            gap = own - _along(page, name, recipe, form)
            lines[f"{page.title(name)}, default minus {form}"] = _by_step(page, gap)
            relative.append(gap / own)
        lines[f"mean relative gap to {form}"] = _by_step(page, np.mean(relative, axis=0))
    return pd.DataFrame(lines).T


def shares_of_no(page: Results) -> pd.DataFrame:
    """QQP and STS-B, whose labels were hidden and read as "no": their scores are the shares of
    the answer "no".
    """
    lines, after = {}, {"base": "base", "paws": "tuned on PAWS"}
    for name, recipe in product(released.HIDDEN, after):
        line = _by_step(page, _along(page, name, recipe))
        lines[f"{page.title(name)}, {after[recipe]}"] = line
    return pd.DataFrame(lines).T


def replicates(page: Results) -> pd.DataFrame:
    """Every tuned or base score at the two last checkpoints, twenty optimizer steps apart, by
    how far they differ.
    """
    one, two = page.scores.late
    rows = page.rows[
        page.rows["late"] & (page.rows["format"] == "default") & (page.rows["shots_asked"] == 4)
    ]
    table = rows.pivot_table(
        index=["dataset", "recipe"], columns="step", values=["score", "standard_error"]
    ).dropna()
    apart = table["score"][two] - table["score"][one]
    z = apart / np.hypot(table["standard_error"][one], table["standard_error"][two])
    found = pd.DataFrame(
        {
            f"step {one:,}": table["score"][one],
            "main": table["score"][two],
            "difference": apart,
            "z over items": z,
        }
    )
    found.index = [f"{page.title(name)} after {recipe}" for name, recipe in found.index]
    return found.iloc[np.argsort(-np.abs(found["difference"].to_numpy()))]


def pair_noise(page: Results) -> pd.Series:
    """Standard deviation of one score from checkpoint to checkpoint, of untuned and of tuned
    models apart: the root mean square of the differences of the pair over the root of two. What
    items bring into it stays in: without single answers it cannot be told how much less that is
    than of items drawn anew.
    """
    found = replicates(page)
    tuned = ~found.index.str.endswith("after base")
    squares = (found["difference"].astype(float) ** 2).groupby(np.where(tuned, "tuned", "untuned"))
    return np.sqrt(squares.mean() / 2)


def noise(page: Results) -> str:
    """What the pair implies for the noise of one score and of a difference of two."""
    one, found = pair_noise(page), replicates(page)
    far, tuned = found["z over items"].abs() > NORMAL, ~found.index.str.endswith("after base")
    return (
        "From one of the two checkpoints to the other, a score moves by a standard deviation of "
        f"{one['untuned']:.3f} untuned ({(~tuned).sum()} scores) and of {one['tuned']:.3f} after "
        f"tuning ({tuned.sum()} scores), items included. Were all of it items drawn anew, 5 % of "
        f"pairs would differ significantly; {far[~tuned].mean():.0%} of the untuned and "
        f"{far[tuned].mean():.0%} of the tuned do. All of these are of one pair of checkpoints, "
        "so nobody knows how much another pair would differ. A published gain of a single "
        f"checkpoint and dataset below about {_bound(page):.2f} is within that noise."
    )


def _bound(page: Results) -> float:
    """What the difference of a tuned and an untuned score of one checkpoint stays within for
    noise alone, nineteen times of twenty.
    """
    return float(NORMAL * np.hypot(*pair_noise(page)))


def effects_beyond_noise(page: Results) -> pd.DataFrame:
    """Gains at the last checkpoint against the noise of the pair: which stand out."""
    bound, last, lines = _bound(page), page.scores.steps[-1], {}
    for name in (*TUNED_GROUP, *READ_GROUP):
        found = gain(page, name, last)
        lines[page.title(name)] = {
            "gain at main": f"{found:+.3f}",
            "by": tuner(page, name),
            "beyond the noise": "yes" if abs(found) > bound else "no",
        }
    return pd.DataFrame(lines).T


def what_stands_out(page: Results) -> str:
    """Of which sets the gain at the last checkpoint is beyond that noise, and of which not, by
    how they were tuned.
    """
    found, said = effects_beyond_noise(page), []
    for by, part in found.groupby(found["by"].eq("instruct"), sort=True):
        how = "instruction tuning" if by else "tuning on their task"
        names = {
            answer: ", ".join(part.index[part["beyond the noise"] == answer]) or "none"
            for answer in ("yes", "no")
        }
        said.append(f"after {how}: {names['yes']} (within it: {names['no']})")
    return f"Gains beyond that noise, {'; '.join(said)}."


def end_of_the_run(page: Results) -> pd.DataFrame:
    """Mean tuned and base score of both groups at every checkpoint: where the tuned one turns
    down.
    """
    lines = {}
    sets = {"fine-tuning group, 7 sets": TUNED_GROUP, "pre-training group, 5 sets": READ_GROUP}
    for label, names in sets.items():
        tuned = np.mean([_along(page, name, tuner(page, name)) for name in names], axis=0)
        base = np.mean([_along(page, name, "base") for name in names], axis=0)
        lines[f"{label}, tuned"] = _by_step(page, tuned)
        lines[f"{label}, base"] = _by_step(page, base)
    return pd.DataFrame(lines).T.map("{:.3f}".format)


def turn_down(page: Results) -> str:
    """The change of the five instruction-tuned sets from their best checkpoint to the last, with
    both kinds of doubt.
    """
    tuned = np.mean([_along(page, name, "instruct") for name in READ_GROUP], axis=0)
    means = dict(zip(page.scores.steps, tuned, strict=True))
    best, last = max(means, key=means.get), page.scores.steps[-1]
    terms, share = [], 1 / len(READ_GROUP)
    for name in READ_GROUP:
        terms.append(Term(share, name, "instruct", (last,), shots=4))
        terms.append(Term(-share, name, "instruct", (best,), shots=4))
    items, full = (contrasts.effect(page.scores, terms, noise=noise) for noise in (False, True))
    base = np.mean(
        [score(page, name, "base", last) - score(page, name, "base", best) for name in READ_GROUP]
    )
    return (
        f"From step {best:,} to main the mean of the five sets changes by {items.value:+.3f} "
        f"after instruction tuning, untuned by {base:+.3f}. Over items alone the interval is "
        f"{ranged(items)}; with the noise of the pair it is {ranged(full)}. One seed of tuning "
        "cannot tell a turn-down from the luck of a run."
    )


def late_boolq(page: Results) -> str:
    """BoolQ, counted as not learned, rises where nothing else does."""
    first, last = page.scores.steps[2], page.scores.steps[-1]
    terms = [
        Term(1, "boolq", "base", (last,), shots=4),
        Term(-1, "boolq", "base", (first,), shots=4),
    ]
    found = contrasts.effect(page.scores, terms, noise=False)
    return (
        f"BoolQ rises by {ranged(found)} from step {first:,} to main, over items alone; the "
        f"constant answer scores {page.of('boolq')['baseline'].iloc[0]:.3f}, so it comes back to "
        "what always saying yes is worth."
    )


def show_stretch(page: Results) -> None:
    """Where checkpoints lie on the axis of tokens, and where nothing was measured."""
    [axes] = figures.panels(1, 2.8)
    for name, colour in zip(READ_GROUP, theme.many_colours(5), strict=True):
        figures.plain_curve(axes, curves.curve(page.of(name)), colour, page.title(name))
    tokens = list(page.tokens.values())
    axes.axvspan(tokens[1], tokens[2], color="0.85", lw=0, zorder=0, label="nothing measured")
    axes.set(ylabel="score, 0 to 1")
    figures.show(
        [axes],
        f"Untuned scores; nothing was measured from {tokens[1] / 1e9:.0f} B to "
        f"{tokens[2] / 1e9:,.0f} B tokens",
        "Untuned scores of five sets over tokens; between the second and third checkpoint "
        "nothing stands.",
    )
