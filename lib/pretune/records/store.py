"""What running a cell leaves: written whole, verified when read.

- A record is a folder under the model's: a table for each measure (`choices.parquet`) with one row
  per scored item, `texts.parquet` with prompts and outputs (not read by default), and `record.json`
  with provenance and the checksums of all. It appears whole.
- A record is set aside with a warning, and its probes count as missing, where its checksums do not
  hold, a file of it leads elsewhere, or its checkpoint has other weights now. The probes of a table
  whose measure has other columns now count as missing, and those of other tables stay.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pretune import measures, paths, storage
from pretune.measures import Measure
from pretune.models.checkpoint import foreign
from pretune.plan.cells import Model, Plan
from pretune.storage import short_hash
from pretune.study.config import Study

log = logging.getLogger(__name__)


RECORD, TEXTS = "record.json", "texts.parquet"
# what every row says, whatever measured it
SHARED = {
    "model": pa.string(), "run": pa.int32(), "checkpoint": pa.string(), "revision": pa.string(),
    "step": pa.int64(), "tokens": pa.int64(), "stage": pa.string(), "late": pa.bool_(),
    "recipe": pa.string(), "seed": pa.int32(), "probe": pa.string(),
    "dataset": pa.string(), "split": pa.string(), "format": pa.string(),
    "shots_asked": pa.int32(), "shots": pa.int32(), "draw": pa.int32(),
    "item": pa.int32(),  # row number in the split
    "flag": pa.string(),  # what the published protocol let pass: shot, hidden label, too long
    "gold": pa.int32(),  # index of the right completion
    "baseline": pa.float64(),  # score of the best answer without a skill on this item
}  # fmt: skip
TEXT_SCHEMA = pa.schema([
    ("probe", pa.string()), ("item", pa.int32()), ("prompt", pa.string()),
    ("choices", pa.list_(pa.string())), ("output", pa.string()),
])  # fmt: skip
_verified: dict[tuple, dict] = {}  # what records say that were verified, by `_mark`
_held: dict[tuple, list] | None = None  # what a command takes as it found it


def record_folder(study: Study, model: Model) -> Path:
    return paths.study_folder(study.name) / "records" / f"{model.name}.{model.key}"


@cache
def schema(measure: Measure) -> pa.Schema:
    """The columns of a measure's table."""
    return pa.schema(list((SHARED | measure.columns).items()))


@cache
def columns_of(measure: Measure) -> str:
    """The same as a mark, which a record bears so that its tables need not be opened for it."""
    return short_hash(str(schema(measure)))


def write_record(
    folder: Path, tables: dict[str, list[dict]], texts: list[dict], provenance: dict
) -> None:
    """Leave the record of one run of a cell: a table for each measure. The part is named by its
    probes: writing the same again changes nothing.
    """
    probes = {name: sorted({row["probe"] for row in rows}) for name, rows in tables.items()}
    said = " ".join(sorted(chain.from_iterable(probes.values())))
    with storage.whole(folder / hashlib.sha256(said.encode()).hexdigest()[:12]) as partial:
        partial.mkdir()
        for name, rows in tables.items():
            _write(partial / table_of(name), rows, schema(measures.find(name)))
        _write(partial / TEXTS, texts, TEXT_SCHEMA)
        sums = {one.name: storage.sha256(one).hexdigest() for one in sorted(partial.iterdir())}
        columns = {name: columns_of(measures.find(name)) for name in tables}
        about = {"probes": probes, "sha256": sums, "columns": columns, **provenance}
        (partial / RECORD).write_text(json.dumps(about, indent=1))


def table_of(measure: str) -> str:
    """The file that holds the rows of a measure."""
    return f"{measure}.parquet"


def _write(file: Path, rows: list[dict], columns: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(rows, columns), file, compression="zstd")


def finished(study: Study, model: Model) -> dict[str, Path]:
    """The probes of a model that are done, each with the file that holds its rows; only records
    that verify count.
    """
    found = {}
    for part, about in verified_parts(study, model):
        for name, probes in about["probes"].items():
            found |= dict.fromkeys(probes, part / table_of(name))
    return found


def described(plan: Plan) -> list[dict]:
    """What every record says of itself that a probe of the plan stands in, in order of place."""
    found = {}
    for cell in plan.cells:
        wanted = {probe.key for probe in cell.probes}
        for part, about in verified_parts(plan.study, cell.model):
            if not wanted.isdisjoint(chain.from_iterable(about["probes"].values())):
                found[part] = about
    return [found[part] for part in sorted(found)]


def verified_parts(study: Study, model: Model) -> list[tuple[Path, dict]]:
    """The records of a model, each with what its JSON says; one that does not verify is set
    aside. What verified is remembered for the process, until a file of it is another.
    """
    if _held is None:
        return list(_verified_parts(record_folder(study, model), model))
    name = (study.name, model.name, model.key)
    if name not in _held:
        _held[name] = list(_verified_parts(record_folder(study, model), model))
    return _held[name]


@contextmanager
def unchanging() -> Iterator[None]:
    """Meanwhile records are taken to be as they were when they were first asked for, which saves
    looking at every file again for every page.
    """
    global _held
    _held = {}
    try:
        yield
    finally:
        _held = None


def _verified_parts(folder: Path, model: Model) -> Iterator[tuple[Path, dict]]:
    for part in map(folder.joinpath, _names(folder)):
        try:
            mark = _mark(part, model)
            about = _verified.get(mark) or json.loads((part / RECORD).read_text(encoding="utf-8"))
            wrong = "" if mark in _verified else _fault(part, about, model)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            if mark not in _verified:
                _verified[mark] = about | {"probes": _readable(part, about)}
            yield part, _verified[mark]
            continue
        log.warning("%s is damaged (%s): set aside, to be measured again", part, wrong)
        storage.set_aside(part)


def _names(folder: Path) -> list[str]:
    """Of the records in a folder; what has a suffix is being written, or was set aside."""
    return sorted(name for name in os.listdir(folder) if "." not in name) if folder.is_dir() else []


def _mark(part: Path, model: Model) -> tuple:
    """Which files a verification looks at, as far as places, numbers, sizes and times tell."""
    point = model.checkpoint
    notes = point.about.stat().st_mtime_ns if point.exists() else 0
    with os.scandir(part) as files:
        stats = sorted((one.name, one.stat(follow_symlinks=False)) for one in files)
    return part, notes, *((one.st_ino, one.st_size, one.st_mtime_ns) for _, one in stats)


def _readable(part: Path, about: dict) -> dict[str, list[str]]:
    """The probes by measure, of tables whose columns are as their measure has them now."""
    there = {name: probes for name, probes in about["probes"].items() if name in measures.names()}
    return {name: probes for name, probes in there.items() if _is_as_now(part, about, name)}


def _is_as_now(part: Path, about: dict, name: str) -> bool:
    """Whether a table has the columns that its measure has now."""
    if marked := about.get("columns", {}).get(name):
        return marked == columns_of(measures.find(name))
    return pq.read_schema(part / table_of(name)) == schema(measures.find(name))


def _fault(part: Path, about: dict, model: Model) -> str:
    """Why a record cannot be used; empty where it can."""
    if outside := foreign(part, part):
        return f"{outside} leads outside"
    if about["sha256"] != {
        name: storage.sha256(f"{part}/{name}").hexdigest() for name in about["sha256"]
    }:
        return "its checksums do not hold"
    if {TEXTS, *map(table_of, about["probes"])} != set(about["sha256"]):
        return "its tables are not those of its probes"
    if not model.checkpoint.exists():
        return ""
    weights = json.loads(model.checkpoint.about.read_text())["sha256"]
    same = about["checkpoint_sha256"] == weights
    return "" if same else "its checkpoint has other weights now"
