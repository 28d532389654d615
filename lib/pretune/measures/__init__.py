"""What can be measured of a model: one module a measure, found by its name.

Every dataset has a measure of its own (`Dataset.measure`), which gives its score; a finding may
need others beside it. A measure has a table of its own in a record, so that a new one leaves all
records valid.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import numpy as np
import pandas as pd

from pretune.measures.base import Measure
from pretune.tasks.registry import REGISTRY


@cache
def names() -> tuple[str, ...]:
    """The measures there are."""
    return tuple(one.name for one in pkgutil.iter_modules(__path__) if one.name != "base")


@cache
def find(name: str) -> Measure:
    """A measure. Raises KeyError, with the names there are, for any other."""
    if name not in names():
        raise KeyError(f"{name!r} is no measure; allowed: {', '.join(names())}")
    return importlib.import_module(f"pretune.measures.{name}").MEASURE


def own(dataset: str) -> Measure:
    """The measure that gives a dataset its score."""
    return find(REGISTRY[dataset].measure)


def scored(rows: pd.DataFrame, normalisation: str = "dataset") -> pd.DataFrame:
    """`rows` of the datasets' own measures with `prediction` (index of the answer; -1 where none
    is chosen), `score`, and `baseline`, the score without a skill.

    `normalisation` is what log-likelihoods of given answers are divided by: see `choices`.
    """
    made = pd.DataFrame(index=rows.index, columns=["prediction", "score", "baseline"], dtype=float)
    measured = rows["dataset"].map(lambda name: REGISTRY[name].measure)
    for name, places in rows.groupby(measured.to_numpy()).indices.items():
        made.iloc[places] = find(name).score(rows.iloc[places], normalisation).to_numpy()
    return rows.assign(**made.astype({"prediction": np.int64}))
