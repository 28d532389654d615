"""Room on the disk for checkpoints of the Hub, which come and go: one that no cell waits for makes
room for the next.

Nothing here waits. Studies share the cache, so each run writes down which checkpoints its cells
still wait for, and takes none away that another run which is at work needs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from filelock import FileLock, Timeout

from pretune import paths, storage
from pretune.models.checkpoint import ABOUT, Checkpoint
from pretune.sources.found import entry_of
from pretune.study.config import Study

# in the study's folder: commits that its run still needs; it holds while run.lock is held
NEEDS = "needs.json"


def claim(study: Study, needed: Collection[str]) -> None:
    """Write down the commits that cells of this run still wait for."""
    storage.write(paths.study_folder(study.name) / NEEDS, json.dumps(sorted(needed)))


def claimed(study: Study) -> set[str]:
    """Commits that are there and that runs of other studies still need: they will make room."""
    return _claims(study) & {folder.name for folder in _folders()}


def make(study: Study, point: Checkpoint, needed: Collection[str]) -> str:
    """Remove what neither this run (`needed`) nor another one needs, the oldest first, until a
    checkpoint has room.

    Returns why it has none even then, and nothing where it has.
    """
    (paths.CACHE / "hub").mkdir(parents=True, exist_ok=True)
    kept = {*needed, *_claims(study)}
    for folder in _folders():
        if not _lack(study, point, kept):
            break
        if not _is_one_of(folder, kept):
            shutil.rmtree(folder, ignore_errors=True)
    return _lack(study, point, kept)


def _claims(study: Study) -> set[str]:
    """Commits that runs of other studies on this machine, which are at work, still need."""
    found: set[str] = set()
    for file in paths.OUTPUTS.glob(f"*/{NEEDS}"):
        if file.parent.name != study.name and _is_held(file.with_name("run.lock")):
            found.update(json.loads(file.read_text()))
    return found


def _lack(study: Study, point: Checkpoint, kept: Collection[str]) -> str:
    """Why a checkpoint has no room beside what is whole, and beside what is left of others than
    `kept`.

    One that is larger than the whole cache has room where nothing else is there.
    """
    home, size = paths.CACHE / "hub", entry_of(study, point)["bytes"]
    there = sum(
        _bytes(folder)
        for folder in _folders()
        if folder.suffix != ".partial" or not _is_one_of(folder, kept)
    )
    if there and there + size > study.cache.max_gb * 1e9:
        return (
            f"{point.name} needs {size / 1e9:.3g} GB in {home}, which holds {there / 1e9:.3g} GB "
            f"that cannot be removed, and may hold {study.cache.max_gb:g}; remove them, or raise "
            "cache.max_gb"
        )
    free = shutil.disk_usage(home).free + _bytes(
        point.folder.with_name(point.folder.name + ".partial")
    )
    if free < size:
        return (
            f"{point.name} needs {size / 1e9:.1f} GB in {home}, {free / 1e9:.1f} GB are free; "
            "make room there or set PRETUNE_OUTPUTS to a larger disk"
        )
    return ""


def _is_one_of(folder: Path, commits: Collection[str]) -> bool:
    """Whether it is a checkpoint of these, whole or being fetched."""
    name = folder.name.removesuffix(".partial")
    return name in commits and (name != folder.name or (folder / ABOUT).is_file())


def _folders() -> list[Path]:
    """All folders of checkpoints: first what a break left or what was set aside, then those that
    have lain longest.
    """
    return sorted((one for one in (paths.CACHE / "hub").glob("*/*") if one.is_dir()), key=_order)


def _order(folder: Path) -> tuple[bool, float]:
    try:
        return not folder.suffix, folder.stat().st_mtime
    except FileNotFoundError:  # another run was faster
        return False, 0.0


def _bytes(folder: Path) -> int:
    """Of its files; 0 where it is not there, or is being removed by another run."""
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except FileNotFoundError:
        return 0


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
