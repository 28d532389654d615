"""Running what is missing of a study, in any order, as often as it takes: what waits, what is
ready, what is done. How jobs are run is an executor's business (`local`).

- A cell is done when its record verifies; nothing else is remembered, so a killed run goes on by
  being run again.
- Pre-training is one job among the others: cells start as soon as their checkpoint appears. On two
  cores two processes of one thread each do 1.2 to 1.35 times the work of one process of two
  threads.
- The parent never imports torch; workers do, and end when the parent is gone, however it went.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import chain, islice

from pretune import paths, records, storage
from pretune.errors import Damaged, Outage, RunError, StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.plan import costs, devices, memory
from pretune.plan.cells import Cell, Plan
from pretune.run import status, work
from pretune.run.local import Processes
from pretune.run.outcome import Outcome, alone
from pretune.run.progress import Progress
from pretune.run.waiting import Waiting
from pretune.sources import datasets
from pretune.study.config import Study
from pretune.study.sources import Found, Hub, Saved

log = logging.getLogger(__name__)
DATA = "datasets"
PREPARE = "prepare"
PREPARATIONS = 3  # times that a checkpoint is begun before it has failed
KILLED = "its process was killed (out of memory?)"


def measure(plan: Plan, jobs: int | None = None, on: str | None = None) -> Outcome:
    """Prepare checkpoints and run every missing cell of `plan`, in processes of this machine or
    `on` a cluster.

    Returns at once when nothing is missing. A cell that fails is listed in the outcome and the
    others go on; one that failed before is tried again. Raises RunError when another run holds
    the study or the disk is full.
    """
    study, outcome = plan.study, Outcome()
    if study.tables:
        return _fetch_tables(study)
    if not status.missing(plan):
        return outcome
    folder = paths.study_folder(study.name)
    with alone(folder):
        storage.clean(folder)
        storage.clean(paths.CACHE)
        lacking = status.missing(plan)
        jobs = jobs or memory.default_jobs(plan)
        _Queue(plan, lacking, jobs, outcome, _executor(plan, jobs, on)).run()
        status.note_failures(study, lacking, outcome.failed)
    return outcome


def _executor(plan: Plan, jobs: int, on: str | None):
    if on is None:
        there = devices.gpus()
        return Processes(jobs, max(1, len(there) // jobs) if memory.is_shared(plan, there) else 1)
    from pretune.run.cluster import Cluster

    return Cluster(on)


def _fetch_tables(study: Study) -> Outcome:
    from pretune.sources import released  # it loads pandas

    try:
        released.tables(study.tables)
    except released.TableError as error:
        raise RunError(str(error)) from None
    return Outcome()


def need(plan: Plan) -> None:
    """`measure`, for notebooks: unless all that is missing failed when it was last tried."""
    noted = status.failed(plan)
    if plan.study.tables or any(one.model.name not in noted for one in status.missing(plan)):
        measure(plan)


class _Queue:
    """The jobs of one run: what waits, what is at work, what is done.

    A cell whose worker was killed is one of the `suspects`: it is tried again with no other cell
    beside it, and has failed when it is killed again with nothing beside it. A cell
    whose checkpoint turned out damaged waits for a new one. Checkpoints are prepared one after
    the other, and only those that cells of this run wait for.
    """

    def __init__(self, plan: Plan, lacking: list[Cell], jobs: int, outcome: Outcome, executor):
        self.plan, self.study, self.waiting, self.outcome = (
            plan,
            plan.study,
            Waiting(lacking),
            outcome,
        )
        self.jobs = jobs
        self.running: dict[Future, str] = {}
        self.cells = {cell.model.name: cell for cell in lacking}
        points = list(chain.from_iterable(cell.model.points for cell in lacking))
        self.points = {point.name: point for point in points}
        self.left = Counter(point.name for point in points)
        self.suspects: set[str] = set()
        self.remade: set[str] = set()  # cells that waited for their checkpoint to be made again
        self.making: Checkpoint | None = None  # what is being prepared
        self.begun: Counter[str] = Counter()  # preparations, how often
        self.why: dict[str, str] = {}  # and what became of them
        self.out: set[str] = set()  # those that the Hub did not answer to
        self.has_data = datasets.are_ready(self.study)
        seconds = {} if self.has_data else {DATA: costs.CELL_SECONDS}
        seconds |= {cell.model.name: costs.cell_cost(plan, cell).seconds for cell in lacking}
        self.progress = Progress(seconds, "parts")
        # once: a folder of checkpoints may be filled while they are measured
        self.seconds = {model: self._preparing_seconds(model) for model in self.study.models}
        for point in self._missing():
            self.progress.add(self._preparation(point), self.seconds[point.model])
        self.executor = executor

    def run(self) -> None:
        try:
            self._claim()
            while self.running or self.waiting:
                self._submit()
                if self.waiting and not self.running:  # another run holds the room
                    time.sleep(0.2)
                done, _ = wait(self.running, timeout=0.2, return_when=FIRST_COMPLETED)
                self._listen()
                for future in done:
                    if self.executor.killed(future):
                        self._recover(self.running.pop(future))
                    else:
                        self._finish(self.running.pop(future), future)
        except BaseException:
            self.executor.abandon()
            raise
        finally:
            self.executor.close()
            self.progress.close()

    def _submit(self) -> None:
        """Start cells whose checkpoint is there, as many as there are free workers; of suspects
        one, and no other cell beside it.

        Before the data is there nothing else is begun.
        """
        if not self.has_data:
            if not self.running:
                self._prepare_data()
            return
        at_work = {name for name in self.running.values() if name in self.cells}
        self._prepare_next(busy=bool(at_work or next(self.waiting.ready(), None)))
        ready = list(islice(self.waiting.ready(), self.executor.free))
        several = [self.cells[name] for name in sorted(self.suspects - at_work)]
        suspects = [cell for cell in several if all(map(Checkpoint.exists, cell.model.points))]
        if suspects or self.suspects & at_work:
            ready = suspects[: not at_work][: self.executor.free]
        for cell in ready:
            self.running[self.executor.submit(work.run_cell, self.study, cell)] = cell.model.name
            self.waiting.remove(cell)

    def _prepare_data(self) -> None:
        if self.begun[DATA] == PREPARATIONS:
            raise RunError(f"{DATA}: {KILLED}")
        self.running[self.executor.submit(work.prepare_data, self.study, DATA)] = DATA
        self.begun[DATA] += 1

    def _prepare_next(self, busy: bool) -> None:
        """Begin to prepare the next checkpoint that cells wait for, where none is being prepared
        and there is room for it.

        Cells that end make room, as do other runs; only when neither can (`busy`: cells are at
        work or ready) have those failed that wait for a checkpoint without room. So have those,
        then, to whose checkpoint the Hub did not answer.
        """
        from pretune.sources import cache  # the client of the Hub takes a while to load

        for point in (
            []
            if self.making
            else sorted(self._missing(), key=lambda one: self._preparation(one) in self.out)
        ):
            name = self._preparation(point)
            if self.begun[name] == PREPARATIONS or name in self.out and not busy:
                self._give_up([point], self.why.get(name, "it was not made"))
            elif not (lack := self._lack(point)):
                self._prepare(point)
                return
            elif busy or cache.claimed(self.study):
                self.progress.part(name, 0.0, f"{point.name} waits for room in the cache")
                return
            else:
                self._give_up([point], lack)

    def _prepare(self, point: Checkpoint) -> None:
        """What is fetched or found is so beside the cells, which make room for the next by being
        done; pre-training waits for a free worker.
        """
        name, aside = self._preparation(point), isinstance(self.study.models[point.model], Found)
        if not (aside or self.executor.free):
            return
        asked = (work.prepare_checkpoint, self.study, point, name)
        self.running[self.executor.submit(*asked, aside=aside)] = name
        self.making = point
        self.begun[name] += 1
        self.progress.add(name, self.seconds[point.model])

    def _missing(self) -> list[Checkpoint]:
        """The checkpoints that cells wait for and that are not there, in the order of the cells."""
        return self.waiting.missing()

    def _preparation(self, point: Checkpoint) -> str:
        """The name of the job that makes or fetches a checkpoint; pre-training makes all of a
        run.
        """
        source = self.study.models[point.model]
        if not isinstance(source, Saved):
            return f"{PREPARE} {point.name}"
        run = f"run {point.run}" if len(source.runs) > 1 else ""
        return " ".join(word for word in (PREPARE, point.model, run) if word)

    def _made_with(self, point: Checkpoint) -> list[Checkpoint]:
        """The missing checkpoints that one preparation makes: pre-training all of a run."""
        name = self._preparation(point)
        return [one for one in self._missing() if self._preparation(one) == name] or [point]

    def _preparing_seconds(self, model: str) -> float:
        """What one preparation is expected to take."""
        points = [point for point in self.plan.checkpoints if point.model == model]
        several = {self._preparation(point) for point in points}
        return costs.preparation(self.plan, model).seconds / len(several)

    def _lack(self, point: Checkpoint) -> str:
        """Why there is no room for a checkpoint of the Hub; empty where there is."""
        from pretune.sources import cache

        fetched = isinstance(self.study.models[point.model], Hub)
        return cache.make(self.study, point, self._needed()) if fetched else ""

    def _needed(self) -> set[str]:
        """The commits that cells still wait for or work on."""
        return {point.revision for point in self.points.values() if self.left[point.name]}

    def _claim(self) -> None:
        from pretune.sources import cache

        if any(isinstance(one, Hub) for one in self.study.models.values()):
            cache.claim(self.study, self._needed())

    def _finish(self, name: str, future: Future) -> None:
        error = future.exception()
        if isinstance(error, Damaged) and name not in self.remade:
            self.suspects.discard(name)
            log.warning("%s", error)
            self.remade.add(name)
            self.waiting.add(self.cells[name], first=True)
            for point in self.cells[name].model.points:
                self.begun[self._preparation(point)] = 0
            return
        if error is not None and storage.is_full(error):
            needed = costs.disk_gb(self.plan, self.jobs)
            raise RunError(
                f"{error}; the study needs {needed:.2f} GB in all. What is done is kept: make "
                "room and run again"
            ) from None
        if error is None:
            self.outcome.add(future.result())
        if name == DATA:
            self._finish_data(error)
        elif name not in self.cells:
            self._finish_preparation(name, error)
        else:
            if error is not None:
                self._fail(name, _reason(error))
            self._end(name)

    def _finish_data(self, error: BaseException | None) -> None:
        self.progress.part(DATA, 1.0)
        self.has_data = error is None
        if isinstance(error, StudyError | RunError):
            raise error
        if error is not None:
            raise RunError(f"{DATA}: {_reason(error)}")

    def _finish_preparation(self, name: str, error: BaseException | None) -> None:
        point, self.making = self.making, None
        self.progress.part(name, 1.0)
        self.out.discard(name)
        if isinstance(error, Outage):
            log.warning("%s: %s; it is fetched again while there is other work", point.name, error)
            self.why[name] = _reason(error)
            self.begun[name] = 0
            self.out.add(name)
        elif error is not None:
            self._give_up(self._made_with(point), _reason(error))

    def _give_up(self, several: list[Checkpoint], why: str) -> None:
        """Fail the cells that wait for checkpoints which cannot be had; the others go on."""
        log.error("%s failed: %s", ", ".join(point.name for point in several), why)
        for cell in chain.from_iterable(map(self.waiting.of, several)):
            self.waiting.remove(cell)
            self.outcome.failed[cell.model.name] = why
            self._end(cell.model.name)

    def _recover(self, name: str) -> None:
        """Go on after the worker of a job was killed: it is begun again, a cell by itself."""
        if name not in self.cells:
            self.why[name] = KILLED
            self.making = None
            return
        cell = self.cells[name]
        if {probe.key for probe in cell.probes} <= set(records.finished(self.study, cell.model)):
            self._end(name)  # its record was there before its process was killed
        elif name in self.suspects and not self.running:
            self._fail(name, KILLED)
            self._end(name)
        else:
            log.warning("%s: %s; it is tried again", name, KILLED)
            self.waiting.add(cell, first=True)
            self.suspects.add(name)

    def _fail(self, name: str, why: str) -> None:
        self.outcome.failed[name] = why
        log.error("%s failed: %s", name, why)

    def _end(self, name: str) -> None:
        """Count a cell as done or failed. A fetched checkpoint may go when its last cell is."""
        self.suspects.discard(name)
        self.progress.part(name, 1.0)
        points = self.cells[name].model.points
        self.left.subtract(point.name for point in points)
        if not all(self.left[point.name] for point in points):
            self._claim()

    def _listen(self) -> None:
        for name, phase, share in self.executor.said():
            if name in self.running.values():
                self.progress.part(name, min(share, 0.999), phase)


def _reason(error: BaseException) -> str:
    """Kind and message of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
