"""The checkpoints of a study: what they are called, where they lie, what pins them. Loads no model.

A microworld or corpus run is determined by its settings, so a checkpoint's revision is known before
it exists: the hash of the source, the settings, the version of the code and the step. The weights
found there are held against the checksum written beside them.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from pretune import paths
from pretune.models.checkpoint import Checkpoint
from pretune.sources.microworld import world
from pretune.storage import listing, short_hash
from pretune.study.config import Corpus, Hub, Local, Released, Study

RELEASED_TOKENS = 2048 * 2048  # per optimizer step of OLMo-1B
TEXTS = ("*.jsonl", "*.jsonl.xz", "*.txt")  # what a corpus may consist of
PRETRAINING_VERSION = 1  # raise by hand when the same settings would give other weights


def listed(study: Study) -> tuple[tuple[Checkpoint, ...], dict | None]:
    """The checkpoints of `study`, and the configuration of their models where it was found."""
    if not isinstance(study.checkpoints, Hub | Local):
        return checkpoints(study), None
    from pretune.sources import found  # the client of the Hub takes a while to load

    pinned = found.pinned(study)
    return _found(study.checkpoints, pinned["checkpoints"]), pinned["config"]


def checkpoints(study: Study) -> tuple[Checkpoint, ...]:
    """All checkpoints of `study`, in the order of their steps."""
    saved = study.checkpoints
    if isinstance(saved, Released):
        return _released(saved)
    if isinstance(saved, Hub | Local):
        return listed(study)[0]
    run = run_folder(study)
    per_step = saved.pretraining.batch_size * saved.pretraining.length
    late = saved.steps[-saved.late :]
    return tuple(
        Checkpoint(
            name=f"step-{step}",
            run=saved.pretraining.run,
            stage="pretraining",
            step=step,
            tokens=step * per_step,
            revision=short_hash(run.name, step),
            folder=run / f"step-{step}",
            late=step in late,
        )
        for step in saved.steps
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


def run_folder(study: Study) -> Path:
    """Where the pre-training run of `study` leaves its checkpoints; studies with the same run
    share it.
    """
    saved = study.checkpoints
    if isinstance(saved, Corpus):
        source = ["corpus", str(Path(saved.folder).resolve()), *listing(Path(saved.folder))]
    else:
        source = ["microworld", world.VERSION, saved.world.model_dump()]
    key = short_hash(PRETRAINING_VERSION, source, saved.pretraining.determining(), saved.steps[-1])
    return paths.CACHE / "pretrained" / f"{saved.source}-{key}"


def texts(folder: Path) -> list[Path]:
    """The files of a corpus, in order of name."""
    return sorted(chain.from_iterable(folder.rglob(ending) for ending in TEXTS))
