"""Learning rates: what each rate of the grid scores on the reserved rows, and which one a recipe
should use.

The rate of a recipe is the one with the best mean over the checkpoints of the grid (early,
middle, late), by the score on its own dataset, or by the loss of the answers where it tunes on
conversations; of equals, the smaller.
"""

from __future__ import annotations

import pandas as pd

from pretune import measures, records
from pretune.analysis.results import of_grid
from pretune.plan.cells import Plan
from pretune.study.config import Study
from pretune.tasks.dataset import RESERVE
from pretune.tasks.registry import REGISTRY


def table(plan: Plan) -> pd.DataFrame:
    """One line per recipe and rate: value at every checkpoint of the grid, their mean, whether it
    is the best and the used one.

    Raises LookupError where nothing was measured on the reserved rows.
    """
    study, rows = plan.study, records.load(plan, where={"split": RESERVE})
    rows = measures.scored(of_grid(study, rows), study.protocol.normalisation)
    found = rows.groupby(["recipe", "step"])["score"].mean().unstack()
    lines = []
    for recipe in study.recipes:
        for rate, name in study.along(recipe, "learning_rate").items():
            lines.append(_line(study, recipe, rate, found.loc[name]))
    made = pd.DataFrame(lines)
    best = made.sort_values("rate").groupby("recipe", sort=False)["better"].idxmax()
    return made.assign(best=made.index.isin(best)).drop(columns="better")


def advice(study: Study, table: pd.DataFrame) -> list[str]:
    """One line for every recipe that does not use its best rate."""
    return [
        f"recipes.{line.recipe}.learning_rate: {line.rate:g} is best, "
        f"{study.tuning_of(line.recipe).learning_rate:g} is used"
        for line in table[table["best"] & ~table["used"]].itertuples()
    ]


def _line(study: Study, recipe: str, rate: float, values: pd.Series) -> dict:
    loss = REGISTRY[study.recipes[recipe].dataset].metric == "nats"
    line = {"recipe": recipe, "measure": "loss (nats per token)" if loss else "score", "rate": rate}
    line |= {f"step {step}": value for step, value in values.items()}
    line |= {"mean": values.mean(), "used": rate == study.tuning_of(recipe).learning_rate}
    return line | {"better": -values.mean() if loss else values.mean()}
