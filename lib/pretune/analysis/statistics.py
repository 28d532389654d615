"""Estimates and their intervals.

- Components of variance (items, seeds, neighbouring checkpoints), each with its own degrees of
  freedom, are joined by Welch and Satterthwaite's rule and the interval is Student's. With one
  seed nothing is known about seeds.
- A mere pair of late checkpoints has one degree of freedom, with which that rule covers too rarely
  (in one design of `tests/test_coverage.py` in 85 % of trials): its noise is kept apart, items
  included, and joined by adding squares of reaches.
- Items that all agree are no certainty: two more are supposed that do not (`item_variance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when they are first used

MARGIN = 0.05  # the smallest change that counts, in units of the score
LEVEL = 0.95
KNOWN = 10**6  # degrees of freedom of a variance that is as good as known


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
        wide, pair = scipy.special.stdtrit((self.freedom, 1.0), (1 + level) / 2)
        return float(np.sqrt(wide**2 * self.variance + pair**2 * self.pair))

    def beyond(self, distance: float) -> float:
        """The one-sided probability of an estimate `distance` or farther from a truth on either
        side.
        """
        least = 1e-12
        if distance <= 0 or distance >= self.reach(1 - 2 * least):
            return 0.5 if distance <= 0 else least
        return scipy.optimize.brentq(lambda tail: self.reach(1 - 2 * tail) - distance, least, 0.5)

    def __str__(self) -> str:
        seeds = f", {self.seeds} seeds" if self.seeds > 1 else ""
        return (
            f"{self.value:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f}, n = "
            f"{self.n}{seeds})"
        )


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan, 0, 0)


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
    freedom = np.inf
    if total:
        freedom = total**2 / sum(variance**2 / free for variance, free in components)
    found = Estimate(value, value, value, total, freedom, n, seeds, pair)
    reach = found.reach()
    return replace(found, low=value - reach, high=value + reach)


def item_variance(values: np.ndarray, unit: float = 1.0) -> tuple[float, int]:
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
    return estimate(values.mean(), [item_variance(values.to_numpy())], len(values))


def share(successes: int, n: int) -> Estimate:
    """A share with Wilson's interval, which stays sensible near 0 and 1."""
    low, high = scipy.stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    value, freedom = successes / n, max(n - 1, 1)
    deviation = max(value - low, high - value) / scipy.special.stdtrit(freedom, (1 + LEVEL) / 2)
    return Estimate(value, low, high, deviation**2, freedom, n)


def bootstrap(values: Sequence[float], resamples: int = 3000, seed: int = 0) -> Estimate:
    """The midpoint of the 95 % percentile interval of the mean over resampled items, as the
    reference study reports scores (Sun & Dredze, code at 8b79c39; its generator had no seed).
    `variance` is that of the resampled means.
    """
    values, draw = np.asarray(values, dtype=float), np.random.default_rng(seed)
    means = values[draw.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate((low + high) / 2, low, high, float(means.var()), len(values) - 1, len(values))


def jackknife(effect: Callable[[list], float], strata: Mapping, n: int) -> Estimate:
    """`effect` of the keys of `strata`, which says of each unit to which stratum it belongs, with
    the interval of leaving one unit out at a time; NaN where a stratum has one unit, and where all
    that is left out leaves the same, which says nothing of what others would.

    Variance: the sum over strata of (m - 1) / m times the squares around their mean, each stratum
    with m - 1 degrees of freedom (Shao & Tu, The Jackknife and Bootstrap, 1995, section 6.2).
    """
    units, components = list(strata), []
    for stratum in dict.fromkeys(strata.values()):
        some = [unit for unit in units if strata[unit] == stratum]
        if len(some) < 2:
            components.append((np.nan, 0))
            continue
        left = [effect([unit for unit in units if unit != out]) for out in some]
        components.append((float(np.var(left)) * (len(some) - 1), len(some) - 1))
    if not any(variance for variance, _ in components):
        components.append((np.nan, 0))
    return estimate(effect(units), components, n)
