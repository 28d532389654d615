"""The passages of every question about a register of people, as they are found for prompts, against
`rank_bm25`, which a user would ask question by question.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from bm25s.tokenization import tokenize
from rank_bm25 import BM25Okapi

from benchmarks import setting
from benchmarks.setting import Result
from pretune.sources.register import datasets, people
from pretune.study.sources import People
from pretune.tasks import retrieval
from pretune.tasks.registry import REGISTRY
from pretune.tasks.tables import read

REGISTER = People(seed=0, seen=800, new=200, never=10)
ASKED = REGISTRY["register_new_found"]


def ours(folder: Path) -> list[list[int]]:
    retrieval.found.cache_clear()
    return retrieval.found(folder, ASKED, "validation")


def peer(folder: Path) -> list[list[int]]:
    texts, asked = retrieval._collection(folder, ASKED)[1], read(folder, ASKED, "validation")
    words, queries = (
        tokenize(some, stopwords=None, show_progress=False, return_ids=False)
        for some in (texts, list(asked["question"]))
    )
    index = BM25Okapi(words, k1=1.5, b=0.75)
    count = ASKED.passages.count + 1
    return [np.argsort(-index.get_scores(one))[:count].tolist() for one in queries]


def run(name: str) -> list[Result]:
    """Questions know no model: of the first only."""
    if name != next(iter(setting.SHAPES)):
        return []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        datasets.write_datasets(people.make_register(REGISTER), folder)
        ours_s, peer_s, mine, theirs = setting.in_turn(
            setting.timed(lambda: ours(folder)), setting.timed(lambda: peer(folder))
        )
        size = len(retrieval._collection(folder, ASKED)[1])
    both = zip(mine, theirs, strict=True)
    first = np.mean([one[0] == other[0] for one, other in both])
    assert first > 0.95
    return [
        Result(
            f"{len(mine):,} questions, {size:,} passages",
            "–",
            "rank_bm25",
            ours_s,
            peer_s,
            f"best passage, {first:.0%} of questions",
            1.0,
        )
    ]
