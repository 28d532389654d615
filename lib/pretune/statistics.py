"""Intervals, noise floor, sorting and verdicts, from scored rows (`records.scored`).

- Items are the same for all checkpoints, so a change is a mean of paired differences.
- *Late* is the mean over the last neighbouring checkpoints. Their spread is the noise floor: what a score moves by
  from one checkpoint to the next for no reason of interest. A change between an early checkpoint and late carries it once for
  the early one and once, divided by their number, for late.
- Items that all agree are no certainty: two more are supposed that do not (`_item_variance`).
- Components of variance have their own degrees of freedom; they are joined by Welch and Satterthwaite's rule and the
  interval is Student's. With one seed nothing is known about seeds, and every verdict is provisional.
- Verdicts follow `claims`: beyond the margin, on the other side of it, or undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

MARGIN = 0.05  # the smallest change that counts, in units of the score
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and the number of items it rests on."""

    value: float
    low: float
    high: float
    variance: float
    freedom: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f}, n = {self.n})"


@dataclass(frozen=True)
class Verdict:
    """A claim judged by its rule. `effect` is None where the condition for asking is not met, and `why` says which."""

    claim: str
    verdict: str  # supported, not supported or undecided
    provisional: bool
    effect: Estimate | None
    why: str


def estimate(value: float, components: Sequence[tuple[float, float]], n: int) -> Estimate:
    """`value` with the interval of independent variance `components`, pairs of variance and degrees of freedom.

    Satterthwaite 1946: freedom = (sum v)^2 / sum(v^2 / freedom). Where a component cannot be known (freedom 0) the
    interval is NaN.
    """
    total = sum(variance for variance, _ in components)
    if any(freedom < 1 for _, freedom in components):
        return Estimate(value, np.nan, np.nan, np.nan, 0, n)
    if total == 0:
        return Estimate(value, value, value, 0.0, np.inf, n)
    freedom = total**2 / sum(variance**2 / free for variance, free in components)
    reach = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(total)
    return Estimate(value, value - reach, value + reach, total, freedom, n)


def combine(parts: Sequence[Estimate], weights: Sequence[float]) -> Estimate:
    """The weighted sum of independent estimates."""
    value = float(np.dot([part.value for part in parts], weights))
    components = [(part.variance * weight**2, part.freedom) for part, weight in zip(parts, weights, strict=True)]
    return estimate(value, components, sum(part.n for part in parts))


def share(successes: int, n: int) -> Estimate:
    """A share with Wilson's interval, which stays sensible near 0 and 1."""
    low, high = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    value = successes / n
    return Estimate(value, low, high, value * (1 - value) / n, n - 1, n)


def over_items(rows: pd.DataFrame, column: str = "score") -> Estimate:
    """Mean of `column` over items, each averaged over draws and checkpoints first."""
    values = rows.groupby("item")[column].mean()
    return estimate(values.mean(), [_item_variance(values)], len(values))


def bootstrap(values: Sequence[float], resamples: int = 3000, seed: int = 0) -> Estimate:
    """The midpoint of the 95 % percentile interval of the mean over resampled items, as the reference study reports
    scores (Sun & Dredze, code at 8b79c39; its generator had no seed). `variance` is that of the resampled means."""
    values, draw = np.asarray(values, dtype=float), np.random.default_rng(seed)
    means = values[draw.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate((low + high) / 2, low, high, float(means.var()), len(values) - 1, len(values))


def early_step(rows: pd.DataFrame) -> int:
    """The first checkpoint after step 0."""
    return int(rows.loc[rows["step"] > 0, "step"].min())


def curve(rows: pd.DataFrame, reporting: str = "mean") -> pd.DataFrame:
    """Per dataset and checkpoint: score with interval over items (or the published `bootstrap`), baseline, tokens."""
    lines = []
    for (dataset, step), part in rows.groupby(["dataset", "step"], sort=True):
        found = over_items(part) if reporting == "mean" else bootstrap(part.groupby("item")["score"].mean())
        lines.append({"dataset": dataset, "step": step, "tokens": part["tokens"].iloc[0], "score": found.value,
                      "low": found.low, "high": found.high, "n": found.n, "baseline": part["baseline"].mean()})
    return pd.DataFrame(lines)


def noise_floor(rows: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation of the score of one dataset over the late checkpoints, and their number."""
    scores = rows[rows["late"]].groupby("step")["score"].mean()
    return float(scores.std(ddof=1)) if len(scores) > 1 else np.nan, len(scores)


def gain(rows: pd.DataFrame) -> Estimate:
    """s(late) - s(early) of one dataset, over paired items and neighbouring checkpoints."""
    late = rows[rows["late"]].groupby("item")["score"].mean()
    early = rows[rows["step"] == early_step(rows)].groupby("item")["score"].mean()
    return _paired(rows, late - early.reindex(late.index), early_too=True)


def lift(rows: pd.DataFrame) -> Estimate:
    """s(late) - b of one dataset: what the model has beyond the best answer without a skill."""
    late = rows[rows["late"]].groupby("item")[["score", "baseline"]].mean()
    return _paired(rows, late["score"] - late["baseline"], early_too=False)


def _paired(rows: pd.DataFrame, change: pd.Series, early_too: bool) -> Estimate:
    if change.isna().any():
        raise ValueError(f"items {list(change[change.isna()].index[:5])} were not scored at every checkpoint")
    floor, points = noise_floor(rows)
    checkpoints = floor**2 * (1 / points + early_too)
    return estimate(change.mean(), [_item_variance(change), (checkpoints, points - 1)], len(change))


def _item_variance(values: pd.Series) -> tuple[float, int]:
    """Variance of a mean over items, and its degrees of freedom.

    Two more items one unit away from the mean are supposed, in the manner of Agresti and Coull. Without them, items that
    all agree would leave no doubt at all; with them the interval reaches as far as the rule of three, 3/n.
    """
    n = len(values)
    return float(((values - values.mean()) ** 2).sum() + 2) / n**2, n - 1


def half(rows: pd.DataFrame, which: str) -> pd.DataFrame:
    """Half A or half B of the items: datasets are sorted on one and compared on the other. Cut by rank of the item."""
    rank = rows.groupby("dataset")["item"].rank(method="dense").astype(int)
    return rows[(rank % 2 == 0) == (which == "A")]


def sort_datasets(rows: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """One line per dataset: gain, lift and group, by the rule of claim 1a, on the rows given.

    learned: the interval of the gain lies above the margin and that of the lift above 0. not learned: the interval
    of the lift lies below the margin, or that of the gain within both margins. Otherwise undecided.
    """
    lines = []
    for dataset, part in rows.groupby("dataset"):
        grown, above = gain(part), lift(part)
        group = "undecided"
        if grown.low > margin and above.low > 0:
            group = "learned"
        elif above.high < margin or (-margin < grown.low and grown.high < margin):
            group = "not learned"
        lines.append({"dataset": dataset, "group": group, "gain": grown, "lift": above})
    return pd.DataFrame(lines).set_index("dataset")


def group_difference(rows: pd.DataFrame, groups: pd.Series) -> Estimate | None:
    """Mean gain of the learned minus mean gain of the not learned sets; None unless both groups have two sets."""
    sets = {name: list(groups.index[groups == name]) for name in ("learned", "not learned")}
    if min(len(some) for some in sets.values()) < 2:
        return None
    gains = {dataset: gain(part) for dataset, part in rows.groupby("dataset")}
    parts = [gains[one] for one in sets["learned"]] + [gains[one] for one in sets["not learned"]]
    weights = [1 / len(sets["learned"])] * len(sets["learned"])
    weights += [-1 / len(sets["not learned"])] * len(sets["not learned"])
    return combine(parts, weights)


def predicted_shares(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of every predicted label: one line per dataset and step, one column per label number."""
    counts = rows.groupby(["dataset", "step"])["prediction"].value_counts(normalize=True)
    return counts.unstack(fill_value=0.0)


def balanced_accuracy(rows: pd.DataFrame) -> Estimate:
    """Mean over gold labels of the share that was answered right, minus chance."""
    parts = [over_items(part) for _, part in rows.groupby("gold")]
    found = combine(parts, [1 / len(parts)] * len(parts))
    return estimate(found.value - 1 / len(parts), [(found.variance, found.freedom)], found.n)


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


def judge(claim: str, effect: Estimate | None, provisional: bool, why: str, margin: float = MARGIN) -> Verdict:
    """The verdict on a claimed increase: `effect` against `margin`."""
    if effect is None or np.isnan(effect.low):
        return Verdict(claim, "undecided", provisional, effect, why)
    said = "supported" if effect.low > margin else "not supported" if effect.high < margin else "undecided"
    return Verdict(claim, said, provisional, effect, why)
