"""Finding 1, dataset dichotomy: which datasets are learned in pre-training, which are not.
Claims 1a and 1b.
"""

from __future__ import annotations

import pandas as pd

from pretune.analysis import contrasts, curves, display, figures, groups, labels, statistics
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.figures import Line
from pretune.analysis.groups import NOT_LEARNED, counted, counts, sorted_groups
from pretune.analysis.labels import most_frequent
from pretune.analysis.results import NO_ITEMS, Results, classifications, ranged
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import MARGIN, Estimate
from pretune.plan.needs import Need, own_sets, shots_of
from pretune.sources import released
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

CLAIMS = {
    "1a": Claim(
        "Some datasets are learned in pre-training and some are not",
        "mean gain of the learned minus that of the not-learned sets, sorted on half A of "
        "the items, on half B",
        "From the first checkpoint to the last ones, the scores of the sets that pre-training "
        "teaches rise by {} more than those of the others, on items that did not sort them.",
        reference="HellaSwag .253 to .628, MNLI .354 to .327 (first to last checkpoint)",
    ),
    "1b": Claim(
        "A flat set is a constant answer rather than a skill",
        "share of the most frequent prediction within each late checkpoint, shot draw and "
        "run, averaged, on the not-learned classification set where its interval reaches "
        "lowest",
        "Of the answers of a late model to a flat classification set, where this is least so, {} "
        "are one and the same label.",
        "share of predictions",
        1 - MARGIN,
        "MNLI, PAWS: one label throughout at the last checkpoint",
        two_sided=False,
    ),
}


def needs(study: Study, recipe: str) -> list[Need]:
    """Base: every dataset in the training format. Tuned: its own, for what changed at one
    checkpoint.
    """
    if recipe not in study.recipes:
        return []
    names = study.probing.datasets if recipe == "base" else own_sets(study, recipe)
    names = [name for name in names if REGISTRY[name].kind != "text"]
    return [Need(name, shots_of(study, name, recipe)) for name in names]


def at_a_glance(page: Results) -> None:
    """The untuned model along pre-training: what it learns and what it does not, means over
    datasets, each dataset thin.
    """
    sorted_ = sorted_groups(page)
    apart = {name: list(sorted_.index[sorted_ == name]) for name in ("learned", NOT_LEARNED)}
    if not any(apart.values()):
        return display.say("No dataset is sorted as learned or as not learned here.")
    [axes] = figures.panels(1, 3.0)
    lines = []
    for group, names in apart.items():
        asked, said = dict.fromkeys(names, "base"), f"{len(names)} {group}"
        lines.append(groups.draw_mean(page, axes, asked, group, said))
    axes.set(ylabel="score, 0 to 1", ylim=(-0.03, 1.03))
    figures.name_ends(axes, lines)
    said = "; ".join(
        f"{group}: {', '.join(REGISTRY[name].title for name in names)}"
        for group, names in apart.items()
    )
    figures.show(
        [axes],
        f"What pre-training teaches and what it does not{page.world}: means, 95 % intervals",
        f"Mean score of two groups of datasets along pre-training; {said}.",
        figures.along(pd.concat(lines)),
    )


def show_curves(page: Results) -> None:
    """Base score against pre-training tokens, one panel a dataset, by how much it gains."""
    every = curves.curve(page.base, page.study.protocol.reporting)
    floors, group = curves.noise_floors(page.base), sorted_groups(page)
    parts = {name: every[every["dataset"] == name] for name in _by_gain(page)}
    shown = {
        REGISTRY[name].title: [Line(part, group[name], group[name])] for name, part in parts.items()
    }
    figures.show_curves(
        shown,
        f"Score of the untuned model along pre-training{page.world}, 95 % interval over items",
        f"Curves of base score over pre-training tokens for {', '.join(shown)}.",
        {REGISTRY[name].title: floors[name] for name in parts},
    )


def _by_gain(page: Results) -> list[str]:
    """Datasets, first those whose score rises most from the first checkpoint to the last."""
    means = page.base.groupby(["dataset", "step"])["score"].mean().unstack()
    return list((means.iloc[:, -1] - means.iloc[:, 0]).sort_values(ascending=False).index)


def first_look(page: Results) -> pd.DataFrame:
    """The naive reading: first and last score of each dataset, and where half of a rise was
    passed.
    """
    lines, floors = {}, curves.noise_floors(page.base)
    for name, title in page.titles.items():
        part = curves.curve(page.base[page.base["dataset"] == name], page.study.protocol.reporting)
        line = {"score": part["score"].iloc[-1], "no skill": part["baseline"].iloc[-1]}
        if len(part) > 1:
            found = curves.bracket(part)
            between = f"{found[0]} and {found[1]}" if found else "no rise"
            line = {
                "first score": part["score"].iloc[0],
                "last score": line["score"],
                "no skill": line["no skill"],
                "half of the rise between steps": between,
                "rank correlation with tokens": ranged(curves.rank_correlation(part)),
                "noise floor": f"{floors[name]:.3f}",
            }
        lines[title] = line
    return pd.DataFrame(lines).T


def constant_answers(page: Results) -> pd.DataFrame:
    """Most frequent prediction, its share and balanced accuracy at the last checkpoint shown."""
    lines, last = {}, page.base[page.base["step"] == page.base["step"].max()]
    for name in classifications(page):
        part = last[last["dataset"] == name]
        label, found = most_frequent(part)
        balanced = labels.balanced_accuracy(part)
        lines[page.title(name)] = {
            "most frequent answer": REGISTRY[name].labels[label],
            "its share": ranged(found, signed=False),
            "balanced accuracy minus chance": ranged(balanced),
            "items": found.n,
        }
    return pd.DataFrame(lines).T


def constant_scores(page: Results) -> pd.DataFrame:
    """Of released scores: where that of a classification set is what a constant answer scores,
    within .0015.
    """
    lines, rows = {}, page.base[(page.base["format"] == "default") & page.base["as_asked"]]
    for name in (one for one in classifications(page) if one in released.SHARES):
        part, shares = rows[rows["dataset"] == name], released.SHARES[name]
        same = {label: _steps_at(part, share) for label, share in shares.items()}
        which = [f"{label} at {', '.join(steps)}" for label, steps in same.items() if steps]
        lines[page.title(name)] = {
            "share of labels": ", ".join(f"{label} {share:.3f}" for label, share in shares.items()),
            "scores equal to one": f"{sum(map(len, same.values()))} of {len(part)}",
            "which": "; ".join(which) or "–",
        }
    return pd.DataFrame(lines).T


def _steps_at(rows: pd.DataFrame, share: float) -> list[str]:
    """The steps at which the score is `share`, but for rounding."""
    equal = (rows["score"] - share).abs() < 0.0015
    return [f"{step:,}" for step in rows.loc[equal, "step"]]


def side_by_side(page: Results, other: Results) -> pd.DataFrame:
    """Score at the last checkpoint shown, headline and calibrated, and the share of the most
    frequent prediction.
    """
    lines = {}
    for name in page.titles:
        if REGISTRY[name].kind == "generation":
            continue
        line = {}
        for label, rows in (("headline", page.base), ("calibrated", other.base)):
            part = rows[(rows["dataset"] == name) & (rows["step"] == rows["step"].max())]
            line[f"{label} score"] = ranged(statistics.over_items(part), signed=False)
            if REGISTRY[name].kind == "classification":
                line[f"one label, {label}"] = most_frequent(part)[1].value
        lines[page.title(name)] = line
    return pd.DataFrame(lines).T


def calibration_says(page: Results, calibrated: Results) -> str:
    """Whether any dataset sorts differently under calibrated scoring."""
    one, two = (
        groups.sort_datasets(some.base, page.margin)["group"] for some in (page, calibrated)
    )
    moved = [
        f"{page.title(name)} ({one[name]} by the headline scoring, {two[name]} when calibrated)"
        for name in one.index
        if one[name] != two[name]
    ]
    named = ", ".join(moved) or "no dataset"
    return f"Sorted by the rule below on all items, calibration moves {named}."


def show_gains(page: Results) -> None:
    """Gain and lift of every dataset on half A, which sort it, and what is too small to count."""
    found = groups.sort_datasets(groups.half(page.base, "A"), page.margin).loc[list(page.titles)]
    found = found.sort_values("gain", key=lambda gains: [-gain.value for gain in gains])
    axes, names = [], [REGISTRY[name].title for name in found.index]
    for column, means in (("gain", "late minus early"), ("lift", "late minus no skill")):
        panel = figures.rows_of(names)
        figures.band(panel, -page.margin if column == "gain" else None, page.margin)
        for place, (estimate, group) in enumerate(zip(found[column], found["group"], strict=True)):
            figures.interval(panel, place, estimate, group)
        panel.set(title=f"{column}: score {means}", xlabel="score")
        axes.append(panel)
    figures.show(
        axes,
        f"What sorts the datasets{page.world}: gain and lift on half A, 95 % intervals",
        "Gain and lift of each dataset with their intervals, coloured by group.",
    )


def sorting(page: Results) -> pd.DataFrame:
    """The sorting on half A, what it rests on, and the gain on half B that it is judged by."""
    halves = (groups.half(page.base, which) for which in "AB")
    found, fresh = (
        groups.sort_datasets(rows, page.margin).loc[list(page.titles)] for rows in halves
    )
    return pd.DataFrame(
        {
            "group": found["group"].to_numpy(),
            "gain (half A)": [ranged(one) for one in found["gain"]],
            "lift (half A)": [ranged(one) for one in found["lift"]],
            "lift at the first checkpoint": [ranged(one) for one in found["lift at first"]],
            "gain (half B)": [ranged(one) for one in fresh["gain"]],
        },
        index=list(page.titles.values()),
    )


def verdicts(page: Results) -> list[Verdict]:
    """Claims 1a and 1b, judged by the rules above the data."""
    sorted_ = sorted_groups(page)
    return judged(page, CLAIMS, {"1a": _claim_1a(page, sorted_), "1b": _claim_1b(page, sorted_)})


def _claim_1a(page: Results, sorted_: pd.Series) -> tuple[Estimate | None, str]:
    apart, scores = counted(page, sorted_), Scores(groups.half(page.base, "B"))
    terms = groups.groups_apart(
        apart, lambda name, weight: contrasts.gain(scores, name, weight=weight)
    )
    why = f"Sorted on half A: {counts(apart)}."
    if terms is None:
        why += " It is asked only where both groups, learned and not learned, have two sets."
        return None, why
    how = "on half B"
    if not page.has_items:
        how = "on the same scores, since means cannot be cut into halves: it is too large"
    why += f" The effect is the difference of mean gains {how}."
    return contrasts.effect(scores, terms), why


def _claim_1b(page: Results, sorted_: pd.Series) -> tuple[Estimate | None, str]:
    """The share of the most frequent prediction within each late model, where it is smallest of
    the flat classifications.
    """
    if not page.has_items:
        return None, NO_ITEMS
    names = [name for name in classifications(page) if sorted_[name] == NOT_LEARNED]
    if not names:
        return None, "No classification set is sorted as not learned."
    rows = page.base[page.base["dataset"].isin(names)]
    scores = Scores(rows.assign(score=labels.is_most_frequent(rows)))
    found = {name: contrasts.effect(scores, [Term(1, name)]) for name in names}
    said = [
        f"{page.title(name)} {ranged(found[name], signed=False)}, balanced accuracy minus chance "
        f"{ranged(balanced(page, name))}"
        for name in names
    ]
    least = min(names, key=lambda name: found[name].low)
    return found[least], (
        "The effect is the share of the most frequent prediction within each late checkpoint and "
        f"shot draw, on {page.title(least)}, where its interval reaches lowest. All: "
        f"{'; '.join(said)}."
    )


def balanced(page: Results, name: str) -> Estimate:
    """Balanced accuracy of base minus chance at late: the mean over gold labels of the share
    that is answered right.
    """
    rows = page.base[page.base["dataset"] == name]
    labels = sorted(rows["gold"].unique())
    scores, chance = Scores(rows.assign(dataset=rows["gold"].astype(str))), 1 / len(labels)
    terms = [Term(chance, str(label)) for label in labels]
    return contrasts.effect(scores, terms).plus(-chance)


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    halves = "on one half of the items and compared on the other"
    if not page.has_items:
        halves = "on the scores that are compared"
    said = [f"The groups are formed by a rule {halves}; there they were formed by eye."]
    hole = (
        "nothing was measured between 75 B and 1,434 B tokens, where most of the change must have "
        "happened"
    )
    if page.study.tables:
        return [*said, f"As there, {hole}."]
    tokens = ", ".join(f"{count:,}" for count in page.tokens.values())
    there = f"here there are checkpoints at {tokens} tokens"
    return [*said, f"In the reference study {hole}; {there}."]


def checkpoint_answer(page: Results) -> str:
    """What tuning changed at one checkpoint, on the datasets it was tuned on."""
    said = []
    for recipe, how in page.study.recipes.items():
        if how.dataset and len(page.of(how.dataset, recipe)):
            before = statistics.over_items(page.of(how.dataset))
            after = statistics.over_items(page.of(how.dataset, recipe))
            said.append(
                f"`{recipe}` moves {page.title(how.dataset)} from {ranged(before, signed=False)} "
                f"to {ranged(after, signed=False)} (n = {after.n})"
            )
    return f"At {page.checkpoint}, {'; '.join(said)}."
