"""What running a cell leaves, and the one way to read it.

- A record is three files under the model's folder: `<part>.parquet` with one wide row per scored item, `<part>.texts.parquet`
  with prompts and outputs (not read by default), and `<part>.json` with provenance and the checksums of the two.
  Each is written beside its place and renamed; the JSON comes last, so a record without it does not exist.
- A record whose checksums do not hold is set aside with a warning and its probes count as missing.
- Rows hold log-likelihoods and counts; accuracies under each normalisation are derived when read (`scored`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pretune import paths
from pretune.params import Study
from pretune.plan import Cell, Model, cells, sweep
from pretune.tasks.registry import REGISTRY, RESERVE

log = logging.getLogger(__name__)

SCHEMA = pa.schema([
    ("run", pa.int32()), ("checkpoint", pa.string()), ("revision", pa.string()), ("step", pa.int64()),
    ("tokens", pa.int64()), ("stage", pa.string()), ("late", pa.bool_()), ("recipe", pa.string()), ("seed", pa.int32()),
    ("probe", pa.string()), ("dataset", pa.string()), ("split", pa.string()), ("format", pa.string()),
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
TEXTS = pa.schema([("probe", pa.string()), ("item", pa.int32()), ("prompt", pa.string()),
                   ("choices", pa.list_(pa.string())), ("output", pa.string())])  # fmt: skip
MODEL = ("checkpoint", "recipe", "seed")
NORMALISATIONS = ("dataset", "sum", "tokens", "characters", "calibrated")


def record_folder(study: Study, model: Model) -> Path:
    return paths.study_folder(study.name) / "records" / f"{model.name}.{model.key}"


def write_record(folder: Path, rows: list[dict], texts: list[dict], provenance: dict) -> None:
    """Leave the record of one run of a cell. The part is named by its probes: writing the same again changes nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    probes = sorted({row["probe"] for row in rows} | set(provenance["left_out"]))
    part = folder / hashlib.sha256(" ".join(probes).encode()).hexdigest()[:12]
    sums = {}
    for file, schema, table in ((f"{part.name}.parquet", SCHEMA, rows), (f"{part.name}.texts.parquet", TEXTS, texts)):
        pq.write_table(pa.Table.from_pylist(table, schema), folder / f"{file}.partial", compression="zstd")
        (folder / f"{file}.partial").replace(folder / file)
        sums[file] = _checksum(folder / file)
    partial = part.with_suffix(".partial")
    partial.write_text(json.dumps({"probes": probes, "sha256": sums, **provenance}, indent=1))
    partial.replace(part.with_suffix(".json"))


def finished(folder: Path) -> dict[str, Path]:
    """The probes that are done, each with the JSON of its record; only records that verify count."""
    done = {}
    for file in sorted(folder.glob("*.json")):
        if (about := _verified(file)) is not None:
            done |= dict.fromkeys(about["probes"], file)
    return done


def missing(study: Study, only: tuple[str, ...] = (), rates: bool = False) -> list[Cell]:
    """The cells of `study` with the probes they still lack; cells that lack none are left out.

    With `rates`, only what the choice of learning rates rests on. Of a study of released tables nothing can be measured.
    """
    if study.tables:
        return []
    lacking = []
    for cell in sweep(study) if rates else cells(study, only):
        done = finished(record_folder(study, cell.model))
        probes = tuple(probe for probe in cell.probes if probe.key not in done)
        if probes:
            lacking.append(Cell(cell.model, probes))
    return lacking


def record_files(study: Study, only: tuple[str, ...] = ()) -> list[Path]:
    """The JSON of every record that the study's probes stand in."""
    files = set()
    for cell in cells(study, only):
        wanted = {probe.key for probe in cell.probes}
        files |= {file for key, file in finished(record_folder(study, cell.model)).items() if key in wanted}
    return sorted(files)


def load(study: Study, columns: Iterable[str] | None = None, where: dict | None = None) -> pd.DataFrame:
    """All rows the study planned and has, as one frame.

    `columns` are names of `SCHEMA`; `where` maps a column to a value or a list of values. Raises KeyError for a
    name that does not exist and LookupError for a value that no row has.
    """
    return _checked(study, ".parquet", SCHEMA, columns, where)


def load_texts(study: Study, where: dict | None = None) -> pd.DataFrame:
    """Prompts, completions and generated outputs of the rows that `load` gives, with the model they came from."""
    return _checked(study, ".texts.parquet", TEXTS, None, where)


def _checked(study: Study, ending: str, schema: pa.Schema, columns, where) -> pd.DataFrame:
    known = [*schema.names, *(name for name in MODEL if name not in schema.names)]
    for name in [*(columns or ()), *(where or ())]:
        if name not in known:
            raise KeyError(f"{name!r} is no column; allowed: {', '.join(known)}")
    table = _read(study, ending, schema, where or {})
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
        rows.append({key: value for key, value in about.items() if key not in ("probes", "sha256", "training")})
    return pd.DataFrame(rows)


def training_log(study: Study, model: Model) -> pd.DataFrame:
    """The tuning curve of a model: step, tokens, loss (nats per counted token), learning rate; empty for base."""
    for file in sorted(record_folder(study, model).glob("*.json")):
        if (about := _verified(file)) is not None:
            return pd.DataFrame(about["training"], columns=["step", "tokens", "loss", "learning_rate"])
    raise LookupError(f"{model.name}: no record in {record_folder(study, model)}; run the study first")


def summary(study: Study) -> pd.DataFrame:
    """One row per model and probe: mean score and its standard error over items, the same calibrated, score without a skill.

    What is reserved for the choice of rates is left out.
    """
    rows = load(study)
    rows = scored(rows[rows["split"] != RESERVE], study.protocol.normalisation)
    rows = rows.assign(calibrated=scored(rows, "calibrated")["score"])
    keys = ["run", "checkpoint", "step", "tokens", "late", "recipe", "seed", "dataset", "split", "format", "shots_asked", "shots",
            "draw"]
    return rows.groupby(keys, as_index=False).agg(
        n=("score", "size"), score=("score", "mean"), standard_error=("score", "sem"), calibrated=("calibrated", "mean"),
        baseline=("baseline", "mean"))


def scored(rows: pd.DataFrame, normalisation: str = "dataset") -> pd.DataFrame:
    """`rows` with `prediction` (index of the answer; -1 for generation) and `score` in [0, 1].

    `dataset` is each dataset's own normalisation, `calibrated` subtracts the content-free log-likelihood. Under each, the
    score of generation is ROUGE-L and that of text its loss in nats per token, to which no bound applies.
    """
    if normalisation not in NORMALISATIONS:
        raise KeyError(f"{normalisation!r} is no normalisation; allowed: {', '.join(NORMALISATIONS)}")
    predicted, scores = np.full(len(rows), -1), np.full(len(rows), np.nan)
    choices = rows["log_likelihood"].map(len).to_numpy()
    for (name, _), places in rows.groupby(["dataset", choices]).indices.items():
        part, kind = rows.iloc[places], REGISTRY[name].kind
        if kind == "generation":
            scores[places] = part["rouge_l"]
        elif REGISTRY[name].metric == "nats":
            scores[places] = -(_table(part, "log_likelihood") / _table(part, "choice_tokens"))[:, 0]
        else:
            predicted[places] = _predictions(part, REGISTRY[name].normalisation if normalisation == "dataset" else normalisation)
            scores[places] = predicted[places] == part["gold"]
    return rows.assign(prediction=predicted, score=scores)


def _predictions(rows: pd.DataFrame, normalisation: str) -> np.ndarray:
    """The likeliest choice of each of `rows`, which have equally many choices."""
    likelihood = _table(rows, "log_likelihood")
    if normalisation == "calibrated":
        likelihood = likelihood - _table(rows, "blank_log_likelihood")
    elif normalisation != "sum":
        likelihood = likelihood / _table(rows, f"choice_{normalisation}")
    return likelihood.argmax(axis=1)


def _table(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column of equally long lists as an array (rows, choices)."""
    return np.stack(rows[column].to_list())


def _read(study: Study, ending: str, schema: pa.Schema, where: dict) -> pd.DataFrame:
    """The rows that `where` asks for; only files and probes that can hold some are read."""
    wanted = {name: list(value) if isinstance(value, (list, tuple, set)) else [value] for name, value in where.items()}
    frames = [frame for cell in cells(study) for frame in _cell_frames(study, cell, ending, wanted)]
    table = pd.concat(frames, ignore_index=True) if frames else schema.empty_table().to_pandas()
    for name in set(wanted) & set(table.columns):
        table = table[table[name].isin(wanted[name])]
    return table


def _cell_frames(study: Study, cell: Cell, ending: str, wanted: dict) -> Iterable[pd.DataFrame]:
    """What the records of a cell hold of the probes it is planned with and `wanted` does not rule out."""
    model = cell.model
    known = {"checkpoint": model.checkpoint.name, "recipe": model.recipe, "seed": model.seed}
    if any(known[name] not in wanted[name] for name in set(known) & set(wanted)):
        return
    planned = [probe.key for probe in cell.probes if all(
        getattr(probe, name) in wanted[name] for name in ("dataset", "split", "format", "draw") if name in wanted
    ) and probe.shots in wanted.get("shots_asked", [probe.shots])]
    done = finished(record_folder(study, model)) if planned else {}
    for file in sorted({file for key, file in done.items() if key in planned}):
        source = file.with_name(file.stem + ending)
        frame = pq.read_table(source, filters=[("probe", "in", planned)]).to_pandas()
        yield frame if ending == ".parquet" else frame.assign(**known)


def _verified(file: Path) -> dict | None:
    """What a record's JSON says, or None after setting the record aside because its files are not what it says."""
    try:
        about = json.loads(file.read_text())
        good = all(_checksum(file.parent / name) == value for name, value in about["sha256"].items())
        reason = "its checksums do not hold"
    except (OSError, ValueError, KeyError) as error:
        good, reason = False, str(error)
    if good:
        return about
    log.warning("%s is damaged (%s): set aside, to be measured again", file, reason)
    file.replace(file.with_suffix(".damaged"))
    return None


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
