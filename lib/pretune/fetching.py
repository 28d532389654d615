"""Bringing what exists to this machine: checkpoints beside the cells that use them, and datasets before them.

A checkpoint is fetched into a folder beside its place, checked, and renamed; so is a dataset.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
from pathlib import Path

import pyarrow.parquet

from pretune import checkpoints as points
from pretune import hub, models, storage
from pretune.checkpoints import Checkpoint, describe
from pretune.errors import RunError
from pretune.params import HubData, Study
from pretune.pins import entry_of, pinned_data, remember
from pretune.plan import splits, used_datasets
from pretune.tasks.registry import REGISTRY

log = logging.getLogger(__name__)


def fetch_checkpoint(study: Study, point: Checkpoint) -> None:
    """Fetch a checkpoint and check it before it counts as there; one in a folder of this machine stays where it is.

    Raises HubError, CheckpointError, and RunError for a folder that is gone.
    """
    folder = point.folder if study.checkpoints.source == "folder" else _downloaded(study, point)
    if not folder.is_dir():
        raise RunError(f"{point.name}: {folder} is gone; put it back, or take it out of the study")
    checksum = models.check(folder, point)
    remember(study, point, checksum)
    if point.apart:
        storage.write(point.about, json.dumps({"step": point.step, "tokens": point.tokens, "sha256": checksum}))
    else:
        describe(folder, checksum, step=point.step, tokens=point.tokens)
        storage.set_aside(point.folder)  # what is there without its notes is nothing
        folder.replace(point.folder)


def _downloaded(study: Study, point: Checkpoint) -> Path:
    """The files of a checkpoint, in a folder beside its place, for which there is room. Raises HubError."""
    partial, entry = point.folder.with_name(point.folder.name + ".partial"), entry_of(study, point)
    pickled = hub.PICKLED if entry["pickled"] else ()
    hub.fetch(entry["repo"], point.revision, partial, hub.MODEL + pickled)
    if pickled:
        log.warning("%s: weights are pickled; they are loaded as weights only and kept as safetensors", point.name)
        models.convert(partial)
    return partial


def fetch_data(study: Study) -> None:
    """The datasets of the Hub, or of a folder where some files stand in for others, in the study's folder of data. A folder
    that is there is whole. Raises HubError, and StudyError for a file that is not there."""
    folder = points.data_folder(study)
    if folder.is_dir():
        return
    partial = folder.with_name(folder.name + ".partial")
    entries = pinned_data(study) if isinstance(study.datasets, HubData) else None
    places = {f"{REGISTRY[name].folder}/{split}": (name, split)
              for name in used_datasets(study) for split in splits(study, name)}
    if entries is None:
        for place in set(study.datasets.stand_ins) - set(places):
            raise study.refuse("datasets.stand_ins", place, f"allowed: {', '.join(sorted(places))}")
    for place, (name, split) in places.items():
        (partial / place).parent.mkdir(parents=True, exist_ok=True)
        if entries is None:
            _copy(study, partial, place, study.datasets.stand_ins.get(place, place))
        elif not (partial / f"{place}.parquet").is_file():
            _fetch_split(study, entries[name], split, partial / f"{place}.parquet")
    partial.replace(folder)


def _fetch_split(study: Study, entry: dict, split: str, file: Path) -> None:
    """One split as one parquet file, of however many the Hub has it in."""
    pattern = f"{entry['config']}/{split}/*.parquet"
    there = sorted(hub.files(entry["repo"], entry["commit"], (pattern,), "dataset"))
    if not there:
        raise study.refuse("datasets.commits", entry["commit"], f"{entry['repo']} holds no {pattern} there")
    raw = file.with_suffix(".raw")
    hub.fetch(entry["repo"], entry["commit"], raw, tuple(there), "dataset")
    whole = raw / "whole"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table([raw / one for one in there]), whole)
    whole.replace(file)
    shutil.rmtree(raw)


def _copy(study: Study, folder: Path, place: str, taken: str) -> None:
    """FOLDER/<place>.jsonl from `taken`: a file of the study's folder of data, or lines a to b of it (`file[a:b]`)."""
    found = re.fullmatch(r"([\w/-]+?)(?:\[(\d*):(\d*)\])?", taken)
    source = Path(study.datasets.folder) / f"{found[1]}.jsonl" if found else None
    if source is None or not source.is_file():
        raise study.refuse(f"datasets.stand_ins.{place}", taken, f"it must name a file of {study.datasets.folder}, without "
                           ".jsonl, or lines a to b of one: <dataset>/<file>[a:b]")
    first, last = (int(part) if part else None for part in (found[2], found[3]))
    with source.open(encoding="utf-8") as lines, (folder / f"{place}.jsonl").open("w", encoding="utf-8") as kept:
        kept.writelines(itertools.islice(lines, first, last))
