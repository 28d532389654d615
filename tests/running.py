"""Runs of the smoke study as processes of their own, to be watched, interrupted and killed, and
what they left.
"""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from conftest import plan_of
from pretune import paths, records

SABOTEUR = Path(__file__).parent / "saboteur"
WHO = ["checkpoint", "recipe", "seed", "dataset", "split", "format", "shots_asked", "draw", "item"]
# Loading torch takes longer than most of what is watched here: one process loads it, all others
# are forked from that, runs and their workers alike.
LOADED = multiprocessing.get_context("forkserver")
LOADED.set_forkserver_preload(["pretune.cli", "pretune.run.cell", "pretune.run.prepare"])


class Forked:
    """`pretune ...` in a process group of its own, used as a `subprocess.Popen` is. `sabotage` is
    code that runs first, which knows `pretune.run.cell` and `prepare` as `cells` and `prepare`;
    `limit` is the largest size of a file.
    """

    def __init__(self, outputs, *words, sabotage="", limit=resource.RLIM_INFINITY):
        self._folder = tempfile.TemporaryDirectory()
        given = (outputs, words, self._folder.name, sabotage, limit)
        self._process = LOADED.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout=None):
        self._process.join(timeout)
        return self.poll()

    def kill(self):
        self._process.kill()

    def send_signal(self, which):
        os.kill(self.pid, which)

    def communicate(self, timeout=None):
        self.wait(timeout)
        assert self.poll() is not None, f"it is still running after {timeout} s"
        return None, self.stderr

    @property
    def stderr(self):
        return Path(self._folder.name, "stderr").read_text()


def _run(outputs, words, said, sabotage, limit):
    """What the forked process does; its exit code is that of the command."""
    from pretune import cli
    from pretune.run import cell, prepare

    os.setsid()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(said, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1))
    os.environ["PRETUNE_OUTPUTS"] = str(outputs)  # for kernels
    paths.OUTPUTS, paths.CACHE = outputs, outputs / "cache"
    real = multiprocessing.get_context
    multiprocessing.get_context = lambda _: real("fork")
    exec(sabotage, {"cells": cell, "prepare": prepare})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(cli.main(list(words)))


def run_forked(outputs, *words, **more):
    """The same to its end."""
    process = Forked(outputs, *words, **more)
    process.communicate(240)
    return process


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


def rows_in(outputs, study, monkeypatch, only=()):
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    return records.load(plan_of(study).of(only=only)).sort_values(WHO, ignore_index=True)


def record_count(outputs):
    return len(list((outputs / "smoke" / "records").glob("*/*/record.json")))
