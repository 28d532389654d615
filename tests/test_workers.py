"""Workers of this machine: which GPU each has, with made-up devices, and what is said of a killed
one.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from pretune.models import processes
from pretune.plan import devices
from pretune.run import local


def test_workers_have_the_gpus_in_turn_as_the_environment_names_them(monkeypatch):
    """Names are text, and set before torch is loaded. What is fetched beside has none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1f, MIG-2a/1/0")
    assert devices.default_jobs() == 2
    with closing(local.Processes(3)) as workers:
        seen = [workers.submit(os.getenv, devices.VISIBLE) for _ in range(3)]
        aside = workers.submit(os.getenv, devices.VISIBLE, aside=True)
        loaded = "'torch' in __import__('sys').modules"
        assert [one.result() for one in seen] == ["GPU-1f", "MIG-2a/1/0", "GPU-1f"]
        assert aside.result() == "" and not workers.submit(eval, loaded).result()


@pytest.mark.parametrize(("deep", "begun"), [(2, "forkserver"), (60, "spawn")])
def test_workers_begin_wherever_temporary_files_lie(deep, begun, monkeypatch):
    """A socket's path may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(dir="/tmp")) / ("d" * deep)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert processes.start_method(False) == begun
    monkeypatch.setitem(os.environ, "TMPDIR", str(folder))
    code = "import os; from pretune.run.local import Processes; w = Processes(1); "
    code += "print(w.submit(os.getpid).result() != os.getpid()); w.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    shutil.rmtree(folder.parent)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("said", ["", "-1", "NoDevFiles"])
def test_without_a_gpu_there_is_a_worker_for_each_core(monkeypatch, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert devices.gpus() == [] and devices.default_jobs() == devices.cores()


def test_of_two_jobs_only_the_killed_one_is_said_to_be():
    """And its worker is there again for the next."""
    with closing(local.Processes(2)) as workers:
        pid, other = workers.submit(os.getpid), workers.submit(os.getpid)
        pid, other = pid.result(), other.result()
        killed, safe = workers.submit(signal.pause), workers.submit(os.getpid)
        assert safe.result() == other and workers.free == 1
        os.kill(pid, signal.SIGKILL)
        assert "terminated" in str(killed.exception()) and workers.killed(killed)
        assert not workers.killed(safe) and workers.free == 2
        assert workers.submit(os.getpid).result() not in (pid, other)
