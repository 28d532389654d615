"""A prefix that all rows of a batch share, kept once and not once a row.

- Attention over the prefix and over a row's own tokens is one softmax over both, so scores of the
  two parts are computed apart and joined. That of the prefix is one product of matrices for all
  rows (Juravsky et al., *Hydragen*, arXiv 2402.05099).
- All scores are in memory then, which is right for a token a row. Where more are read, the prefix
  is repeated instead, one layer at a time, for torch's attention, which never holds them.
- Own keys and values lie in a buffer with room for those that follow (`Own`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "shared_prefix"
ROOM = 64  # tokens
# keys and values (1, heads, tokens, width) of each layer
Prefix = list[tuple[torch.Tensor, torch.Tensor]]


class Own(DynamicLayer):
    """Keys and values of one layer in a buffer with room for `ROOM` more tokens, so that adding
    one does not copy the rest.
    """

    _buffers: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if not self._buffers or self._buffers[0].shape[2] < end:
            grown = tuple(_empty(new, len(new), end + ROOM) for new in (key_states, value_states))
            for buffer, old in zip(grown, self._buffers, strict=bool(self._buffers)):
                buffer[:, :, :start] = old[:, :, :start]
            self._buffers = grown
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._buffers = tuple(buffer.index_select(0, indices) for buffer in self._buffers)
        self._show(self.get_seq_length())

    def _show(self, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    @classmethod
    def joined(cls, layers: Sequence[Own]) -> Own:
        """The rows of all `layers` in one, the shorter ones with zeros behind."""
        made, first = cls(), (layers[0].keys, layers[0].values)
        end = max(layer.get_seq_length() for layer in layers)
        rows = sum(len(layer.keys) for layer in layers)
        made.lazy_initialization(*first)
        made._buffers = tuple(_empty(old, rows, end + ROOM) for old in first)
        for buffer, name in zip(made._buffers, ("keys", "values"), strict=True):
            parts = [
                pad(getattr(layer, name), (0, 0, 0, end - layer.get_seq_length()))
                for layer in layers
            ]
            torch.cat(parts, out=buffer[:, :, :end])
        made._show(end)
        return made


def _empty(like: torch.Tensor, rows: int, tokens: int) -> torch.Tensor:
    return like.new_empty(rows, like.shape[1], tokens, like.shape[3])


def own_cache(layers: Sequence[Own] = ()) -> Cache:
    """An empty cache, or one of these layers."""
    cache = Cache(layer_class_to_replicate=Own)
    cache.layers += layers
    return cache


def can_share(model) -> bool:
    """Whether the attention of a model can be exchanged, as a few older ones' cannot; each row
    then reads what all share.
    """
    return model._supports_attention_backend


def attending(function: Callable) -> Callable:
    """Have the model that `function` takes first attend with `attend` (`shared`)."""

    @wraps(function)
    def wrapped(model, *given, **named):
        with shared(model):
            return function(model, *given, **named)

    return wrapped


@contextmanager
def shared(*models) -> Iterator[None]:
    """Meanwhile `models` attend with `attend`, which without a prefix is torch's attention."""
    before = [(one, one.config._attn_implementation) for one in models if can_share(one)]
    try:
        for model, _ in before:
            model.set_attn_implementation(NAME)
        yield
    finally:
        for model, usual in before:
            model.set_attn_implementation(usual)


def joined(first: Prefix, second: Prefix) -> Prefix:
    """One prefix behind another."""
    return [
        tuple(torch.cat(pair, 2) for pair in zip(one, other, strict=True))
        for one, other in zip(first, second, strict=True)
    ]


def length(prefix: Prefix) -> int:
    return prefix[0][0].shape[2] if prefix else 0


def attend(
    module, query, key, value, attention_mask, scaling=None, prefix: Prefix | None = None, **kwargs
):
    """Attention of `query` (rows, heads, n, width) to the prefix, if there is one, and to own `key`
    and `value`.

    `attention_mask` (rows, 1, n, prefix and own tokens) is True where a token may be seen.
    """
    if prefix:
        shared_key, shared_value = prefix[module.layer_idx]
        if query.shape[2] == 1:
            out = _joint(query, key, value, attention_mask, scaling, shared_key, shared_value)
            return out, None
        key, value = _behind(shared_key, key), _behind(shared_value, value)
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **kwargs
    )


def _behind(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The keys or values of every row's own tokens behind those of the prefix."""
    return torch.cat([shared.expand(len(own), -1, -1, -1), own], 2)


def _joint(query, key, value, mask, scaling, shared_key, shared_value) -> torch.Tensor:
    rows, heads, n, width = query.shape
    # groups of heads that have keys and values in common; tokens
    groups, size = key.shape[1], shared_key.shape[2]
    query = (query * (scaling or width**-0.5)).reshape(rows, groups, -1, width)
    far = _flat(query) @ shared_key[0].transpose(1, 2)
    scores = torch.cat(
        [far.unflatten(1, (rows, -1)).transpose(0, 1), query @ key.transpose(2, 3)], 3
    )
    scores = scores.view(rows, heads, n, -1).masked_fill_(~mask, -torch.inf).softmax(3)
    scores = scores.view(rows, groups, -1, scores.shape[3])
    far = _flat(scores[..., :size]) @ shared_value[0]
    out = far.unflatten(1, (rows, -1)).transpose(0, 1) + scores[..., size:] @ value
    return out.reshape(rows, heads, n, -1).transpose(1, 2)


def _flat(table: torch.Tensor) -> torch.Tensor:
    """(rows, groups, m, k) as (groups, rows times m, k)."""
    return table.transpose(0, 1).flatten(1, 2)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
