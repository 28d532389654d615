"""Memory that ran out, and memory that is handed back."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out: torch has a class of errors for that of a GPU, and words only for
    that of the processor.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def hand_back() -> None:
    """Give what torch keeps of a GPU's memory, and nothing uses, back to those who share it."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def all_handed_back() -> Iterator[None]:
    """Decorates what holds a model, so that a process that goes on holds nothing of it, also
    when it fails: the next cell, the other processes and the user's own work are to have that
    memory.
    """
    try:
        yield
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        hand_back()


def _let_go(error: BaseException | None) -> None:
    """Forget what the functions that an error ended, or that it followed from, had in hand."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
