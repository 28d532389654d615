"""What is trained of a model: all of it, the weights whose names match, or some that are added and
are then merged into it or stay; and what was trained as files.
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

from pretune.models import bottleneck, learned
from pretune.models.loading import load_weights
from pretune.recipes.trainable import Added, Bottleneck, Ia3, Lora, Prompt, Trainable

PART = "trained.safetensors"
STAYING = r"(^|\.)added\."  # in the names of weights that were added and stay


class NothingToTrain(ValueError):
    """A model that lacks what is to be trained, or to be added to: the message holds the names
    there are.
    """


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
    if isinstance(trainable, Lora | Ia3):
        adapters = _adapted(model, trainable, seed)
        # asked for, or peft looks on the Hub whether the vocabulary was another
        save = partial(adapters.save_pretrained, save_embedding_layers=False)
        return Part(adapters.get_base_model(), save, adapters.merge_and_unload)
    if isinstance(trainable, Added):
        _add(model, trainable, seed)
    chosen = _matching(model, STAYING if isinstance(trainable, Added) else trainable)
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in chosen)
    return Part(model, lambda folder: save_file(chosen, folder / PART), lambda: None)


def restored(model, trainable: Trainable, folder: Path) -> torch.nn.Module:
    """The model whose trained part lies in `folder`, by way of the untuned `model`, which may
    become it.
    """
    if trainable is None:
        return load_weights(folder)
    if isinstance(trainable, Lora | Ia3):
        from peft import PeftModel

        with _quiet():
            merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
        return merged.requires_grad_(True)  # or nothing that comes after it could be trained
    if isinstance(trainable, Added):
        _add(model, trainable, 0)
    weights = dict(model.named_parameters())
    for name, kept in load_file(folder / PART).items():
        weights[name].data.copy_(kept)
    return model


def _add(model, added: Added, seed: int) -> None:
    """Put what stays beside a model's weights into it. Raises NothingToTrain where it has no place
    for it.
    """
    if isinstance(added, Bottleneck):
        if not bottleneck.add(model, added.size, seed):
            raise _no_place(model, added, "its layers have no parts of the names that are known")
    elif learned.is_possible(model):
        learned.add(model, added.num_virtual_tokens, isinstance(added, Prompt), seed)
    else:
        raise _no_place(model, added, "its attention cannot be exchanged, to begin with something")


def _no_place(model, added: Added, why: str) -> NothingToTrain:
    where = type(model).__name__
    return NothingToTrain(f"trainable: {added.peft_type}: {where}: {why}; {_there(model)}")


def _adapted(model, adapter: Lora | Ia3, seed: int):
    """`model` with adapters in it, as peft's model."""
    from peft import get_peft_config, get_peft_model  # a second, which most recipes do not need

    torch.manual_seed(seed)
    said = adapter.determining() | {"task_type": "CAUSAL_LM"}
    if isinstance(adapter, Lora):
        said |= {"target_modules": "all-linear"}
    with _quiet():
        try:
            return get_peft_model(model, get_peft_config(said))
        except ValueError as error:
            why = "it has none of the modules that are named"
            raise _no_place(model, adapter, why) from error


def _matching(model, pattern: str) -> dict[str, torch.Tensor]:
    """The weights whose names a pattern is found in."""
    weights = dict(model.named_parameters())
    found = {name: one.data for name, one in weights.items() if re.search(pattern, name)}
    if not found:
        raise NothingToTrain(f"trainable: no weight has {pattern!r} in its name; {_there(model)}")
    return found


def _there(model) -> str:
    """Which weights a model has, without the numbers of its layers."""
    names = sorted({re.sub(r"\.\d+\.", ".N.", name) for name, _ in model.named_parameters()})
    return f"there are {', '.join(names)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """peft asks transformers by a name that is to go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
