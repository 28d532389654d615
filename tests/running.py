"""Runs of the smoke study as processes of their own, to be watched, interrupted and killed, and
what they left.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from conftest import plan_of
from pretune import paths, records

SABOTEUR = Path(__file__).parent / "saboteur"
WHO = ["checkpoint", "recipe", "seed", "dataset", "split", "format", "shots_asked", "draw", "item"]


def start(outputs, *words):
    """`pretune ...` in a process group of its own, where Ctrl-C works also if the tests run
    where it is ignored.
    """
    environment = os.environ | {"PRETUNE_OUTPUTS": str(outputs)}
    return subprocess.Popen(
        [sys.executable, "-m", "pretune.cli", *words],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def sabotaged(code):
    """The environment of a run in which every process that measures runs `code` first."""
    return os.environ | {"PYTHONPATH": str(SABOTEUR), "SABOTAGE": code}


def wait_until(condition, process, seconds=120):
    """Poll until `condition`; a process that ends before is a failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, "it never came to this"
        time.sleep(0.02)


def gone(processes, seconds=5):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def rows_in(outputs, study, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    return records.load(plan_of(study)).sort_values(WHO, ignore_index=True)


def record_count(outputs):
    return len(list((outputs / "smoke" / "records").glob("*/*/record.json")))
