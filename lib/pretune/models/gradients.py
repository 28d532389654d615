"""The gradient of one batch, in the memory there is.

- The loss is the mean over all counted tokens of the batch, whatever the micro-batch: sums are
  divided by the count of the whole batch, not averaged over parts. On out-of-memory the micro-batch
  is halved; where a single row does not fit, activations are computed a second time in place of
  being kept.
- The head is applied to the positions that count only, a piece of them at a time: of a small model
  a large vocabulary is most, and logits of a whole batch are larger than all else in memory.
- Batches have few shapes: for each new one a processor makes code for bfloat16, which takes time,
  and keeps it, which took half of a study's memory.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from pretune.models import learned, memory
from pretune.models.device import autocast
from pretune.tasks.prompts import Row

log = logging.getLogger(__name__)

LENGTHS, POSITIONS = 16, 64  # multiples of which a batch has tokens, and the head positions
# logits held at a time: what the C library keeps for reuse; a gigabyte
HEAD_ENTRIES = {"cpu": 2**23, "cuda": 2**28}

# from the log-likelihoods of rows (rows,), in nats, to the loss of each (rows,); of rows that are
# preferred to others from how much their lead over these grew
Loss = Callable[[torch.Tensor], torch.Tensor]


class TrainingFailed(RuntimeError):
    """Training cannot go on: the message holds the step and the values."""


class Alone:
    """What of a training a process does, which is all; where it is one of several: `group`."""

    size, spared = 1, 0  # processes; how often memory was spared already
    is_first = True

    def share(self, rows: list[Row]) -> list[Row]:
        """The rows of a batch that are read here."""
        return rows

    def call(self, do: Callable, model: torch.nn.Module, *arguments: object) -> tuple:
        """What `do` makes of the model."""
        return do(model, *arguments)

    def sum(self, value: float) -> float:
        """Over all processes."""
        return value

    def agree(self, whether: bool) -> bool:
        """The same for all of them."""
        return whether

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight or moment of which this process may hold a part."""
        return tensor

    def part(self, tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """What this process holds of what was `whole`, where it holds so much of a weight."""
        return tensor.to(weight.device)


def counted_hidden(
    model, ids: torch.Tensor, where: torch.Tensor, attention: torch.Tensor | None
) -> torch.Tensor:
    """Hidden states (n, width) from which the tokens at `where` (batch, length) are predicted,
    first column False.
    """
    hidden = model.base_model(ids, **learned.before(model, ids, attention)).last_hidden_state
    return hidden[:, :-1][where[:, 1:]]


@contextlib.contextmanager
def in_training(model) -> Iterator[None]:
    """`model` in training mode, and afterwards in evaluation mode with nothing left of what
    memory asked for.
    """
    model.train()
    try:
        yield
    finally:
        if _computes_twice(model):
            _compute_twice(model, False)
        model.eval()


@dataclass(frozen=True)
class Way:
    """How a loss is computed; `loss` None: the mean over all tokens that count."""

    precision: str
    loss: Loss | None
    group: Alone


def gradients(model, batch: list[Row], micro: int, way: Way) -> tuple[float, int]:
    """Loss of the batch, its gradient in the parameters, and the micro-batch that fitted the
    memory: `micro`, or less.

    Raises TrainingFailed where a single row does not fit.
    """
    device = next(model.parameters()).device
    while True:
        try:
            return _accumulate(model, batch, micro, way), micro
        except RuntimeError as error:
            if way.group.size > 1 or not memory.ran_out(error):
                raise
            if micro == 1 and (_computes_twice(model) or not can_compute_twice(model)):
                longest = max(row.longest for row in batch)
                raise TrainingFailed(
                    f"out of memory with a single row of {longest} tokens on {device}"
                ) from error
        model.zero_grad()
        memory.hand_back()
        micro = spare_memory(model, micro, device)


def spare_memory(model, micro: int, device) -> int:
    """Half the micro-batch; where that is one row already, activations are computed a second
    time in place of being kept.
    """
    if micro > 1:
        log.warning("out of memory on %s: micro-batch lowered to %d rows", device, micro // 2)
        return micro // 2
    log.warning(
        "out of memory on %s with a single row: gradient checkpointing is switched on, which "
        "takes longer",
        device,
    )
    _compute_twice(model, True)
    return micro


def can_compute_twice(model) -> bool:
    """Whether activations can be computed a second time: not of a model that begins with something
    learned, which a layer that is computed again would not see.
    """
    return model.supports_gradient_checkpointing and not learned.length(model)


def _computes_twice(model) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _compute_twice(model, whether: bool) -> None:
    """Keep only what goes into each layer, and compute the rest again for its gradient; or keep
    all, as before.
    """
    with warnings.catch_warnings():
        # these names are to go; the new ones are younger than what we allow
        warnings.simplefilter("ignore", FutureWarning)
        if whether:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        else:
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()


def _accumulate(model, batch: list[Row], micro: int, way: Way) -> float:
    total, device = sum(int(row.counted.sum()) for row in batch), next(model.parameters()).device
    ordered, value = way.group.share(sorted(batch, key=lambda row: row.longest)), 0.0
    for start in range(0, len(ordered), micro):
        some = ordered[start : start + micro]
        longest = _in_steps(model, max(row.longest for row in some))
        rivals = [row.rival for row in some if row.rival]
        rows = collate([*some, *rivals], device, longest)
        leads = torch.tensor([row.lead for row in some], device=device) if rivals else None
        size = total if way.loss is None else len(batch)
        hidden, slope, part = way.group.call(_forward, model, *rows, leads, size, way)
        hidden.backward(slope)
        value += part
    return way.group.sum(value)


def _forward(
    model,
    ids: torch.Tensor,
    counted: torch.Tensor,
    attention: torch.Tensor | None,
    leads: torch.Tensor | None,
    size: int,
    way: Way,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Hidden states, the gradient of the loss in them, and the loss, of which `size` is the
    divisor; its gradient in the head is there already.
    """
    with autocast(way.precision, ids.device):
        hidden = counted_hidden(model, ids, counted, attention)
    leaf, head = hidden.detach().requires_grad_(), model.get_output_embeddings()
    if way.loss is None:
        value = _head(head, leaf, ids[counted], size, way.precision)
    else:
        value = _by_row(head, leaf, ids[counted], counted, leads, size, way)
    return hidden, leaf.grad, value


def _head(head, hidden: torch.Tensor, targets: torch.Tensor, total: int, precision: str) -> float:
    """The loss of `targets`, with its gradient in `hidden` and in the head, a piece of the
    positions at a time.
    """
    size, parts = max(1, HEAD_ENTRIES[hidden.device.type] // head.weight.shape[0]), []
    for piece, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = _logits(head, piece, precision)
        part = cross_entropy(logits, wanted, reduction="sum") / total
        part.backward()
        parts.append(part.detach())
    return torch.stack(parts).sum().item()


def _by_row(
    head,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    counted: torch.Tensor,
    leads: torch.Tensor | None,
    batch: int,
    way: Way,
) -> float:
    """What the loss makes of the log-likelihoods of rows, over the size of the batch, with its
    gradient in `hidden` and in the head: that in a row's log-likelihood weighs the row's tokens.
    With `leads` (rows,) as many rivals stand behind the rows.
    """
    owners, rows = counted.nonzero()[:, 0], counted.shape[0]
    with torch.no_grad():
        tokens = torch.cat([one for one, _ in _pieces(head, hidden, targets, way.precision)])
    likelihood = tokens.new_zeros(rows).index_add(0, owners, -tokens).requires_grad_()
    led = likelihood if leads is None else _grown(likelihood, leads)
    value = way.loss(led)[counted.any(1)[: len(led)]].sum() / batch
    weights, done = -torch.autograd.grad(value, likelihood)[0][owners], 0
    for minus, size in _pieces(head, hidden, targets, way.precision):
        (minus * weights[done : done + size]).sum().backward()
        done += size
    return value.item()


def _grown(likelihood: torch.Tensor, leads: torch.Tensor) -> torch.Tensor:
    """By how much the lead of each row over its rival grew (rows,), in nats."""
    rows, rivals = likelihood.split(len(leads))
    return rows - rivals - leads


def _pieces(
    head, hidden: torch.Tensor, targets: torch.Tensor, precision: str
) -> Iterator[tuple[torch.Tensor, int]]:
    """Minus the log-likelihood of `targets`, a piece at a time, and how many they are."""
    size = max(1, HEAD_ENTRIES[hidden.device.type] // head.weight.shape[0])
    for piece, wanted in zip(hidden.split(size), targets.split(size), strict=True):
        logits = _logits(head, piece, precision)
        yield cross_entropy(logits, wanted, reduction="none"), len(wanted)


def _logits(head, hidden: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits (n, vocabulary), in float32, of `hidden` (n, width), computed for a multiple of
    `POSITIONS`.
    """
    with autocast(precision, hidden.device):
        logits = head(pad(hidden, (0, 0, 0, -len(hidden) % POSITIONS)))
    return logits[: len(hidden)].float()


def _in_steps(model, longest: int) -> int:
    """`longest`, up to a multiple of `LENGTHS` as far as the context reaches."""
    most = getattr(model.config, "max_position_embeddings", None) or longest
    context = most - learned.length(model)
    return max(longest, min(-(-longest // LENGTHS) * LENGTHS, context))


def collate(
    rows: list[Row], device, longest: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Ids, counted mask and attention mask (None without padding), each (rows, tokens of the
    longest, or `longest`), padded on the right with 0.
    """
    longest = longest or max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    counted, real = np.zeros((2, len(rows), longest), dtype=bool)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, :size], counted[i, :size], real[i, :size] = row.ids, row.counted, True
    attention = None if real.all() else torch.from_numpy(real).to(device)
    return torch.from_numpy(ids).to(device), torch.from_numpy(counted).to(device), attention
