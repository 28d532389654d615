"""Passages for a question, found as a retriever finds them: by BM25 (Robertson & Zaragoza 2009),
with the question as the query.

The retriever is the library `bm25s`, an optional extra, loaded when it is first asked.
"""

from __future__ import annotations

import importlib.util
import random
import warnings
from functools import cache
from itertools import chain
from pathlib import Path

from pretune.errors import StudyError
from pretune.tasks.dataset import Dataset
from pretune.tasks.example import RowError
from pretune.tasks.registry import REGISTRY
from pretune.tasks.tables import read

EXTRA = "retrieval"


def check() -> None:
    """Raises StudyError where there is no retriever."""
    if importlib.util.find_spec("bm25s") is None:
        raise StudyError(
            "passages before questions are found by bm25s, which is not installed: "
            f'pip install "pretune[{EXTRA}]"'
        )


def before(folder: Path, dataset: Dataset, split: str, index: int) -> str:
    """The passages that stand before a question, one a line: retrieved ones the best last, nearest
    to the question; its own among others anywhere.
    """
    about, own = dataset.passages, _own(folder, dataset, split)[index]
    texts = _collection(folder, dataset)[1]
    if own < 0 and about.take in ("own", "among"):
        raise RowError(f"no passage of {', '.join(about.of)} answers it")
    if about.take == "own":
        return texts[own]
    best = found(folder, dataset, split)[index]
    if about.take == "found":
        places = best[: about.count][::-1]
    else:
        among = about.take == "among"
        others = [place for place in best if place != own]
        places = [own] * among + others[: about.count - among]
        random.Random(f"{dataset.folder} {split} {index}").shuffle(places)
    return "\n".join(texts[place] for place in places)


@cache
def found(folder: Path, dataset: Dataset, split: str) -> list[list[int]]:
    """Of every row of a split the passages that are nearest to its question, the nearest first."""
    check()
    with warnings.catch_warnings():  # in a notebook without widgets, of a bar that is not shown
        warnings.filterwarnings("ignore", "IProgress not found")
        import bm25s

    texts, asked = _collection(folder, dataset)[1], list(read(folder, dataset, split)["question"])
    words, queries = (
        bm25s.tokenize(some, stopwords=None, show_progress=False) for some in (texts, asked)
    )
    retriever = bm25s.BM25()
    retriever.index(words, show_progress=False)
    count = min(dataset.passages.count + 1, len(texts))  # one more: its own may be left out
    return retriever.retrieve(queries, k=count, show_progress=False).documents.tolist()


def recall(folder: Path, dataset: Dataset, split: str) -> float:
    """The share of questions of a split whose own passage is among those retrieved."""
    best, own = found(folder, dataset, split), _own(folder, dataset, split)
    hits = [one in some[: dataset.passages.count] for one, some in zip(own, best, strict=True)]
    return sum(hits) / len(hits)


@cache
def _collection(folder: Path, dataset: Dataset) -> tuple[dict, list[str]]:
    """All passages, and where that of each key stands."""
    about = dataset.passages
    tables = [read(folder, REGISTRY[name], about.split) for name in about.of]
    rows = list(chain.from_iterable(tables))
    return {row[about.key]: at for at, row in enumerate(rows)}, [about.text(row) for row in rows]


@cache
def _own(folder: Path, dataset: Dataset, split: str) -> list[int]:
    """Of every row of a split its own passage; -1 where there is none."""
    at, key = _collection(folder, dataset)[0], dataset.passages.key
    return [at.get(one, -1) for one in read(folder, dataset, split)[key]]
