"""Tuning of a learned prefix against peft's in the loop that a user would write: the same rows,
batches and rates, from the same prefix.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from peft import get_peft_config, get_peft_model

from benchmarks import setting
from benchmarks.setting import Result
from benchmarks.tuning import BATCH, COUNT, SETTINGS, bare, ours, rows
from pretune.models import adapters, learned, training
from pretune.recipes.trainable import Prefix

PREFIX = Prefix(peft_type="PREFIX_TUNING", num_virtual_tokens=16)


def prefixed(model) -> torch.nn.Module:
    return adapters.part_of(model, PREFIX, seed=0).model


def peft(model) -> torch.nn.Module:
    """peft's model with the same numbers: one embedding a token, of all layers."""
    values = learned.of(prefixed(copy.deepcopy(model))).values.data
    made = get_peft_model(model, get_peft_config(PREFIX.model_dump() | {"task_type": "CAUSAL_LM"}))
    flat = values[:, :, 0].permute(3, 0, 1, 2, 4).reshape(values.shape[-2], -1)
    made.prompt_encoder["default"].embedding.weight.data.copy_(flat)
    return made


def run(name: str) -> list[Result]:
    tokenizer, fresh = setting.tokenizer(), setting.model(name)
    made = rows(tokenizer, COUNT[name])  # in the order of training, which the bare loop draws
    order = np.concatenate(training.batch_order(len(made), SETTINGS, 0))
    given = [made[place] for place in np.argsort(order)]
    ours_s, peer_s, mine, theirs = setting.in_turn(
        lambda: ours(prefixed(copy.deepcopy(fresh)), made),
        lambda: bare(peft(copy.deepcopy(fresh)), given),
    )
    apart = setting.farthest([mine], [theirs])
    assert apart < 1e-3, f"losses are {apart:g} apart"
    return [
        Result(
            f"prefix of {PREFIX.num_virtual_tokens} on MNLI, batch {BATCH}",
            name,
            "peft, bare loop",
            ours_s,
            peer_s,
            f"losses within {apart:.0e}",
            1.0,
            {"tokens": sum(row.tokens for row in made)},
        )
    ]
