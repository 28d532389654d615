"""The executor on many machines: workers of a Dask cluster that is there already.

    dask scheduler --scheduler-file FILE      dask worker --nthreads 1 --scheduler-file FILE
    pretune run STUDY --on FILE               (or the scheduler's address, tcp://machine:8786)

- Which worker does what is Dask's business. A worker does one job at a time (`--nthreads 1`), so
  that one that is killed takes no other with it: Dask counts the death of a worker for all that it
  was given, and here it counts for the one that was begun. One that leaves in order, as when its
  time is up, counts for none.
- Where the workers see the caller's outputs, they write there. Where they do not, what a job needs
  and what it leaves travels (`parcel`): datasets and checkpoints to them, records back.
- Workers that cannot be used are refused by name when a run begins. One that joins later and cannot
  be used is sent away, with a line that says why, and its job is done by another.
- What is fetched or found is so by the caller, which may reach the Hub where its workers cannot.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from pretune import paths, storage
from pretune.errors import RunError
from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Cell, Model
from pretune.run import parcel, work
from pretune.run.local import Processes

TOPIC = "pretune"
MARKS = "cache"  # where in the outputs the mark lies by which workers know them
DEATHS = 2  # of its worker, after which a job has failed
BLIND = "does not see the caller's outputs"
OTHER = "runs another version of pretune, or none: install the same there"
SILENT = 10.0  # seconds that a scheduler is waited for
log = logging.getLogger(__name__)


class Killed(RuntimeError):
    """The workers of a job were killed."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A job as it is sent: what it needs of the caller's outputs and leaves there, if that is to
    travel.
    """

    key: str
    job: Callable
    arguments: tuple
    outputs: Path  # of the caller
    library: str
    token: str  # the file by which a worker knows the caller's outputs
    leaves: tuple[Path, ...] | None  # None where the outputs are shared


class Cluster:
    """Workers that are connected to a scheduler, of which there may be more or fewer by and by."""

    def __init__(self, where: str):
        try:
            from distributed import Client
        except ModuleNotFoundError:
            raise RunError("--on needs Dask: pip install 'pretune[dask]'") from None
        place = {"scheduler_file": where} if Path(where).is_file() else {"address": where}
        try:
            self._client = Client(**place, timeout=SILENT, set_as_default=False, name=TOPIC)
        except (OSError, ValueError) as error:
            raise RunError(
                f"--on {where}: no scheduler answers there ({error}); it must be a file that `dask "
                "scheduler --scheduler-file FILE` writes, or an address such as tcp://machine:8786"
            ) from None
        # what it would log comes back as errors here
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._where, self._is_lost = where, False
        self._heard: queue.SimpleQueue = queue.SimpleQueue()
        for topic in (TOPIC, "all"):  # of all workers the scheduler says which are gone
            self._client.subscribe_topic(topic, lambda event: self._heard.put(event[1]))
        self._begun: dict[str, str] = {}  # job to its worker
        self._sent_away: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._jobs: dict[str, tuple[Future, object]] = {}
        self._sent: dict[Path, object] = {}  # what was sent of folders
        self._aside = Processes(1)
        self._token = storage.mark(paths.OUTPUTS / MARKS)
        try:
            self._shared = self._looked_at()
        except BaseException:
            self.close()
            raise

    def _looked_at(self) -> bool:
        """Whether the workers see the caller's outputs. Raises RunError for some that do and some
        that do not, and for one that runs another library or several jobs at a time.
        """
        # asked first, and by itself: another version may answer anything to all else, or nothing
        libraries = self._client.run(_library, on_error="return")
        if not libraries:
            log.warning("no worker is connected to %s yet", self._client.scheduler.address)
        for worker, library in libraries.items():
            if library != _library():
                raise RunError(f"{worker} {OTHER}")
        told = self._client.run(_about, self._token.name)
        for worker, about in told.items():
            if why := about.unfit(_library()):
                raise RunError(f"{worker} {why}")
        seen = {about.sees for about in told.values()}
        if len(seen) > 1:
            blind = ", ".join(worker for worker, about in told.items() if not about.sees)
            raise RunError(
                f"{blind} {BLIND} and others do: mount {paths.OUTPUTS} there, or give each worker "
                "outputs of its own (PRETUNE_OUTPUTS)"
            )
        return seen == {True}

    @property
    def free(self) -> int:
        """How many more cells can be begun: none while there are fewer workers than jobs, as where
        one has left.
        """
        try:
            return max(0, sum(self._client.nthreads().values()) - len(self._jobs))
        except OSError:
            self._is_lost = True
            return 0

    def submit(self, job: Callable, *arguments: object, aside: bool = False) -> Future:
        if aside or job is work.prepare_data:
            return self._aside.submit(job, *arguments, aside=aside)
        needs, leaves = ((), None) if self._shared else parcel.folders(*arguments)
        key, future = f"{TOPIC}-{uuid.uuid4().hex}", Future()
        call = Call(key, job, arguments, paths.OUTPUTS, _library(), self._token.name, leaves)
        sent = [self._send(folder) for folder in needs]
        far = self._client.submit(_called, call, *sent, key=key, pure=False)
        self._jobs[key] = future, far
        self._follow(key)
        return future

    def _send(self, folder: Path) -> object:
        """A folder of the outputs, put where the workers find it, once: as a job of its own, since
        what is scattered is gone with the worker that holds it.
        """
        if folder not in self._sent:
            key, packed = f"{TOPIC}-{uuid.uuid4().hex}", parcel.pack(folder)
            self._sent[folder] = self._client.submit(_same, packed, key=key)
        return self._sent[folder]

    def _follow(self, key: str) -> None:
        _, far = self._jobs[key]
        far.add_done_callback(lambda done: self._end(key, done))

    def _end(self, key: str, done) -> None:
        """What became of a job; called by Dask in a thread of its own."""
        if key not in self._jobs:
            return
        if done.status in ("lost", "pending"):  # with the worker that held what it gave
            self._follow(key)
            return
        future, _ = self._jobs.pop(key)
        try:
            told, left = done.result()
            parcel.unpack(left)
            future.set_result(told)
        except Exception as error:
            self._is_lost |= done.status == "cancelled"
            killed = type(error).__name__ == "KilledWorker"
            future.set_exception(Killed(f"its worker was killed: {error}") if killed else error)

    def killed(self, future: Future) -> bool:
        """Never: Dask begins a job whose worker was killed again by itself, and one that was killed
        too often has failed.
        """
        return False

    def said(self) -> Iterator[tuple[str, str, float]]:
        """Job, what it does, and the share of it that is done, as reported since. Raises RunError
        when the scheduler is gone.
        """
        if self._is_lost:
            raise RunError(
                f"--on {self._where}: the scheduler is gone, and with it what was at work; what is "
                "done is kept: run again when it is back"
            )
        while not self._heard.empty():
            told = self._heard.get()
            if "said" in told:
                yield tuple(told["said"])
            elif "begun" in told:
                self._begun[told["begun"]] = told["worker"]
            elif "unfit" in told:
                self._send_away(told["worker"], told["unfit"])
            elif told.get("action") == "add-worker":
                self._sent_away.discard(told["worker"])  # another one at that address
            elif told.get("action") == "remove-worker" and not told["expected"]:
                self._count(told["worker"], told["processing-tasks"])
        yield from self._aside.said()

    def _count(self, worker: str, given: set[str]) -> None:
        """A worker died: that is held against the job that it had begun."""
        for key in [key for key in given if key in self._jobs and self._begun.get(key) == worker]:
            self._deaths[key] += 1
            if self._deaths[key] == DEATHS:
                future, far = self._jobs.pop(key)
                far.cancel(force=True)
                future.set_exception(
                    Killed(f"its worker was killed {DEATHS} times (out of memory?)")
                )

    def _send_away(self, worker: str, why: str) -> None:
        if worker not in self._sent_away:
            self._sent_away.add(worker)
            log.warning("%s joined and %s; it was sent away", worker, why)
            try:
                self._client.retire_workers([worker], close_workers=True)
            except OSError:
                self._is_lost = True

    def abandon(self) -> None:
        """End what is at work: records appear whole or not at all, there is nothing to wait for."""
        if not self._is_lost:
            self._client.cancel([far for _, far in self._jobs.values()], force=True)
        self._aside.abandon()

    def close(self) -> None:
        self._token.unlink(missing_ok=True)
        self._aside.close()
        self._client.close(timeout=1 if self._is_lost else SILENT)


@dataclasses.dataclass(frozen=True)
class About:
    """What is to be known of a worker."""

    library: str
    threads: int
    sees: bool  # the caller's outputs

    def unfit(self, library: str) -> str:
        """Why it cannot do the jobs of a caller with this library, or nothing."""
        if self.library != library:
            return OTHER
        return "does several jobs at a time: give it --nthreads 1" if self.threads > 1 else ""


def _about(token: str, dask_worker) -> About:  # by this name Dask hands over the worker
    return About(_library(), dask_worker.state.nthreads, (paths.OUTPUTS / MARKS / token).is_file())


@cache
def _library() -> str:
    """What this library is, by its files."""
    digest, home = hashlib.sha256(), Path(__file__).parents[1]
    for file in sorted(home.rglob("*.py")):
        digest.update(str(file.relative_to(home)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _same(one: parcel.Parcel) -> parcel.Parcel:
    return one


def _called(call: Call, *sent: parcel.Parcel) -> tuple[dict, parcel.Parcel]:
    """Do a job as a worker does it; what is to be told of it, and what it left."""
    from distributed import Reschedule, get_worker

    worker, before = get_worker(), 0.0
    about = _about(call.token, worker)
    why = about.unfit(call.library) or (BLIND if call.leaves is None and not about.sees else "")
    if why:
        worker.log_event(TOPIC, {"unfit": why, "worker": worker.address})
        raise Reschedule
    worker.log_event(TOPIC, {"begun": call.key})

    def say(message: tuple[str, str, float]) -> None:
        nonlocal before
        if time.monotonic() > before + 0.5:
            before = time.monotonic()
            worker.log_event(TOPIC, {"said": message})

    work.say = say
    for one in sent:
        parcel.unpack(one)
    arguments = [_here(one, call.outputs) for one in call.arguments]
    study, thing = arguments[0], arguments[-1]
    for point in thing.model.points if isinstance(thing, Cell) else ():
        if not point.exists():
            work.prepare_checkpoint(study, point, thing.model.name)
    told, left = call.job(*arguments), {}
    for folder in call.leaves or ():
        left |= parcel.pack(_moved(folder, call.outputs))
    return told | {"process": worker.address}, left


def _here(argument: object, outputs: Path) -> object:
    """An argument with the folders that it names in this machine's outputs."""
    if isinstance(argument, Cell):
        return dataclasses.replace(argument, model=_here(argument.model, outputs))
    if isinstance(argument, Model):
        point, teacher = (_here(one, outputs) for one in (argument.checkpoint, argument.teacher))
        return dataclasses.replace(argument, checkpoint=point, teacher=teacher)
    if isinstance(argument, Checkpoint):
        apart = argument.apart and _moved(argument.apart, outputs)
        return dataclasses.replace(argument, folder=_moved(argument.folder, outputs), apart=apart)
    return argument


def _moved(folder: Path, outputs: Path) -> Path:
    inside = folder.is_relative_to(outputs)
    return paths.OUTPUTS / folder.relative_to(outputs) if inside else folder
