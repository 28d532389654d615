"""Intervals, noise floor, sorting and verdicts, from scored rows (`records.scored`).

- Every effect is a weighted sum of mean scores (`Term`): late minus early, tuned minus base, one format minus another.
  Items are the same for all models, and a tuned model takes the shot draw of its seed, so sums are paired by both.
- *Late* is the mean over the last neighbouring checkpoints. Their spread is the noise floor: what a score moves by
  from one checkpoint to the next for no reason of interest. A mean over some checkpoints carries it divided by their number.
- Items, seeds and neighbouring checkpoints each add a component of variance with its own degrees of freedom; they are
  joined by Welch and Satterthwaite's rule and the interval is Student's. With one seed nothing is known about seeds.
- Items that all agree are no certainty: two more are supposed that do not (`_item_variance`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import pandas as pd
from scipy import stats

MARGIN = 0.05  # the smallest change that counts, in units of the score
LEVEL = 0.95
KNOWN = 10**6  # degrees of freedom of a variance that is as good as known


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, the number of items it rests on and of seeds."""

    value: float
    low: float
    high: float
    variance: float
    freedom: float
    n: int
    seeds: int = 1

    def plus(self, known: float) -> Estimate:
        """The estimate of the sum with a number that has no doubt of its own."""
        return replace(self, value=self.value + known, low=self.low + known, high=self.high + known)

    def __str__(self) -> str:
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.value:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f}, n = {self.n}{seeds})"


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


@dataclass(frozen=True)
class Term:
    """`weight` times the mean score of a dataset after a recipe, over the checkpoints `steps` (none given: the late ones)."""

    weight: float
    dataset: str
    recipe: str = "base"
    steps: tuple[int, ...] = ()
    format: str = "default"
    shots: int | None = None  # as asked for; None where the rows have one number only
    column: str = "score"


class Scores:
    """Scored rows, ready to be asked for the mean of a term. `late` and `steps` are checkpoints, in order.

    Rows may be of items, or summaries: one row in place of items, with its `standard_error` and the number of items `n`.
    An effect that rests on rows that are lacking is NaN. Where there are several pre-training runs, they
    are what is replicated: each is the mean over its seeds, and whatever is said of seeds below is of runs.
    """

    def __init__(self, rows: pd.DataFrame):
        self.is_summary = "standard_error" in rows
        self.several = "run" in rows and rows["run"].nunique() > 1
        unit = rows["run"] if self.several else np.where(rows["recipe"] == "base", rows["draw"], rows["seed"])
        self.rows = rows.assign(unit=unit)
        self.steps = tuple(sorted(rows["step"].unique()))
        self.late = tuple(sorted(rows.loc[rows["late"], "step"].unique()))
        self.early = min((step for step in self.steps if step > 0), default=None)
        self._places = self.rows.groupby(["dataset", "recipe", "format", "step"]).indices
        self._known: dict[tuple, pd.DataFrame] = {}

    def table(self, term: Term, step: int) -> pd.DataFrame:
        """One line per item and one column per seed (of base: per shot draw). Raises LookupError where nothing was measured."""
        key = (term.dataset, term.recipe, term.format, step, term.shots, term.column)
        if key not in self._known:
            part = self.rows.iloc[self._places.get(key[:4], [])]
            part = part if term.shots is None else part[part["shots_asked"] == term.shots]
            if part.empty:
                raise LookupError(f"no rows of {term.dataset} after {term.recipe} at step {step} ({term.format})")
            values = part.set_index(["item", "unit"])[term.column]
            values = values.groupby(level=["item", "unit"]).mean() if self.several else values
            self._known[key] = values.unstack("unit").dropna()
        return self._known[key]

    @cached_property
    def pooled_noise(self) -> tuple[float, int]:
        """Variance of a score from one of two late checkpoints to the other, beyond what items bring into it, and the number
        of pairs of scores it is the mean of. Pairs are of one dataset, recipe, format, number of shots and draw."""
        rows = self.rows[self.rows["late"] & (self.rows.get("flag", "") != "hidden label")]
        cells = rows.groupby(["dataset", "recipe", "format", "shots_asked", "unit", "step"])
        means = cells["score"].mean().unstack("step").dropna()
        errors = cells["standard_error"].mean() if self.is_summary else cells["score"].sem()
        beyond = means.var(axis=1, ddof=1) - (errors**2).unstack("step").loc[means.index].mean(axis=1)
        return max(float(beyond.mean()), 0.0), len(means)


def effect(scores: Scores, terms: Sequence[Term], noise: bool = True) -> Estimate:
    """The sum of `terms` with its interval over items, seeds and, unless `noise` is False, neighbouring checkpoints.

    Terms of one dataset are paired by item and seed. Items carry the doubt of single answers; what is left of it in the
    spread of seeds and of checkpoints is taken out of those (`_beyond_items`). Without late checkpoints there is no noise
    to be had. An effect that rests on rows that are lacking is NaN.
    """
    try:
        return _effect(scores, terms, noise)
    except LookupError:
        return UNKNOWN


def _effect(scores: Scores, terms: Sequence[Term], noise: bool) -> Estimate:
    pieces = _by_dataset(terms)
    arrays = [_summed(scores, some) for some in pieces]
    if scores.is_summary:
        components = [(_known_variance(scores, terms), KNOWN), *(_noise(scores, terms) if noise and scores.late else ())]
        return estimate(sum(float(array.sum()) for array in arrays), components, _known_items(scores, pieces))
    components = [_item_variance(array.mean(0), max(abs(term.weight) for term in some))
                  for array, some in zip(arrays, pieces, strict=True)]
    seeds = max(len(array) for array in arrays)
    if seeds > 1:
        components.append((_beyond_items(arrays) / seeds, seeds - 1))
    if noise and scores.late:
        components += _noise(scores, terms)
    return estimate(sum(float(array.mean()) for array in arrays), components, sum(array.shape[1] for array in arrays), seeds)


def _by_dataset(terms: Sequence[Term]) -> list[list[Term]]:
    pieces = defaultdict(list)
    for term in terms:
        pieces[term.dataset].append(term)
    return list(pieces.values())


def _summed(scores: Scores, terms: Sequence[Term]) -> np.ndarray:
    """The weighted sum of terms of one dataset per seed and item (seeds, items), over the items that all of them have."""
    tables = [[scores.table(term, step) for step in term.steps or scores.late] for term in terms]
    if not all(tables):
        raise LookupError("no late checkpoint was measured")
    items = reduce(_shared, (table.index for some in tables for table in some))
    if not len(items):
        raise LookupError(f"{terms[0].dataset}: no item was scored for every part of the effect")
    seeds = max(table.shape[1] for some in tables for table in some)
    return sum(np.broadcast_to(_values(table, items), (seeds, len(items))) * (term.weight / len(some))
               for term, some in zip(terms, tables, strict=True) for table in some)


def _shared(one: pd.Index, other: pd.Index) -> pd.Index:
    return one if one.equals(other) else one.intersection(other)


def _values(table: pd.DataFrame, items: pd.Index) -> np.ndarray:
    """Seeds by items."""
    return (table if table.index.equals(items) else table.loc[items]).to_numpy().T


def _known_variance(scores: Scores, terms: Sequence[Term]) -> float:
    """Of summaries: the variance of a weighted sum of means that are not paired, from their standard errors."""
    weights = defaultdict(float)
    for term in (one for one in terms if one.column == "score"):
        steps = term.steps or scores.late
        for step in steps:
            weights[replace(term, weight=1, steps=(step,), column="standard_error")] += term.weight / len(steps)
    return sum((weight * _only(scores, cell)) ** 2 for cell, weight in weights.items())


def _known_items(scores: Scores, pieces: Sequence[Sequence[Term]]) -> int:
    return int(sum(_only(scores, replace(some[0], column="n")) for some in pieces))


def _only(scores: Scores, term: Term) -> float:
    """Of summaries: the one value of a term at its first checkpoint."""
    return scores.table(term, (term.steps or scores.late)[0]).to_numpy().item()


def _noise(scores: Scores, terms: Sequence[Term]) -> list[tuple[float, int]]:
    """For every group of terms over the same checkpoints: the variance of their sum from one late checkpoint to the next,
    divided by the number of checkpoints. Of a mere pair of late checkpoints, that of a single score, pooled over all of them."""
    groups, found = defaultdict(list), []
    for term in terms:
        groups[term.steps or scores.late].append(term)
    if len(scores.late) == 2:
        variance, pairs = scores.pooled_noise
        varying = [term for term in terms if term.column == "score"]
        return [(variance * sum(term.weight**2 / len(term.steps or scores.late) for term in varying), pairs)]
    for steps, some in groups.items():
        arrays = [np.stack([_summed(scores, [replace(term, steps=(step,)) for term in piece]).mean(0) for step in scores.late])
                  for piece in _by_dataset(some)]
        known = len(scores.late) > 1
        found.append(_beyond_items(arrays) / len(steps) if known else np.nan)
    return [(sum(found), len(scores.late) - 1)]  # all are estimated from the same few checkpoints: no more freedom than one has


def _beyond_items(arrays: Sequence[np.ndarray]) -> float:
    """Variance between the rows (seeds, or checkpoints) of the sum of arrays (rows, items), beyond what items bring into it.

    Of a two-way table, the mean square of the residuals over the number of items is what rows would differ by if only
    single answers varied. Half of it is taken out: all of it would be unbiased, but of three rows an estimate is often cut
    off at 0, and intervals then cover too rarely (`tests/test_coverage.py`). A row mean is the sum over arrays, which are
    of different datasets.
    """
    rows = max(len(array) for array in arrays)
    spread = float(np.var(sum(np.broadcast_to(array.mean(1), rows) for array in arrays), ddof=1))
    for array in arrays:
        if len(array) > 1:
            residual = array - array.mean(0) - array.mean(1, keepdims=True) + array.mean()
            spread -= 0.5 * float((residual**2).sum()) / ((array.shape[0] - 1) * (array.shape[1] - 1)) / array.shape[1]
    return max(spread, 0.0)


def estimate(value: float, components: Sequence[tuple[float, float]], n: int, seeds: int = 1) -> Estimate:
    """`value` with the interval of independent variance `components`, pairs of variance and degrees of freedom.

    Satterthwaite 1946: freedom = (sum v)^2 / sum(v^2 / freedom). Where a component cannot be known (freedom 0) the
    interval is NaN.
    """
    total = sum(variance for variance, _ in components)
    if any(freedom < 1 for _, freedom in components):
        return Estimate(value, np.nan, np.nan, np.nan, 0, n, seeds)
    if total == 0:
        return Estimate(value, value, value, 0.0, np.inf, n, seeds)
    freedom = total**2 / sum(variance**2 / free for variance, free in components)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total)
    return Estimate(value, value - reach, value + reach, total, freedom, n, seeds)


def _item_variance(values: np.ndarray, unit: float = 1.0) -> tuple[float, int]:
    """Variance of a mean over items, and its degrees of freedom.

    Two more items one `unit` away from the mean are supposed, in the manner of Agresti and Coull. Without them, items that
    all agree would leave no doubt at all; with them the interval reaches as far as the rule of three, 3/n.
    """
    n = len(values)
    return float(((values - values.mean()) ** 2).sum() + 2 * unit**2) / n**2, n - 1


def over_items(rows: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of `column` over items, each averaged over draws, seeds and checkpoints first: the doubt of items alone.

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
    return Estimate(value, low, high, (max(value - low, high - value) / reach) ** 2, max(n - 1, 1), n)


def bootstrap(values: Sequence[float], resamples: int = 3000, seed: int = 0) -> Estimate:
    """The midpoint of the 95 % percentile interval of the mean over resampled items, as the reference study reports
    scores (Sun & Dredze, code at 8b79c39; its generator had no seed). `variance` is that of the resampled means."""
    values, draw = np.asarray(values, dtype=float), np.random.default_rng(seed)
    means = values[draw.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate((low + high) / 2, low, high, float(means.var()), len(values) - 1, len(values))


def curve(rows: pd.DataFrame, reporting: str = "mean") -> pd.DataFrame:
    """Per dataset and checkpoint: score with interval over items (or the published `bootstrap`), baseline, tokens."""
    lines = []
    for (dataset, step), part in rows.groupby(["dataset", "step"], sort=True):
        found = over_items(part) if reporting == "mean" else bootstrap(part.groupby("item")["score"].mean())
        lines.append({"dataset": dataset, "step": step, "tokens": part["tokens"].iloc[0], "score": found.value,
                      "low": found.low, "high": found.high, "n": found.n, "baseline": part["baseline"].mean()})
    return pd.DataFrame(lines, columns=["dataset", "step", "tokens", "score", "low", "high", "n", "baseline"])


def noise_floors(rows: pd.DataFrame) -> pd.Series:
    """Per dataset the standard deviation of its score over the late checkpoints.

    Of fewer than three checkpoints nothing is known of one dataset: then it is pooled, the root of the mean variance of all.
    """
    means = rows[rows["late"]].groupby(["dataset", "step"])["score"].mean().unstack("step")
    spread = means.std(axis=1, ddof=1)
    floors = spread if means.shape[1] > 2 else pd.Series(np.sqrt((spread**2).mean()), index=spread.index)
    return floors.reindex(rows["dataset"].unique())


def rank_correlation(line: pd.DataFrame) -> Estimate:
    """Spearman's correlation of a score with the tokens read, over the checkpoints of `line` (the part of `curve` of one
    dataset). The interval is Fisher's, with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000); of fewer than
    five checkpoints, or a score that never moves, there is none."""
    n = len(line)
    r = float(stats.spearmanr(line["tokens"], line["score"]).statistic) if line["score"].nunique() > 1 else np.nan
    if n < 5 or np.isnan(r):
        return Estimate(r, np.nan, np.nan, np.nan, 0, n)
    z = np.arctanh(np.clip(r, -0.999, 0.999))
    reach = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + r**2 / 2) / (n - 3))
    return Estimate(r, float(np.tanh(z - reach)), float(np.tanh(z + reach)), np.nan, n - 3, n)


def slope(dataset: str, recipe: str, tokens: dict[int, int], weight: float = 1.0) -> list[Term]:
    """The least-squares slope of a score over the checkpoints of `tokens` (step to tokens), per doubling of tokens."""
    doublings = np.log2(list(tokens.values()))
    away = doublings - doublings.mean()
    return [Term(weight * part, dataset, recipe, (step,)) for step, part in zip(tokens, away / (away**2).sum(), strict=True)]


def predicted_shares(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Share of every predicted label: one line per dataset and value of the column `by`, one column per label number."""
    counts = rows.groupby(["dataset", by])["prediction"].value_counts(normalize=True)
    return counts.unstack(fill_value=0.0)


def most_frequent(rows: pd.DataFrame) -> tuple[int, Estimate]:
    """The label predicted most often, and its share of the items (the mean over checkpoints and draws of `rows`)."""
    label = int(rows["prediction"].mode().iloc[0])
    said = (rows["prediction"] == label).groupby(rows["item"]).mean().sum()
    return label, share(int(np.round(said)), rows["item"].nunique())


def balanced_accuracy(rows: pd.DataFrame) -> Estimate:
    """Mean over gold labels of the share that was answered right, minus chance."""
    parts = [over_items(part) for _, part in rows.groupby("gold")]
    components = [(part.variance / len(parts) ** 2, part.freedom) for part in parts]
    return estimate(float(np.mean([part.value for part in parts])) - 1 / len(parts), components, sum(part.n for part in parts))


def bracket(line: pd.DataFrame) -> tuple[int, int] | None:
    """The neighbouring checkpoints (steps) between which a curve first passes the middle of its early and last scores.

    None where it does not rise. `line` is the part of `curve` of one dataset.
    """
    line = line[line["step"] > 0].sort_values("step")
    first, last = line["score"].iloc[0], line["score"].iloc[-1]
    if last <= first:
        return None
    passed = int((line["score"] >= (first + last) / 2).to_numpy().argmax())
    return int(line["step"].iloc[passed - 1]), int(line["step"].iloc[passed])
