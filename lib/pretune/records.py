"""What running a cell leaves, and the one way to read it.

- A record is a folder under the model's: `rows.parquet` with one wide row per scored item,
  `texts.parquet` with prompts and outputs (not read by default), and `record.json` with provenance
  and the checksums of the two. It appears whole.
- A record is set aside with a warning, and its probes count as missing, where its checksums do not
  hold, its columns are of another version, a file of it leads elsewhere, or its checkpoint has
  other weights now.
- Of a cell that could not be done, the reason is noted in `failed.json`, until it is done.
- Rows hold log-likelihoods and counts; accuracies under each normalisation are derived when read
  (`scored`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pretune import paths, storage
from pretune.models.checkpoint import foreign
from pretune.plan import Cell, Model, cells, sweep
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY, RESERVE

log = logging.getLogger(__name__)
SCHEMA = pa.schema([
    ("run", pa.int32()), ("checkpoint", pa.string()), ("revision", pa.string()),
    ("step", pa.int64()), ("tokens", pa.int64()), ("stage", pa.string()), ("late", pa.bool_()),
    ("recipe", pa.string()), ("seed", pa.int32()), ("probe", pa.string()),
    ("dataset", pa.string()), ("split", pa.string()), ("format", pa.string()),
    ("shots_asked", pa.int32()), ("shots", pa.int32()), ("draw", pa.int32()),
    ("item", pa.int32()),  # row number in the split
    ("flag", pa.string()),  # what the published protocol let pass: shot, hidden label, too long
    ("gold", pa.int32()),  # index of the right completion
    ("baseline", pa.float64()),  # score of the best answer without a skill on this item
    ("log_likelihood", pa.list_(pa.float64())),  # nats, one per completion
    ("blank_log_likelihood", pa.list_(pa.float64())),  # the same after the content-free prompt
    ("choice_tokens", pa.list_(pa.int32())), ("choice_characters", pa.list_(pa.int32())),
    ("rouge_l", pa.float64()), ("length", pa.int32()),  # generated tokens
    ("stop", pa.string()),  # newline, end or length
])  # fmt: skip
TEXT_SCHEMA = pa.schema([
    ("probe", pa.string()), ("item", pa.int32()), ("prompt", pa.string()),
    ("choices", pa.list_(pa.string())), ("output", pa.string()),
])  # fmt: skip
RECORD, ROWS, TEXTS = "record.json", "rows.parquet", "texts.parquet"
SCHEMAS = {ROWS: SCHEMA, TEXTS: TEXT_SCHEMA}
MODEL = ("checkpoint", "recipe", "seed")
FAILED = "failed.json"  # in the study's folder
NORMALISATIONS = ("dataset", "sum", "tokens", "characters", "calibrated")


def record_folder(study: Study, model: Model) -> Path:
    return paths.study_folder(study.name) / "records" / f"{model.name}.{model.key}"


def write_record(folder: Path, rows: list[dict], texts: list[dict], provenance: dict) -> None:
    """Leave the record of one run of a cell. The part is named by its probes: writing the same
    again changes nothing.
    """
    probes = sorted({row["probe"] for row in rows} | set(provenance["left_out"]))
    with storage.whole(
        folder / hashlib.sha256(" ".join(probes).encode()).hexdigest()[:12]
    ) as partial:
        partial.mkdir()
        for name, table in ((ROWS, rows), (TEXTS, texts)):
            pq.write_table(
                pa.Table.from_pylist(table, SCHEMAS[name]), partial / name, compression="zstd"
            )
        sums = {name: storage.sha256(partial / name).hexdigest() for name in SCHEMAS}
        (partial / RECORD).write_text(
            json.dumps({"probes": probes, "sha256": sums, **provenance}, indent=1)
        )


def finished(study: Study, model: Model) -> dict[str, Path]:
    """The probes of a model that are done, each with its record's folder; only records that
    verify count.
    """
    return {
        probe: part for part, about in _verified_parts(study, model) for probe in about["probes"]
    }


def missing(study: Study, only: tuple[str, ...] = (), rates: bool = False) -> list[Cell]:
    """The cells of `study` with the probes they still lack; cells that lack none are left out.

    With `rates`, only what the choice of learning rates rests on. Of a study of released tables
    nothing can be measured.
    """
    if study.tables:
        return []
    lacking = []
    for cell in sweep(study) if rates else cells(study, only):
        done = finished(study, cell.model)
        probes = tuple(probe for probe in cell.probes if probe.key not in done)
        if probes:
            lacking.append(Cell(cell.model, probes))
    return lacking


def failed(study: Study) -> dict[str, str]:
    """Why cells of the study could not be done when they were last tried: model name to reason."""
    noted = _noted(study)
    return {
        cell.model.name: noted[folder]
        for cell in cells(study)
        if (folder := record_folder(study, cell.model).name) in noted
    }


def note_failures(study: Study, tried: Iterable[Cell], why: dict[str, str]) -> None:
    """Write down which of the cells `tried` failed, and `why`; the rest of them did not."""
    folders = {record_folder(study, cell.model).name: cell.model.name for cell in tried}
    noted = {name: reason for name, reason in _noted(study).items() if name not in folders}
    noted |= {folder: why[name] for folder, name in folders.items() if name in why}
    if noted or _noted(study):
        storage.write(paths.study_folder(study.name) / FAILED, json.dumps(noted, indent=1))


def _noted(study: Study) -> dict[str, str]:
    file = paths.study_folder(study.name) / FAILED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def record_files(study: Study, only: tuple[str, ...] = ()) -> list[Path]:
    """The JSON of every record that the study's probes stand in."""
    files = set()
    for cell in cells(study, only):
        wanted = {probe.key for probe in cell.probes}
        files |= {
            part / RECORD for key, part in finished(study, cell.model).items() if key in wanted
        }
    return sorted(files)


def load(
    study: Study, columns: Iterable[str] | None = None, where: dict | None = None
) -> pd.DataFrame:
    """All rows the study planned and has, as one frame.

    `columns` are names of `SCHEMA`; `where` maps a column to a value or a list of values. Raises
    KeyError for a name that does not exist and LookupError for a value that no row has.
    """
    return _checked(study, ROWS, columns, where)


def load_texts(study: Study, where: dict | None = None) -> pd.DataFrame:
    """Prompts, completions and generated outputs of the rows that `load` gives, with the model
    they came from.
    """
    return _checked(study, TEXTS, None, where)


def _checked(study: Study, file: str, columns, where) -> pd.DataFrame:
    names = SCHEMAS[file].names
    known = [*names, *(name for name in MODEL if name not in names)]
    for name in [*(columns or ()), *(where or ())]:
        if name not in known:
            raise KeyError(f"{name!r} is no column; allowed: {', '.join(known)}")
    table = _read(study, file, where or {})
    for name, value in (where or {}).items():
        present = set(table[name])
        for one in value if isinstance(value, (list, tuple, set)) else [value]:
            if one not in present:
                raise LookupError(f"no row of {study.name} has {name} = {one!r}")
    return table[list(columns)] if columns else table


def provenance(study: Study, only: tuple[str, ...] = ()) -> pd.DataFrame:
    """One row per record: who measured it, with what, for how long."""
    rows = []
    for file in record_files(study, only):
        about = json.loads(file.read_text())
        rows.append(
            {
                key: value
                for key, value in about.items()
                if key not in ("probes", "sha256", "training")
            }
        )
    return pd.DataFrame(rows)


def training_log(study: Study, model: Model) -> pd.DataFrame:
    """The tuning curve of a model: step, tokens, loss (nats per counted token), learning rate;
    empty for base.
    """
    for _, about in _verified_parts(study, model):
        return pd.DataFrame(about["training"], columns=["step", "tokens", "loss", "learning_rate"])
    raise LookupError(
        f"{model.name}: no record in {record_folder(study, model)}; run the study first"
    )


def summary(study: Study) -> pd.DataFrame:
    """One row per model and probe: mean score and its standard error over items, the same
    calibrated, score without a skill.

    What is reserved for the choice of rates is left out.
    """
    rows = load(study)
    rows = scored(rows[rows["split"] != RESERVE], study.protocol.normalisation)
    rows = rows.assign(calibrated=scored(rows, "calibrated")["score"])
    keys = [
        "run",
        "checkpoint",
        "step",
        "tokens",
        "late",
        "recipe",
        "seed",
        "dataset",
        "split",
        "format",
        "shots_asked",
        "shots",
        "draw",
    ]
    return rows.groupby(keys, as_index=False).agg(
        n=("score", "size"),
        score=("score", "mean"),
        standard_error=("score", "sem"),
        calibrated=("calibrated", "mean"),
        baseline=("baseline", "mean"),
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


def _read(study: Study, file: str, where: dict) -> pd.DataFrame:
    """The rows that `where` asks for; only files and probes that can hold some are read."""
    wanted = {
        name: list(value) if isinstance(value, (list, tuple, set)) else [value]
        for name, value in where.items()
    }
    frames = [frame for cell in cells(study) for frame in _cell_frames(study, cell, file, wanted)]
    table = (
        pd.concat(frames, ignore_index=True) if frames else SCHEMAS[file].empty_table().to_pandas()
    )
    for name in set(wanted) & set(table.columns):
        table = table[table[name].isin(wanted[name])]
    return table


def _cell_frames(study: Study, cell: Cell, file: str, wanted: dict) -> Iterable[pd.DataFrame]:
    """What the records of a cell hold of the probes it is planned with and `wanted` does not rule
    out.

    What rows say of their checkpoint is what the study says now: another one may be the last,
    and late, since.
    """
    model, point = cell.model, cell.model.checkpoint
    known = {"checkpoint": point.name, "recipe": model.recipe, "seed": model.seed}
    about = {
        "run": np.int32(point.run),
        "checkpoint": point.name,
        "step": point.step,
        "tokens": point.tokens,
        "stage": point.stage,
        "late": point.late,
    }
    if any(known[name] not in wanted[name] for name in set(known) & set(wanted)):
        return
    planned = [
        probe.key
        for probe in cell.probes
        if all(
            getattr(probe, name) in wanted[name]
            for name in ("dataset", "split", "format", "draw")
            if name in wanted
        )
        and probe.shots in wanted.get("shots_asked", [probe.shots])
    ]
    done = finished(study, model) if planned else {}
    for part in sorted({part for key, part in done.items() if key in planned}):
        frame = pq.read_table(part / file, filters=[("probe", "in", planned)]).to_pandas()
        yield frame.assign(**(known if file == TEXTS else about))


def _verified_parts(study: Study, model: Model) -> Iterator[tuple[Path, dict]]:
    """The records of a model, each with what its JSON says; one that does not verify is set
    aside.
    """
    for part in sorted(
        record_folder(study, model).iterdir() if record_folder(study, model).is_dir() else ()
    ):
        if part.suffix:  # being written, or set aside
            continue
        try:
            about = json.loads((part / RECORD).read_text(encoding="utf-8"))
            wrong = _fault(part, about, model)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            yield part, about
            continue
        log.warning("%s is damaged (%s): set aside, to be measured again", part, wrong)
        storage.set_aside(part)


def _fault(part: Path, about: dict, model: Model) -> str:
    """Why a record cannot be used; empty where it can."""
    if outside := foreign(part, part):
        return f"{outside} leads outside"
    if about["sha256"] != {name: storage.sha256(part / name).hexdigest() for name in SCHEMAS}:
        return "its checksums do not hold"
    if any(pq.read_schema(part / name) != schema for name, schema in SCHEMAS.items()):
        return "its columns are of another version"
    weights = (
        json.loads(model.checkpoint.about.read_text())["sha256"]
        if model.checkpoint.exists()
        else None
    )
    return (
        "its checkpoint has other weights now"
        if weights and about["checkpoint_sha256"] != weights
        else ""
    )
