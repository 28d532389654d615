"""Loading checkpoints.

- Weights are safetensors and code is never taken from a checkpoint; a missing or unexpected weight
  is fatal, because `transformers` would otherwise go on with random ones.
- Dropout is turned off when a model is loaded: what it leaves out follows from no seed of the
  study.
"""

from __future__ import annotations

import json
import logging
import math
import textwrap
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pretune import storage
from pretune.errors import Damaged
from pretune.models import agreement, checkpoint
from pretune.models.checkpoint import Checkpoint
from pretune.models.device import pick_device

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()
# nats a token by which what is read off a model may differ from what it says itself
AGREEING = 0.01
_tokenizers: dict[str, object] = {}  # the last one that was loaded, under what its files are
PLAIN = (
    "The river runs through the town and under the old bridge. In the morning the market opens, "
    "and people come from the villages to sell bread, fruit and cloth. When it rains they stand "
    "under the roof of the hall and talk."
)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names it and what is wrong."""


def load_checkpoint(point: Checkpoint) -> tuple[torch.nn.Module, object]:
    """Model (float32, in evaluation mode, on the device) and tokenizer of a checkpoint's folder
    that verifies.

    Raises Damaged where it does not, after setting it aside; CheckpointError for a folder of the
    user's, and for an architecture that is read wrongly here.
    """
    if point.apart is None and (wrong := checkpoint.fault(point.folder)):
        storage.set_aside(point.folder)
        raise Damaged(f"{point.folder}: {wrong}: set aside, to be made again")
    if point.apart:
        checked = json.loads(point.about.read_text())["sha256"]
        if checkpoint.weights_checksum(point.folder) != checked:
            raise CheckpointError(
                f"{point.folder}: its weights are not those that were checked; remove "
                f"{point.apart} to have them checked again"
            )
    model = load_weights(point.folder)
    _hold_to_its_word(model, point.folder)
    return model, _tokenizer(point.folder)


def dropout(folder: Path) -> str:
    """`none`, or `off` with what the configuration of a checkpoint says of dropout and other
    chance in training.
    """
    said = _chances(AutoConfig.from_pretrained(folder).get_text_config())
    numbers = ", ".join(f"{name} {value:g}" for name, value in said.items())
    return f"off; its configuration says {numbers}" if numbers else "none"


def check(folder: Path, point: Checkpoint) -> str:
    """Hold a fetched checkpoint against what it must be; the checksum of its weights. It is looked
    at on the processor, because cells are at work on the GPU meanwhile.

    Raises CheckpointError for missing or unexpected weights, an architecture that is read
    wrongly here, a tokenizer with more entries than the model has, and, after a hundred million
    tokens, for a model that expects plain English no better than chance; and for files that lead
    elsewhere.
    """
    if outside := checkpoint.foreign(folder, folder.parent):
        raise CheckpointError(
            f"{point.name}: {outside} leads out of {folder.parent}; put the file itself there"
        )
    model = loaded(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{point.name}: no tokenizer can be read beside its weights, where "
            f"tokenizer.save_pretrained puts it: {textwrap.shorten(str(error), 160)}"
        ) from None
    _hold_to_its_word(model, folder)
    if (said := dropout(folder)) != "none":
        log.warning("%s: dropout is %s", point.name, said)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{point.name}: its tokenizer has {len(tokenizer)} entries, its embedding {rows}: not "
            "its own"
        )
    ids = torch.tensor([tokenizer(PLAIN)["input_ids"]], device=model.device)
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    if point.tokens >= 10**8 and not loss < math.log(rows) - 0.5:
        raise CheckpointError(
            f"{point.name}: {loss:.2f} nats per token on plain English, where chance is "
            f"{math.log(rows):.2f}: its weights or its tokenizer are not what they should be"
        )
    return checkpoint.weights_checksum(folder)


def convert(folder: Path) -> None:
    """Turn pickled weights (*.bin) into safetensors, loading nothing but weights, and remove
    them.
    """
    model, config = loaded(folder, use_safetensors=False), (folder / "config.json").read_text()
    model.save_pretrained(folder)
    # what it says of dropout was changed when it was loaded
    (folder / "config.json").write_text(config)
    for file in folder.glob("*.bin*"):
        file.unlink()


def _tokenizer(folder: Path) -> object:
    """The tokenizer of a checkpoint: for the same files the same object, so that what it made of
    a text can be kept.
    """
    mark = checkpoint.other_checksum(folder)
    if mark not in _tokenizers:
        _tokenizers.clear()
        _tokenizers[mark] = AutoTokenizer.from_pretrained(folder)
    return _tokenizers[mark]


def load_weights(folder: Path) -> torch.nn.Module:
    return loaded(folder).to(pick_device())


def loaded(folder: Path, use_safetensors: bool = True) -> torch.nn.Module:
    """The model of a folder in evaluation mode. Raises CheckpointError where weights and model
    do not fit each other.
    """
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=_steady_config(folder),
            dtype=torch.float32,
            use_safetensors=use_safetensors,
            weights_only=True,
            attn_implementation="sdpa",  # scoring gives masks that others would misread
            output_loading_info=True,
        )
    except ValueError as error:
        raise CheckpointError(f"{folder}: {str(error).partition(' Please')[0]}") from error
    wrong = {
        kind: sorted(report[kind])
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if report[kind]
    }
    if wrong:
        raise CheckpointError(f"{folder}: weights do not match the model: {wrong}")
    return model


def layers(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a model, by what transformers says are never to be split."""
    kinds = model._no_split_modules or ()
    return [one for one in model.modules() if type(one).__name__ in kinds]


def _hold_to_its_word(model: torch.nn.Module, folder: Path) -> None:
    """Refuse a model that is scored or tuned wrongly here because its architecture does more
    than is known.
    """
    refused = f"{folder}: {type(model).__name__} cannot be used"
    try:
        apart = agreement.difference(model)
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise CheckpointError(f"{refused}: {type(error).__name__}: {said}") from error
    if not apart <= AGREEING:
        raise CheckpointError(
            f"{refused}: log-probabilities that are read off its hidden states are {apart:.2g} "
            f"nats a token from those that it gives itself (at most {AGREEING} is right): it "
            "scales logits after its head, or attends in a way that is not known here"
        )


def _steady_config(folder: Path) -> object:
    """The configuration of a checkpoint with nothing left to chance."""
    config = AutoConfig.from_pretrained(folder)
    part = config.get_text_config()
    for name, value in _chances(part).items():
        setattr(part, name, type(value)(0))
    return config


def _chances(config) -> dict[str, float]:
    """The numbers of a configuration that leave a part of training to chance; heads that a
    language model lacks are no part.
    """
    found = {}
    for name, value in vars(config).items():
        is_chance = "drop" in name or "jitter" in name
        is_number = type(value) in (int, float)  # which True and False are not
        if is_chance and is_number and value and not name.startswith(("classifier", "summary")):
            found[name] = value
    return found
