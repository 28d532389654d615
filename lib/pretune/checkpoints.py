"""The checkpoints of a study: what they are called, where they lie, what pins them. Loads no model.

A microworld or corpus run is determined by its settings, so a checkpoint's revision is known before it exists: the
hash of the source, the settings, the version of the code and the step. The weights found there are held against the
checksum written beside them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from pretune import paths
from pretune.microworld import world
from pretune.params import Corpus, FolderData, Hub, MicroworldData, Released, Study
from pretune.params import World as WorldSize

RELEASED_TOKENS = 2048 * 2048  # per optimizer step of OLMo-1B
PRETRAINING_VERSION = 1  # raise by hand when the same settings would give other weights


@dataclass(frozen=True)
class Checkpoint:
    """One point of a pre-training run. `tokens` were read up to it; `late` marks the replicate set at the end."""

    name: str
    run: int
    stage: str
    step: int
    tokens: int
    revision: str
    folder: Path
    late: bool

    def exists(self) -> bool:
        return self.folder.is_dir()


def checkpoints(study: Study) -> tuple[Checkpoint, ...]:
    """All checkpoints of `study`, in the order of their steps."""
    saved = study.checkpoints
    if isinstance(saved, Released):
        return _released(saved)
    if isinstance(saved, Hub):
        return _on_the_hub(study, saved)
    run = run_folder(study)
    per_step = saved.pretraining.batch_size * saved.pretraining.length
    late = saved.steps[-saved.late :]
    return tuple(
        Checkpoint(
            name=f"step-{step}", run=saved.pretraining.run, stage="pretraining", step=step, tokens=step * per_step,
            revision=short_hash(run.name, step), folder=run / f"step-{step}", late=step in late,
        )
        for step in saved.steps
    )


def _on_the_hub(study: Study, source: Hub) -> tuple[Checkpoint, ...]:
    from pretune import hub  # noqa: PLC0415  its client takes a while to load

    found = hub.pinned(study)["checkpoints"]
    late = [one["step"] for one in found[-source.late :]]
    home = paths.CACHE / "hub" / source.repo.replace("/", "--")
    return tuple(Checkpoint(f"step-{one['step']}", 0, one["stage"], one["step"], one["tokens"], one["commit"],
                            home / one["commit"], late=one["step"] in late) for one in found)


def _released(points: Released) -> tuple[Checkpoint, ...]:
    """Checkpoints of the reference study, of which only scores are here; the last is its branch `main`."""
    names = [*(f"step-{step}" for step in points.steps[:-1]), "main"]
    return tuple(Checkpoint(name, 0, "pretraining", step, step * RELEASED_TOKENS, "released", paths.CACHE / "published",
                            late=step in points.steps[-points.late :]) for name, step in zip(names, points.steps, strict=True))


def run_folder(study: Study) -> Path:
    """Where the pre-training run of `study` leaves its checkpoints; studies with the same run share it."""
    saved = study.checkpoints
    if isinstance(saved, Corpus):
        source = ["corpus", str(Path(saved.folder).resolve()), *_listing(Path(saved.folder))]
    else:
        source = ["microworld", world.VERSION, saved.world.model_dump()]
    key = short_hash(PRETRAINING_VERSION, source, saved.pretraining.model_dump(), saved.steps[-1])
    return paths.CACHE / "pretrained" / f"{saved.source}-{key}"


def data_folder(study: Study) -> Path:
    """Where the datasets of `study` lie as FOLDER/<dataset>/<split>.jsonl."""
    data = study.datasets
    return Path(data.folder).resolve() if isinstance(data, FolderData) else world_folder(data.world)


def data_key(study: Study) -> str:
    """What pins the datasets: the world, or names and sizes of the files in the folder."""
    data = study.datasets
    if isinstance(data, FolderData):
        return short_hash("folder", *_listing(Path(data.folder)))
    return short_hash("microworld", world.VERSION, data.world.model_dump()) if isinstance(data, MicroworldData) else "released"


def world_folder(size: WorldSize) -> Path:
    return paths.CACHE / "microworld" / short_hash(world.VERSION, size.model_dump())


def short_hash(*parts: object) -> str:
    """Twelve hexadecimal digits that stand for `parts`."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
