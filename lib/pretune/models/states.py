"""The state of a running training as a file: trained weights, their moments, the steps done."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pretune import storage
from pretune.models.optimizers import Optimizers
from pretune.recipes.optimisation import Optimisation
from pretune.tasks.prompts import Row

log = logging.getLogger(__name__)


# share of the time that may go into writing states, which hold 12 bytes a trained weight
WRITING = 0.05


@dataclass(frozen=True)
class Step:
    """One line of the training log: loss in nats per counted token, tokens fed so far without
    padding.
    """

    step: int
    tokens: int
    loss: float
    learning_rate: float


def fingerprint(rows: Sequence[Row], settings: Optimisation, seed: int) -> str:
    """What a saved state must share with this training to be continued."""
    digest = hashlib.sha256(f"{seed} {settings.model_dump_json()}".encode())
    for row in rows:
        digest.update(np.asarray(row.ids, dtype=np.int32).tobytes() + row.counted.tobytes())
    return digest.hexdigest()


def _tensors(model, optimizers: Optimizers) -> dict[str, torch.Tensor]:
    """Trained weights and their moments by name, the very tensors in use."""
    tensors = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            tensors[name] = weight.data
            moments = optimizers.moments(weight)
            tensors |= {f"{name}|{key}": value for key, value in moments.items()}
    return tensors


def save(state: Path, mark: str, model, optimizers: Optimizers, steps: list[Step]) -> None:
    lines = json.dumps([[s.step, s.tokens, s.loss, s.learning_rate] for s in steps])
    with storage.whole(state) as partial:
        save_file(_tensors(model, optimizers), partial, {"mark": mark, "steps": lines})


def pause(least: float, took: float) -> float:
    """Seconds until the next state is written, when the last took so many."""
    return max(least, took / WRITING - took) if least else 0.0


def restore(state: Path, mark: str, model, optimizers: Optimizers, last: int) -> list[Step]:
    """Load a state that belongs to this training into model and optimizers, if it is not past
    step `last`; the steps it had done, none without one.
    """
    if not state.exists():
        return []
    try:
        with safe_open(state, "pt") as saved:
            about = saved.metadata()
            tensors = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118
            steps = [Step(*line) for line in json.loads(about["steps"])]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        log.warning("%s is damaged (%s) and is not used", state, error)
        return []
    if about["mark"] != mark:
        log.warning("%s is of another training and is not used", state)
        return []
    if len(steps) > last:
        log.warning("%s is past step %d and is not used", state, last)
        return []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data.copy_(tensors[name])
            moments = (key.rsplit("|", 1)[1] for key in tensors if key.startswith(f"{name}|"))
            optimizers.moments(weight).update(
                {one: tensors[f"{name}|{one}"].to(weight.device) for one in moments}
            )
    return steps
