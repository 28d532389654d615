"""The one way to read records: all rows that a plan asks for, as one table.

Rows hold log-likelihoods and counts; scores are derived from them by the measure that wrote them
(`measures.scored`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pretune import measures
from pretune.plan.cells import Cell, Model, Plan, Probe
from pretune.records.store import (
    SHARED,
    TEXTS,
    described,
    finished,
    record_folder,
    verified_parts,
)
from pretune.study.config import Study
from pretune.tasks.dataset import OWN_MEASURES

MODEL = ("checkpoint", "recipe", "seed")
TEXT = ("probe", "item", "prompt", "choices", "output")


def load(
    plan: Plan,
    columns: Iterable[str] | None = None,
    where: dict | None = None,
    measure: str = "",
) -> pd.DataFrame:
    """All rows that are planned and there, as one frame: of the datasets' own measures, or of one
    that is named. What a row's measure has no column for is NaN.

    `columns` are names of columns; `where` maps a column to a value or a list of values. Raises
    KeyError for a name that does not exist and LookupError for a value that no row has.
    """
    return _checked(plan, _columns(measure), columns, where, measure)


def load_texts(plan: Plan, where: dict | None = None) -> pd.DataFrame:
    """Prompts, completions and generated outputs of the rows that `load` gives, with the model
    they came from.
    """
    return _checked(plan, [*TEXT, *MODEL], None, where, None)


def _columns(measure: str) -> list[str]:
    """The columns of one measure, or of those that give datasets their scores."""
    several = (
        [measures.find(measure)]
        if measure
        else [measures.find(name) for name in OWN_MEASURES.values()]
    )
    found = dict(SHARED)
    for one in several:
        found |= one.columns
    return list(found)


def _checked(
    plan: Plan,
    known: list[str],
    columns: Iterable[str] | None,
    where: dict | None,
    measure: str | None,
) -> pd.DataFrame:
    """The rows, or for no `measure` the texts, once names and values were held against them."""
    for name in [*(columns or ()), *(where or ())]:
        if name not in known:
            raise KeyError(f"{name!r} is no column; allowed: {', '.join(known)}")
    table = _read(plan, known, where or {}, measure)
    for name, value in (where or {}).items():
        present = set(table[name])
        for one in _listed(value):
            if one not in present:
                raise LookupError(f"no row of {plan.study.name} has {name} = {one!r}")
    return table[list(columns)] if columns else table


def provenance(plan: Plan) -> pd.DataFrame:
    """One row per record: who measured it, with what, for how long."""
    rows, without = [], ("probes", "sha256", "training")
    for about in described(plan):
        rows.append({key: value for key, value in about.items() if key not in without})
    return pd.DataFrame(rows)


def training_log(study: Study, model: Model) -> pd.DataFrame:
    """The tuning curve of a model: step, tokens, loss (nats per counted token), learning rate;
    empty for base.
    """
    for _, about in verified_parts(study, model):
        return pd.DataFrame(about["training"], columns=["step", "tokens", "loss", "learning_rate"])
    raise LookupError(
        f"{model.name}: no record in {record_folder(study, model)}; run the study first"
    )


def passed_over(study: Study, model: Model) -> list[int]:
    """The numbers of rows that a tuning passed over as too long; none where nothing was tuned."""
    parts = [about.get("passed_over", []) for _, about in verified_parts(study, model)]
    return sorted(set(chain.from_iterable(parts)))


def _read(plan: Plan, columns: list[str], where: dict, measure: str | None) -> pd.DataFrame:
    """The rows that `where` asks for; only files and probes that can hold some are read."""
    wanted, frames = {name: _listed(value) for name, value in where.items()}, []
    for cell in plan.cells:
        frames += _cell_frames(plan.study, cell, measure, wanted)
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    table = table.reindex(columns=columns)
    for name, values in wanted.items():
        table = table[table[name].isin(values)]
    return table


def _listed(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _cell_frames(
    study: Study, cell: Cell, measure: str | None, wanted: dict
) -> Iterable[pd.DataFrame]:
    """What the records of a cell hold of the probes it is planned with and `wanted` does not rule
    out.

    What rows say of their checkpoint is what the study says now: another one may be the last,
    and late, since.
    """
    model, point = cell.model, cell.model.checkpoint
    known = {"checkpoint": point.name, "recipe": model.recipe, "seed": model.seed}
    about = {"run": np.int32(point.run), "checkpoint": point.name, "step": point.step}
    about |= {"model": point.model, "tokens": point.tokens, "stage": point.stage}
    about["late"] = point.late
    if any(known[name] not in wanted[name] for name in set(known) & set(wanted)):
        return
    asked = [one for one in cell.probes if _is_wanted(one, wanted)]
    planned = {one.key for one in asked if one.measure == (measure or "")}
    done = finished(study, model) if planned else {}
    files = {file for key, file in done.items() if key in planned}
    for place in sorted({file.with_name(TEXTS) if measure is None else file for file in files}):
        frame = pq.read_table(place, filters=[("probe", "in", sorted(planned))]).to_pandas()
        yield frame.assign(**(known if measure is None else about))


def _is_wanted(probe: Probe, wanted: dict) -> bool:
    """Whether rows of a probe can be among those that are asked for."""
    said = {name: getattr(probe, name) for name in ("dataset", "split", "format", "draw")}
    said["shots_asked"] = probe.shots
    return all(value in wanted.get(name, [value]) for name, value in said.items())
