"""Reading datasets, and which of their rows a study uses.

Every choice of rows follows from a seed and the name of the dataset, so all models of a study see the same items
and a paired comparison is possible. Shots come from the train split and are never scored.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset as Table
from datasets import disable_progress_bars
from rouge_score.rouge_scorer import RougeScorer

from pretune import paths
from pretune.tasks.example import Example, RowError
from pretune.tasks.registry import REGISTRY, Dataset

disable_progress_bars()
_rouge = RougeScorer(["rougeL"])


def read(folder: Path, dataset: Dataset, split: str) -> Table:
    """All rows of a split of FOLDER/<dataset>/<split>.jsonl. Raises RowError when the file is missing or empty."""
    file = folder / dataset.name / f"{split}.jsonl"
    if not file.is_file() or not file.stat().st_size:
        raise RowError(f"{dataset.name}: {file} is missing or empty; it should hold the {split} split")
    return Table.from_json(str(file), cache_dir=str(paths.CACHE / "arrow"))


def examples(folder: Path, dataset: Dataset, split: str, form: str, indices: list[int]) -> list[Example]:
    """Those rows as examples, in that order. Raises RowError naming dataset, split and row."""
    made, table = [], read(folder, dataset, split)
    for index in indices:
        try:
            made.append(dataset.example(table[index], form))
        except (RowError, KeyError, IndexError, TypeError, ValueError) as error:
            raise RowError(f"{dataset.name}: row {index} of {split}: {error}") from error
    return made


def chosen(folder: Path, dataset: Dataset, split: str, count: int, *seed: int) -> list[int]:
    """`count` different row numbers, or all where there are fewer, in a random order that `seed` decides."""
    total = len(read(folder, dataset, split))
    salt = int.from_bytes(hashlib.sha256(f"{dataset.name} {split}".encode()).digest()[:4], "big")
    return np.random.default_rng([salt, *seed]).permutation(total)[:count].tolist()


def rouge_l(output: str, gold: str) -> float:
    """F measure of the longest common subsequence of words, no stemming (Lin 2004), in [0, 1]."""
    return float(_rouge.score(gold, output)["rougeL"].fmeasure)


@cache
def frequent_output(folder: Path, name: str) -> str:
    """The most frequent completion of the first 2,000 training rows, the earliest of equals."""
    dataset = REGISTRY[name]
    rows = min(2000, len(read(folder, dataset, dataset.train)))
    made = examples(folder, dataset, dataset.train, "default", list(range(rows)))
    return Counter(example.completion for example in made).most_common(1)[0][0]


def baseline(folder: Path, dataset: Dataset, items: list[Example]) -> list[float]:
    """What the best answer without a skill scores on each item (`b` of the claims).

    Classification: always the most frequent label. Choices: chance. Generation: always the training set's most
    frequent output, or the source's first sentence, whichever has the larger mean.
    """
    if dataset.kind == "choices":
        return [1 / len(item.choices) for item in items]
    if dataset.kind == "classification":
        common = Counter(item.gold for item in items).most_common(1)[0][0]
        return [float(item.gold == common) for item in items]
    frequent = frequent_output(folder, dataset.name)
    always = [rouge_l(frequent, item.completion) for item in items]
    copied = [rouge_l(item.source.split(". ")[0], item.completion) for item in items]
    return max(always, copied, key=np.mean)
