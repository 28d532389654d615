"""One training loop, for pre-training and for fine-tuning.

- A `Row` is a token sequence with a mask of the tokens that count. Pre-training counts all,
  fine-tuning the completion and its end-of-sequence token. Padding is a matter of the batch and
  never of the mask, so it cannot hide that token.
- The loss of a step is the mean over all counted tokens of its batch, whatever the micro-batch:
  sums are divided by the count of the whole batch, not averaged over parts. On out-of-memory the
  micro-batch is halved; where a single row does not fit, activations are computed a second time in
  place of being kept.
- The head is applied to the positions that count only, a piece of them at a time: of a small model
  a large vocabulary is most, and logits of a whole batch are larger than all else in memory.
- Nothing here is random but the order of rows, which follows from seed and epoch. With the
  periodic state (weights, moments, step) a killed run ends with the weights it would have had.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from pretune.models import memory
from pretune.models.optimizers import Optimizers
from pretune.models.states import Step, fingerprint, pause, restore, save
from pretune.recipes.optimisation import Optimisation
from pretune.tasks.prompts import Row

log = logging.getLogger(__name__)


STATE_EVERY = 60.0  # seconds between two saved states of a running training, at least


# Batches have few shapes: for each new one a processor makes code for bfloat16, which takes time,
# and keeps it, which took half of a study's memory.
LENGTHS, POSITIONS = 16, 64
# logits held at a time: what the C library keeps for reuse; a gigabyte
HEAD_ENTRIES = {"cpu": 2**23, "cuda": 2**28}


# from the log-likelihoods of rows (rows,), in nats, to the loss of each (rows,)
Loss = Callable[[torch.Tensor], torch.Tensor]


class TrainingFailed(RuntimeError):
    """Training cannot go on: the message holds the step and the values."""


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 autocast where the hardware multiplies in it, float32 elsewhere.
    Weights stay float32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    enabled = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def counted_hidden(
    model, ids: torch.Tensor, where: torch.Tensor, attention: torch.Tensor | None
) -> torch.Tensor:
    """Hidden states (n, width) from which the tokens at `where` (batch, length) are predicted,
    first column False.
    """
    hidden = model.base_model(ids, attention_mask=attention, use_cache=False).last_hidden_state
    return hidden[:, :-1][where[:, 1:]]


def batch_order(rows: int, settings: Optimisation, seed: int) -> list[np.ndarray]:
    """The row numbers of every optimizer step: each epoch a permutation cut into batches, the
    last may be short.
    """
    order = []
    for epoch in range(settings.epochs):
        shuffled = np.random.default_rng([seed, epoch]).permutation(rows)
        order += [
            shuffled[i : i + settings.batch_size] for i in range(0, rows, settings.batch_size)
        ]
    return order


def rate_share(step: int, total: int, settings: Optimisation) -> float:
    """Share of the peak learning rate at `step` of `total`: linear warm-up, then linear to 0,
    cosine to a tenth, or constant.
    """
    warm = math.ceil(settings.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    if settings.schedule == "linear":
        return 1 - done
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1.0


def train(
    model,
    rows: Sequence[Row],
    settings: Optimisation,
    seed: int,
    state: Path | None = None,
    state_every: float = STATE_EVERY,
    after_step: Callable[[Step], None] = lambda _: None,
    loss: Loss | None = None,
    end: int | None = None,
    cooled: int = 0,
) -> list[Step]:
    """Train `model` in place on `rows` and return the log; `loss` in place of minus the mean
    log-likelihood of the tokens that count.

    `end` stops after that step: a trunk, whose state is left to go on from; or a branch, the rate
    of which falls to 0 over the last `cooled` steps.

    `state` is a file that is written every `state_every` seconds, or more seldom where that
    takes long (0: after every step), continued from when it belongs to this very training, and
    removed at the end. `after_step` sees each finished step, those before a resume excepted.
    Raises TrainingFailed on a loss that is not finite or runs away, and when one row does not
    fit the memory.
    """
    if not rows:
        raise TrainingFailed("no training rows")
    device = next(model.parameters()).device
    order = batch_order(len(rows), settings, seed)
    optimizers = Optimizers(model, settings)
    mark = fingerprint(rows, settings, seed)
    last = len(order) if end is None else end
    steps = restore(state, mark, model, optimizers, last) if state else []
    micro, due = settings.batch_size, time.monotonic() + state_every
    with _in_training(model):
        for number in range(len(steps), last):
            batch = [rows[i] for i in order[number]]
            rate = settings.learning_rate * rate_share(number, len(order), settings)
            rate *= min(1, (last - number) / cooled) if cooled else 1
            try:
                value, micro = _gradients(model, batch, settings.precision, micro, device, loss)
            except TrainingFailed as error:
                raise TrainingFailed(f"{error} at step {number + 1} of {len(order)}") from error
            tokens = (steps[-1].tokens if steps else 0) + sum(len(row.ids) for row in batch)
            steps.append(Step(number + 1, tokens, value, rate))
            _check_loss(steps)
            optimizers.step(rate)
            after_step(steps[-1])
            if state and (start := time.monotonic()) >= due:
                save(state, mark, model, optimizers, steps)
                took = time.monotonic() - start
                due = start + took + pause(state_every, took)
    if state and end is not None and not cooled:
        save(state, mark, model, optimizers, steps)
    elif state:
        state.unlink(missing_ok=True)
    return steps


@contextlib.contextmanager
def _in_training(model) -> Iterator[None]:
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


def _gradients(
    model, batch: list[Row], precision: str, micro: int, device, loss: Loss | None
) -> tuple[float, int]:
    """Loss of the batch, its gradient in the parameters, and the micro-batch that fitted the
    memory.
    """
    while True:
        try:
            return _accumulate(model, batch, precision, micro, device, loss), micro
        except RuntimeError as error:
            if not memory.ran_out(error):
                raise
            if micro == 1 and (_computes_twice(model) or not model.supports_gradient_checkpointing):
                longest = max(len(row.ids) for row in batch)
                raise TrainingFailed(
                    f"out of memory with a single row of {longest} tokens on {device}"
                ) from error
        model.zero_grad()
        memory.hand_back()
        micro = _spare_memory(model, micro, device)


def _spare_memory(model, micro: int, device) -> int:
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


def _accumulate(
    model, batch: list[Row], precision: str, micro: int, device, loss: Loss | None
) -> float:
    total = sum(int(row.counted.sum()) for row in batch)
    ordered, value = sorted(batch, key=lambda row: len(row.ids)), 0.0
    for start in range(0, len(ordered), micro):
        some = ordered[start : start + micro]
        ids, counted, attention = collate(some, device, _in_steps(model, len(some[-1].ids)))
        with autocast(precision, device):
            hidden = counted_hidden(model, ids, counted, attention)
        leaf, head = hidden.detach().requires_grad_(), model.get_output_embeddings()
        if loss is None:
            value += _head(head, leaf, ids[counted], total, precision)
        else:
            value += _by_row(head, leaf, ids[counted], counted, precision, loss, len(batch))
        hidden.backward(leaf.grad)
    return value


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
    precision: str,
    loss: Loss,
    batch: int,
) -> float:
    """What `loss` makes of the log-likelihoods of rows, over the size of the batch, with its
    gradient in `hidden` and in the head: that in a row's log-likelihood weighs the row's tokens.
    """
    owners, rows = counted.nonzero()[:, 0], counted.shape[0]
    with torch.no_grad():
        tokens = torch.cat([one for one, _ in _pieces(head, hidden, targets, precision)])
    likelihood = tokens.new_zeros(rows).index_add(0, owners, -tokens).requires_grad_()
    value = loss(likelihood).sum() / batch
    weights, done = -torch.autograd.grad(value, likelihood)[0][owners], 0
    for minus, size in _pieces(head, hidden, targets, precision):
        (minus * weights[done : done + size]).sum().backward()
        done += size
    return value.item()


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
    context = getattr(model.config, "max_position_embeddings", None) or longest
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


def _check_loss(steps: list[Step]) -> None:
    """Stop on a loss that is not finite, or whose mean over 10 steps is above the first by more
    than its size plus one nat.
    """
    last = steps[-1]
    recent = np.mean([step.loss for step in steps[-10:]])
    if not math.isfinite(last.loss) or recent > steps[0].loss + abs(steps[0].loss) + 1:
        raise TrainingFailed(
            f"loss {last.loss:.4g} at step {last.step} (first {steps[0].loss:.4g}, mean of the "
            f"last ten {recent:.4g}, learning rate {last.learning_rate:.3g}): lower the learning "
            "rate"
        )
