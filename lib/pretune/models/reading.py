"""Reading many sequences at once: what they share is read once, the rest in parts of like lengths.

- What requests share is found by tokens and not by text, so it is right for any tokenizer: the
  *root* (the few-shot prefix) of all, an item's *context* for all its completions, then *tails*.
- Keys and values of the root are kept once for all rows of a batch (`prefix`). Contexts are padded
  on the right and masked; positions are given explicitly, so padding moves nothing.
- The head is applied where a logit is read, and nowhere else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
import torch
from torch.nn.functional import pad

from pretune.models import learned, memory, prefix
from pretune.models.prefix import Own, Prefix
from pretune.tasks.prompts import Request

PADDING = 1.1  # tokens, with padding, for each real one in a part of the prompts


class ScoringFailed(RuntimeError):
    """Scoring cannot go on: the message holds tokens and device."""


class State:
    """A batch of sequences being read: their keys and values, the positions of those, which are
    real, how long each is.
    """

    def __init__(self, model, root: Prefix, rows: int):
        self.model, self.root, self.cache = model, root, prefix.own_cache()
        read = prefix.length(root)
        self.real = torch.ones(rows, read, dtype=torch.bool, device=model.device)
        self.positions = torch.arange(read, device=model.device).repeat(rows, 1)
        self.lengths = torch.full((rows,), read, device=model.device)

    def feed(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Read `ids` (rows, n), padding where `real` is False; hidden states (rows, n, width).

        Where nothing was read before, padding lies behind all that is real, which sees none of it:
        a mask would only take time.
        """
        positions = self.lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        begins = not self.real.shape[1]
        self.real = torch.cat([self.real, real], dim=1)
        self.positions = torch.cat([self.positions, positions], dim=1)
        out = self.model.base_model(
            ids,
            attention_mask=None if begins else self.masks(positions),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            prefix=self.root,
        )
        self.lengths = self.lengths + real.sum(1)
        return out.last_hidden_state

    def masks(self, positions: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """What the tokens at `positions` (rows, n) attend to: (rows, 1, n, all read so far), by
        position and not by place, so that padding in between widens no distance. Where some
        layers attend to a window only, one for each kind of layer.
        """
        back = (positions[:, :, None] - self.positions[:, None, :])[:, None]
        whole = (back >= 0) & self.real[:, None, None, :]
        window = getattr(self.model.config, "sliding_window", None)
        kinds = getattr(self.model.config, "layer_types", None)
        if window is None or kinds is not None and "sliding_attention" not in kinds:
            return whole
        near = whole & (back < window)
        return near if kinds is None else {"full_attention": whole, "sliding_attention": near}

    def extend(self, sequences: Sequence[np.ndarray]) -> torch.Tensor:
        """Read one sequence a row; logits (rows, vocabulary) of the token after each."""
        ids, real = padded(sequences, self.model.device)
        hidden = self.feed(ids, real)
        return self.head(hidden[torch.arange(len(ids)), real.sum(1) - 1])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.get_output_embeddings()(hidden).float()

    def branch(self) -> State:
        """The same rows, to be selected from and then read on, without a trace in this one."""
        other = copy.copy(self)
        other.cache = prefix.own_cache([copy.copy(layer) for layer in self.cache.layers])
        return other

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows only; a row may come more than once."""
        self.cache.batch_select_indices(rows)
        self.real, self.positions = self.real[rows], self.positions[rows]
        self.lengths = self.lengths[rows]


def joined(states: list[State]) -> State:
    """All rows of `states`, which have read nothing but contexts, in one; the shorter padded on
    the right.
    """
    one = copy.copy(states[0])
    one.real = stacked([state.real for state in states])
    one.positions = stacked([state.positions for state in states])
    one.lengths = torch.cat([state.lengths for state in states])
    layers = zip(*(state.cache.layers for state in states), strict=True)
    one.cache = prefix.own_cache([Own.joined(some) for some in layers])
    return one


def stacked(tables: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all `tables`, the shorter ones padded on the right."""
    longest = max(table.shape[1] for table in tables)
    return torch.cat([pad(table, (0, longest - table.shape[1])) for table in tables])


def read(
    model,
    root: Prefix,
    contexts: list[np.ndarray],
    golds: list[np.ndarray],
    new_tokens: int,
    batch_tokens: int,
) -> tuple[State, torch.Tensor, list[float]]:
    """A state that has read one context a row, the logits after each, and how likely its gold is
    there (NaN without golds).

    `contexts` come longest first. They are read in parts, with their golds, since a part is what
    fits with the root in each row.
    """
    states, logits, found = [], [], []
    sizes, shared = [len(one) for one in contexts], prefix.length(root) + new_tokens
    for part in batches(sizes, batch_tokens, shared, PADDING):
        state = State(model, root, len(part))
        logits.append(state.extend([contexts[i] for i in part]))
        states.append(state)
        if golds:
            tails = [[golds[i]] for i in part]
            scores = tail_scores(state.branch(), logits[-1].log_softmax(-1), tails)
            found += [float(only.sum()) for [only] in scores]
    return joined(states), torch.cat(logits), found or [np.nan] * len(contexts)


def tail_scores(
    state: State, first: torch.Tensor, tails: list[list[np.ndarray]]
) -> list[list[np.ndarray]]:
    """Log-probability of every token of every tail; `first` (items, vocabulary) predicts their
    first tokens.
    """
    counts, flat = [len(some) for some in tails], list(chain.from_iterable(tails))
    owner = np.repeat(np.arange(len(tails)), counts).tolist()
    heads = torch.tensor([int(tail[0]) for tail in flat], device=first.device)
    scores = [[value] for value in first[owner, heads].tolist()]
    long = [row for row, tail in enumerate(flat) if len(tail) > 1]
    if long:
        state.select(torch.tensor([owner[row] for row in long], device=first.device))
        ids, real = padded([flat[row][:-1] for row in long], first.device)
        targets, _ = padded([flat[row][1:] for row in long], first.device)
        logits = state.head(state.feed(ids, real)[real])
        values = logits.log_softmax(-1).gather(1, targets[real][:, None])[:, 0]
        for row, part in zip(long, values.split(real.sum(1).tolist()), strict=True):
            scores[row] += part.tolist()
    flat_scores = iter([np.array(score) for score in scores])
    return [list(islice(flat_scores, count)) for count in counts]


def shared_start(requests: Sequence[Request]) -> int:
    """Length of the context the requests of one item share; it ends no later than a completion
    begins.
    """
    common = common_start([request.ids for request in requests])
    return min(common, *(request.start for request in requests))


def root_of(contexts: Sequence[np.ndarray]) -> int:
    """Length of the prefix all contexts share, leaving each at least one token of its own."""
    return min(common_start(contexts), min(len(context) for context in contexts) - 1)


def common_start(sequences: Sequence[np.ndarray]) -> int:
    shortest = min(len(sequence) for sequence in sequences)
    table = np.stack([sequence[:shortest] for sequence in sequences])
    differs = (table != table[0]).any(0)
    return int(differs.argmax()) if differs.any() else shortest


def read_root(model, ids: np.ndarray) -> Prefix:
    """What all items share: `ids`, after what is learned and stands before everything."""
    before = learned.read(model)
    if not len(ids):
        return before
    state = State(model, before, 1)
    try:
        state.feed(*padded([ids], model.device))
    except RuntimeError as error:
        if not memory.ran_out(error):
            raise
        raise ScoringFailed(
            f"out of memory with the {len(ids)} tokens that all items share on {model.device}"
        ) from error
    own = [(layer.keys, layer.values) for layer in state.cache.layers]
    return prefix.joined(before, own) if before else own


def batches(
    sizes: Sequence[int], budget: int, shared: int = 0, padding: float = math.inf
) -> Iterator[list[int]]:
    """Numbers of items, longest first so that memory is found short at once, in batches of at
    most `budget` tokens, `shared` ones a row included, and of at most `padding` times the tokens
    of their items.
    """
    batch, widest, total = [], 0, 0
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        rows, widest, total = len(batch) + 1, max(widest, sizes[i]), total + sizes[i]
        if batch and ((widest + shared) * rows > budget or widest * rows > padding * total):
            yield batch
            batch, widest, total = [], sizes[i], sizes[i]
        batch.append(i)
    if batch:
        yield batch


def padded(sequences: Sequence[np.ndarray], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (rows, longest) padded on the right with 0, and which of them are real."""
    longest = max(len(sequence) for sequence in sequences)
    ids = np.zeros((len(sequences), longest), dtype=np.int64)
    real = np.zeros(ids.shape, dtype=bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)], real[row, : len(sequence)] = sequence, True
    return torch.from_numpy(ids).to(device), torch.from_numpy(real).to(device)
