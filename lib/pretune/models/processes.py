"""How processes begin that need torch and the library, which take seconds to load: on processors
they are forked from one that loads them once and does nothing else. On GPUs each loads them for
itself, for a fork cannot use a driver that what it was forked from has asked for anything; so it
does where the path of temporary files leaves no room for the socket by which forks are asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile

LONGEST = 75  # bytes of the path of temporary files; that of a socket, 32 longer, may have 107


def start_method(on_gpu: bool, *needed: str) -> str:
    """As `multiprocessing` calls it; `needed` are the modules that are loaded once."""
    if on_gpu or len(os.fsencode(tempfile.gettempdir())) > LONGEST:
        return "spawn"
    multiprocessing.set_forkserver_preload(list(needed))
    return "forkserver"
