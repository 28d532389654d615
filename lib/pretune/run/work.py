"""The jobs of a run, as a worker does them: torch is loaded here only.

Each gives seconds and tokens per phase, the process and its peak memory.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable

from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Cell
from pretune.study.config import Study
from pretune.study.sources import Saved


def say(message: tuple[str, str, float]) -> None:
    """Where a job says what it does: an executor that listens puts another in its place."""


def prepare_data(study: Study, name: str) -> dict:
    from pretune.run import prepare

    start = time.perf_counter()
    prepare.prepare_data(study, _reporter(name))
    return _done({"prepare": time.perf_counter() - start}, {})


def prepare_checkpoint(study: Study, point: Checkpoint, name: str) -> dict:
    from pretune.run import prepare

    start = time.perf_counter()
    prepare.prepare_checkpoint(study, point, _reporter(name))
    source = study.models[point.model]
    read = {"prepare": source.tokens} if isinstance(source, Saved) else {}
    return _done({"prepare": time.perf_counter() - start}, read)


def run_cell(study: Study, one: Cell) -> dict:
    from pretune.run import cell

    return _done(*cell.run_cell(study, one, _reporter(one.model.name)))


def _reporter(name: str) -> Callable[[str, float], None]:
    return lambda phase, share: say((name, phase, share))


def _done(seconds: dict[str, float], tokens: dict[str, int]) -> dict:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "seconds": seconds,
        "tokens": tokens,
        "process": os.getpid(),
        "memory_gb": round(peak, 3),
    }
