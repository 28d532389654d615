"""Two models on the same tokens: how far apart their distributions over the next one are.

- Distances are over the whole vocabulary, in float32. The released code of *The Unlocking Spell*
  (AlignTDS) takes them over the likeliest fifty tokens of each, made to sum to one again: such a
  distance leaves out what lies beyond, and may be negative.
- Both models are in memory once. What sequences share is read once by each, and logits are made of
  the positions that count, so many at a time as a training makes (`gradients.HEAD_ENTRIES`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import torch

from pretune.models import prefix
from pretune.models.gradients import HEAD_ENTRIES
from pretune.models.reading import Prefix, ScoringFailed, State, padded, read_root, root_of
from pretune.models.scoring import in_batches
from pretune.tasks.prompts import Request

# of every position, in the order in which `_distances` gives them
NUMBERS = (
    "tuned_log_probability",  # of the token that stands there, nats
    "base_log_probability",
    "tuned_rank",  # how many tokens are likelier, and one
    "base_rank",
    "kl_tuned_base",  # sum over tokens of P_tuned log (P_tuned / P_base), nats
    "kl_base_tuned",
    "tuned_entropy",  # nats
    "base_entropy",
    "base_choice",  # the token that base finds likeliest
)
ENTRIES = 8  # tables of positions by vocabulary that are there at a time
BATCH_TOKENS = 4096  # that one forward pass reads: few rows of like lengths, with little padding


@torch.inference_mode()
def compared(
    tuned, base, items: Sequence[Sequence[Request]], batch_tokens: int = BATCH_TOKENS
) -> list[list[np.ndarray]]:
    """For every request what both models make of the tokens from its `start` on: an array of
    `NUMBERS` by tokens, float64 of values computed in float32. The requests of an item have all
    before their `start` in common.

    Raises ScoringFailed for models of different vocabularies, and where one item does not fit the
    memory.
    """
    _hold_alike(tuned, base)
    models, found = (tuned, base), [[] for _ in items]
    with prefix.shared(*models):
        contexts = [some[0].ids[: some[0].start] for some in items]
        root = root_of(contexts) if prefix.can_share(tuned) else 0
        caches = [read_root(model, contexts[0][:root]) for model in models]

        def compare(batch: list[int], _: int) -> None:
            starts = [contexts[i][root:] for i in batch]
            tails = [[one.ids[one.start :] for one in items[i]] for i in batch]
            hidden = [_read(*one, starts, tails) for one in zip(models, caches, strict=True)]
            flat = list(chain.from_iterable(tails))
            table = _in_pieces(models, hidden, np.concatenate(flat))
            parts = iter(np.split(table, np.cumsum([len(tail) for tail in flat])[:-1], axis=1))
            for i, some in zip(batch, tails, strict=True):
                found[i] = list(islice(parts, len(some)))

        sizes = [sum(len(one.ids) - one.start for one in some) for some in items]
        sizes = [size + len(one) - root for size, one in zip(sizes, contexts, strict=True)]
        in_batches(sizes, batch_tokens, root, tuned.device, compare)
    return found


def weight_change(tuned, base) -> float:
    """The norm of what tuning changed of all weights, over the norm of the weights; what was added
    to them changed from nothing.
    """
    before, moved, whole = dict(base.named_parameters()), 0.0, 0.0
    for name, one in tuned.named_parameters():
        other = before.get(name, torch.zeros_like(one)).detach()
        moved += float((one.detach() - other).double().square().sum())
        whole += float(other.double().square().sum())
    return (moved / whole) ** 0.5


def _hold_alike(tuned, base) -> None:
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (tuned, base)]
    if sizes[0] != sizes[1]:
        raise ScoringFailed(
            f"the tuned model has a vocabulary of {sizes[0]:,} tokens and its base one of "
            f"{sizes[1]:,}: their distributions cannot be compared; tune without adding tokens"
        )


def _read(
    model, cache: Prefix, starts: list[np.ndarray], tails: list[list[np.ndarray]]
) -> torch.Tensor:
    """What a model has in mind before each token of every tail (tokens, width)."""
    state = State(model, cache, len(starts))
    ids, real = padded(starts, model.device)
    hidden = state.feed(ids, real)
    first = hidden[torch.arange(len(starts)), real.sum(1) - 1]
    owner = np.repeat(np.arange(len(tails)), [len(some) for some in tails]).tolist()
    flat = list(chain.from_iterable(tails))
    found = [[first[row : row + 1]] for row in owner]
    if long := [row for row, tail in enumerate(flat) if len(tail) > 1]:
        state.select(torch.tensor([owner[row] for row in long], device=model.device))
        ids, real = padded([flat[row][:-1] for row in long], model.device)
        for row, some in zip(long, state.feed(ids, real), strict=True):
            found[row].append(some[: len(flat[row]) - 1])
    return torch.cat(list(chain.from_iterable(found)))


def _in_pieces(models: tuple, hidden: list[torch.Tensor], targets: np.ndarray) -> np.ndarray:
    """`_distances` of so many positions at a time as may be there."""
    heads = [model.get_output_embeddings() for model in models]
    entries = HEAD_ENTRIES[hidden[0].device.type] // ENTRIES
    size, parts = max(1, entries // heads[0].weight.shape[0]), []
    there = torch.from_numpy(targets.astype(np.int64)).to(hidden[0].device)
    for start in range(0, len(there), size):
        piece = slice(start, start + size)
        with torch.autocast(there.device.type, enabled=False):  # in which ranks would be ties
            logits = [head(one[piece].float()) for head, one in zip(heads, hidden, strict=True)]
        parts.append(_distances(*logits, there[piece]).double().cpu().numpy())
    return np.concatenate(parts, axis=1)


def _distances(tuned: torch.Tensor, base: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`NUMBERS` by positions, of logits (positions, vocabulary) and the tokens that stand there."""
    ones, others = tuned.log_softmax(-1), base.log_softmax(-1)
    said = [table.gather(1, targets[:, None]) for table in (ones, others)]
    ranks = [(table > own).sum(1) + 1 for table, own in zip((ones, others), said, strict=True)]
    shares, apart = [ones.exp(), others.exp()], ones - others
    return torch.stack(
        [
            *(own[:, 0] for own in said),
            *(rank.float() for rank in ranks),
            (shares[0] * apart).sum(1),
            -(shares[1] * apart).sum(1),
            -(shares[0] * ones).sum(1),
            -(shares[1] * others).sum(1),
            base.argmax(1).float(),
        ]
    )
