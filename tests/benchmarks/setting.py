"""What every benchmark shares: models, rows, and the timing of two things in turn.

Models are untrained OLMo transformers with OLMo's tokenizer: time does not depend on what
weights say. Ours and the peer run in turn, so that a machine that slows down slows both; what is
quoted is the median of the ratios of neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from datasets import Dataset as Table
from transformers import AutoTokenizer, OlmoConfig, OlmoForCausalLM

from pretune.models import gradients, training
from pretune.models.device import autocast
from pretune.recipes.optimisation import Optimisation
from pretune.tasks import prompts
from pretune.tasks.example import Example
from pretune.tasks.registry import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(os.environ.get("PRETUNE_REAL_ROWS", ROOT.parent / "shared" / "data"))
OLMO = Path(os.environ.get("PRETUNE_OLMO_TOKENIZER", ROOT.parent / "shared" / "olmo-1b"))
RUNS = 5
# layers, width, heads, inner width; embeddings 6 M and 16 M
SHAPES = {"1 M": (4, 128, 4, 384), "30 M": (10, 320, 8, 960)}
FILES = {
    "hellaswag": "validation",
    "arc_easy": "test",
    "boolq": "validation",
    "paws": "validation",
    "mnli": "validation_matched",
    "xsum": "test",
}  # where the folder of rows has them


@dataclass
class Result:
    """One line of the table. `ratio` is peer over ours in seconds: above 1 we are faster."""

    what: str
    model: str
    peer: str
    ours_s: list[float]
    peer_s: list[float]
    same: str  # what was found equal, and how far apart it was at most
    to_reach: float
    notes: dict = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return median(peer / ours for ours, peer in zip(self.ours_s, self.peer_s, strict=True))


def tokenizer():
    return AutoTokenizer.from_pretrained(OLMO)


def model(name: str, seed: int = 0) -> OlmoForCausalLM:
    """An untrained model; weights are widened so that its answers differ."""
    torch.manual_seed(seed)
    made = untrained(*SHAPES[name]).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(3)
    return made


def untrained(layers: int, width: int, heads: int, inner: int, tied: bool = True):
    """An OLMo transformer of a shape, to go with OLMo's tokenizer."""
    config = OlmoConfig(
        vocab_size=50304,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        eos_token_id=50279,
        pad_token_id=1,
        bos_token_id=None,
    )
    return OlmoForCausalLM(config)


def bare(model, rows: list[training.Row], settings: Optimisation) -> list[float]:
    """The loop that a user would write: padded batches, the model's own loss, autocast; the loss of
    every step.
    """
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0,
        fused=True,
    )
    order, losses = training.batch_order(len(rows), settings, 0), []
    device = next(model.parameters()).device
    model.train()
    for number, batch in enumerate(order):
        ids, counted, attention = gradients.collate([rows[i] for i in batch], device)
        with autocast(settings.precision, device):
            loss = model(ids, attention_mask=attention, labels=torch.where(counted, ids, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * training.rate_share(number, len(order), settings)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def items(name: str, count: int, shots: int) -> tuple[str, list[Example]]:
    """The prefix of the first `shots` rows and the next `count` items of a dataset."""
    dataset = REGISTRY[name]
    table = Table.from_json(str(ROWS / dataset.folder / f"{FILES[name]}.jsonl"))
    made = [dataset.example(table[i], "default") for i in range(shots + count)]
    return "".join(f"{one.prompt}{one.completion}\n" for one in made[:shots]), made[shots:]


def requests(tokenizer, prefix: str, made: list[Example]) -> list[list[prompts.Request]]:
    """All sequences, tokenised anew: that is part of the work of both."""
    prompts.split.cache_clear()
    return [
        [prompts.split(tokenizer, prefix + item.prompt, choice) for choice in item.choices]
        for item in made
    ]


def timed(work: Callable[[], object]) -> Callable[[], tuple[float, object]]:
    """`work`, which gives its seconds before what it gives."""

    def run() -> tuple[float, object]:
        start = time.perf_counter()
        given = work()
        return time.perf_counter() - start, given

    return run


def in_turn(
    ours: Callable, peer: Callable, runs: int = RUNS
) -> tuple[list[float], list[float], object, object]:
    """Seconds of both over `runs` turns after one that does not count, and what each gave last.
    Who goes first changes from turn to turn, since the first to touch memory pays for it.
    """
    seconds, given, order = ([], []), [None, None], [(0, ours), (1, peer)]
    for _ in range(runs + 1):
        for which, work in order:
            took, given[which] = work()
            seconds[which].append(took)
        order.reverse()
    return seconds[0][1:], seconds[1][1:], *given


def farthest(one: list, two: list) -> float:
    """The largest distance between two nested lists of numbers."""
    return float(
        np.max(
            np.abs(
                np.concatenate([np.ravel(a) for a in one])
                - np.concatenate([np.ravel(b) for b in two])
            )
        )
    )


def ids(tokenizer, text: str) -> np.ndarray:
    return np.array(tokenizer(text)["input_ids"])
