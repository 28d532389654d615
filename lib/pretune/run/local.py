"""The executor that is the default: worker processes of this machine, on GPUs one each.

An executor has `free`, how many more cells can be begun; `submit`, which gives a `Future`, as
`concurrent.futures` has it; `killed`, whether the worker of a job that ended was killed, in whose
place the next job has another; `said`, what jobs have reported since; `abandon` and `close`.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path

from tqdm import tqdm

from pretune import paths
from pretune.models import processes
from pretune.plan import devices
from pretune.plan.devices import VISIBLE
from pretune.run import work

JOBS = ("pretune.run.cell", "pretune.run.prepare")


class Processes:
    """So many workers for cells, which share the cores, and on GPUs have one each in turn, or are
    `given` several each; and one `aside`, which needs neither. They leave Ctrl-C to their parent
    and end with it.
    """

    def __init__(self, jobs: int, given: int = 1):
        threads, there = max(1, devices.cores() // jobs), [gpu.place for gpu in devices.gpus()]
        places = [_some(there, number * given, given) for number in range(jobs)]
        context = multiprocessing.get_context(processes.start_method(bool(there), *JOBS))
        self._cells = [_Worker(context, place, threads) for place in places]
        self._aside = _Worker(context, "" if there else None, threads)

    @property
    def free(self) -> int:
        """How many more cells can be begun."""
        return sum(worker.is_idle for worker in self._cells)

    def submit(self, job: Callable, *arguments: object, aside: bool = False) -> Future:
        worker = self._aside if aside else next(one for one in self._cells if one.is_idle)
        return worker.submit(job, *arguments)

    def killed(self, future: Future) -> bool:
        """Whether the worker of a job that ended was killed."""
        return isinstance(future.exception(), BrokenProcessPool)

    def said(self) -> Iterator[tuple[str, str, float]]:
        """Job, what it does, and the share of it that is done, as reported since."""
        for worker in (*self._cells, self._aside):
            yield from worker.said()

    def abandon(self) -> None:
        """End all workers now: records appear whole or not at all, there is nothing to wait for."""
        for process in multiprocessing.active_children():
            process.kill()

    def close(self) -> None:
        for worker in (*self._cells, self._aside):
            worker.close()


def _some(places: list[str], first: int, many: int) -> str | None:
    """So many GPUs in turn, as the environment names them; None where there are none."""
    if not places:
        return None
    return ",".join(places[number % len(places)] for number in range(first, first + many))


class _Worker:
    """One process, begun when it is needed, and anew after it was killed."""

    def __init__(self, context: BaseContext, device: str | None, threads: int):
        self._context, self._given = context, (device, threads)
        self._job: Future | None = None
        self._start()

    def _start(self) -> None:
        # a worker that was killed may have left the old one locked
        self._messages = self._context.Queue()
        given = (self._messages, *self._given, paths.OUTPUTS, dict(os.environ))
        self._pool = ProcessPoolExecutor(1, self._context, _start_worker, given)

    @property
    def is_idle(self) -> bool:
        return self._job is None or self._job.done()

    def submit(self, job: Callable, *arguments: object) -> Future:
        try:
            self._job = self._pool.submit(job, *arguments)
        except BrokenProcessPool:  # it was killed, at work or with nothing to do
            self.close()
            self._start()
            self._job = self._pool.submit(job, *arguments)
        return self._job

    def said(self) -> Iterator[tuple[str, str, float]]:
        while not self._messages.empty():
            yield self._messages.get()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._messages.close()


def _start_worker(
    messages, device: str | None, threads: int, outputs: Path, environment: dict[str, str]
) -> None:
    """Set a worker up: it leaves Ctrl-C to the parent, ends with the parent, writes where that
    does, and uses its GPU, if any, and its share of the cores.
    """
    # what it was forked from has them of the time when the first worker began
    os.environ.update(environment)
    paths.write_to(outputs)
    if device is not None:
        os.environ[VISIBLE] = device  # before torch is loaded, which reads it once
    work.say = messages.put
    messages.cancel_join_thread()
    tqdm.set_lock(threading.RLock())  # its own would be left behind by a worker that is killed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is loaded
    if torch := sys.modules.get("torch"):  # or as it was, where this is a fork
        torch.set_num_threads(threads)
    atexit.register(os._exit, 0)  # runs last; taking torch apart would take a second


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
