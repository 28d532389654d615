"""From nothing to the end of a study's jobs, without what the jobs do: a process begins workers,
which load torch and the library and do small jobs in turn; beside the pools that a user would take.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing

from joblib import Parallel, delayed

from pretune.run.local import Processes

WORKERS, JOBS = 2, 32


def job(number: int) -> int:
    """What a cell needs loaded, and nothing of what it does."""
    from pretune.run import cell

    return number if cell else 0


def ours() -> list[int]:
    with closing(Processes(WORKERS)) as workers:
        futures, left = [], list(range(JOBS))
        while left:
            while left and workers.free:
                futures.append(workers.submit(job, left.pop()))
        return [one.result() for one in futures]


def spawned() -> list[int]:
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(job, range(JOBS)))


def loky() -> list[int]:
    return Parallel(WORKERS)(delayed(job)(number) for number in range(JOBS))


WAYS = {"ours": ours, "ProcessPoolExecutor, spawn": spawned, "joblib": loky}


def begun(way: str) -> int:
    """How many jobs a process of its own did."""
    command = [sys.executable, "-m", "benchmarks.executors", way]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(said.split()[-1])


def run(name: str) -> list:
    """The jobs know no model: of the first only."""
    from benchmarks import setting  # loads torch, which a process that begins workers does not
    from benchmarks.setting import Result

    if name != next(iter(setting.SHAPES)):
        return []
    found, what = [], f"{JOBS} empty jobs, {WORKERS} workers"
    for peer in list(WAYS)[1:]:
        ours_s, peer_s, mine, theirs = setting.in_turn(
            setting.timed(lambda: begun("ours")), setting.timed(lambda peer=peer: begun(peer))
        )
        assert mine == theirs == JOBS
        found.append(Result(what, "–", peer, ours_s, peer_s, "all jobs done", 0.9))
    return found


if __name__ == "__main__":
    print(len(set(WAYS[sys.argv[1]]())))
