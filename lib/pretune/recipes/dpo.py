"""Direct preference optimisation (Rafailov et al., arXiv 2305.18290, equation 7): of two answers to
the same request the better one is to gain on the other, beside how likely both were before.

The lead that the better one had is read once, before the first step, from the model that is tuned;
so no second model is held. Any dataset whose answers compete will do, of several wrong ones the
seed draws one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import PositiveFloat

from pretune.recipes.base import Asking, Recipe, TrainingRows
from pretune.recipes.optimisation import Tuning
from pretune.recipes.sft import fitting, order_of, other_choice, training_row
from pretune.strict import Name
from pretune.tasks import rows as data
from pretune.tasks.prompts import Row
from pretune.tasks.registry import REGISTRY


class Dpo(Recipe):
    method: Literal["dpo"] = "dpo"
    dataset: Name
    # how hard the model is held to what it was: of what is gained, a nat counts so much
    beta: PositiveFloat = 0.1

    sequences: ClassVar[int] = 2

    @property
    def loss(self) -> Callable:
        """From how much the lead of the better answers grew (rows,), in nats."""
        from torch.nn.functional import logsigmoid  # torch, which configuration does not load

        return lambda grown: -logsigmoid(self.beta * grown)

    @property
    def is_read_before(self) -> bool:
        return True

    def rows(
        self, folder: Path, tokenizer, settings: Tuning, seed: int, longest: int, cut: bool
    ) -> TrainingRows:
        dataset = REGISTRY[self.dataset]

        def make(at: int, _: int) -> Row:
            [example] = data.examples(folder, dataset, dataset.train, "default", [at])
            rival = training_row(tokenizer, other_choice(example, seed, at))
            return replace(training_row(tokenizer, example), rival=rival)

        order = order_of(folder, dataset, seed)
        return fitting(order, make, settings.examples, longest, cut)

    def finished(self, rows: list[Row], settings: Tuning, asking: Asking) -> list[Row]:
        better, worse = rows, [row.rival for row in rows]
        found = zip(rows, _likelihoods(better, asking), _likelihoods(worse, asking), strict=True)
        return [replace(row, lead=one - other) for row, one, other in found]


def _likelihoods(rows: list[Row], asking: Asking) -> list[float]:
    """Of what counts in each row, in nats."""
    losses = zip(rows, asking.losses(rows), strict=True)
    return [-loss * int(row.counted.sum()) for row, loss in losses]


KIND = Dpo
