"""One training loop, for pre-training and for fine-tuning.

- A `Row` is a token sequence with a mask of the tokens that count. Pre-training counts all,
  fine-tuning the completion and its end-of-sequence token. Padding is a matter of the batch and
  never of the mask, so it cannot hide that token. What is preferred to another brings it along.
- The loss of a step and its gradient, in the memory there is, are of `gradients`.
- Nothing here is random but the order of rows, which follows from seed and epoch. With the
  periodic state (weights, moments, step) a killed run ends with the weights it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pretune.models.gradients import (
    Alone,
    Loss,
    TrainingFailed,
    Way,
    gradients,
    in_training,
    spare_memory,
)
from pretune.models.optimizers import Optimizers
from pretune.models.states import Step, fingerprint, pause, restore, save
from pretune.recipes.optimisation import Optimisation
from pretune.tasks.prompts import Row

ALONE = Alone()
STATE_EVERY = 60.0  # seconds between two saved states of a running training, at least


def batch_order(rows: int, settings: Optimisation, seed: int) -> list[np.ndarray]:
    """The row numbers of every optimizer step: each epoch a permutation cut into batches, the
    last may be short.
    """
    order, total = [], settings.steps_on(rows)
    for epoch in range(-(-total // -(-rows // settings.batch_size))):
        shuffled = np.random.default_rng([seed, epoch]).permutation(rows)
        order += [
            shuffled[i : i + settings.batch_size] for i in range(0, rows, settings.batch_size)
        ]
    return order[:total]


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
    group: Alone = ALONE,
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
    optimizers, way = Optimizers(model, settings), Way(settings.precision, loss, group)
    mark = fingerprint(rows, settings, seed)
    last = len(order) if end is None else end
    steps = restore(state, mark, model, optimizers, last, group) if state else []
    micro, due = -(-settings.batch_size // group.size), time.monotonic() + state_every
    with in_training(model):
        for _ in range(group.spared):
            micro = spare_memory(model, micro, device)
        for number in range(len(steps), last):
            batch = [rows[i] for i in order[number]]
            rate = settings.learning_rate * rate_share(number, len(order), settings)
            rate *= min(1, (last - number) / cooled) if cooled else 1
            try:
                value, micro = gradients(model, batch, micro, way)
            except TrainingFailed as error:
                raise TrainingFailed(f"{error} at step {number + 1} of {len(order)}") from error
            tokens = (steps[-1].tokens if steps else 0) + sum(row.tokens for row in batch)
            steps.append(Step(number + 1, tokens, value, rate))
            _check_loss(steps)
            optimizers.step(rate)
            after_step(steps[-1])
            if state and group.agree((start := time.monotonic()) >= due):
                save(state, mark, model, optimizers, steps, group)
                took = time.monotonic() - start
                due = start + took + pause(state_every, took)
    if state and end is not None and not cooled:
        save(state, mark, model, optimizers, steps, group)
    elif state:
        state.unlink(missing_ok=True)
    return steps


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
