"""Scores along pre-training: curves, what they move by for no reason, where they rise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when they are first used

from pretune.analysis.statistics import LEVEL, Estimate, bootstrap, over_items


def curve(rows: pd.DataFrame, reporting: str = "mean") -> pd.DataFrame:
    """Per dataset and checkpoint: score with interval over items (or the published `bootstrap`),
    baseline, tokens.
    """
    lines = []
    for (dataset, step), part in rows.groupby(["dataset", "step"], sort=True):
        if reporting == "mean":
            found = over_items(part)
        else:
            found = bootstrap(part.groupby("item")["score"].mean())
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
    if means.shape[1] <= 2:
        spread = pd.Series(np.sqrt((spread**2).mean()), index=spread.index)
    return spread.reindex(rows["dataset"].unique())


def rank_correlation(line: pd.DataFrame) -> Estimate:
    """Spearman's correlation of a score with the tokens read, over the checkpoints of `line`
    (the part of `curve` of one dataset). The interval is Fisher's, with the variance (1 + r^2 /
    2) / (n - 3) of Bonett and Wright (2000); of fewer than five checkpoints, or a score that
    never moves, there is none.
    """
    n, r = len(line), np.nan
    if line["score"].nunique() > 1:
        r = float(scipy.stats.spearmanr(line["tokens"], line["score"]).statistic)
    if n < 5 or np.isnan(r):
        return Estimate(r, np.nan, np.nan, np.nan, 0, n)
    z = np.arctanh(np.clip(r, -0.999, 0.999))
    reach = scipy.stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((1 + r**2 / 2) / (n - 3))
    return Estimate(r, float(np.tanh(z - reach)), float(np.tanh(z + reach)), np.nan, n - 3, n)


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
