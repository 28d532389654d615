"""Tuning of a learned prefix against peft's in the loop that a user would write: the same rows,
batches and rates, from the same prefix.
"""

from __future__ import annotations

import copy

import torch
from peft import get_peft_config, get_peft_model

from benchmarks import setting
from benchmarks.setting import Result
from benchmarks.tuning import BATCH, COUNT, beside_the_loop
from pretune.models import adapters, learned
from pretune.recipes import sft
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
    tokenizer, model = setting.tokenizer(), setting.model(name)
    made = [sft.training_row(tokenizer, one) for one in setting.items("mnli", COUNT[name], 0)[1]]
    what = f"prefix of {PREFIX.num_virtual_tokens} on MNLI, batch {BATCH}"
    other = peft(copy.deepcopy(model))
    return beside_the_loop(what, name, "peft, bare loop", made, prefixed(model), other)
