"""Room on the disk for checkpoints of the Hub, which come and go: one whose last cell is done makes room for the next."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection

from pretune import paths
from pretune.checkpoints import Checkpoint
from pretune.errors import RunError
from pretune.params import Study
from pretune.pins import entry_of, pinned


def _kept_bytes() -> int:
    """Bytes of the checkpoints in the folder of the Hub, without those being fetched."""
    kept = (folder for folder in (paths.CACHE / "hub").glob("*/*") if folder.suffix != ".partial")
    return sum(file.stat().st_size for folder in kept for file in folder.iterdir())


def make(study: Study, needed: Collection[str]) -> None:
    """Remove checkpoints that earlier runs left, but not the commits `needed`, until the largest has room in the cache."""
    largest = max(one["bytes"] for one in pinned(study)["checkpoints"])
    for folder in sorted((paths.CACHE / "hub").glob("*/*"), key=lambda one: one.stat().st_mtime):
        if folder.name.removesuffix(".partial") not in needed and _kept_bytes() + largest > study.cache.max_gb * 1e9:
            shutil.rmtree(folder)


def wait(study: Study, point: Checkpoint) -> None:
    """Return when a checkpoint fits beside those that are there, or none is. Raises RunError when the disk cannot hold it."""
    home = paths.CACHE / "hub"
    home.mkdir(parents=True, exist_ok=True)
    size = entry_of(study, point)["bytes"]
    while (there := _kept_bytes()) and there + size > study.cache.max_gb * 1e9:
        time.sleep(0.5)
    free = shutil.disk_usage(home).free
    if free < size:
        raise RunError(f"{point.name} needs {size / 1e9:.1f} GB in {home}, {free / 1e9:.1f} GB are free; lower cache.max_gb "
                           "or set PRETUNE_OUTPUTS to a larger disk")


def release(study: Study, point: Checkpoint) -> None:
    """Remove a checkpoint that no cell waits for, if the cache is over its size or another waits for room."""
    largest = max(one["bytes"] for one in pinned(study)["checkpoints"])
    if _kept_bytes() + largest > study.cache.max_gb * 1e9:
        shutil.rmtree(point.folder, ignore_errors=True)
