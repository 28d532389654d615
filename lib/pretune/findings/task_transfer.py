"""Finding 4, task transfer: what happens to generation after tuning on classification, and the
other way round?

Claims 4a to 4c. Recipes tune on one set; datasets are those that are tuned on and all that are
generated; questions with given answers count as classification.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, display, figures, statistics
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.results import (
    NO_ITEMS,
    Results,
    gold_likelihood,
    is_generation,
    pairs,
    ranged,
    recipes,
)
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import MARGIN, Estimate
from pretune.plan.needs import Need, own_sets, shots_of
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

CLAIMS = {
    "4a": Claim(
        "Tuning on classification destroys generation",
        "1 - ratio of sums of generation scores, tuned over base, over checkpoints and "
        "the sets that base answers better than no skill by the margin",
        "Tuned to classify, models lose {} of what they scored in writing.",
        "share of the score",
        0.2,
        "-61.4 % (mean of 32 ratios, median -98.6 %)",
    ),
    "4b": Claim(
        "Tuning on generation leaves classification",
        "mean of tuned - base at late, on sets that base answers better than no skill by "
        "the margin",
        "Tuned to write, models change what they score in classification by {}.",
        margin=-MARGIN,
        two_sided=False,
        reference="+0.3 %, of scores that were a constant answer",
    ),
    "4c": Claim(
        "What 4a loses is the habit, not the skill",
        "log-likelihood of the gold output forced on the model, tuned - base at late",
        "The right text, forced upon models that were tuned to classify, becomes likelier by {} "
        "nats per token.",
        "nats per token",
        -MARGIN,
        two_sided=False,
    ),
}


def needs(study: Study, recipe: str) -> list[Need]:
    """Every set that some recipe tunes on, and all others that are generated."""
    if recipe not in study.recipes or study.is_beside(recipe):
        return []
    asked = [name for name in own_sets(study, "base") if not REGISTRY[name].domain]
    if not study.tables:  # the reference study crossed the sets that it tuned on
        asked += [name for name in study.probing.datasets if is_generation(name)]
    return [Need(name, shots_of(study, name, recipe)) for name in dict.fromkeys(asked)]


def change(
    page: Results, name: str, recipe: str, steps: tuple[int, ...] = (), weight: float = 1.0
) -> list[Term]:
    """s(tuned) - s(base)."""
    return [Term(weight, name, recipe, steps), Term(-weight, name, "base", steps)]


def matrix(page: Results, steps: tuple[int, ...]) -> pd.DataFrame:
    """Change of score, tuned minus base, of every dataset after every recipe, over the
    checkpoints `steps` (none: late).
    """
    sets, table = recipes(page), {}
    for name in page.titles:
        table[REGISTRY[name].title] = {
            f"tuned on {REGISTRY[own].title}": _value(page, change(page, name, recipe, steps))
            for recipe, own in sets.items()
        }
    return pd.DataFrame(table)


def _value(page: Results, terms: list[Term]) -> float:
    return contrasts.effect(page.scores, terms, noise=False).value


def show_matrix(page: Results) -> None:
    """The matrix at the page's checkpoint, or one at late and one over all checkpoints."""
    shown = {page.checkpoint: page.scores.steps}
    if page.is_whole:
        shown = {"at late": (), "mean of all checkpoints": page.scores.steps}
    for when, steps in shown.items():
        display.say(f"**Change of score{page.world}, tuned minus base, {when}.**")
        display.table(matrix(page, steps), shade=0.6)


def at_a_glance(page: Results) -> None:
    """Per recipe, the change at late of the other kind of task, where there was something to lose,
    as a share of what the untuned model scores.
    """
    found = {}
    for to_generation, kind in ((True, "generation"), (False, "classification")):
        across = pairs(page, to_generation)
        taken, _ = page.has_something_to_lose(name for _, name in across)
        for recipe, own in recipes(page).items():
            asked = [name for one, name in across if one == recipe and name in taken]
            if asked:
                found[f"{kind}, after tuning on {REGISTRY[own].title}"] = _share(
                    page, recipe, asked
                )
    if not found:
        return display.say("No set of the other kind has something to lose here.")
    axes = figures.estimates(found, "tuned")
    axes.set(xlabel="change, as a share of the untuned score")
    axes.xaxis.set_major_formatter("{x:+.0%}")
    figures.show(
        [axes],
        f"What tuning on one kind of task does to the other{page.world}, at late, 95 % intervals",
        "Relative change of the scores of the other kind of task, a row for each recipe: "
        + "; ".join(f"{name} {estimate.value:+.0%}" for name, estimate in found.items()),
        pd.DataFrame({"change": {name: ranged(estimate) for name, estimate in found.items()}}),
    )


def _share(page: Results, recipe: str, names: list[str]) -> Estimate:
    """The change at late, tuned minus base, over the sum of base, which is taken as known."""
    base = _value(page, [Term(1, name) for name in names])
    terms = joined(change(page, name, recipe, weight=1 / base) for name in names)
    return contrasts.effect(page.scores, terms)


def over_checkpoints(page: Results) -> pd.DataFrame:
    """Per checkpoint: generation after classification as ratios (of sums, median, mean) and
    classification after generation.
    """
    lines = {}
    for step, tokens in page.tokens.items():
        across = _present(page, pairs(page, True), step)
        tuned = np.array([page.mean(name, recipe, step) for recipe, name in across])
        base = np.array([page.mean(name, "base", step) for _, name in across])
        moved = [
            page.mean(name, recipe, step) - page.mean(name, "base", step)
            for recipe, name in _present(page, pairs(page, False), step)
        ]
        ratios = tuned[base > 0] / base[base > 0] - 1
        lines[f"step {step}"] = {
            "tokens": f"{tokens:,}",
            "ratio of sums": f"{tuned.sum() / base.sum() - 1:+.0%}" if base.sum() else "–",
            "median of ratios": f"{np.median(ratios):+.0%}" if len(ratios) else "–",
            "mean of ratios": f"{np.mean(ratios):+.0%}" if len(ratios) else "–",
            "base scored nothing": f"{(base == 0).sum()} of {len(base)}",
            "classification after generation": float(np.mean(moved)),
        }
    return pd.DataFrame(lines).T


def _present(page: Results, pairs: list[tuple[str, str]], step: int) -> list[tuple[str, str]]:
    """Those of `pairs` that were scored at `step`: all, but of released tables."""
    return [(recipe, name) for recipe, name in pairs if not np.isnan(page.mean(name, recipe, step))]


def outputs(page: Results) -> pd.DataFrame:
    """Generation after every recipe at the last checkpoint shown: score, length, and what ends
    it.
    """
    lines, last = {}, page.rows["step"].max()
    for name in filter(is_generation, recipes(page).values()):
        for recipe in ("base", *recipes(page)):
            rows = page.of(name, recipe)
            rows = rows[rows["step"] == last]
            lines[f"{page.title(name)} after {recipe}"] = {
                "ROUGE-L": ranged(statistics.over_items(rows), signed=False),
                "tokens, mean": float(rows["length"].mean()),
                "ends by itself": f"{(rows['stop'] != 'length').mean():.0%}",
                "gold answer, nats per token": float(np.mean(gold_likelihood(rows))),
            }
    return pd.DataFrame(lines).T


def verdicts(page: Results) -> list[Verdict]:
    """Claims 4a to 4c, judged by the rules above the data. 4c is asked where 4a is supported, in
    a family of all three.
    """
    claims = {"4a": _claim_4a(page), "4b": _claim_4b(page)}
    found = judged(page, CLAIMS, claims | {"4c": _claim_4c(page)})
    if any(one.claim == "4a" and one.verdict == "supported" for one in found):
        return found
    unasked = (None, "Asked only where 4a is supported, in a family of all three.")
    return judged(page, CLAIMS, claims | {"4c": unasked})


def _claim_4a(page: Results) -> tuple[Estimate | None, str]:
    """1 - ratio of sums over generation sets and checkpoints, so that destruction is a positive
    effect.

    The ratio A / B is linear in its parts near its value R (delta method): its change is that of
    (A - R B) / B.
    """
    across = pairs(page, True)
    taken, left = page.has_something_to_lose(name for _, name in across)
    across = [(recipe, name) for recipe, name in across if name in taken]
    asked = []
    for step in page.scores.steps:
        asked += [(recipe, name, (step,)) for recipe, name in _present(page, across, step)]
    if not asked:
        return None, f"Tuning on classification: no generation set to ask it of.{left}"
    tuned = _value(page, [Term(1, name, recipe, step) for recipe, name, step in asked])
    base = _value(page, [Term(1, name, "base", step) for _, name, step in asked])
    ratio, terms = tuned / base, []
    for recipe, name, step in asked:
        terms += [Term(-1 / base, name, recipe, step), Term(ratio / base, name, "base", step)]
    why = (
        f"Ratio of sums minus 1: {ratio - 1:+.1%} over {len(asked)} scores after tuning; the "
        f"effect is the loss.{left}"
    )
    return contrasts.effect(page.scores, terms).plus(1 - ratio), why


def _claim_4b(page: Results) -> tuple[Estimate | None, str]:
    """Classification is left alone where its change lies above minus the margin."""
    taken, left = page.has_something_to_lose(name for _, name in pairs(page, False))
    asked = [(recipe, name) for recipe, name in pairs(page, False) if name in taken]
    if not asked:
        return None, f"Tuning on generation: no classification set to ask it of.{left}"
    found = contrasts.effect(page.scores, mean_change(page, asked))
    return found, f"Mean change at late on {page.named(taken)}.{left}"


def _claim_4c(page: Results) -> tuple[Estimate | None, str]:
    """Log-likelihood of the gold output per token when the format is forced: what is lost is the
    habit if it is not lower. Also of sets that base cannot generate: how likely it finds the
    gold output is its skill there.
    """
    if not page.has_items:
        return None, NO_ITEMS
    scores = Scores(page.rows.assign(score=gold_likelihood(page.rows)))
    found = contrasts.effect(scores, mean_change(page, pairs(page, True)))
    return found, (
        "Gold output, nats per token, tuned minus base, at late: kept where it is not lower by "
        "the margin."
    )


def mean_change(page: Results, across: list[tuple[str, str]]) -> list[Term]:
    """The mean of s(tuned) - s(base) at late over pairs of recipe and dataset."""
    return joined(change(page, name, recipe, (), 1 / len(across)) for recipe, name in across)


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    said = [
        "The ratio of sums stands where the mean of ratios stood; both are shown.",
        "A set counts only where there was something to lose.",
    ]
    if page.has_items:
        said.append("Habit and skill are told apart by the likelihood of the gold output.")
    return said


def checkpoint_answer(page: Results) -> str:
    """At one checkpoint: the strongest loss and the strongest gain across kinds."""
    flat = matrix(page, page.scores.steps).stack().dropna()
    if flat.empty:
        return f"At {page.checkpoint}, nothing was measured across kinds."
    low, high = flat.idxmin(), flat.idxmax()
    return (
        f"At {page.checkpoint}, the strongest fall is that of {low[1]} when {low[0]} "
        f"({flat.min():+.2f}), the strongest rise that of {high[1]} when {high[0]} "
        f"({flat.max():+.2f})."
    )
