"""Holding a study against what exists: datasets and their files, findings, folders, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretune.errors import StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.sources import corpus, datasets
from pretune.study.config import Corpus, Saved, Study
from pretune.tasks.registry import REGISTRY, Dataset


def check_names(study: Study) -> None:
    """Hold the names of datasets and folders against what exists. Raises StudyError."""
    asked = {f"recipes.{name}.dataset": r.dataset for name, r in study.recipes.items() if r.dataset}
    asked |= {f"probing.datasets.{i}": name for i, name in enumerate(study.probing.datasets)}
    for key, name in asked.items():
        there = [one for one, dataset in REGISTRY.items() if _has(study, dataset)]
        tuned = key.startswith("recipes")
        allowed = [one for one in there if (REGISTRY[one].kind == "chat") <= tuned]
        if name not in allowed:
            raise study.refuse(key, name, f"allowed datasets: {', '.join(allowed)}")
    for part in ("checkpoints", "datasets"):
        folder = getattr(getattr(study, part), "folder", None)
        if folder is not None and not Path(folder).is_dir():
            raise study.refuse(f"{part}.folder", folder, "it must be an existing folder")
    saved = study.checkpoints
    if isinstance(saved, Corpus) and not corpus.texts(Path(saved.folder)):
        needed = f"it must hold {', '.join(corpus.TEXTS)}"
        raise study.refuse("checkpoints.folder", saved.folder, needed)


def check_files(study: Study) -> None:
    """Hold a study against the files of its datasets, and rows against the context.

    Raises StudyError, with a line for each dataset that lacks rows.
    """
    if lines := datasets.refused(study):
        raise StudyError("\n".join(lines))
    if isinstance(study.checkpoints, Saved):
        length = study.checkpoints.pretraining.length
        if length > study.checkpoints.pretraining.architecture.context:
            key, most = "checkpoints.pretraining.length", "pretraining.architecture.context"
            raise study.refuse(key, length, f"it must not exceed checkpoints.{most}")


def check_grid(study: Study, points: Iterable[Checkpoint]) -> None:
    """A rate that was chosen from a grid stands in it, and the grid is run at checkpoints that
    exist. Raises StudyError.
    """
    steps = list(dict.fromkeys(point.step for point in points))
    for step in study.grid.steps if study.grid else ():
        if step not in steps:
            raise study.refuse("grid.steps", step, f"allowed: {', '.join(map(str, steps))}")
    for name in study.recipes:
        grid, used = study.grid_of(name, "learning_rate"), study.tuning_of(name).learning_rate
        if grid and used not in grid:
            allowed = f"its grid has {', '.join(f'{rate:g}' for rate in grid)}"
            raise study.refuse(f"recipes.{name}.learning_rate", used, allowed)


def _has(study: Study, dataset: Dataset) -> bool:
    """Whether the source of a study's datasets has this one."""
    if study.datasets.source == "microworld":
        return bool(dataset.microworld)
    return bool(dataset.hub[0]) or study.datasets.source != "hub"
