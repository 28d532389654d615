"""Two methods of tuning, held against each other where both fit their training rows equally well:
along each method's rates, from the lowest to the one of lowest loss, in a straight line between
two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis.results import Results, of_grid
from pretune.analysis.statistics import KNOWN, Estimate, estimate, item_variance

MODEL = ["recipe", "step", "run", "seed"]
LAST = 0.25  # share of the steps of a tuning whose mean loss is its loss
RESAMPLES = 200
Unit = tuple[int, int]  # a run and a seed
Weights = dict[str, float]  # of variants, by their names


def losses(page: Results) -> pd.Series:
    """The losses of every tuned model in its last steps, nats a counted token, as an array."""
    return page.once("losses", partial(_losses, page))


def _losses(page: Results) -> pd.Series:
    found = {}
    for model in (cell.model for cell in page.plan.cells):
        if model.recipe != "base" and model.name not in page.missing:
            log = records.training_log(page.study, model)["loss"]
            key = (model.recipe, model.checkpoint.step, model.checkpoint.run, model.seed)
            found[key] = log.to_numpy()[-max(1, int(LAST * len(log))) :]
    return pd.Series(found, pd.MultiIndex.from_tuples(list(found), names=MODEL), dtype=object)


class Match(NamedTuple):
    """The tuning loss that two methods share, and with which weights their variants have it."""

    loss: float
    one: dict[str, float]
    other: dict[str, float]

    @property
    def apart(self) -> dict[str, float]:
        """Of every variant its weight in the first method minus the second."""
        return self.one | {name: -share for name, share in self.other.items()}


def matched(losses: pd.Series, one: Sequence[str], other: Sequence[str]) -> Match | None:
    """Where two methods fit equally well, each given as names of its variants by rising rate:
    `losses` by name. None where the range of one lies below that of the other, or a loss is
    lacking.
    """
    if losses.reindex([*one, *other]).isna().any():
        return None
    paths = [to_the_best(losses, some) for some in (one, other)]
    loss = max(path.iloc[-1] for path in paths)
    if any(path.iloc[0] < loss for path in paths):
        return None
    return Match(float(loss), *(between(path, loss) for path in paths))


def to_the_best(losses: pd.Series, names: Sequence[str]) -> pd.Series:
    """Losses of the variants from the lowest rate to the one that fits best, those that fit worse
    than one of a lower rate left out.
    """
    path = losses[list(names)]
    path = path.iloc[: int(path.argmin()) + 1]
    return path[path == path.cummin()]


def between(path: pd.Series, loss: float) -> dict[str, float]:
    """The point of a falling path at `loss`, or the two neighbours whose weighted mean it is."""
    after = int(np.argmax(path.to_numpy() <= loss))
    if path.iloc[after] == loss:
        return {path.index[after]: 1.0}
    high, low = path.iloc[after - 1], path.iloc[after]
    share = float((high - loss) / (high - low))
    return {path.index[after - 1]: 1 - share, path.index[after]: share}


def at_equal_loss(
    page: Results, rows: pd.DataFrame, column: str, some: Sequence[tuple[str, str]]
) -> Estimate | None:
    """All weights minus LoRA in `column` of `rows` of answers at the last checkpoint of the grid,
    at the tuning loss that both reach, the mean over `some` pairs of recipes; None where a pair
    reaches none in some run.

    Losses are matched within each run: what is in doubt about them is in the spread of runs. With
    one run, its last steps are resampled, alike for all variants, in the place of that.
    """

    def apart(unit: Unit) -> list[Weights] | None:
        fits = of_unit(page, unit).map(np.mean).astype(float)
        found = [matched(fits, rates(page, one), rates(page, other)) for one, other in some]
        return [one.apart for one in found] if all(found) else None

    def doubt(units: Sequence[Unit]) -> list[tuple[float, float]]:
        if len(units) > 1:
            return []
        return [(_of_losses(page, rows, column, some, units[0]), KNOWN)]

    return weighted(page, rows, column, apart, doubt)


def weighted(
    page: Results,
    rows: pd.DataFrame,
    column: str,
    weights: Callable[[Unit], Sequence[Weights] | None],
    doubt: Callable[[Sequence[Unit]], list[tuple[float, float]]],
) -> Estimate | None:
    """The mean over weighted sums of variants in `column` of `rows` at the last checkpoint of the
    grid, where a run's `weights` follow from the run itself; None where some run has none. `doubt`
    gives variances beside those of items and of runs, each with its degrees of freedom.
    """
    units = units_of(page, rows)
    given = {unit: weights(unit) for unit in units}
    if not given or any(some is None for some in given.values()):
        return None
    found = [_in_unit(page, rows, column, some, unit) for unit, some in given.items()]
    values = [sum(float(part.mean()) for part in one.values()) for one in found]
    components = _of_items([list(one.items()) for one in found], len(given[units[0]]))
    if len(units) > 1:
        components.append((float(np.var(values, ddof=1)) / len(units), len(units) - 1))
    components += doubt(units)
    n = sum(len(part) for part in found[0].values())
    return estimate(float(np.mean(values)), components, n, len(units))


def units_of(page: Results, rows: pd.DataFrame) -> list[Unit]:
    """The runs and seeds with which the grid is run."""
    rows = of_grid(page.study, rows)
    last = rows[rows["step"] == last_of_grid(page)]
    return sorted(set(last[["run", "seed"]].itertuples(index=False, name=None)))


def last_of_grid(page: Results) -> int:
    return max(page.study.grid.steps)


def of_unit(page: Results, unit: Unit) -> pd.Series:
    """The arrays of losses of one run and seed at the last checkpoint of the grid, by variant."""
    levels = ["step", "run", "seed"]
    there = losses(page)
    key = (last_of_grid(page), *unit)
    if key not in set(there.index.droplevel("recipe")):
        return pd.Series(dtype=object)
    return there.xs(key, level=levels)


def rates(page: Results, recipe: str) -> list[str]:
    """The variants of a recipe by rising rate."""
    return list(page.study.along(recipe, "learning_rate").values())


def _in_unit(
    page: Results, rows: pd.DataFrame, column: str, some: Sequence[Weights], unit: Unit
) -> dict[str, pd.Series]:
    """By dataset what items add to the mean over weighted sums."""
    total: dict[str, pd.Series] = {}
    for weights in some:
        for name, part in _items(page, rows, column, weights, unit).items():
            total[name] = total.get(name, 0.0) + part / len(some)
    return total


def _items(
    page: Results, rows: pd.DataFrame, column: str, weights: Weights, unit: Unit
) -> dict[str, pd.Series]:
    """The weighted sum over variants of each item of each dataset they answer."""
    here = rows[(rows["step"] == last_of_grid(page)) & rows["recipe"].isin(list(weights))]
    here = here[(here["run"] == unit[0]) & (here["seed"] == unit[1])]
    found = {}
    for name, part in here.groupby("dataset"):
        table = part.pivot_table(column, "item", "recipe").dropna()
        found[name] = table.mul(pd.Series(weights)).sum(axis=1) / here["dataset"].nunique()
    return found


def _of_items(units: list[list[tuple[str, pd.Series]]], pairs: int) -> list[tuple[float, int]]:
    """The variance that items bring in: of each dataset that of the mean over units."""
    by: dict[str, list[pd.Series]] = {}
    for name, part in chain.from_iterable(units):
        by.setdefault(name, []).append(part)
    means = [pd.concat(some, axis=1).mean(axis=1).to_numpy() for some in by.values()]
    return [item_variance(one, 1 / len(means) / pairs) for one in means]


def _of_losses(page: Results, rows: pd.DataFrame, column: str, some: Sequence, unit) -> float:
    """The variance that the doubt in mean losses brings in, by resampling their steps; NaN where
    resampled losses are often not matched.
    """
    arrays, draw, values = of_unit(page, unit), np.random.default_rng(0), []
    means = rows[(rows["step"] == last_of_grid(page)) & (rows["run"] == unit[0])]
    means = means[means["seed"] == unit[1]].groupby(["recipe", "dataset"])[column].mean()
    means = means.groupby(level="recipe").mean()
    size = min(len(one) for one in arrays)
    for _ in range(RESAMPLES):
        steps = draw.integers(size, size=size)
        fits = arrays.map(lambda one, at=steps: float(one[-size:][at].mean()))
        found = [matched(fits, rates(page, one), rates(page, other)) for one, other in some]
        if all(found):
            parts = [sum(means[name] * share for name, share in one.apart.items()) for one in found]
            values.append(np.mean(parts))
    return float(np.var(values, ddof=1)) if len(values) > RESAMPLES / 2 else np.nan


def off_the_line(page: Results, rows: pd.DataFrame, column: str, recipe: str) -> float:
    """How far a straight line between the neighbours of a rate, along tuning loss, is off at that
    rate: the median over the rates on the way to the best fit; NaN with less than three.
    """
    fits = losses(page).map(np.mean).astype(float)
    fits = fits.xs(last_of_grid(page), level="step").groupby(level="recipe").mean()
    names = [name for name in rates(page, recipe) if name in fits.index]
    here = rows[rows["step"] == last_of_grid(page)].groupby("recipe")[column].mean()
    path, off = to_the_best(fits, names), []
    for before, name, after in zip(path.index, path.index[1:], path.index[2:], strict=False):
        weights = between(path[[before, after]], path[name])
        off.append(abs(sum(here[one] * share for one, share in weights.items()) - here[name]))
    return float(np.median(off)) if off else np.nan
