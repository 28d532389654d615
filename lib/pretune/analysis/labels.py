"""Labels that are predicted: their shares, the most frequent one, balanced accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pretune.analysis.statistics import Estimate, estimate, over_items, share


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
    beyond_chance = float(np.mean([part.value for part in parts])) - 1 / len(parts)
    return estimate(beyond_chance, components, sum(part.n for part in parts))
