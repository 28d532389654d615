"""The executor that is the default: worker processes of this machine.

An executor has `jobs`, how many can be at work; `submit`, which gives a `Future`, as
`concurrent.futures` has it; `said`, what jobs have reported since; `renew`, for when a worker was
killed (its futures then hold `BrokenProcessPool`); `abandon` and `close`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from pretune.run import work


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """One process per core, or one in all where there is a GPU."""
    return 1 if Path("/dev/nvidia0").exists() else cores()


class Processes:
    """So many workers, which share the cores, leave Ctrl-C to their parent and end with it."""

    def __init__(self, jobs: int):
        self.jobs, self._context = jobs, multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        # a worker that was killed may have left the old one locked
        self._messages = self._context.Queue()
        given = (self._messages, max(1, cores() // self.jobs))
        self._pool = ProcessPoolExecutor(self.jobs, self._context, _start_worker, given)

    def submit(self, job: Callable, *arguments: object) -> Future:
        return self._pool.submit(job, *arguments)

    def said(self) -> Iterator[tuple[str, str, float]]:
        """Job, what it does, and the share of it that is done, as reported since."""
        while not self._messages.empty():
            yield self._messages.get()

    def renew(self) -> None:
        """Go on with other workers after one was killed: the pool is lost with it."""
        self._pool.shutdown(wait=True)
        self._start()

    def abandon(self) -> None:
        """End all workers now: records appear whole or not at all, there is nothing to wait for."""
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._messages.close()


def _start_worker(messages, threads: int) -> None:
    """Set a worker up: it leaves Ctrl-C to the parent, ends with the parent, and uses its share
    of the cores.
    """
    work.say = messages.put
    messages.cancel_join_thread()
    tqdm.set_lock(threading.RLock())  # its own would be left behind by a worker that is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    atexit.register(os._exit, 0)  # runs last; taking torch apart would take a second


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
