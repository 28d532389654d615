"""Reading datasets, and which of their rows a study uses.

Every choice of rows follows from a seed and the name of the dataset, so all models of a study
see the same items and a paired comparison is possible. A tenth of the train split is reserved
(`RESERVE`): rates are chosen on it, and nothing is tuned on it or shown as an example. Shots
come from the rest and are never scored.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from pretune.tasks import retrieval
from pretune.tasks.chat import Turns
from pretune.tasks.dataset import RESERVE, Dataset
from pretune.tasks.example import Example, RowError
from pretune.tasks.registry import REGISTRY
from pretune.tasks.tables import read


def examples(
    folder: Path, dataset: Dataset, split: str, form: str, indices: list[int]
) -> list[Example]:
    """Those rows as examples, in that order. Raises RowError naming dataset, split and row."""
    return [
        _made(folder, dataset, split, index, lambda row: dataset.example(row, form))
        for index in indices
    ]


def conversations(folder: Path, dataset: Dataset, indices: list[int]) -> list[Turns]:
    """Those rows of the train split as exchanges. Raises RowError naming dataset, split and row."""
    return [_made(folder, dataset, dataset.train, index, dataset.turns) for index in indices]


def _made(folder: Path, dataset: Dataset, split: str, index: int, make: Callable):
    try:
        row = read(folder, dataset, split)[index]
        if dataset.passages:
            row = row | {"passages": retrieval.before(folder, dataset, split, index)}
        return make(row)
    except (RowError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        kind = type(error) if isinstance(error, RowError) else RowError
        raise kind(f"{dataset.name}: row {index} of {split}: {error}") from error


def chosen(folder: Path, dataset: Dataset, split: str, count: int, *seed: int) -> list[int]:
    """`count` different row numbers, or all where there are fewer, in a random order that `seed`
    decides.

    Of the train split only what is not reserved, of `RESERVE` only what is.
    """
    rows = np.arange(len(read(folder, dataset, split)))
    if split in (dataset.train, RESERVE):
        rows = rows[(rows % 10 == 9) == (split == RESERVE)]
    salt = int.from_bytes(hashlib.sha256(f"{dataset.folder} {split}".encode()).digest()[:4], "big")
    return np.random.default_rng([salt, *seed]).permutation(rows)[:count].tolist()


def shots(
    folder: Path, dataset: Dataset, split: str, form: str, count: int, draw: int
) -> list[Example]:
    """The examples shown before items of `split`: from the train split, or its reserve where the
    train split is scored.
    """
    source = RESERVE if split == dataset.train else dataset.train
    dataset = _shown(dataset)
    return examples(folder, dataset, source, form, chosen(folder, dataset, source, count, 1, draw))


def _shown(dataset: Dataset) -> Dataset:
    """The dataset with the rows that examples are of."""
    return replace(dataset, rows=REGISTRY[dataset.shown].folder) if dataset.shown else dataset


def rouge_l(output: str, gold: str) -> float:
    """F measure of the longest common subsequence of words, no stemming (Lin 2004), in [0, 1]."""
    return float(_rouge().score(gold, output)["rougeL"].fmeasure)


@cache
def _rouge():
    from rouge_score.rouge_scorer import RougeScorer  # it takes a second to load

    return RougeScorer(["rougeL"])


@cache
def frequent_output(folder: Path, name: str) -> str:
    """The most frequent completion of the first 2,000 training rows, the earliest of equals."""
    dataset = _shown(REGISTRY[name])
    rows = min(2000, len(read(folder, dataset, dataset.train)))
    made = examples(folder, dataset, dataset.train, "default", list(range(rows)))
    return Counter(example.completion for example in made).most_common(1)[0][0]


def baseline(folder: Path, dataset: Dataset, items: list[Example]) -> list[float]:
    """What the best answer without a skill scores on each item (`b` of the claims).

    Classification: always the most frequent label. Choices: chance, which `measures.choices`
    raises to what a model's answers without the question score. Generation: always the training
    set's most frequent output, or the source's first sentence, whichever has the larger mean.
    Text has none (NaN).
    """
    if dataset.metric == "nats":
        return [np.nan] * len(items)
    if dataset.kind == "choices":
        return [1 / len(item.choices) for item in items]
    if dataset.kind == "classification":
        common = Counter(item.gold for item in items).most_common(1)[0][0]
        return [float(item.gold == common) for item in items]
    frequent = frequent_output(folder, dataset.name)
    always = [rouge_l(frequent, item.completion) for item in items]
    copied = [rouge_l(item.source.split(". ")[0], item.completion) for item in items]
    return max(always, copied, key=np.mean)
