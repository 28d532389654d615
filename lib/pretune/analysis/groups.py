"""Which datasets are learned in pre-training, by a rule.

A dataset is *learned* where its score rises and beats no skill, *not learned* where neither moves,
each with its interval; what is sorted on half A of the items is compared on half B.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd

from pretune.analysis import contrasts, curves, figures, theme
from pretune.analysis.contrasts import effect, gain, joined, lift
from pretune.analysis.results import Results
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import MARGIN, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_LEARNED = "not learned"
GROUPS = ("learned", NOT_LEARNED, "learned before", "undecided")


def half(rows: pd.DataFrame, which: str) -> pd.DataFrame:
    """Half A or half B of the items: datasets are sorted on one and compared on the other. Cut
    by rank of the item. Summaries cannot be cut.
    """
    if "standard_error" in rows:
        return rows
    rank = rows.groupby("dataset")["item"].rank(method="dense").astype(int)
    return rows[(rank % 2 == 0) == (which == "A")]


def sort_datasets(rows: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """One line per dataset: gain, lift and group, by the rule of claim 1a, on the rows given (of
    base).

    learned before: the interval of the lift at the first checkpoint lies above the margin.
    learned: that of the gain lies above the margin and that of the lift at late above 0. not
    learned: the interval of the lift at late lies below the margin, or that of the gain within
    both margins. Otherwise undecided.
    """
    scores, lines = Scores(rows), []
    for dataset in rows["dataset"].unique():
        first = effect(scores, lift(dataset, steps=(scores.early,)))
        grown, above = effect(scores, gain(scores, dataset)), effect(scores, lift(dataset))
        lines.append(
            {
                "dataset": dataset,
                "group": _group(first, grown, above, margin),
                "gain": grown,
                "lift": above,
                "lift at first": first,
            }
        )
    return pd.DataFrame(lines).set_index("dataset")


def _group(first: Estimate, grown: Estimate, above: Estimate, margin: float) -> str:
    if first.low > margin:
        return "learned before"
    if grown.low > margin and above.low > 0:
        return "learned"
    flat = -margin < grown.low and grown.high < margin
    return "not learned" if above.high < margin or flat else "undecided"


def groups_apart(groups: pd.Series, make: Callable[[str, float], list[Term]]) -> list[Term] | None:
    """Mean of `make(dataset, weight)` over the learned minus that over the not learned sets;
    None unless both have two.
    """
    learned, not_learned = groups.index[groups == "learned"], groups.index[groups == NOT_LEARNED]
    if min(len(learned), len(not_learned)) < 2:
        return None
    parts = [make(dataset, 1 / len(learned)) for dataset in learned]
    parts += [make(dataset, -1 / len(not_learned)) for dataset in not_learned]
    return joined(parts)


def sorted_groups(page: Results) -> pd.Series:
    """One of `GROUPS` per dataset, sorted on half A of the items of base."""
    return sort_datasets(half(page.base, "A"), page.margin)["group"]


def counted(page: Results, sorted_: pd.Series) -> pd.Series:
    """The groups of datasets, of which those that share their items count once in each group."""
    kept = [page.distinct(some.index) for _, some in sorted_.groupby(sorted_)]
    return sorted_[list(chain.from_iterable(kept))]


def counts(sorted_: pd.Series) -> str:
    """How many datasets are in each group."""
    return ", ".join(f"{(sorted_ == name).sum()} {name}" for name in GROUPS)


def draw_mean(
    page: Results, panel: Axes, names: dict[str, str], colour: str, label: str
) -> pd.DataFrame:
    """The mean over datasets (name to recipe) along pre-training with its interval, over thin
    lines of each dataset. Nothing where there are none.
    """
    for name, recipe in names.items():
        line, thin = curves.curve(page.of(name, recipe)), {"lw": 0.6, "alpha": 0.6, "label": "_"}
        panel.plot("tokens", "score", data=line, color=theme.COLOURS[colour], **thin)
    if not names:
        return pd.DataFrame()

    def make(steps: tuple[int, ...]) -> list[Term]:
        return [Term(1 / len(names), name, recipe, steps) for name, recipe in names.items()]

    mean = contrasts.along(page.scores, page.tokens, make)
    figures.plain_curve(panel, mean, colour, "_")
    return mean.assign(panel=label, curve="")
