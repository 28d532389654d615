"""Intervals and the noise floor, from scored rows (`records.scored`).

- Every effect is a weighted sum of mean scores (`Term`): late minus early, tuned minus base, one
  format minus another. Items are the same for all models, and a tuned model takes the shot draw of
  its seed, so sums are paired by both, each by its label. An effect that lacks a seed of one of its
  parts is blank: what is left must not pass for the whole.
- *Late* is the mean over the last neighbouring checkpoints. Their spread is the noise floor: what a
  score moves by from one checkpoint to the next for no reason of interest. A mean over some
  checkpoints carries it divided by their number.
- Items, seeds and neighbouring checkpoints each add a component of variance with its own degrees of
  freedom; they are joined by Welch and Satterthwaite's rule and the interval is Student's. With one
  seed nothing is known about seeds.
- A mere pair of late checkpoints has one degree of freedom, with which that rule covers too rarely
  (in one design of `tests/test_coverage.py` in 85 % of trials): its noise is kept apart, items
  included, and joined by adding squares of reaches.
- Items that all agree are no certainty: two more are supposed that do not (`_item_variance`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

MARGIN = 0.05  # the smallest change that counts, in units of the score
LEVEL = 0.95
KNOWN = 10**6  # degrees of freedom of a variance that is as good as known
# in place of a seed: rows without examples of a model that was not tuned, which nothing random
# enters
EVERY = -1


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, the number of items it rests on and of seeds.

    `variance` has `freedom` degrees of freedom; `pair` is the variance that a mere pair of late
    checkpoints adds, with one.
    """

    value: float
    low: float
    high: float
    variance: float
    freedom: float
    n: int
    seeds: int = 1
    pair: float = 0.0

    def plus(self, known: float) -> Estimate:
        """The estimate of the sum with a number that has no doubt of its own."""
        return replace(self, value=self.value + known, low=self.low + known, high=self.high + known)

    def reach(self, level: float = LEVEL) -> float:
        """How far the interval that covers with probability `level` reaches to either side."""
        wide, pair = stats.t.ppf((1 + level) / 2, (self.freedom, 1.0))
        return float(np.sqrt(wide**2 * self.variance + pair**2 * self.pair))

    def beyond(self, distance: float) -> float:
        """The one-sided probability of an estimate `distance` or farther from a truth on either
        side.
        """
        least = 1e-12
        if distance <= 0 or distance >= self.reach(1 - 2 * least):
            return 0.5 if distance <= 0 else least
        return brentq(lambda tail: self.reach(1 - 2 * tail) - distance, least, 0.5)

    def __str__(self) -> str:
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return (
            f"{self.value:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f}, n = "
            f"{self.n}{seeds})"
        )


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


@dataclass(frozen=True)
class Term:
    """`weight` times the mean score of a dataset after a recipe, over the checkpoints `steps`
    (none given: the late ones).
    """

    weight: float
    dataset: str
    recipe: str = "base"
    steps: tuple[int, ...] = ()
    format: str = "default"
    shots: int | None = None  # as asked for; None where the rows have one number only
    column: str = "score"


class Scores:
    """Scored rows, ready to be asked for the mean of a term. `late` and `steps` are checkpoints, in
    order.

    Rows may be of items, or summaries: one row in place of items, with its `standard_error` and
    the number of items `n`. An effect that rests on rows that are lacking is NaN. Where there
    are several pre-training runs, they are what is replicated: each is the mean over its seeds,
    and whatever is said of seeds below is of runs.
    """

    def __init__(self, rows: pd.DataFrame):
        self.is_summary = "standard_error" in rows
        self.several = "run" in rows and rows["run"].nunique() > 1
        self.rows = rows.assign(unit=rows["run"] if self.several else _units(rows))
        self.steps = tuple(sorted(rows["step"].unique()))
        self.late = tuple(sorted(rows.loc[rows["late"], "step"].unique()))
        self.early = min((step for step in self.steps if step > 0), default=None)
        self._places = self.rows.groupby(["dataset", "recipe", "format", "step"]).indices
        self._known: dict[tuple, pd.DataFrame] = {}

    def table(self, term: Term, step: int) -> pd.DataFrame:
        """One line per item and one column per seed (of base: per shot draw). Raises LookupError
        where nothing was measured.
        """
        key = (term.dataset, term.recipe, term.format, step, term.shots, term.column)
        if key not in self._known:
            part = self.rows.iloc[self._places.get(key[:4], [])]
            part = part if term.shots is None else part[part["shots_asked"] == term.shots]
            if part.empty:
                raise LookupError(
                    f"no rows of {term.dataset} after {term.recipe} at step {step} ({term.format})"
                )
            values = part.set_index(["item", "unit"])[term.column]
            values = values.groupby(level=["item", "unit"]).mean() if self.several else values
            self._known[key] = values.unstack("unit").dropna()
        return self._known[key]


def _units(rows: pd.DataFrame) -> np.ndarray:
    """What makes a row one of several of its kind: the seed of a tuned model, of base the draw
    of its examples.
    """
    draws = (
        np.where(rows["shots_asked"] == 0, EVERY, rows["draw"])
        if "shots_asked" in rows
        else rows["draw"]
    )
    return np.where(rows["recipe"] == "base", draws, rows["seed"])


def effect(scores: Scores, terms: Sequence[Term], noise: bool = True) -> Estimate:
    """The sum of `terms` with its interval over items, seeds and, unless `noise` is False,
    neighbouring checkpoints.

    Terms are paired by item, where they are of one dataset, and by seed. Items carry the doubt
    of single answers; what is left of it in the spread of seeds and of checkpoints is taken out
    of those (`_beyond_items`). Without late checkpoints there is no noise to be had. An effect
    that rests on rows that are lacking is NaN.
    """
    try:
        return _effect(scores, terms, noise)
    except LookupError:
        return UNKNOWN


def _effect(scores: Scores, terms: Sequence[Term], noise: bool) -> Estimate:
    pieces, units = _by_dataset(terms), _seeds(scores, terms)
    arrays = [_summed(scores, some, units) for some in pieces]
    value = sum(float(array.mean()) for array in arrays)
    components, seeds = _item_variances(scores, pieces, arrays), len(units)
    if seeds > 1:
        components.append((_beyond_items(arrays) / seeds, seeds - 1))
    n = (
        _known_items(scores, pieces)
        if scores.is_summary
        else sum(array.shape[1] for array in arrays)
    )
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
        return [(_known_variance(scores, [term for some in pieces for term in some]), KNOWN)]
    return [
        _item_variance(array.mean(0), max(abs(term.weight) for term in some))
        for array, some in zip(arrays, pieces, strict=True)
    ]


def _seeds(scores: Scores, terms: Sequence[Term]) -> list[int]:
    """The seeds of an effect, which all its parts must have. Raises LookupError where one lacks
    a seed that another has.
    """
    found = [
        set(scores.table(term, step).columns)
        for term in terms
        for step in term.steps or scores.late
    ]
    found = [units for units in found if units != {EVERY}] or [{EVERY}]
    if any(units != found[0] for units in found):
        raise LookupError(f"not every part of the effect has the seeds {sorted(set.union(*found))}")
    return sorted(found[0])


def _by_dataset(terms: Sequence[Term]) -> list[list[Term]]:
    pieces = defaultdict(list)
    for term in terms:
        pieces[term.dataset].append(term)
    return list(pieces.values())


def _summed(scores: Scores, terms: Sequence[Term], units: list[int]) -> np.ndarray:
    """The weighted sum of terms of one dataset per seed and item (seeds, items), over the items
    that all of them have.
    """
    tables = [[scores.table(term, step) for step in term.steps or scores.late] for term in terms]
    if not all(tables):
        raise LookupError("no late checkpoint was measured")
    items = reduce(_shared, (table.index for some in tables for table in some))
    if not len(items):
        raise LookupError(f"{terms[0].dataset}: no item was scored for every part of the effect")
    return sum(
        _values(table, items, units) * (term.weight / len(some))
        for term, some in zip(terms, tables, strict=True)
        for table in some
    )


def _shared(one: pd.Index, other: pd.Index) -> pd.Index:
    return one if one.equals(other) else one.intersection(other)


def _values(table: pd.DataFrame, items: pd.Index, units: list[int]) -> np.ndarray:
    """Seeds by items; what no seed enters stands beside every seed."""
    table = table if table.index.equals(items) else table.loc[items]
    return table[[EVERY] * len(units) if EVERY in table else units].to_numpy().T


def _known_variance(scores: Scores, terms: Sequence[Term]) -> float:
    """Of summaries: the variance of a weighted sum of means that are not paired, from their
    standard errors.
    """
    weights = defaultdict(float)
    for term in (one for one in terms if one.column == "score"):
        steps = term.steps or scores.late
        for step in steps:
            weights[replace(term, weight=1, steps=(step,), column="standard_error")] += (
                term.weight / len(steps)
            )
    return sum((weight * _only(scores, cell)) ** 2 for cell, weight in weights.items())


def _known_items(scores: Scores, pieces: Sequence[Sequence[Term]]) -> int:
    return int(sum(_only(scores, replace(some[0], column="n")) for some in pieces))


def _only(scores: Scores, term: Term) -> float:
    """Of summaries: the one value of a term at its first checkpoint."""
    return scores.table(term, (term.steps or scores.late)[0]).to_numpy().item()


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
    return np.stack(
        [
            _summed(scores, [replace(term, steps=(step,)) for term in terms], units).mean(0)
            for step in scores.late
        ]
    )


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
        if array.shape[1] > 1:
            residual = array - array.mean(0) - array.mean(1, keepdims=True) + array.mean()
            spread -= (
                0.5
                * float((residual**2).sum())
                / ((rows - 1) * (array.shape[1] - 1))
                / array.shape[1]
            )
    return max(spread, 0.0)


def estimate(
    value: float,
    components: Sequence[tuple[float, float]],
    n: int,
    seeds: int = 1,
    pair: float = 0.0,
) -> Estimate:
    """`value` with the interval of independent variance `components`, pairs of variance and degrees
    of freedom.

    Satterthwaite 1946: freedom = (sum v)^2 / sum(v^2 / freedom). `pair` is a variance with one
    degree of freedom that is kept apart. Where a component cannot be known (freedom 0) the
    interval is NaN.
    """
    total = sum(variance for variance, _ in components)
    if any(freedom < 1 for _, freedom in components):
        return Estimate(value, np.nan, np.nan, np.nan, 0, n, seeds)
    freedom = (
        total**2 / sum(variance**2 / free for variance, free in components) if total else np.inf
    )
    found = Estimate(value, value, value, total, freedom, n, seeds, pair)
    reach = found.reach()
    return replace(found, low=value - reach, high=value + reach)


def _item_variance(values: np.ndarray, unit: float = 1.0) -> tuple[float, int]:
    """Variance of a mean over items, and its degrees of freedom.

    Two more items one `unit` away from the mean are supposed, in the manner of Agresti and
    Coull. Without them, items that all agree would leave no doubt at all; with them the interval
    reaches as far as the rule of three, 3/n.
    """
    n = len(values)
    return float(((values - values.mean()) ** 2).sum() + 2 * unit**2) / n**2, n - 1


def over_items(rows: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of `column` over items, each averaged over draws, seeds and checkpoints first: the doubt
    of items alone.

    Of summaries the mean of the rows, with their standard errors. Of no rows nothing is known.
    """
    if rows.empty:
        return UNKNOWN
    if "standard_error" in rows:
        variance = (rows["standard_error"] ** 2).sum() / len(rows) ** 2
        return estimate(rows[column].mean(), [(variance, KNOWN)], int(rows["n"].iloc[0]))
    values = rows.groupby("item")[column].mean()
    return estimate(values.mean(), [_item_variance(values.to_numpy())], len(values))


def share(successes: int, n: int) -> Estimate:
    """A share with Wilson's interval, which stays sensible near 0 and 1."""
    low, high = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    value, reach = successes / n, stats.t.ppf((1 + LEVEL) / 2, max(n - 1, 1))
    return Estimate(
        value, low, high, (max(value - low, high - value) / reach) ** 2, max(n - 1, 1), n
    )


def bootstrap(values: Sequence[float], resamples: int = 3000, seed: int = 0) -> Estimate:
    """The midpoint of the 95 % percentile interval of the mean over resampled items, as the
    reference study reports scores (Sun & Dredze, code at 8b79c39; its generator had no seed).
    `variance` is that of the resampled means.
    """
    values, draw = np.asarray(values, dtype=float), np.random.default_rng(seed)
    means = values[draw.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate((low + high) / 2, low, high, float(means.var()), len(values) - 1, len(values))


def curve(rows: pd.DataFrame, reporting: str = "mean") -> pd.DataFrame:
    """Per dataset and checkpoint: score with interval over items (or the published `bootstrap`),
    baseline, tokens.
    """
    lines = []
    for (dataset, step), part in rows.groupby(["dataset", "step"], sort=True):
        found = (
            over_items(part)
            if reporting == "mean"
            else bootstrap(part.groupby("item")["score"].mean())
        )
        lines.append(
            {
                "dataset": dataset,
                "step": step,
                "tokens": part["tokens"].iloc[0],
                "score": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "baseline": part["baseline"].mean(),
            }
        )
    return pd.DataFrame(
        lines, columns=["dataset", "step", "tokens", "score", "low", "high", "n", "baseline"]
    )


def noise_floors(rows: pd.DataFrame) -> pd.Series:
    """Per dataset the standard deviation of its score over the late checkpoints.

    Of fewer than three checkpoints nothing is known of one dataset: then it is pooled, the root
    of the mean variance of all.
    """
    means = rows[rows["late"]].groupby(["dataset", "step"])["score"].mean().unstack("step")
    spread = means.std(axis=1, ddof=1)
    floors = (
        spread if means.shape[1] > 2 else pd.Series(np.sqrt((spread**2).mean()), index=spread.index)
    )
    return floors.reindex(rows["dataset"].unique())


def rank_correlation(line: pd.DataFrame) -> Estimate:
    """Spearman's correlation of a score with the tokens read, over the checkpoints of `line`
    (the part of `curve` of one dataset). The interval is Fisher's, with the variance (1 + r^2 /
    2) / (n - 3) of Bonett and Wright (2000); of fewer than five checkpoints, or a score that
    never moves, there is none.
    """
    n = len(line)
    r = (
        float(stats.spearmanr(line["tokens"], line["score"]).statistic)
        if line["score"].nunique() > 1
        else np.nan
    )
    if n < 5 or np.isnan(r):
        return Estimate(r, np.nan, np.nan, np.nan, 0, n)
    z = np.arctanh(np.clip(r, -0.999, 0.999))
    reach = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + r**2 / 2) / (n - 3))
    return Estimate(r, float(np.tanh(z - reach)), float(np.tanh(z + reach)), np.nan, n - 3, n)


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


def predicted_shares(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Share of every predicted label: one line per dataset and value of the column `by`, one
    column per label number.
    """
    counts = rows.groupby(["dataset", by])["prediction"].value_counts(normalize=True)
    return counts.unstack(fill_value=0.0)


def most_frequent(rows: pd.DataFrame) -> tuple[int, Estimate]:
    """The label predicted most often, and its share of the items (the mean over checkpoints and
    draws of `rows`).
    """
    label = int(rows["prediction"].mode().iloc[0])
    said = (rows["prediction"] == label).groupby(rows["item"]).mean().sum()
    return label, share(int(np.round(said)), rows["item"].nunique())


def is_most_frequent(rows: pd.DataFrame) -> pd.Series:
    """Of every row 1.0 where it predicts what its model predicts most often on its dataset, else
    0.0. A model is a checkpoint of a run, and of its draws each by itself: a constant answer
    that changes from one to the next is constant all the same.
    """
    one = rows.groupby(["dataset", "recipe", "run", "step", "seed", "draw"])["prediction"]
    return (rows["prediction"] == one.transform(lambda said: said.mode().iloc[0])).astype(float)


def balanced_accuracy(rows: pd.DataFrame) -> Estimate:
    """Mean over gold labels of the share that was answered right, minus chance."""
    parts = [over_items(part) for _, part in rows.groupby("gold")]
    components = [(part.variance / len(parts) ** 2, part.freedom) for part in parts]
    return estimate(
        float(np.mean([part.value for part in parts])) - 1 / len(parts),
        components,
        sum(part.n for part in parts),
    )


def bracket(line: pd.DataFrame) -> tuple[int, int] | None:
    """The neighbouring checkpoints (steps) between which a curve first passes the middle of its
    early and last scores.

    None where it does not rise. `line` is the part of `curve` of one dataset.
    """
    line = line[line["step"] > 0].sort_values("step")
    first, last = line["score"].iloc[0], line["score"].iloc[-1]
    if last <= first:
        return None
    passed = int((line["score"] >= (first + last) / 2).to_numpy().argmax())
    return int(line["step"].iloc[passed - 1]), int(line["step"].iloc[passed])
