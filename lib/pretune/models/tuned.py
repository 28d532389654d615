"""What was trained of tuned models, kept under their keys in a cache of bounded size.

So a new probe need not train again; those that were not used for longest make room for others. Of
adapters and of some weights only those are kept, and put into the untuned model again.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from pretune import paths, storage
from pretune.models import adapters, checkpoint
from pretune.models.checkpoint import ABOUT
from pretune.recipes.trainable import Trainable

log = logging.getLogger(__name__)
NOTES = "training.json"


def home() -> Path:
    """Where they are kept."""
    return paths.CACHE / "tuned"


def is_kept(key: str) -> bool:
    """Whether a tuned model is kept under `key`, undamaged."""
    return (home() / key).is_dir() and not checkpoint.fault(home() / key)


def load_tuned(key: str, model, trainable: Trainable) -> torch.nn.Module | None:
    """The tuned model kept under `key`, made from the untuned one, which is then no longer that;
    None if it is not there. One that is damaged is named and set aside.
    """
    folder = home() / key
    if not folder.is_dir():
        return None
    if wrong := checkpoint.fault(folder):
        log.warning("%s: %s: set aside, to be tuned again", folder, wrong)
        storage.set_aside(folder)
        return None
    (folder / ABOUT).touch()  # the oldest use is evicted first
    return adapters.restored(model, trainable, folder)


def keep_tuned(key: str, save: Callable[[Path], None], about: dict, max_gb: float) -> dict:
    """Keep what `save` writes of a tuned model and what there is to say `about` its training, which
    is returned with the bytes that are kept, and evict the longest unused ones beyond `max_gb`.
    """
    with storage.whole(home() / key) as partial:
        partial.mkdir()
        save(partial)
        about = about | {
            "kept_bytes": sum(one.stat().st_size for one in partial.glob("*.safetensors"))
        }
        (partial / NOTES).write_text(json.dumps(about))
        checkpoint.describe(partial, checkpoint.weights_checksum(partial))
    _evict(max_gb)
    return about


def tuning_of(key: str) -> dict:
    """What was kept to say about a tuned model."""
    return json.loads((home() / key / NOTES).read_text())


def _evict(max_gb: float) -> None:
    kept = sorted(home().glob(f"*/{ABOUT}"), key=lambda file: -file.stat().st_mtime)
    total = 0
    for file in kept:
        total += sum(part.stat().st_size for part in file.parent.iterdir())
        if total > max_gb * 1e9:
            shutil.rmtree(file.parent, ignore_errors=True)
