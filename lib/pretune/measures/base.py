"""What a measure is: its columns, its rows, its score; and what is handed to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import pandas as pd
import pyarrow as pa

from pretune.models.checkpoint import Checkpoint
from pretune.study.config import Protocol
from pretune.tasks.dataset import Dataset
from pretune.tasks.example import Example


@dataclass
class Subject:
    """A model that is looked at (a `torch.nn.Module` in evaluation mode), its tokenizer, and the
    checkpoint that it was made from.
    """

    network: object
    tokenizer: object
    checkpoint: Checkpoint
    is_tuned: bool

    @cached_property
    def _base(self) -> object:
        from pretune.models import loading

        return loading.load_checkpoint(self.checkpoint)[0] if self.is_tuned else self.network

    def base(self) -> object:
        """The untuned model beside it, loaded when it is first asked for."""
        return self._base


@dataclass(frozen=True)
class Asked:
    """Items of a dataset as they are asked: `prefix` stands before each prompt, and protocol and
    longest generation are those of the study.
    """

    dataset: Dataset
    prefix: str
    examples: list[Example]
    new_tokens: int
    protocol: Protocol


class Measured(NamedTuple):
    """What was measured on one item: the columns of its row, the generated text or None, the
    tokens of its sequences, and whether what was written was chosen by numbers.
    """

    values: dict[str, object]
    output: str | None
    tokens: int
    is_sound: bool = True


class Measure(ABC):
    """One way of turning items into numbers.

    `version` is raised by hand when the meaning of its rows changes: what it measured is then
    measured anew, and nothing else is. `columns` are those of its table beside the shared ones;
    numbers in them are finite. What it costs: how often an item `reads` a model, whether an answer
    is written (`generates`; what asks for a text does), and whether it `holds_base` beside.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    reads: ClassVar[float] = 1.0
    generates: ClassVar[bool] = False
    holds_base: ClassVar[bool] = False
    columns: ClassVar[dict[str, pa.DataType]]

    @abstractmethod
    def rows(self, subject: Subject, asked: Asked) -> Iterable[Measured]:
        """One for each of the examples that are asked, in their order."""

    @abstractmethod
    def score(self, rows: pd.DataFrame, normalisation: str) -> pd.DataFrame:
        """`prediction` (-1 where nothing is chosen), `score` and `baseline` of each of `rows`."""
