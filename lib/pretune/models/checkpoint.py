"""One point of a pre-training run, and how its folder is verified. Loads no model."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pretune import storage

ABOUT = "checkpoint.json"


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
    model: str = ""  # which of several models or sizes of the study; empty where there is one
    apart: Path | None = None  # where notes on it are kept when `folder` is the user's own

    @property
    def about(self) -> Path:
        """What was found out about its weights when they were checked."""
        return (self.apart or self.folder) / ABOUT

    def exists(self) -> bool:
        """Whether it is there and was found to be right."""
        return self.about.is_file() and self.folder.is_dir()


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
        good = about["other_sha256"] == other_checksum(folder)
        good = good and about["sha256"] == weights_checksum(folder)
        return "" if good else "a file is not what was written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def foreign(folder: Path, root: Path) -> str:
    """The first file under `folder` that leads out of `root`, by a link or a name in an index of
    weights; empty if none does.
    """
    linked = folder.is_symlink()
    for place, folders, files in os.walk(folder):
        for name in sorted(folders + files):
            file = os.path.join(
                place, name
            )  # a Path of each takes a second of thousands of records
            if (linked or os.path.islink(file)) and not _is_under(Path(file), root):
                return name
            if name.endswith(".index.json") and (outside := _indexed_outside(Path(file))):
                return f"{name}: {outside}"
    return ""


def _is_under(file: Path, root: Path) -> bool:
    return file.resolve().is_relative_to(root.resolve())


def _indexed_outside(index: Path) -> str:
    """The first name in an index of weights that is not of its own folder; empty if none is."""
    named = json.loads(index.read_text()).get("weight_map", {}).values()
    return next((name for name in named if Path(name).name != name), "")
