"""One training by a group of processes, each of which holds a part of every weight, of its gradient
and of its moments (torch's FSDP2, Zhao et al., arXiv 2304.11277), for models that are too large for
one GPU.

- All know the whole batch and read every n-th row of it. What each adds to the loss is divided by
  the count of the whole batch, and gradients are summed: the loss of a step does not depend on how
  many processes there are, but for the order of sums.
- FSDP gathers the weights of a layer when it is called, and the others when the whole is. A head
  that is tied to the embedding is among these, so body and head are one call here.
- The group leaves what it trained as a file, from which the caller's model, which is whole and on
  the processor, takes it. Where memory runs out on one, all others wait for it: the group is begun
  again and spares more.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import distributed, multiprocessing
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.multiprocessing.spawn import ProcessRaisedException

from pretune.models import adapters, loading, memory, processes, states, training
from pretune.models.device import pick_device
from pretune.models.gradients import Alone, TrainingFailed, can_compute_twice
from pretune.models.states import Step
from pretune.recipes.base import Recipe
from pretune.recipes.optimisation import Optimisation
from pretune.tasks.prompts import Row

OUT_OF_MEMORY = "out of memory"
WAITING = timedelta(hours=2)  # of one for the others, while the first writes a state


class Task(NamedTuple):
    """What is trained, as each process of a group is told it."""

    start: Path  # the folder of what is tuned
    recipe: Recipe
    rows: Sequence[Row]
    settings: Optimisation
    seed: int
    state: Path
    state_every: float = training.STATE_EVERY

    @property
    def trained(self) -> Path:
        """Where the group leaves the weights."""
        return self.state.with_suffix(".trained")


class Group(Alone):
    """What a process does of a training, as one of a group that is connected."""

    def __init__(self, model: torch.nn.Module, spared: int):
        self.size, self.spared = distributed.get_world_size(), spared
        self._place, self._whole = distributed.get_rank(), _Whole(model)
        for module in (*loading.layers(model), self._whole):
            shared: FSDPModule = fully_shard(module)
            shared.set_force_sum_reduction_for_comms(True)
            shared.set_gradient_divide_factor(1.0)

    @property
    def is_first(self) -> bool:
        return self._place == 0

    def share(self, rows: list[Row]) -> list[Row]:
        """Every n-th row; where there are fewer than others have, one in which nothing counts."""
        mine, most = rows[self._place :: self.size], -(-len(rows) // self.size)
        silent = _silent(rows[0])
        return mine + [silent] * (most - len(mine))

    def call(self, do: Callable, model: torch.nn.Module, *arguments: object) -> tuple:
        return self._whole(do, *arguments)

    def sum(self, value: float) -> float:
        there = torch.tensor(value, dtype=torch.float64, device=self._whole.place)
        distributed.all_reduce(there)
        return there.item()

    def agree(self, whether: bool) -> bool:
        """What the first of the group says."""
        return bool(self.sum(float(whether and self.is_first)))

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor

    def part(self, tensor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not (tensor.ndim and isinstance(weight, DTensor)):
            return super().part(tensor, weight)
        there = tensor.to(weight.device)
        return distribute_tensor(there, weight.device_mesh, weight.placements, src_data_rank=None)


def _silent(row: Row) -> Row:
    """The same with nothing that counts."""
    rival = _silent(row.rival) if row.rival else None
    return replace(row, counted=np.zeros_like(row.counted), rival=rival)


class _Whole(torch.nn.Module):
    """A model, all that is done with which is one call."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.place = model, pick_device()

    def forward(self, do: Callable, *arguments: object) -> tuple:
        return do(self.model, *arguments)


def size(sharding: str) -> int:
    """How many processes train a model here: on GPUs as many as this one may use; on processors,
    where it is asked for, as many as this one has threads.

    Raises TrainingFailed where they are asked for and this process may begin none.
    """
    if sharding == "none":
        return 1
    on_gpu = pick_device().type == "cuda"
    many = torch.cuda.device_count() if on_gpu else torch.get_num_threads()
    if multiprocessing.current_process().daemon:  # as a worker of Dask is, unless it is told
        if sharding == "fsdp" and many > 1:
            raise TrainingFailed(
                "sharding: fsdp: this worker may begin no processes; start it with "
                "DASK_DISTRIBUTED__WORKER__DAEMON=False"
            )
        return 1
    return many if on_gpu or sharding == "fsdp" else 1


@contextmanager
def apart(model: torch.nn.Module, size: int) -> Iterator[None]:
    """Leave the GPU to a group of that `size` meanwhile, if it is one."""
    if size == 1:
        yield
        return
    model.to("cpu")
    memory.hand_back()
    yield
    model.to(pick_device())


def train(
    model: torch.nn.Module,
    task: Task,
    size: int,
    after_step: Callable[[Step], None] = lambda _: None,
) -> list[Step]:
    """As `training.train`, by `size` processes: on GPUs one each, else on processors.

    `model` lies on the processor and is what `adapters.part` made of the checkpoint. Raises
    TrainingFailed as that does, and whatever else is raised in the group; ProcessExitedException
    where a process was killed, after which the next call goes on from its state.
    """
    halvings = (-(-task.settings.batch_size // size) - 1).bit_length()
    for spared in range(halvings + 1 + can_compute_twice(model)):
        told = _run(task, size, spared, after_step)
        if told is not None:
            break
    else:
        raise TrainingFailed(f"out of memory with a single row on each of {size} processes")
    states.take(task.trained, model)
    task.trained.unlink()
    return told


def _run(task: Task, size: int, spared: int, after_step: Callable) -> list[Step] | None:
    """The log of a training by a group; None where memory ran out on one of its processes."""
    begun = processes.start_method(pick_device().type == "cuda", __name__)
    said = multiprocessing.get_context(begun).SimpleQueue()
    heard: list[object] = []
    with tempfile.TemporaryDirectory() as folder:
        given = (size, Path(folder) / "meeting", task, spared, said)
        group = multiprocessing.start_processes(
            _member, given, size, join=False, start_method=begun
        )
        try:
            while not group.join(timeout=0.1):
                _hear(said, heard, after_step)
        except ProcessRaisedException:
            _hear(said, heard, after_step)
            if OUT_OF_MEMORY in heard:
                return None
            raise min(_errors(heard), key=_follows, default=None) or sys.exception() from None
        finally:
            for process in group.processes:
                process.kill()
        _hear(said, heard, after_step)
    return heard[-1]


def _hear(said: SimpleQueue, heard: list[object], after_step: Callable[[Step], None]) -> None:
    """Hand steps on, and note what else was said: the log, an error, that memory ran out."""
    while not said.empty():
        told = said.get()
        if isinstance(told, Step):
            after_step(told)
        else:
            heard.append(told)


def _errors(heard: list[object]) -> list[Exception]:
    return [one for one in heard if isinstance(one, Exception)]


def _follows(error: Exception) -> bool:
    """Whether it is what one process has of it that another is gone."""
    return type(error) is RuntimeError or isinstance(error, distributed.DistError)


def _member(
    place: int, size: int, meeting: Path, task: Task, spared: int, said: SimpleQueue
) -> None:
    """Do what a process of the group does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _connect(place, size, meeting)
        _train(task, spared, said)
    except Exception as error:
        said.put(OUT_OF_MEMORY if memory.ran_out(error) else error)
        raise
    distributed.destroy_process_group()


def _connect(place: int, size: int, meeting: Path) -> None:
    device = pick_device()
    if device.type == "cuda":
        torch.cuda.set_device(place)
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{meeting}",
        rank=place,
        world_size=size,
        timeout=WAITING,
    )


def _train(task: Task, spared: int, said: SimpleQueue) -> None:
    model = loading.loaded(task.start)
    part = adapters.part_of(model, task.recipe.trainable, task.seed)
    group = Group(part.model, spared)
    log = training.train(
        part.model,
        task.rows,
        task.settings,
        task.seed,
        task.state,
        task.state_every,
        after_step=said.put if group.is_first else lambda _: None,
        loss=task.recipe.loss,
        group=group,
    )
    states.keep(task.trained, part.model, group)
    if group.is_first:
        said.put(log)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
