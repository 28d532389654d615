"""Bringing what exists to this machine: checkpoints beside the cells that use them, and datasets
before them.

A checkpoint is fetched into a folder beside its place, checked, and renamed; so is every file of
a dataset.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet

from pretune import storage
from pretune.errors import RunError
from pretune.models import loading
from pretune.models.checkpoint import Checkpoint, describe
from pretune.sources import datasets, hub
from pretune.sources.datasets import pinned_data
from pretune.sources.found import check_listed, entry_of, forget, remember
from pretune.study.config import Study
from pretune.study.sources import FolderData, HubData

log = logging.getLogger(__name__)


def fetch_checkpoint(study: Study, point: Checkpoint) -> None:
    """Fetch a checkpoint and check it before it counts as there; one in a folder of this machine
    stays where it is.

    Raises HubError, CheckpointError, and RunError for a folder that is gone or holds other
    weights than when it was pinned.
    """
    folder = point.folder if point.apart else _downloaded(study, point)
    if not folder.is_dir():
        raise RunError(f"{point.name}: {folder} is gone; put it back, or take it out of the study")
    checksum = loading.check(folder, point)
    # tuned models and records of the old ones are kept under its key
    if point.apart and checksum != point.revision:
        forget(study, point)
        raise RunError(
            f"{point.name}: {folder} holds other weights than when it was pinned; run again to "
            "measure these"
        )
    remember(study, point, checksum)
    if point.apart:
        about = {"step": point.step, "tokens": point.tokens, "sha256": checksum}
        storage.write(point.about, json.dumps(about))
    else:
        describe(folder, checksum, step=point.step, tokens=point.tokens)
        storage.set_aside(point.folder)  # what is there without its notes is nothing
        folder.replace(point.folder)


def _downloaded(study: Study, point: Checkpoint) -> Path:
    """The files of a checkpoint, in a folder beside its place, for which there is room. Raises
    HubError.
    """
    partial = point.folder.with_name(point.folder.name + ".partial")
    check_listed(study, point)
    entry = entry_of(study, point)
    pickled = hub.PICKLED if entry["pickled"] else ()
    hub.fetch(entry["repo"], point.revision, partial, hub.MODEL + pickled)
    if pickled:
        log.warning(
            "%s: weights are pickled; they are loaded as weights only and kept as safetensors",
            point.name,
        )
        loading.convert(partial)
    return partial


def fetch_data(
    study: Study, report: Callable[[str, float], None] = lambda phase, share: None
) -> None:
    """Bring the datasets of the Hub, or of a folder where some files stand in for others, to the
    study's folder of data.

    What is there stays, and what a user's folder lacks is left out. Raises HubError, and
    StudyError for a split that the Hub does not have.
    """
    data, folder = study.datasets, datasets.data_folder(study)
    entries = pinned_data(study) if isinstance(data, HubData) else {}
    if not entries and not getattr(data, "stand_ins", None):
        return
    wanted = []
    for name in datasets.used(study):
        places = datasets.places(study, name)
        wanted += [(name, place, split) for place, split in places.items()]
    wanted = [one for one in wanted if not Path(one[1]).is_absolute()]  # in folders of their own
    for done, (name, place, split) in enumerate(wanted):
        report(f"fetching {place}", done / len(wanted))
        if not entries:
            _copy(data, place, folder)
        elif not storage.file_of(folder / place):
            _fetch_split(study, entries[name], split, folder / f"{place}.parquet")


def _fetch_split(study: Study, entry: dict, split: str, file: Path) -> None:
    """One split as one parquet file, of however many the Hub has it in."""
    pattern = f"{entry['config']}/{split}/*.parquet"
    there = sorted(hub.files(entry["repo"], entry["commit"], (pattern,), "dataset"))
    if not there:
        raise study.refuse(
            "datasets.commits", entry["commit"], f"{entry['repo']} holds no {pattern} there"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = file.with_suffix(".raw")
    hub.fetch(entry["repo"], entry["commit"], raw, tuple(there), "dataset")
    whole = raw / "whole"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table([raw / one for one in there]), whole)
    whole.replace(file)
    shutil.rmtree(raw)


def _copy(data: FolderData, place: str, folder: Path) -> None:
    """A file of the user's folder, or some of its lines, to its place in the study's folder of
    data, where it is newer.
    """
    found = datasets.source(data, place)
    if found is None:
        return
    file, lines = found
    target = folder / f"{place}{file.suffix}"
    if target.is_file() and target.stat().st_mtime > file.stat().st_mtime:
        return
    with storage.whole(target) as partial:
        if file.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(file)[lines], partial)
        else:
            with file.open(encoding="utf-8") as every, partial.open("w", encoding="utf-8") as kept:
                kept.writelines(itertools.islice(every, lines.start, lines.stop))
