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
from pretune.models.gradients import Alone
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
    said = json.dumps(settings.determining(), sort_keys=True)
    digest = hashlib.sha256(f"{seed} {said}".encode())
    for row in rows:
        digest.update(_bytes(row))
    return digest.hexdigest()


def _bytes(row: Row) -> bytes:
    """What a row is trained by."""
    own = np.asarray(row.ids, dtype=np.int32).tobytes() + row.counted.tobytes()
    return own + (_bytes(row.rival) + repr(row.lead).encode() if row.rival else b"")


def _tensors(model, optimizers: Optimizers, group: Alone) -> dict[str, torch.Tensor]:
    """Trained weights and their moments by name, for the first of a group: the very tensors in use,
    where they are whole.
    """
    tensors = {}
    for name, weight in _trained(model):
        moments = optimizers.moments(weight).items()
        parts = {name: weight.data} | {f"{name}|{key}": value for key, value in moments}
        tensors |= _whole(parts, group)
    return tensors


def _whole(parts: dict[str, torch.Tensor], group: Alone) -> dict[str, torch.Tensor]:
    """All must ask for what is whole; only the first keeps it."""
    found = {}
    for name, part in parts.items():
        tensor = group.whole(part)
        if group.is_first:
            found[name] = tensor
    return found


def _trained(model) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def save(
    state: Path, mark: str, model, optimizers: Optimizers, steps: list[Step], group: Alone
) -> None:
    lines = json.dumps([[s.step, s.tokens, s.loss, s.learning_rate] for s in steps])
    if tensors := _tensors(model, optimizers, group):
        with storage.whole(state) as partial:
            save_file(tensors, partial, {"mark": mark, "steps": lines})


def pause(least: float, took: float) -> float:
    """Seconds until the next state is written, when the last took so many."""
    return max(least, took / WRITING - took) if least else 0.0


def restore(
    state: Path, mark: str, model, optimizers: Optimizers, last: int, group: Alone
) -> list[Step]:
    """Load a state that belongs to this training into model and optimizers, if it is not past
    step `last`; the steps it had done, none without one.
    """
    if not state.exists():
        return []
    try:
        with safe_open(state, "pt") as saved:
            about, names = saved.metadata(), list(saved.keys())
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
    with safe_open(state, "pt") as saved:
        for name, weight in _trained(model):
            weight.data.copy_(group.part(saved.get_tensor(name), weight))
            moments = optimizers.moments(weight)
            for one in (one for one in names if one.startswith(f"{name}|")):
                moments[one.rsplit("|", 1)[1]] = group.part(saved.get_tensor(one), weight)
    return steps


def keep(file: Path, model, group: Alone) -> None:
    """Write the trained weights, by name."""
    weights = _whole({name: weight.data for name, weight in _trained(model)}, group)
    if group.is_first:
        with storage.whole(file) as partial:
            save_file(weights, partial)


def take(file: Path, model) -> None:
    """Give a model the trained weights that were kept."""
    with safe_open(file, "pt") as kept:
        for name, weight in _trained(model):
            weight.data.copy_(kept.get_tensor(name))
