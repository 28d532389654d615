"""The processor that models run on, in which precision it multiplies, and how much of its memory
was used.

On a GPU sums are taken in a fixed order, where several threads would add up in the order in which
they come: what follows from seeds follows from them there too.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache

import torch


def pick_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    _in_fixed_order()
    return torch.device("cuda")


@cache
def _in_fixed_order() -> None:
    # read when the first product is computed; as large as what it takes by itself
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # the promise is of what is computed, not of memory that nothing was written to
    torch.utils.deterministic.fill_uninitialized_memory = False


def peak_memory_gb() -> float | None:
    """The most of a GPU's memory that tensors of this process took since this was asked last; None
    without a GPU.
    """
    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 3)


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` is bfloat16 autocast where the hardware multiplies in it, float32 elsewhere.
    Weights stay float32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    enabled = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
