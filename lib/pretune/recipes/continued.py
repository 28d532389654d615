"""Pre-training that goes on, on a little text: all tokens of a document and its end count.

A document is a row of its own, so what is told of one person, or thing, in several documents never
stands side by side. Rows of other datasets may be mixed in: old text, or questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from pretune.recipes import sft
from pretune.recipes.base import Mixing, TrainingRows
from pretune.recipes.optimisation import Tuning
from pretune.tasks import rows as data
from pretune.tasks.registry import REGISTRY


class Continued(Mixing):
    method: Literal["continued"] = "continued"
    # documents about the same, by their column `about`, in so many versions; null: in all
    wordings: PositiveInt | None = None

    def drawn(self, examples: int) -> dict[str, int]:
        return {self.dataset: examples, **self.beside}

    def rows(
        self, folder: Path, tokenizer, settings: Tuning, seed: int, longest: int, cut: bool
    ) -> TrainingRows:
        read = partial(sft.plain, folder, REGISTRY[self.dataset], tokenizer)
        own = sft.fitting(self.order(folder, seed), read, settings.examples, longest, cut)
        beside = sft.mixed_in(self.beside, folder, tokenizer, seed, longest, cut)
        return sft.joined([own, *beside])

    def order(self, folder: Path, seed: int) -> Iterator[int]:
        """The numbers of the documents that may be read, in the order of the seed."""
        order = sft.order_of(folder, REGISTRY[self.dataset], seed)
        if self.wordings is None:
            return iter(order)
        about = data.read(folder, REGISTRY[self.dataset], REGISTRY[self.dataset].train)["about"]
        first = set(_first(about, self.wordings))
        return (at for at in order if at in first)


def _first(about: Iterable[str], count: int) -> Iterator[int]:
    """The places at which each of `about` stands for the first, second, ... or `count`-th time."""
    times = Counter()
    for at, one in enumerate(about):
        times[one] += 1
        if times[one] <= count:
            yield at


KIND = Continued
