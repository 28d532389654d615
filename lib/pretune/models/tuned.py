"""Tuned weights, kept under the key of their model in a cache of bounded size.

So a new probe need not train again; those that were not used for longest make room for others.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model

from pretune import paths, storage
from pretune.models import checkpoint
from pretune.models.checkpoint import ABOUT
from pretune.models.loading import load_weights
from pretune.study.config import Lora

log = logging.getLogger(__name__)
TUNED = paths.CACHE / "tuned"


@contextmanager
def adapted(model, lora: Lora | None, seed: int) -> Iterator[torch.nn.Module]:
    """`model` to train in place: all of it, or adapters on every linear layer that are merged
    into it at the end.
    """
    if lora is None:
        yield model
        return
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # peft asks transformers by a name that is to go
        warnings.simplefilter("ignore", FutureWarning)
        adapters = get_peft_model(model, config)
    yield adapters.get_base_model()
    adapters.merge_and_unload()
    model.requires_grad_(True)


def load_tuned(key: str) -> torch.nn.Module | None:
    """The tuned model kept under `key`, None if it is not there. One that is damaged is named
    and set aside.
    """
    folder = TUNED / key
    if not folder.is_dir():
        return None
    if wrong := checkpoint.fault(folder):
        log.warning("%s: %s: set aside, to be tuned again", folder, wrong)
        storage.set_aside(folder)
        return None
    (folder / ABOUT).touch()  # the oldest use is evicted first
    return load_weights(folder)


def keep_tuned(key: str, model: torch.nn.Module, about: dict, max_gb: float) -> None:
    """Keep tuned weights and what there is to say `about` their training, and evict the longest
    unused ones beyond `max_gb`.
    """
    with storage.whole(TUNED / key) as partial:
        model.save_pretrained(partial)
        (partial / "training.json").write_text(json.dumps(about))
        checkpoint.describe(partial, checkpoint.weights_checksum(partial))
    _evict(max_gb)


def tuning_of(key: str) -> dict:
    """What was kept to say about a tuned model."""
    return json.loads((TUNED / key / "training.json").read_text())


def _evict(max_gb: float) -> None:
    kept = sorted(TUNED.glob(f"*/{ABOUT}"), key=lambda file: -file.stat().st_mtime)
    total = 0
    for file in kept:
        total += sum(part.stat().st_size for part in file.parent.iterdir())
        if total > max_gb * 1e9:
            shutil.rmtree(file.parent, ignore_errors=True)
