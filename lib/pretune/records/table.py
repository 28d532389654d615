"""The one way to read records: all rows that a plan asks for, as one table.

Rows hold log-likelihoods and counts; accuracies under each normalisation are derived when read
(`scored`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pretune.plan.cells import Cell, Model, Plan, Probe
from pretune.records.store import (
    ROWS,
    SCHEMAS,
    TEXTS,
    described,
    finished,
    record_folder,
    verified_parts,
)
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

MODEL = ("checkpoint", "recipe", "seed")


NORMALISATIONS = ("dataset", "sum", "tokens", "characters", "calibrated")


def load(
    plan: Plan, columns: Iterable[str] | None = None, where: dict | None = None
) -> pd.DataFrame:
    """All rows that are planned and there, as one frame.

    `columns` are names of `SCHEMA`; `where` maps a column to a value or a list of values. Raises
    KeyError for a name that does not exist and LookupError for a value that no row has.
    """
    return _checked(plan, ROWS, columns, where)


def load_texts(plan: Plan, where: dict | None = None) -> pd.DataFrame:
    """Prompts, completions and generated outputs of the rows that `load` gives, with the model
    they came from.
    """
    return _checked(plan, TEXTS, None, where)


def _checked(plan: Plan, file: str, columns, where) -> pd.DataFrame:
    names = SCHEMAS[file].names
    known = [*names, *(name for name in MODEL if name not in names)]
    for name in [*(columns or ()), *(where or ())]:
        if name not in known:
            raise KeyError(f"{name!r} is no column; allowed: {', '.join(known)}")
    table = _read(plan, file, where or {})
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


def scored(rows: pd.DataFrame, normalisation: str = "dataset") -> pd.DataFrame:
    """`rows` with `prediction` (index of the answer; -1 for generation), `score` in [0, 1], and
    `baseline`, without a skill.

    `dataset` is each dataset's own normalisation, `calibrated` subtracts the content-free
    log-likelihood. Under each, the score of generation is ROUGE-L and that of text its loss in
    nats per token, to which no bound applies. Of questions with answers of their own the
    baseline is that of `_without_question`, by the same normalisation; else as it was recorded.
    """
    if normalisation not in NORMALISATIONS:
        raise KeyError(
            f"{normalisation!r} is no normalisation; allowed: {', '.join(NORMALISATIONS)}"
        )
    predicted, scores = np.full(len(rows), -1), np.full(len(rows), np.nan)
    choices, levels = (
        rows["log_likelihood"].map(len).to_numpy(),
        np.tile(rows["baseline"].to_numpy(dtype=float), (3, 1)),
    )
    for (name, _), places in rows.groupby(["dataset", choices]).indices.items():
        part, kind = rows.iloc[places], REGISTRY[name].kind
        if kind == "generation":
            scores[places] = part["rouge_l"]
        elif REGISTRY[name].metric == "nats":
            scores[places] = -(_table(part, "log_likelihood") / _table(part, "choice_tokens"))[:, 0]
        else:
            by = REGISTRY[name].normalisation if normalisation == "dataset" else normalisation
            predicted[places] = _predictions(part, by)
            scores[places] = predicted[places] == part["gold"]
            if kind == "choices":
                levels[:, places] = _without_question(part, by)
    return rows.assign(prediction=predicted, score=scores, baseline=_highest(rows, levels))


def _predictions(rows: pd.DataFrame, normalisation: str) -> np.ndarray:
    """The likeliest choice of each of `rows`, which have equally many choices. Raises ValueError
    where one is not finite.
    """
    blank = _table(rows, "blank_log_likelihood") if normalisation == "calibrated" else 0.0
    likelihood = _normalised(rows, _table(rows, "log_likelihood"), blank, normalisation)
    wrong = ~np.isfinite(likelihood).all(axis=1)
    if wrong.any():
        row, values = rows.iloc[wrong.argmax()], likelihood[wrong.argmax()].tolist()
        raise ValueError(
            f"{row['dataset']} at {row['checkpoint']}: row {row['item']} has log-likelihoods that "
            f"are not finite ({values}) and so no answer; remove its record and run the study "
            "again"
        )
    return likelihood.argmax(axis=1)


def _normalised(
    rows: pd.DataFrame, likelihood: np.ndarray, blank: np.ndarray | float, normalisation: str
) -> np.ndarray:
    """Log-likelihoods (rows, choices) as they are compared; `blank` are those after the
    content-free prompt.
    """
    if normalisation == "calibrated":
        return likelihood - blank
    return (
        likelihood
        if normalisation == "sum"
        else likelihood / _table(rows, f"choice_{normalisation}")
    )


def _without_question(rows: pd.DataFrame, normalisation: str) -> np.ndarray:
    """What three answers without a skill score on each of `rows` (3, rows), ties counted as the
    share that is right: chance; a model that finds all tokens alike, which by characters prefers
    long words; and the likelihood of the answers after the content-free prompt, which knows what
    is likely to be said, and not what was asked.
    """
    alike, blank = (
        -_table(rows, "choice_tokens").astype(float),
        _table(rows, "blank_log_likelihood"),
    )
    compared = [
        np.zeros_like(alike),
        *(_normalised(rows, one, one, normalisation) for one in (alike, blank)),
    ]
    gold = rows["gold"].to_numpy()[:, None]
    best = [one == one.max(axis=1, keepdims=True) for one in compared]
    return np.stack([np.take_along_axis(one, gold, 1)[:, 0] / one.sum(axis=1) for one in best])


def _highest(rows: pd.DataFrame, levels: np.ndarray) -> np.ndarray:
    """Of `levels` (several, rows) for every model and probe the one with the largest mean over
    its items (rows,).
    """
    group = (
        rows.groupby(["dataset", "checkpoint", "recipe", "seed", "draw", "format", "shots_asked"])
        .ngroup()
        .to_numpy()
    )
    means = np.stack([np.bincount(group, one) for one in levels])
    return levels[means.argmax(axis=0)[group], np.arange(len(rows))]


def _table(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of equally long lists as an array (rows, choices)."""
    return np.stack(rows[column].to_list())


def _read(plan: Plan, file: str, where: dict) -> pd.DataFrame:
    """The rows that `where` asks for; only files and probes that can hold some are read."""
    wanted, frames = {name: _listed(value) for name, value in where.items()}, []
    for cell in plan.cells:
        frames += _cell_frames(plan.study, cell, file, wanted)
    empty = SCHEMAS[file].empty_table().to_pandas()
    table = pd.concat(frames, ignore_index=True) if frames else empty
    for name in set(wanted) & set(table.columns):
        table = table[table[name].isin(wanted[name])]
    return table


def _listed(value: object) -> list:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _cell_frames(study: Study, cell: Cell, file: str, wanted: dict) -> Iterable[pd.DataFrame]:
    """What the records of a cell hold of the probes it is planned with and `wanted` does not rule
    out.

    What rows say of their checkpoint is what the study says now: another one may be the last,
    and late, since.
    """
    model, point = cell.model, cell.model.checkpoint
    known = {"checkpoint": point.name, "recipe": model.recipe, "seed": model.seed}
    about = {"run": np.int32(point.run), "checkpoint": point.name, "step": point.step}
    about |= {"tokens": point.tokens, "stage": point.stage, "late": point.late}
    if any(known[name] not in wanted[name] for name in set(known) & set(wanted)):
        return
    planned = [probe.key for probe in cell.probes if _is_wanted(probe, wanted)]
    done = finished(study, model) if planned else {}
    for part in sorted({part for key, part in done.items() if key in planned}):
        frame = pq.read_table(part / file, filters=[("probe", "in", planned)]).to_pandas()
        yield frame.assign(**(known if file == TEXTS else about))


def _is_wanted(probe: Probe, wanted: dict) -> bool:
    """Whether rows of a probe can be among those that are asked for."""
    said = {name: getattr(probe, name) for name in ("dataset", "split", "format", "draw")}
    said["shots_asked"] = probe.shots
    return all(value in wanted.get(name, [value]) for name, value in said.items())
