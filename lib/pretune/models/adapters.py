"""What is trained of a model: all of it, the weights whose names match, or adapters that are merged
into it; and what was trained as files.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from pretune.models.loading import load_weights
from pretune.recipes.trainable import Lora, Trainable

PART = "trained.safetensors"


class NothingToTrain(ValueError):
    """A pattern that no name of a weight matches: the message holds the names there are."""


class Part(NamedTuple):
    """The model to train, in which what is not to be trained stays as it is; what writes the
    trained weights to a folder; and what merges them into the model that they were added to.
    """

    model: torch.nn.Module
    save: Callable[[Path], None]
    merge: Callable[[], object]


@contextmanager
def part(model, trainable: Trainable, seed: int) -> Iterator[Part]:
    """What is `trainable` of `model`, to train in place; at the end adapters are merged. Raises
    NothingToTrain.
    """
    opened = part_of(model, trainable, seed)
    yield opened
    opened.merge()
    model.requires_grad_(True)


def part_of(model, trainable: Trainable, seed: int) -> Part:
    """The same, left as it is."""
    if trainable is None:
        return Part(model, model.save_pretrained, lambda: None)
    if isinstance(trainable, Lora):
        adapters = _adapted(model, trainable, seed)
        # asked for, or peft looks on the Hub whether the vocabulary was another
        save = partial(adapters.save_pretrained, save_embedding_layers=False)
        return Part(adapters.get_base_model(), save, adapters.merge_and_unload)
    chosen = _matching(model, trainable)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in chosen)
    return Part(model, lambda folder: save_file(chosen, folder / PART), lambda: None)


def restored(model, trainable: Trainable, folder: Path) -> torch.nn.Module:
    """The model whose trained part lies in `folder`, by way of the untuned `model`, which may
    become it.
    """
    if trainable is None:
        return load_weights(folder)
    if isinstance(trainable, Lora):
        from peft import PeftModel

        with _quiet():
            return PeftModel.from_pretrained(model, folder).merge_and_unload()
    weights = dict(model.named_parameters())
    for name, kept in load_file(folder / PART).items():
        weights[name].data.copy_(kept)
    return model


def _adapted(model, lora: Lora, seed: int):
    """`model` with adapters in it, as peft's model."""
    from peft import LoraConfig, get_peft_model  # a second, which most recipes do not need

    torch.manual_seed(seed)
    said = lora.model_dump(exclude={"peft_type"})
    with _quiet():
        config = LoraConfig(**said, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, config)


def _matching(model, pattern: str) -> dict[str, torch.Tensor]:
    """The weights whose names a pattern is found in."""
    weights = dict(model.named_parameters())
    found = {name: one.data for name, one in weights.items() if re.search(pattern, name)}
    if not found:
        there = ", ".join(sorted({re.sub(r"\d+", "N", name) for name in weights}))
        raise NothingToTrain(f"trainable: no weight has {pattern!r} in its name; there are {there}")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """peft asks transformers by a name that is to go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
