"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751, figure 2): after attention and after the
inner part of every layer, before what comes out is added to the stream, two linear layers with a
few units between them, around which it passes as well.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.nn.functional import gelu

from pretune.models.loading import layers

NAME = "added"  # of the module in what it is added to
# how architectures call the two parts of a layer
ATTENTION, INNER = ("self_attn", "attention", "attn"), ("mlp",)


class Bottleneck(nn.Module):
    """Called as a hook on a part of a layer, whose first output is (rows, tokens, width). It begins
    as nothing: what leads back up is 0.
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, _: nn.Module, given: tuple, output):
        hidden = output[0] if isinstance(output, tuple) else output
        more = hidden + self.up(gelu(self.down(hidden)))
        return (more, *output[1:]) if isinstance(output, tuple) else more


def add(model, size: int, seed: int) -> bool:
    """Put adapters into every layer of `model`; False, and none, where a layer lacks a part of a
    known name.
    """
    torch.manual_seed(seed)
    parts = [_parts(layer) for layer in layers(model)]
    for part in chain.from_iterable(parts if all(parts) else ()):
        adapter = Bottleneck(model.config.hidden_size, size).to(model.device)
        part.add_module(NAME, adapter)
        part.register_forward_hook(adapter)
    return bool(parts) and all(parts)


def _parts(layer: nn.Module) -> list[nn.Module]:
    """Attention and inner part of a layer; none where one is not known."""
    inside = dict(layer.named_children())
    found = [[inside[name] for name in names if name in inside] for names in (ATTENTION, INNER)]
    return list(chain.from_iterable(found)) if all(found) else []
