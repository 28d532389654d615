"""The checkpoints of a study: what they are called, where they lie, what pins them. Loads no model.

A microworld or corpus run is determined by its settings, so a checkpoint's revision is known
before it exists: the hash of the source, the settings, the version of the code and the step. The
weights found there are held against the checksum written beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from pretune import paths, storage
from pretune.microworld import world
from pretune.params import Corpus, FolderData, Hub, HubData, Local, MicroworldData, Released, Study
from pretune.params import World as WorldSize

RELEASED_TOKENS = 2048 * 2048  # per optimizer step of OLMo-1B
ABOUT = "checkpoint.json"
TEXTS = ("*.jsonl", "*.jsonl.xz", "*.txt")  # what a corpus may consist of
PRETRAINING_VERSION = 1  # raise by hand when the same settings would give other weights


@dataclass(frozen=True)
class Checkpoint:
    """One point of a pre-training run. `tokens` were read up to it; `late` marks the replicate
    set at the end.
    """

    name: str
    run: int
    stage: str
    step: int
    tokens: int
    revision: str
    folder: Path
    late: bool
    apart: Path | None = None  # where notes on it are kept when `folder` is the user's own

    @property
    def about(self) -> Path:
        """What was found out about its weights when they were checked."""
        return (self.apart or self.folder) / ABOUT

    def exists(self) -> bool:
        """Whether it is there and was found to be right."""
        return self.about.is_file() and self.folder.is_dir()


def checkpoints(study: Study) -> tuple[Checkpoint, ...]:
    """All checkpoints of `study`, in the order of their steps."""
    saved = study.checkpoints
    if isinstance(saved, Released):
        return _released(saved)
    if isinstance(saved, Hub | Local):
        return _pinned(study)
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


def _pinned(study: Study) -> tuple[Checkpoint, ...]:
    """Those of the Hub or a folder, run after run."""
    from pretune import pins  # noqa: PLC0415  the client of the Hub takes a while to load

    source, found = study.checkpoints, pins.pinned(study)["checkpoints"]
    late = sorted({one["step"] for one in found})[-source.late :]
    several, own = len({one["run"] for one in found}) > 1, isinstance(source, Local)
    return tuple(
        Checkpoint(
            name=(f"{_slug(source.runs[one['run']])}-" if several else "") + f"step-{one['step']}",
            run=one["run"],
            stage=one["stage"],
            step=one["step"],
            tokens=one["tokens"],
            revision=one["commit"],
            late=one["step"] in late,
            folder=Path(one["repo"])
            if own
            else paths.CACHE / "hub" / one["repo"].replace("/", "--") / one["commit"],
            apart=paths.CACHE / "folder" / one["commit"] if own else None,
        )
        for one in found
    )


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
        source = ["corpus", str(Path(saved.folder).resolve()), *_listing(Path(saved.folder))]
    else:
        source = ["microworld", world.VERSION, saved.world.model_dump()]
    key = short_hash(PRETRAINING_VERSION, source, saved.pretraining.determining(), saved.steps[-1])
    return paths.CACHE / "pretrained" / f"{saved.source}-{key}"


def texts(folder: Path) -> list[Path]:
    """The files of a corpus, in order of name."""
    return sorted(path for ending in TEXTS for path in folder.rglob(ending))


def data_folder(study: Study) -> Path:
    """Where the datasets of `study` lie as FOLDER/<dataset>/<split>.jsonl, or .parquet."""
    data = study.datasets
    if isinstance(data, FolderData) and not data.stand_ins:
        return Path(data.folder).resolve()
    return (
        world_folder(data.world)
        if isinstance(data, MicroworldData)
        else paths.CACHE / "datasets" / data_key(study)
    )


def data_key(study: Study) -> str:
    """What pins the datasets: the world, the commits on the Hub, or names and sizes of the files
    in the folder.
    """
    data = study.datasets
    if isinstance(data, FolderData):
        return short_hash(
            "folder", *_listing(Path(data.folder)), *([data.stand_ins] if data.stand_ins else [])
        )
    if isinstance(data, HubData):
        from pretune import pins  # noqa: PLC0415

        return short_hash("hub", pins.pinned_data(study))
    return (
        short_hash("microworld", world.VERSION, data.world.model_dump())
        if isinstance(data, MicroworldData)
        else "released"
    )


def world_folder(size: WorldSize) -> Path:
    return paths.CACHE / "microworld" / short_hash(world.VERSION, size.model_dump())


def weights_checksum(folder: Path) -> str:
    """One sha256 over all safetensors files of a model folder, in order of name."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(storage.sha256(file).digest())
    return digest.hexdigest()


def other_checksum(folder: Path) -> str:
    """One sha256 over names and contents of all files of a model folder but weights and notes on
    it.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix != ".safetensors" and file.name != ABOUT:
            digest.update(str(file.relative_to(folder)).encode() + storage.sha256(file).digest())
    return digest.hexdigest()


def describe(folder: Path, weights: str, **about: object) -> None:
    """Leave the notes that a folder of weights, which is ours, is verified by; `weights` is
    their checksum.
    """
    (folder / ABOUT).write_text(
        json.dumps({**about, "sha256": weights, "other_sha256": other_checksum(folder)})
    )


def fault(folder: Path) -> str:
    """What is wrong with a folder of weights that is ours; empty when it is what was written."""
    try:
        if outside := foreign(folder, folder):
            return f"{outside} leads outside"
        about = json.loads((folder / ABOUT).read_text())
        good = about["other_sha256"] == other_checksum(folder) and about[
            "sha256"
        ] == weights_checksum(folder)
        return "" if good else "a file is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def foreign(folder: Path, root: Path) -> str:
    """The first file under `folder` that leads out of `root`, by a link or a name in an index of
    weights; empty if none does.
    """
    for file in sorted(folder.rglob("*")):
        if not file.resolve().is_relative_to(root.resolve()):
            return file.name
        if file.name.endswith(".index.json"):
            for name in json.loads(file.read_text()).get("weight_map", {}).values():
                if Path(name).name != name:
                    return f"{file.name}: {name}"
    return ""


def short_hash(*parts: object) -> str:
    """Twelve hexadecimal digits that stand for `parts`."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]


def _listing(folder: Path) -> list[tuple[str, int]]:
    return sorted(
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    )
