"""Pre-training a small OLMo from scratch on text, and the checkpoints it leaves on the way.

- The text of a microworld, or a folder of the user's; a byte-level BPE is trained on its beginning.
- Documents are joined by the end-of-sequence token and cut into rows of equal length; no text is
  seen twice.
- A checkpoint is an ordinary Hugging Face folder (safetensors, tokenizer, config). It appears
  under its name by renaming, so a folder that exists is whole. A killed run goes on from its
  periodic state.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import OlmoConfig, OlmoForCausalLM, PreTrainedTokenizerFast

from pretune import storage
from pretune.models import device, states, training
from pretune.models.checkpoint import describe, weights_checksum
from pretune.recipes.pretrain import Architecture, Pretraining

END, PAD = "<|endoftext|>", "<|padding|>"
TOKENIZER_DOCUMENTS = 4000  # the first so many documents train the tokenizer


def pretrain(
    documents: Callable[[], Iterator[str]],
    steps: tuple[int, ...],
    settings: Pretraining,
    folder: Path,
    run: int = 0,
    after_step: Callable[[states.Step], None] = lambda _: None,
) -> None:
    """Run from scratch for `steps[-1]` steps and leave `folder/step-N` for each N of `steps`.

    `documents` gives the text anew at each call, `run` is the seed of the initialisation. Two
    calls on one machine leave identical weights.
    """
    tokenizer = tokenizer_of(documents(), settings)
    rows = text_rows(documents(), tokenizer, settings.length, steps[-1] * settings.batch_size)
    model = new_model(settings.architecture, tokenizer, run).to(device.pick_device())
    if 0 in steps:
        save_checkpoint(model, tokenizer, folder / "step-0", 0, 0)

    def save(step: states.Step) -> None:
        if step.step in steps:
            save_checkpoint(model, tokenizer, folder / f"step-{step.step}", step.step, step.tokens)
        after_step(step)

    def train(state: Path, after: Callable[[states.Step], None], **part: int) -> list[states.Step]:
        return training.train(model, rows, settings, run, state, after_step=after, **part)

    trunk, log = folder / "running.safetensors", []
    for step in _branches(steps, settings, folder):
        branch, cooled = folder / f"branch-{step}.safetensors", settings.cooled(step)
        train(trunk, after_step, end=step - cooled)
        with storage.whole(branch) as partial:  # one that was killed begins anew
            shutil.copyfile(trunk, partial)
        log = train(branch, save, end=step, cooled=cooled)
    if settings.cooldown:
        trunk.unlink(missing_ok=True)
    else:
        log = train(trunk, save)
    lines = [json.dumps(vars(step)) + "\n" for step in log]
    storage.write(folder / "training.jsonl", "".join(lines))


def _branches(steps: tuple[int, ...], settings: Pretraining, folder: Path) -> list[int]:
    """The checkpoints that are not there yet and end a branch of their own."""
    if not settings.cooldown:
        return []
    return [step for step in steps if step and not (folder / f"step-{step}").exists()]


def tokenizer_of(documents: Iterator[str], settings: Pretraining) -> PreTrainedTokenizerFast:
    """The tokenizer of a run on these documents, of which the first ones train it."""
    first = itertools.islice(documents, TOKENIZER_DOCUMENTS)
    return train_tokenizer(first, settings.architecture.vocabulary)


def train_tokenizer(documents: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` entries; every text can be encoded."""
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        documents, vocabulary, show_progress=False, special_tokens=[END, PAD]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trainer._tokenizer, eos_token=END, pad_token=PAD
    )


def new_model(
    shape: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int
) -> OlmoForCausalLM:
    """An untrained OLMo. The vocabulary is padded to a multiple of 64, as is usual for speed."""
    torch.manual_seed(seed)
    return OlmoForCausalLM(
        OlmoConfig(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=shape.width,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def text_rows(documents: Iterator[str], tokenizer, length: int, count: int) -> list[training.Row]:
    """`count` rows of `length` tokens from documents joined by the end token.

    Raises TrainingFailed when the text ends first.
    """
    needed, stream, total = count * length, [], 0
    while total < needed:
        some = list(itertools.islice(documents, 1000))
        if not some:
            raise training.TrainingFailed(
                f"the text holds {total:,} tokens, the run needs {needed:,}: lower steps, "
                "batch_size or length"
            )
        for ids in tokenizer(some, add_special_tokens=False)["input_ids"]:
            stream.append(np.array([*ids, tokenizer.eos_token_id], dtype=np.int32))
            total += len(ids) + 1
    counted = np.arange(length) > 0
    table = np.concatenate(stream)[:needed].reshape(count, length)
    return [training.Row(ids, counted) for ids in table]


def save_checkpoint(model, tokenizer, folder: Path, step: int, tokens: int) -> None:
    """Leave an ordinary Hugging Face folder; one that exists is kept."""
    if folder.exists():
        return
    with storage.whole(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        describe(partial, weights_checksum(partial), step=step, tokens=tokens)
