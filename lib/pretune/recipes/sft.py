"""Supervised fine-tuning on one dataset: the completion and its end token count."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from pretune.recipes.base import Recipe, TrainingRows
from pretune.recipes.optimisation import Tuning
from pretune.strict import Name
from pretune.tasks import rows as data
from pretune.tasks.chat import Turns
from pretune.tasks.dataset import Dataset
from pretune.tasks.example import Example
from pretune.tasks.prompts import Row, split
from pretune.tasks.registry import REGISTRY


class Sft(Recipe):
    method: Literal["sft"] = "sft"
    dataset: Name

    def rows(
        self, folder: Path, tokenizer, settings: Tuning, seed: int, longest: int, cut: bool
    ) -> TrainingRows:
        """A subset of the train split that `seed` draws."""
        dataset, kept, long = REGISTRY[self.dataset], [], []
        there = len(data.read(folder, dataset, dataset.train))
        for index in data.chosen(folder, dataset, dataset.train, there, seed):
            if len(kept) == settings.examples:
                break
            row = row_of(folder, dataset, index, tokenizer)
            if len(row.ids) > longest and not cut:
                long.append(index)
            else:
                kept.append(Row(row.ids[:longest], row.counted[:longest]))
        return TrainingRows(kept, long)


def row_of(folder: Path, dataset: Dataset, index: int, tokenizer) -> Row:
    """A row of the train split as a training row. Raises RowError."""
    if dataset.turns:
        return chat_row(tokenizer, data.conversations(folder, dataset, [index])[0])
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
    return Row(np.concatenate(ids), np.concatenate(counted))


KIND = Sft
