"""What scores of several models along pre-training have to do with each other.

Tables have a line for every checkpoint of a model, a column of mean scores for every dataset, and
`loss`, nats per character of held-out text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

LOSSES = 25  # at which sizes are compared


def sets(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name != "loss"]


def residuals(lines: pd.DataFrame) -> pd.DataFrame:
    """Increments of scores from one checkpoint of a model to the next, without what a linear
    relation to the increment of the loss explains.
    """
    moved = lines.diff().iloc[1:]
    known = np.column_stack([np.ones(len(moved)), moved["loss"]])
    scores = moved[sets(moved)]
    explained = known @ np.linalg.lstsq(known, scores.to_numpy(), rcond=None)[0]
    return scores - explained


def correlations(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The mean over models of the correlation of every two sets; NaN for a set that never moves."""
    stacked = pd.concat({number: part.corr() for number, part in enumerate(parts)})
    names = list(stacked.columns)
    return stacked.groupby(level=1).mean().loc[names, names]


def within_across(matrix: pd.DataFrame, domains: Sequence[str]) -> float:
    """Mean correlation of two sets of one domain minus that of two sets of two; NaN where there are
    not both.
    """
    upper = np.triu_indices(len(matrix), 1)
    values, same = matrix.to_numpy()[upper], np.equal.outer(domains, domains)[upper]
    if same.all() or not same.any():
        return np.nan
    return float(pd.Series(values[same]).mean() - pd.Series(values[~same]).mean())


def at_losses(lines: Iterable[pd.DataFrame], losses: np.ndarray) -> pd.DataFrame:
    """The mean scores of some runs at given held-out losses: interpolated along each run, in which
    a checkpoint counts where it has the lowest loss so far.
    """
    found = []
    for one in lines:
        best = one[one["loss"].cummin() == one["loss"]].iloc[::-1]
        scores = {name: np.interp(losses, best["loss"], best[name]) for name in sets(one)}
        found.append(pd.DataFrame(scores))
    return sum(found) / len(found)


def shared_losses(some: Iterable[pd.DataFrame]) -> np.ndarray:
    """Losses that all of these models had on their way down, evenly; none where two share none."""
    ranges = [(one["loss"].min(), one["loss"].iloc[0]) for one in some]
    low, high = max(one for one, _ in ranges), min(one for _, one in ranges)
    return np.linspace(low, high, LOSSES) if low < high else np.array([])


def accuracy(said: pd.Series, came: pd.Series) -> float:
    """Decision accuracy: the share of pairs in the same order, where a tie counts half; NaN where
    nothing was said.
    """
    said, came = said.align(came, join="inner")
    known = said.notna() & came.notna()
    said, came = said[known], came[known]
    one, two = np.triu_indices(len(said), 1)
    if not len(one):
        return np.nan
    signs = [np.sign(values.to_numpy()[one] - values.to_numpy()[two]) for values in (said, came)]
    return float(0.5 + 0.5 * np.mean(signs[0] * signs[1]))
