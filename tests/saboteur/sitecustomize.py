"""Put on PYTHONPATH by tests: runs the code in SABOTAGE once a process loaded `pretune.run.cell`
or `pretune.run.prepare`, which it knows as `cells` and `prepare`.
"""

import builtins
import os
import sys

_import, _done = builtins.__import__, []
WORK = ("pretune.run.cell", "pretune.run.prepare")


def _sabotaged(*given, **named):
    module = _import(*given, **named)
    there = [sys.modules[name] for name in WORK if name in sys.modules]
    if there and not _done and not any(one.__spec__._initializing for one in there):
        _done.append(True)
        from pretune.run import cell, prepare

        exec(os.environ["SABOTAGE"], {"cells": cell, "prepare": prepare})
    return module


builtins.__import__ = _sabotaged
