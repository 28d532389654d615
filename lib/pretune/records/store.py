"""What running a cell leaves: written whole, verified when read.

- A record is a folder under the model's: `rows.parquet` with one wide row per scored item,
  `texts.parquet` with prompts and outputs (not read by default), and `record.json` with provenance
  and the checksums of the two. It appears whole.
- A record is set aside with a warning, and its probes count as missing, where its checksums do not
  hold, its columns are of another version, a file of it leads elsewhere, or its checkpoint has
  other weights now.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pretune import paths, storage
from pretune.models.checkpoint import foreign
from pretune.plan.cells import Model, Plan
from pretune.study.config import Study

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
_verified: dict[tuple, dict] = {}  # what records say that were verified, by `_mark`


def record_folder(study: Study, model: Model) -> Path:
    return paths.study_folder(study.name) / "records" / f"{model.name}.{model.key}"


def write_record(folder: Path, rows: list[dict], texts: list[dict], provenance: dict) -> None:
    """Leave the record of one run of a cell. The part is named by its probes: writing the same
    again changes nothing.
    """
    probes = sorted({row["probe"] for row in rows} | set(provenance["left_out"]))
    name = hashlib.sha256(" ".join(probes).encode()).hexdigest()[:12]
    with storage.whole(folder / name) as partial:
        partial.mkdir()
        for file, lines in ((ROWS, rows), (TEXTS, texts)):
            table = pa.Table.from_pylist(lines, SCHEMAS[file])
            pq.write_table(table, partial / file, compression="zstd")
        sums = {file: storage.sha256(partial / file).hexdigest() for file in SCHEMAS}
        about = {"probes": probes, "sha256": sums, **provenance}
        (partial / RECORD).write_text(json.dumps(about, indent=1))


def finished(study: Study, model: Model) -> dict[str, Path]:
    """The probes of a model that are done, each with its record's folder; only records that
    verify count.
    """
    found = {}
    for part, about in verified_parts(study, model):
        found |= dict.fromkeys(about["probes"], part)
    return found


def described(plan: Plan) -> list[dict]:
    """What every record says of itself that a probe of the plan stands in, in order of place."""
    found = {}
    for cell in plan.cells:
        wanted = {probe.key for probe in cell.probes}
        for part, about in verified_parts(plan.study, cell.model):
            if not wanted.isdisjoint(about["probes"]):
                found[part] = about
    return [found[part] for part in sorted(found)]


def verified_parts(study: Study, model: Model) -> Iterator[tuple[Path, dict]]:
    """The records of a model, each with what its JSON says; one that does not verify is set
    aside. What verified is remembered for the process, until a file of it is another.
    """
    folder = record_folder(study, model)
    for part in sorted(folder.iterdir() if folder.is_dir() else ()):
        if part.suffix:  # being written, or set aside
            continue
        try:
            mark = _mark(part, model)
            about = _verified.get(mark) or json.loads((part / RECORD).read_text(encoding="utf-8"))
            wrong = "" if mark in _verified else _fault(part, about, model)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            _verified[mark] = about
            yield part, about
            continue
        log.warning("%s is damaged (%s): set aside, to be measured again", part, wrong)
        storage.set_aside(part)


def _mark(part: Path, model: Model) -> tuple:
    """Which files a verification looks at, as far as places, numbers, sizes and times tell."""
    point, stats = model.checkpoint, [file.lstat() for file in sorted(part.iterdir())]
    notes = point.about.stat().st_mtime_ns if point.exists() else 0
    return part, notes, *((one.st_ino, one.st_size, one.st_mtime_ns) for one in stats)


def _fault(part: Path, about: dict, model: Model) -> str:
    """Why a record cannot be used; empty where it can."""
    if outside := foreign(part, part):
        return f"{outside} leads outside"
    if about["sha256"] != {name: storage.sha256(part / name).hexdigest() for name in SCHEMAS}:
        return "its checksums do not hold"
    if any(pq.read_schema(part / name) != schema for name, schema in SCHEMAS.items()):
        return "its columns are of another version"
    if not model.checkpoint.exists():
        return ""
    weights = json.loads(model.checkpoint.about.read_text())["sha256"]
    same = about["checkpoint_sha256"] == weights
    return "" if same else "its checkpoint has other weights now"
