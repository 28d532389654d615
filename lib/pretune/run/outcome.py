"""What one run did, and that no other is at work on the study meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from pretune import paths, storage
from pretune.errors import RunError
from pretune.study.config import Study


@dataclass
class Outcome:
    """What one run did: seconds of process and tokens per phase, peak memory of each process,
    what failed.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    memory_gb: dict[int, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, done: dict) -> None:
        for kind in ("seconds", "tokens"):
            sums = getattr(self, kind)
            for phase, value in done[kind].items():
                sums[phase] = sums.get(phase, 0) + value
        self.memory_gb[done["process"]] = max(
            done["memory_gb"], self.memory_gb.get(done["process"], 0.0)
        )


def write_run(study: Study, outcome: Outcome, wall: dict[str, float]) -> None:
    """Leave `run.json`: what the last run that did any work took."""
    about = {
        "study": study.name,
        "wall_seconds": {name: round(value, 2) for name, value in wall.items()},
        "process_seconds": {name: round(value, 2) for name, value in outcome.seconds.items()},
        "tokens": outcome.tokens,
        "peak_memory_gb": sorted(outcome.memory_gb.values(), reverse=True),
        "failed": outcome.failed,
    }
    storage.write(paths.study_folder(study.name) / "run.json", json.dumps(about, indent=1))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a study against other runs on this machine. Raises RunError where one
    is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # another run may look for a moment whether it is held
        with FileLock(folder / "run.lock", timeout=1):
            yield
    except Timeout:
        raise RunError(
            f"{folder / 'run.lock'} is held: another run of {folder.name} is at work; wait for it"
        ) from None
