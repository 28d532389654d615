"""Scored rows as tables of items by seeds, ready to be asked for the mean of a term."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# in place of a seed: rows without examples of a model that was not tuned, which nothing random
# enters
EVERY = -1


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
    shots: int | None = None  # examples asked for; None for as many as claims ask with
    column: str = "score"


@dataclass(frozen=True)
class Table:
    """Scores of one dataset and model at a checkpoint: `values` (items, units), by the row numbers
    of `items` and by `units`, seeds or (of base) draws of examples, both rising.
    """

    items: np.ndarray
    units: np.ndarray
    values: np.ndarray

    def at(self, items: np.ndarray, units: list[int]) -> np.ndarray:
        """Units by items, of those asked for; what no unit enters stands beside every one."""
        rows = np.searchsorted(self.items, items)
        columns = [0] * len(units) if EVERY in self.units else np.searchsorted(self.units, units)
        return self.values[np.ix_(rows, columns)].T


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
        self.rows = rows.assign(unit=rows["run"] if self.several else units_of(rows))
        self.steps = tuple(sorted(rows["step"].unique()))
        self.late = tuple(sorted(rows.loc[rows["late"], "step"].unique()))
        self.early = min((step for step in self.steps if step > 0), default=None)
        self._places = self.rows.groupby(["dataset", "recipe", "format", "step"]).indices
        self._known: dict[tuple, Table] = {}

    def table(self, term: Term, step: int) -> Table:
        """What was measured for a term at a checkpoint. Raises LookupError where nothing was."""
        key = (term.dataset, term.recipe, term.format, step, term.shots, term.column)
        if key not in self._known:
            places = self._places.get(key[:4], np.array([], dtype=int))
            if term.shots is not None:
                places = places[self._column("shots_asked")[places] == term.shots]
            elif "as_asked" in self.rows:
                places = places[self._column("as_asked")[places]]
            if not len(places):
                raise LookupError(
                    f"no rows of {term.dataset} after {term.recipe} at step {step} ({term.format})"
                )
            self._known[key] = self._pivoted(places, term.column)
        return self._known[key]

    def _pivoted(self, places: np.ndarray, column: str) -> Table:
        """Those rows by item and unit, the mean of a run's; items that a unit lacks are left out.
        Raises ValueError where rows of one item and unit differ in more than a run's seed.
        """
        items, row = np.unique(self._column("item")[places], return_inverse=True)
        units, unit = np.unique(self._column("unit")[places], return_inverse=True)
        values = np.zeros((2, len(items), len(units)))
        np.add.at(values[0], (row, unit), self._column(column)[places])
        np.add.at(values[1], (row, unit), 1)
        if values[1].max() > 1 and not self.several:
            raise ValueError("several rows of one item and seed: say of which number of examples")
        with np.errstate(invalid="ignore"):
            means = values[0] / values[1]
        whole = ~np.isnan(means).any(1)
        return Table(items[whole], units, means[whole])

    def _column(self, name: str) -> np.ndarray:
        return self.rows[name].to_numpy()


def units_of(rows: pd.DataFrame) -> np.ndarray:
    """What makes a row one of several of its kind: the seed of a tuned model, of base the draw
    of its examples.
    """
    draws = rows["draw"]
    if "shots_asked" in rows:
        draws = np.where(rows["shots_asked"] == 0, EVERY, draws)
    return np.where(rows["recipe"] == "base", draws, rows["seed"])
