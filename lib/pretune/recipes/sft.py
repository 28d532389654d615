"""Supervised fine-tuning: the completion and its end token count.

On rows of one dataset, drawn at random, unless more is said: rows of others mixed in, some answers
made wrong, some requests only, a part chosen by length or by how likely it is, answers written by
another model. All of it is drawn by the seed, and fewer rows are the first of more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from pretune.recipes.base import Asking, Mixing, Teacher, TrainingRows
from pretune.recipes.optimisation import Tuning
from pretune.strict import Frozen, Share
from pretune.tasks import rows as data
from pretune.tasks.chat import Turns
from pretune.tasks.dataset import Dataset
from pretune.tasks.example import USER, Example
from pretune.tasks.prompts import Row, split
from pretune.tasks.registry import REGISTRY


class Filter(Frozen):
    """A part of the rows, by a number that each has: from so many times as many as are trained on,
    those with the `lowest` or `highest`.

    `length` is of what counts, in tokens (long answers: Zhao et al., arXiv 2402.04833); `loss` that
    of the checkpoint before tuning, in nats a token (pruning by perplexity: Marion et al., arXiv
    2309.04564).
    """

    by: Literal["length", "loss"]
    keep: Literal["lowest", "highest"]
    of: Annotated[int, Field(ge=2)]


class Sft(Mixing):
    method: Literal["sft"] = "sft"
    # rows that ask what one before them asks are passed by
    distinct: bool = False
    # of the rows, those before the first that is taken, as a teacher had them
    skip: NonNegativeInt = 0
    # share of the rows of `dataset` that get an answer which is not theirs: another label or
    # choice, or the text that answers another row
    wrong: Share = 0.0
    # of conversations the first exchange alone
    first_exchange: bool = False
    # of conversations those that begin with these words
    opening: Annotated[str, Field(min_length=1)] | None = None
    filtered: Filter | None = None
    # answered by another model of the study; of conversations, their first request
    answers_of: Teacher | None = None

    @property
    def is_first(self) -> bool:
        """Whether conversations end after their first exchange."""
        return self.first_exchange or self.answers_of is not None

    @property
    def is_read_before(self) -> bool:
        return self.filtered is not None and self.filtered.by == "loss"

    @property
    def teacher(self) -> Teacher | None:
        return self.answers_of

    def drawn(self, examples: int) -> dict[str, int]:
        times = self.filtered.of if self.filtered else 1
        return {self.dataset: self.skip + times * examples, **self.beside}

    def rows(
        self, folder: Path, tokenizer, settings: Tuning, seed: int, longest: int, cut: bool
    ) -> TrainingRows:
        dataset, size = REGISTRY[self.dataset], self.drawn(settings.examples)[self.dataset]
        order, wrong = order_of(folder, dataset, seed), _wrong(self.wrong, size - self.skip, seed)

        def own(at: int, place: int) -> Row:
            if place - self.skip in wrong:
                example = _spoiled(folder, dataset, at, order, seed)
                return replace(training_row(tokenizer, example), is_wrong=True)
            return row_of(folder, dataset, at, tokenizer, is_first=self.is_first)

        drawn = fitting(self.order(folder, seed), own, size, longest, cut)
        return joined([drawn, *mixed_in(self.beside, folder, tokenizer, seed, longest, cut)])

    def order(self, folder: Path, seed: int) -> Iterator[int]:
        """The numbers of the rows that may be taken, in the order of the seed."""
        dataset = REGISTRY[self.dataset]
        order = iter(order_of(folder, dataset, seed))
        if self.opening:
            start = USER + self.opening
            order = (at for at in order if _first(folder, dataset, at).startswith(start))
        return _distinct(folder, dataset, order) if self.distinct else order

    def finished(self, rows: list[Row], settings: Tuning, asking: Asking) -> list[Row]:
        size = len(rows) - sum(self.beside.values())
        own, beside = rows[self.skip : size], rows[size:]
        if self.answers_of:
            starts = [row.ids[: row.counted.argmax()] for row in own]
            own = [_answered(*one) for one in zip(starts, asking.answers(starts), strict=True)]
        if self.filtered:
            own = _best(self.filtered, own, settings.examples, asking)
        return [*own, *beside]


def mixed_in(
    beside: Mapping[str, int], folder: Path, tokenizer, seed: int, longest: int, cut: bool
) -> list[TrainingRows]:
    """So many rows of each dataset in `beside`, as they are."""
    parts = []
    for name, count in beside.items():
        make = partial(plain, folder, REGISTRY[name], tokenizer)
        order = order_of(folder, REGISTRY[name], seed)
        parts.append(fitting(order, make, count, longest, cut))
    return parts


def joined(parts: Sequence[TrainingRows]) -> TrainingRows:
    rows = list(chain.from_iterable(part.rows for part in parts))
    return TrainingRows(rows, list(chain.from_iterable(part.passed_over for part in parts)))


def order_of(folder: Path, dataset: Dataset, seed: int) -> list[int]:
    """The numbers of the rows that may be tuned on, in the order of the seed."""
    there = len(data.read(folder, dataset, dataset.train))
    return data.chosen(folder, dataset, dataset.train, there, seed)


def fitting(
    order: Iterable[int], make: Callable[[int, int], Row], count: int, longest: int, cut: bool
) -> TrainingRows:
    """The first `count` rows of at most `longest` tokens, or cut to so many; `make` takes the
    number of a row and its place among those that are kept.
    """
    kept, long = [], []
    for at in order:
        row = make(at, len(kept))
        if row.longest > longest and not cut:
            long.append(at)
        else:
            kept.append(row.cut(longest))
        if len(kept) == count:
            break
    return TrainingRows(kept, long)


def _wrong(share: float, count: int, seed: int) -> set[int]:
    """The places of the rows that are made wrong: of a smaller share some of those of a larger."""
    places = np.random.default_rng([seed, count]).permutation(count)
    return set(places[: round(share * count)].tolist())


def plain(folder: Path, dataset: Dataset, tokenizer, at: int, _: int) -> Row:
    """A row of the train split as it is, whichever place it takes."""
    return row_of(folder, dataset, at, tokenizer)


def _distinct(folder: Path, dataset: Dataset, order: Iterable[int]) -> Iterator[int]:
    """Row numbers of which no two ask the same."""
    known: set[str] = set()
    for at in order:
        said = _first(folder, dataset, at)
        if said not in known:
            known.add(said)
            yield at


def _first(folder: Path, dataset: Dataset, at: int) -> str:
    """What a row asks, first."""
    if dataset.turns:
        return data.conversations(folder, dataset, [at])[0][0][0]
    return data.examples(folder, dataset, dataset.train, "default", [at])[0].prompt


def _spoiled(folder: Path, dataset: Dataset, at: int, order: list[int], seed: int) -> Example:
    """A row with an answer that is not its own: of text, that of the next row in `order` that has
    another.
    """
    [example] = data.examples(folder, dataset, dataset.train, "default", [at])
    if len(example.choices) > 1:
        return other_choice(example, seed, at)
    after = order.index(at) + 1
    others = chain(order[after:], order)
    made = (data.examples(folder, dataset, dataset.train, "default", [one])[0] for one in others)
    answer = next(one.completion for one in made if one.completion != example.completion)
    return replace(example, choices=(answer,))


def other_choice(example: Example, *seed: int) -> Example:
    """The same with one of the other answers, which `seed` draws."""
    away = np.random.default_rng(seed).integers(1, len(example.choices))
    return replace(example, gold=int(example.gold + away) % len(example.choices))


def _answered(start: np.ndarray, answer: np.ndarray) -> Row:
    ids = np.concatenate([start, answer]).astype(np.int32)
    return Row(ids, np.arange(len(ids)) >= len(start))


def _best(by: Filter, rows: list[Row], count: int, asking: Asking) -> list[Row]:
    """The rows that are kept, in the order they came in."""
    values = [int(row.counted.sum()) for row in rows] if by.by == "length" else asking.losses(rows)
    order = np.argsort(np.asarray(values) * (1 if by.keep == "lowest" else -1), kind="stable")
    return [rows[place] for place in sorted(order[:count])]


def row_of(folder: Path, dataset: Dataset, index: int, tokenizer, is_first: bool = False) -> Row:
    """A row of the train split as a training row; of a conversation only its first exchange, where
    that is asked for. Raises RowError.
    """
    if dataset.turns:
        turns = data.conversations(folder, dataset, [index])[0]
        return chat_row(tokenizer, turns[:1] if is_first else turns)
    made = data.examples(folder, dataset, dataset.train, "default", [index])
    return training_row(tokenizer, made[0])


def training_row(tokenizer, example: Example) -> Row:
    """Prompt, completion and end token as a training row that counts completion and end."""
    return chat_row(tokenizer, [(example.prompt, example.completion)])


def chat_row(tokenizer, turns: Turns) -> Row:
    """A conversation as a training row that counts every answer and the end token after it."""
    parts = [
        split(tokenizer, ("\n" if number else "") + prompt, answer)
        for number, (prompt, answer) in enumerate(turns)
    ]
    ids = [np.append(part.ids, tokenizer.eos_token_id) for part in parts]
    counted = [np.arange(len(one)) >= part.start for one, part in zip(ids, parts, strict=True)]
    row = Row(np.concatenate(ids), np.concatenate(counted))
    row.counted[0] = False  # of text, before which nothing stands
    return row


KIND = Sft
