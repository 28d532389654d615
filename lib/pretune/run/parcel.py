"""Folders of the outputs as they travel between machines that share none."""

from __future__ import annotations

from pathlib import Path

from pretune import paths, records, storage
from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Cell
from pretune.sources import checkpoints, datasets
from pretune.study.config import Study
from pretune.study.sources import Saved

# content of each file of folders that appear whole, by folder and file, both relative
Parcel = dict[str, dict[str, bytes]]


def folders(
    study: Study, thing: Cell | Checkpoint, *_: object
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """What a job on a cell, or on the run of a checkpoint, needs and what it leaves."""
    if isinstance(thing, Checkpoint):
        made = checkpoints.checkpoints(study.of(thing.model))
        return (), tuple(one.folder for one in made if one.run == thing.run)
    needed, points = [datasets.data_folder(study)], thing.model.points
    if isinstance(study.models[points[0].model], Saved):  # what is fetched is so by each machine
        needed += [point.folder for point in points]
    ours = [folder for folder in needed if folder.is_relative_to(paths.OUTPUTS)]
    return tuple(ours), (records.record_folder(study, thing.model),)


def pack(folder: Path) -> Parcel:
    """A folder, or of one that is filled bit by bit the whole folders in it."""
    parts = [folder] if any(one.is_file() for one in folder.iterdir()) else folder.iterdir()
    return {
        str(part.relative_to(paths.OUTPUTS)): _files(part)
        for part in parts
        if not part.name.endswith(".partial")
    }


def _files(folder: Path) -> dict[str, bytes]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_bytes() for one in files}


def unpack(parcel: Parcel) -> None:
    """Write what is not there yet; each folder appears whole."""
    for name, files in parcel.items():
        if (paths.OUTPUTS / name).is_dir():
            continue
        with storage.whole(paths.OUTPUTS / name) as partial:
            for file, content in files.items():
                (partial / file).parent.mkdir(parents=True, exist_ok=True)
                (partial / file).write_bytes(content)
