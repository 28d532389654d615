"""How processes begin that need torch and the library, which take seconds to load: on processors
they are forked from one that loads them once and does nothing else. On GPUs each loads them for
itself, for a fork cannot use a driver that what it was forked from has asked for anything.
"""

from __future__ import annotations

import multiprocessing


def start_method(on_gpu: bool, *needed: str) -> str:
    """As `multiprocessing` calls it; `needed` are the modules that are loaded once."""
    if on_gpu:
        return "spawn"
    multiprocessing.set_forkserver_preload(list(needed))
    return "forkserver"
