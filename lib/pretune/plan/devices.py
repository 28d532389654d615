"""The processors that are there, without torch, which takes seconds to load."""

from __future__ import annotations

import math
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

VISIBLE = "CUDA_VISIBLE_DEVICES"
NONE = ("", "-1", "NoDevFiles")  # the last is what Slurm says to a job without a GPU
ASKED = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")


class Gpu(NamedTuple):
    """A GPU, as the environment names it: by number, UUID or MIG name."""

    place: str
    name: str
    gb: float  # NaN where it is not known, as of a part of a GPU


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs() -> int:
    """One process for each GPU, or where there is none for each core."""
    return len(gpus()) or cores()


def gpus() -> list[Gpu]:
    """The GPUs this process may use: those that the environment names; where it names none, all
    that there are.
    """
    there = _there()
    if VISIBLE not in os.environ:
        return [gpu for gpu, _ in there]
    named = (name.strip() for name in os.environ[VISIBLE].split(","))
    return [_called(name, there) for name in named if name not in NONE]


def _called(name: str, there: tuple[tuple[Gpu, str], ...]) -> Gpu:
    for gpu, unique in there:
        if name == gpu.place or unique.startswith(name):
            return gpu._replace(place=name)
    return Gpu(name, "GPU", math.nan)


@cache
def _there() -> tuple[tuple[Gpu, str], ...]:
    """All GPUs of this machine, each with its unique name; without their maker's tool only how many
    there are is known.
    """
    try:
        said = subprocess.run(ASKED, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        devices = range(len(list(Path("/dev").glob("nvidia[0-9]*"))))
        return tuple((Gpu(str(number), "GPU", math.nan), "?") for number in devices)
    lines = (line.split(", ") for line in said.splitlines())
    return tuple((Gpu(number, name, _gb(mib)), unique) for number, unique, name, mib in lines)


def _gb(mib: str) -> float:
    """NaN where the tool has no number, as of memory that is shared with the processor."""
    return float(mib) * 2**20 / 1e9 if mib.strip().isdigit() else math.nan
