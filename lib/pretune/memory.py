"""Memory that ran out, and memory that is handed back."""

from __future__ import annotations

import gc

import torch


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out: torch has a class of errors for that of a GPU, and words only for that of the processor."""
    return isinstance(error, torch.OutOfMemoryError) or isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def hand_back() -> None:
    """Give what torch keeps of a GPU's memory, and nothing uses, back to those who share it."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
