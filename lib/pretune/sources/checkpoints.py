"""The checkpoints of a study: what they are called, where they lie, what pins them. Loads no model.

A microworld or corpus run is determined by its settings, so a checkpoint's revision is known before
it exists: the hash of the source, the settings, the version of the code and the step. The weights
found there are held against the checksum written beside them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pretune import paths
from pretune.models.checkpoint import Checkpoint
from pretune.sources.microworld import world
from pretune.sources.register import people
from pretune.storage import listing, short_hash
from pretune.study.config import Study
from pretune.study.sources import Corpus, Hub, Local, Register, Released, Saved

RELEASED_TOKENS = 2048 * 2048  # per optimizer step of OLMo-1B
PRETRAINING_VERSION = 2  # raise by hand when the same settings would give other weights


def listed(study: Study) -> tuple[tuple[Checkpoint, ...], dict[str, dict]]:
    """The checkpoints of `study`, model after model, in the order of their steps; and by model the
    configuration, where it was found.
    """
    points, configs = [], {}
    for model, source in study.models.items():
        if isinstance(source, Hub | Local):
            from pretune.sources import found  # the client of the Hub takes a while to load

            pinned = found.pinned(study.of(model))
            own, configs[model] = _found(source, pinned["checkpoints"]), pinned["config"]
        else:
            own = _released(source) if isinstance(source, Released) else _saved(source)
        points += [_of_model(one, model) for one in own]
    return tuple(points), configs


def checkpoints(study: Study) -> tuple[Checkpoint, ...]:
    """All checkpoints of `study`."""
    return listed(study)[0]


def _of_model(point: Checkpoint, model: str) -> Checkpoint:
    """The same, saying in its name of which of several models it is."""
    return replace(point, model=model, name=f"{model}-{point.name}") if model else point


def _saved(saved: Saved) -> tuple[Checkpoint, ...]:
    """Those that are made here, run after run."""
    found = []
    for run in saved.runs:
        folder = run_folder(saved, run)
        found += [_made(saved, run, folder, step) for step in saved.steps]
    return tuple(found)


def _made(saved: Saved, run: int, folder: Path, step: int) -> Checkpoint:
    name = f"step-{step}"
    return Checkpoint(
        name=f"run-{run}-{name}" if len(saved.runs) > 1 else name,
        run=run,
        stage="pretraining",
        step=step,
        tokens=step * saved.pretraining.batch_size * saved.pretraining.length,
        revision=short_hash(folder.name, step),
        folder=folder / name,
        late=step in saved.steps[-saved.late :],
    )


def _found(source: Hub | Local, there: list[dict]) -> tuple[Checkpoint, ...]:
    """Those of the Hub or a folder, run after run."""
    late = sorted({one["step"] for one in there})[-source.late :]
    several = len({one["run"] for one in there}) > 1
    return tuple(_point(source, one, several, one["step"] in late) for one in there)


def _point(source: Hub | Local, one: dict, several: bool, late: bool) -> Checkpoint:
    """A checkpoint that is pinned; where there are several runs, its name says of which it is."""
    name = f"step-{one['step']}"
    if several:
        name = f"{_slug(source.runs[one['run']])}-{name}"
    if isinstance(source, Local):
        folder, apart = Path(one["repo"]), paths.CACHE / "folder" / one["commit"]
    else:
        folder, apart = _fetched(one), None
    return Checkpoint(
        name=name,
        run=one["run"],
        stage=one["stage"],
        step=one["step"],
        tokens=one["tokens"],
        revision=one["commit"],
        late=late,
        folder=folder,
        apart=apart,
    )


def _fetched(one: dict) -> Path:
    """Where a checkpoint of the Hub is fetched to."""
    return paths.CACHE / "hub" / one["repo"].replace("/", "--") / one["commit"]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "run"


def _released(points: Released) -> tuple[Checkpoint, ...]:
    """Checkpoints of the reference study, of which only scores are here; the last is its branch
    `main`.
    """
    names = [*(f"step-{step}" for step in points.steps[:-1]), "main"]
    return tuple(
        Checkpoint(
            name,
            0,
            "pretraining",
            step,
            step * RELEASED_TOKENS,
            "released",
            paths.CACHE / "published",
            late=step in points.steps[-points.late :],
        )
        for name, step in zip(names, points.steps, strict=True)
    )


def run_folder(saved: Saved, run: int) -> Path:
    """Where a pre-training run leaves its checkpoints; studies with the same run share it."""
    if isinstance(saved, Corpus):
        source = ["corpus", str(Path(saved.folder).resolve()), *listing(Path(saved.folder))]
    elif isinstance(saved, Register):
        said = saved.model_dump(include={"people", "told"})
        source = ["register", people.VERSION, said]
    else:
        source = ["microworld", world.VERSION, saved.world.model_dump()]
    made = saved.pretraining.determining() | {"run": run}
    key = short_hash(PRETRAINING_VERSION, source, made, saved.steps[-1])
    return paths.CACHE / "pretrained" / f"{saved.source}-{key}"
