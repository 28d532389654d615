"""Holding a study against what exists: datasets and their files, findings, folders, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretune.errors import StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.sources import corpus, datasets
from pretune.study.config import Study
from pretune.study.sources import Corpus, Saved
from pretune.tasks.registry import REGISTRY, has


def check_names(study: Study) -> None:
    """Hold the names of datasets and folders against what exists. Raises StudyError."""
    asked = {f"recipes.{name}.dataset": r.dataset for name, r in study.recipes.items() if r.dataset}
    asked |= {f"probing.datasets.{i}": name for i, name in enumerate(study.probing.datasets)}
    for key, name in asked.items():
        there = [one for one, dataset in REGISTRY.items() if has(study.datasets.source, dataset)]
        tuned = key.startswith("recipes")
        allowed = [one for one in there if (REGISTRY[one].kind == "chat") <= tuned]
        if name not in allowed:
            raise study.refuse(key, name, f"allowed datasets: {', '.join(allowed)}")
    for model, source in study.models.items():
        _check_folder(study, f"checkpoints.{model}".rstrip("."), source)
        if isinstance(source, Corpus) and not corpus.texts(Path(source.folder)):
            needed = f"it must hold {', '.join(corpus.TEXTS)}"
            raise study.refuse("checkpoints.folder", source.folder, needed)
    _check_folder(study, "datasets", study.datasets)


def _check_folder(study: Study, key: str, source: object) -> None:
    folder = getattr(source, "folder", None)
    if folder is not None and not Path(folder).is_dir():
        raise study.refuse(f"{key}.folder", folder, "it must be an existing folder")


def check_files(study: Study) -> None:
    """Hold a study against the files of its datasets, and rows against the context.

    Raises StudyError, with a line for each dataset that lacks rows.
    """
    if lines := datasets.refused(study):
        raise StudyError("\n".join(lines))
    for source in study.models.values():
        made = source.pretraining if isinstance(source, Saved) else None
        if made and made.length > made.architecture.context:
            key, most = "checkpoints.pretraining.length", "pretraining.architecture.context"
            raise study.refuse(key, made.length, f"it must not exceed checkpoints.{most}")


def check_grid(study: Study, points: Iterable[Checkpoint]) -> None:
    """A rate that was chosen from a grid stands in it, and checkpoints that are tuned, or that the
    grid is run at, exist. Raises StudyError.
    """
    points, named = list(points), [("tuning.steps", study.tuning.steps)]
    if study.grid:
        named += [("grid.steps", study.grid.steps), ("grid.runs", study.grid.runs)]
    for key, asked in named:
        attribute = key.partition(".")[2].rstrip("s")
        there = list(dict.fromkeys(getattr(point, attribute) for point in points))
        for one in (one for one in asked or () if one not in there):
            raise study.refuse(key, one, f"allowed: {', '.join(map(str, there))}")
    for name in study.recipes:
        grid, used = study.grid_of(name, "learning_rate"), study.tuning_of(name).learning_rate
        if grid and used not in grid:
            allowed = f"its grid has {', '.join(f'{rate:g}' for rate in grid)}"
            raise study.refuse(f"recipes.{name}.learning_rate", used, allowed)
