"""Contrasts: weighted sums of mean scores, with their intervals.

- Every effect is a sum of `Term`s: late minus early, tuned minus base, one format minus another.
  Items are the same for all models, and a tuned model takes the shot draw of its seed, so sums are
  paired by both, each by its label. An effect that lacks a seed of one of its parts is blank: what
  is left must not pass for the whole.
- *Late* is the mean over the last neighbouring checkpoints. Their spread is the noise floor: what a
  score moves by from one checkpoint to the next for no reason of interest. A mean over some
  checkpoints carries it divided by their number.
- Items, seeds and neighbouring checkpoints each add a component of variance; how they are joined:
  module `statistics`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain

import numpy as np
import pandas as pd

from pretune.analysis.scores import EVERY, Scores, Table, Term
from pretune.analysis.statistics import KNOWN, UNKNOWN, Estimate, estimate, item_variance
from pretune.plan.needs import Need


def joined(parts: Iterable[Sequence[Term]]) -> list[Term]:
    """The terms of all parts, in their order."""
    return list(chain.from_iterable(parts))


def effect(scores: Scores, terms: Sequence[Term], noise: bool = True) -> Estimate:
    """The sum of `terms` with its interval over items, seeds and, unless `noise` is False,
    neighbouring checkpoints.

    Terms are paired by item, where they are of one dataset, and by seed. Items carry the doubt
    of single answers; what is left of it in the spread of seeds and of checkpoints is taken out
    of those (`_beyond_items`). Without late checkpoints there is no noise to be had. An effect
    that rests on rows that are lacking, or on no term, is NaN.
    """
    try:
        return _effect(scores, terms, noise) if terms else UNKNOWN
    except LookupError:
        return UNKNOWN


def _effect(scores: Scores, terms: Sequence[Term], noise: bool) -> Estimate:
    pieces, units = _by_dataset(terms), _seeds(scores, terms)
    arrays = [_summed(scores, some, units) for some in pieces]
    value = sum(float(array.mean()) for array in arrays)
    components, seeds = _item_variances(scores, pieces, arrays), len(units)
    if seeds > 1:
        components.append((_beyond_items(arrays) / seeds, seeds - 1))
    n = _items(scores, pieces, arrays)
    if not noise or not scores.late:
        return estimate(value, components, n, seeds)
    variance = _noise(scores, terms, units)
    if len(scores.late) == 2:
        return estimate(value, components, n, seeds, pair=variance)
    return estimate(value, [*components, (variance, len(scores.late) - 1)], n, seeds)


def _item_variances(
    scores: Scores, pieces: Sequence[Sequence[Term]], arrays: Sequence[np.ndarray]
) -> list[tuple[float, int]]:
    if scores.is_summary:
        return [(_known_variance(scores, joined(pieces)), KNOWN)]
    found = []
    for array, some in zip(arrays, pieces, strict=True):
        largest = max(abs(term.weight) for term in some)
        found.append(item_variance(array.mean(0), largest))
    return found


def _items(scores: Scores, pieces: Sequence[Sequence[Term]], arrays: Sequence[np.ndarray]) -> int:
    if scores.is_summary:
        return int(sum(_only(scores, replace(some[0], column="n")) for some in pieces))
    return sum(array.shape[1] for array in arrays)


def _seeds(scores: Scores, terms: Sequence[Term]) -> list[int]:
    """The seeds of an effect, which all its parts must have. Raises LookupError where one lacks
    a seed that another has.
    """
    tables = chain.from_iterable(_tables(scores, term) for term in terms)
    found = [set(table.units.tolist()) for table in tables]
    found = [units for units in found if units != {EVERY}] or [{EVERY}]
    if any(units != found[0] for units in found):
        raise LookupError(f"not every part of the effect has the seeds {sorted(set.union(*found))}")
    return sorted(found[0])


def _tables(scores: Scores, term: Term) -> list[Table]:
    """The tables of a term, one a checkpoint. Raises LookupError."""
    return [scores.table(term, step) for step in term.steps or scores.late]


def _by_dataset(terms: Sequence[Term]) -> list[list[Term]]:
    pieces = defaultdict(list)
    for term in terms:
        pieces[term.dataset].append(term)
    return list(pieces.values())


def _summed(scores: Scores, terms: Sequence[Term], units: list[int]) -> np.ndarray:
    """The weighted sum of terms of one dataset per seed and item (seeds, items), over the items
    that all of them have.
    """
    tables = [_tables(scores, term) for term in terms]
    if not all(tables):
        raise LookupError("no late checkpoint was measured")
    items = reduce(_shared, (table.items for table in chain.from_iterable(tables)))
    if not len(items):
        raise LookupError(f"{terms[0].dataset}: no item was scored for every part of the effect")
    total = 0.0
    for term, some in zip(terms, tables, strict=True):
        for table in some:
            total += table.at(items, units) * (term.weight / len(some))
    return total


def _shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one if np.array_equal(one, other) else np.intersect1d(one, other, assume_unique=True)


def _known_variance(scores: Scores, terms: Sequence[Term]) -> float:
    """Of summaries: the variance of a weighted sum of means that are not paired, from their
    standard errors.
    """
    weights = defaultdict(float)
    for term in (one for one in terms if one.column == "score"):
        steps = term.steps or scores.late
        for step in steps:
            cell = replace(term, weight=1, steps=(step,), column="standard_error")
            weights[cell] += term.weight / len(steps)
    return sum((weight * _only(scores, cell)) ** 2 for cell, weight in weights.items())


def _only(scores: Scores, term: Term) -> float:
    """Of summaries: the one value of a term at its first checkpoint."""
    return scores.table(term, (term.steps or scores.late)[0]).values.item()


def _noise(scores: Scores, terms: Sequence[Term], units: list[int]) -> float:
    """The variance that neighbouring checkpoints bring into the sum of `terms`: for every group of
    terms over the same checkpoints, the spread of their own sum from one late checkpoint to the
    next, divided by the number of checkpoints.

    The same few checkpoints serve all groups: there are no more degrees of freedom than late
    checkpoints less one.
    """
    groups, found = defaultdict(list), 0.0
    for term in terms:
        groups[term.steps or scores.late].append(term)
    for steps, some in groups.items():
        arrays = [_along(scores, piece, units) for piece in _by_dataset(some)]
        found += (_beyond_items(arrays) if len(scores.late) > 1 else np.nan) / len(steps)
    return found


def _along(scores: Scores, terms: Sequence[Term], units: list[int]) -> np.ndarray:
    """The sum of terms of one dataset at every late checkpoint, the mean of seeds (checkpoints,
    items).
    """
    lines = []
    for step in scores.late:
        there = [replace(term, steps=(step,)) for term in terms]
        lines.append(_summed(scores, there, units).mean(0))
    return np.stack(lines)


def _beyond_items(arrays: Sequence[np.ndarray]) -> float:
    """Variance between the rows (seeds, or checkpoints) of the sum of arrays (rows, items), beyond
    what items bring into it.

    Of a two-way table, the mean square of the residuals over the number of items is what rows
    would differ by if only single answers varied. Half of it is taken out: all of it would be
    unbiased, but of three rows an estimate is often cut off at 0, and intervals then cover too
    rarely (`tests/test_coverage.py`). Of two rows, for the same reason, nothing is. A row mean
    is the sum over arrays, which are of different datasets.
    """
    rows = len(arrays[0])
    spread = float(np.var(sum(array.mean(1) for array in arrays), ddof=1))
    for array in arrays if rows > 2 else ():
        items = array.shape[1]
        if items > 1:
            residual = array - array.mean(0) - array.mean(1, keepdims=True) + array.mean()
            mean_square = float((residual**2).sum()) / ((rows - 1) * (items - 1))
            spread -= 0.5 * mean_square / items
    return max(spread, 0.0)


def mean_of(
    asked: Sequence[Need], recipe: str, weight: float = 1.0, steps: tuple[int, ...] = ()
) -> list[Term]:
    """The mean after `recipe` over what is asked."""
    return [
        Term(weight / len(asked), one.dataset, recipe, steps, one.format, one.shots)
        for one in asked
    ]


def slope(dataset: str, recipe: str, tokens: dict[int, int], weight: float = 1.0) -> list[Term]:
    """The least-squares slope of a score over the checkpoints of `tokens` (step to tokens), per
    doubling of tokens.
    """
    doublings = np.log2(list(tokens.values()))
    away = doublings - doublings.mean()
    return [
        Term(weight * part, dataset, recipe, (step,))
        for step, part in zip(tokens, away / (away**2).sum(), strict=True)
    ]


def along(
    scores: Scores, tokens: dict[int, int], make: Callable[[tuple[int, ...]], list[Term]]
) -> pd.DataFrame:
    """The effect that `make` gives the terms of, at every checkpoint: a line each, to be drawn."""
    lines = []
    for step in scores.steps:
        found = effect(scores, make((step,)), noise=False)
        line = {"step": step, "tokens": tokens[step], "score": found.value}
        lines.append(line | {"low": found.low, "high": found.high})
    return pd.DataFrame(lines)


def gain(scores: Scores, dataset: str, recipe: str = "base", weight: float = 1.0) -> list[Term]:
    """s(late) - s(early)."""
    return [Term(weight, dataset, recipe), Term(-weight, dataset, recipe, (scores.early,))]


def lift(dataset: str, recipe: str = "base", steps: tuple[int, ...] = ()) -> list[Term]:
    """s - b at late, or at `steps`: what the model has beyond the best answer without a skill."""
    return [
        Term(1, dataset, recipe, steps),
        Term(-1, dataset, recipe, steps, column="baseline"),
    ]
