"""Put on PYTHONPATH by tests: runs the code in SABOTAGE when a process loads `pretune.run.cell`,
which it knows as `cells`.
"""

import importlib
import os

_load = importlib.import_module


def _sabotaged(name, package=None):
    module = _load(name, package)
    if name == "pretune.run.cell" and not hasattr(module, "sabotaged"):
        module.sabotaged = True
        exec(os.environ["SABOTAGE"], {"cells": module})
    return module


importlib.import_module = _sabotaged
