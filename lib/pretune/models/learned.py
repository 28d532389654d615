"""Tokens that are none and are learned: what stands before all that a model reads.

Keys and values of every layer (a prefix), or embeddings, which are read once into keys and values
(a prompt). Positions of what is read come after those of the learned ones, in training as in
scoring. Both begin as tokens of the vocabulary, drawn by the seed, since random numbers are far
from all that a model has seen (Li & Liang, section 7.4; Lester et al., section 3.2).
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache

from pretune.models import prefix
from pretune.models.prefix import Prefix as Read

NAME = "added"  # of the module in a model


class Learned(nn.Module):
    """Learned keys and values (layers, 2, 1, heads, tokens, width), or embeddings (1, tokens,
    width).
    """

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = nn.Parameter(values)

    @property
    def length(self) -> int:
        """In tokens."""
        return self.values.shape[-2]

    def read(self, model) -> Read:
        """Keys and values of each layer, with their gradients."""
        if self.values.dim() > 3:
            return [(keys, values) for keys, values in self.values]
        return _read(model, inputs_embeds=self.values)


def add(model, tokens: int, embedded: bool, seed: int) -> None:
    """Put learned keys and values before what `model` reads, or learned embeddings."""
    draw = torch.Generator().manual_seed(seed)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, tokens), generator=draw).to(model.device)
    with torch.no_grad():
        if embedded:
            values = model.get_input_embeddings()(ids)
        else:
            values = torch.stack([torch.stack(layer) for layer in _read(model, input_ids=ids)])
    model.add_module(NAME, Learned(values.clone()))


def _read(model, **tokens: torch.Tensor) -> Read:
    cache = DynamicCache()
    model.base_model(**tokens, past_key_values=cache, use_cache=True)
    return [(layer.keys, layer.values) for layer in cache.layers]


def of(model) -> Learned | None:
    """What is learned and stands before what a model reads; None for most models."""
    return getattr(model, NAME, None)


def length(model) -> int:
    """In tokens; 0 for most models."""
    there = of(model)
    return there.length if there else 0


def context(model) -> int:
    """How many tokens a model can read, beside those."""
    return model.config.max_position_embeddings - length(model)


def read(model) -> Read:
    """What a model has read before anything is read."""
    there = of(model)
    return there.read(model) if there else []


def before(model, ids: torch.Tensor, attention: torch.Tensor | None) -> dict[str, object]:
    """How a forward pass of `model` on `ids` (rows, length) is called, in training."""
    there = of(model)
    if there is None:
        return {"attention_mask": attention, "use_cache": False}
    rows, cache = len(ids), DynamicCache()
    for layer, (keys, values) in enumerate(there.read(model)):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    seen = torch.ones(rows, there.length, dtype=torch.bool, device=ids.device)
    real = torch.ones_like(ids, dtype=torch.bool) if attention is None else attention
    places = torch.arange(there.length, there.length + ids.shape[1], device=ids.device)
    return {
        "attention_mask": torch.cat([seen, real], 1),
        "position_ids": places[None],
        "past_key_values": cache,
        "use_cache": True,
    }


def is_possible(model) -> bool:
    """Whether scoring can begin from it."""
    return prefix.can_share(model)
