"""What a recipe is: what is done to a checkpoint, as YAML may say it and as it is done.

The kinds are the other modules of this room; a kind says which rows are trained on, and by which
loss where that is not the likelihood of what counts. What is trained (`trainable`) and how long
(`tuning`) is independent of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pretune.recipes.optimisation import Tuning
from pretune.recipes.trainable import Added, Trainable
from pretune.strict import Frozen, Name, Rate
from pretune.tasks.prompts import Row


class Grid(Frozen):
    """Values that a recipe is tuned with, one axis at a time. Along the first, rates are chosen."""

    learning_rate: Annotated[tuple[Rate, ...], Field(min_length=2)] | None = None
    examples: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] | None = None
    epochs: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _has_an_axis(self):
        if type(self) is Grid and not any(getattr(self, axis) for axis in Grid.model_fields):
            raise ValueError(f"a grid needs values of {' or '.join(Grid.model_fields)}")
        return self


class TrainingRows(NamedTuple):
    """Rows to train on, and the numbers of those that were passed over because they are longer
    than what is allowed.
    """

    rows: list[Row]
    passed_over: list[int]


class Teacher(Frozen):
    """A tuned model that writes the answers that another is tuned on."""

    recipe: Name  # of this study
    step: NonNegativeInt  # of its checkpoint, of the same run


class Asking(NamedTuple):
    """What models say of training rows: `losses`, of the checkpoint before tuning, nats a token
    from the first that counts on; `answers`, what the teacher writes after prompts (token ids).
    """

    losses: Callable[[Sequence[Row]], Sequence[float]]
    answers: Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Recipe(Frozen, ABC):
    """What is done to a checkpoint. What is null is taken from `tuning`."""

    method: str
    dataset: Name | None = None
    trainable: Trainable = None  # null: all weights
    # another recipe of the study, done to the checkpoint first; null: none
    after: Name | None = None
    grid: Grid | None = None  # its own, in place of the study's
    # of several, those whose checkpoints it is done to; null: all
    models: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    examples: PositiveInt | None = None
    learning_rate: Rate | None = None
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None

    # what a trained token costs, in forward passes: one, and two for its gradient
    passes: ClassVar[float] = 3.0
    sequences: ClassVar[int] = 1  # of tokens, that are read for each row
    # from the summed log-likelihoods of what counts in each row (rows,), in nats (of rows that are
    # preferred to others: by how much their lead grew), to the losses of these rows (rows,); None:
    # the mean of minus log-likelihood over all tokens that count
    loss: ClassVar[Callable | None] = None

    @abstractmethod
    def rows(
        self, folder: Path, tokenizer, settings: Tuning, seed: int, longest: int, cut: bool
    ) -> TrainingRows:
        """Rows for `settings.examples` (fewer where there are no more) of at most `longest` tokens,
        from the data in `folder`, as `seed` draws them; longer ones are cut, or passed over. Raises
        RowError.
        """

    def finished(self, rows: list[Row], settings: Tuning, asking: Asking) -> list[Row]:
        """The rows in the end, where models have a say in which they are, or what answers them."""
        return rows

    def is_for(self, model: str) -> bool:
        """Whether it is done to the checkpoints of a model."""
        return self.models is None or model in self.models

    def count(self, examples: int) -> int:
        """Rows that it trains on, where `examples` are of its dataset."""
        return examples

    @property
    def is_read_before(self) -> bool:
        """Whether the checkpoint reads the rows that are drawn, to say which are trained on."""
        return False

    def drawn(self, examples: int) -> dict[str, int]:
        """How many rows `rows` draws of each dataset for so many examples."""
        return {self.dataset: examples} if self.dataset else {}

    @property
    def teacher(self) -> Teacher | None:
        """Who answers its rows, where that is another model."""
        return None

    def determining(self) -> list[object]:
        """What determines the weights that come out beside `tuning`, for keys. What a kind says
        more than others counts where it is changed.
        """
        own = self.model_dump(exclude=set(Recipe.model_fields), exclude_defaults=True)
        own |= {"method": self.method}
        trainable = self.trainable
        trainable = trainable.determining() if isinstance(trainable, Added) else trainable
        return [self.dataset, trainable, *([own] if own != {"method": "sft"} else [])]


class Mixing(Recipe):
    """What trains on one dataset, with rows of others mixed in."""

    dataset: Name
    # other datasets whose rows are mixed in, and how many of each
    beside: dict[Name, PositiveInt] = {}

    @model_validator(mode="after")
    def _mixes_others_in(self):
        if self.dataset in self.beside:
            raise ValueError(f"beside: {self.dataset} is what is tuned on; raise its `examples`")
        return self

    def count(self, examples: int) -> int:
        return examples + sum(self.beside.values())


class Untouched(Recipe):
    """The checkpoint as it is."""

    method: Literal["none"] = "none"

    @model_validator(mode="after")
    def _says_nothing(self):
        if said := set(self.model_dump(exclude_none=True)) - {"method"}:
            raise ValueError(f"base is not trained, and {', '.join(sorted(said))} must be left out")
        return self

    def rows(self, *_) -> TrainingRows:
        return TrainingRows([], [])
