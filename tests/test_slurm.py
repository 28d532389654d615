"""A run on workers that a real Slurm starts, requeues, cancels and ends when their time is up:
`make test-cluster`. It needs slurm-wlm and munge of Debian, and root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT, run_pretune
from pretune import paths
from running import record_count, rows_in, start, wait_until
from test_cluster import WORDS, workers

HERE = shutil.which("slurmctld") and shutil.which("munged") and os.getuid() == 0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HERE, reason="there is no Slurm here that could be started"),
]


@pytest.fixture
def slurm(tmp_path):
    """A command of Slurm, of which there is one node."""
    script, folder = ROOT / "tests" / "slurm.sh", tmp_path / "slurm"
    subprocess.run(["sh", script, "start", folder], check=True)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def command(*words: str) -> str:
        done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    yield command
    subprocess.run(["sh", script, "stop", folder], check=True)


def submitted(slurm, folder: Path, file: str, outputs: Path, *words: str) -> str:
    """Two workers as an array; its number."""
    worker = f"{sys.executable} -m distributed.cli.dask_worker --nthreads 1 --no-dashboard"
    script = (
        f"PRETUNE_OUTPUTS={outputs} OMP_NUM_THREADS=1 exec {worker} --scheduler-file {file} "
        f"--local-directory {folder}"
    )
    told = (f"--output={folder}/%A-%a.log", "--open-mode=append", "--requeue", "--parsable")
    return slurm("sbatch", "--array=1-2", *told, *words, "--wrap", script)


def test_workers_that_are_requeued_cancelled_and_out_of_time_lose_nothing(
    slurm, smoke, tmp_path, monkeypatch
):
    outputs, expected = tmp_path / "outputs", rows_in(paths.OUTPUTS, smoke, monkeypatch)
    with workers(tmp_path / "dask", []) as dask:
        first = submitted(slurm, tmp_path, dask.file, outputs, "--time=1")

        def used() -> list[str]:
            return slurm("squeue", "--noheader", "--Format=timeused", f"--jobs={first}").split()

        # a minute is the shortest limit there is, and it is looked at every half minute
        wait_until(lambda: used() and min(used()) >= "0:58", dask.scheduler)
        run = start(outputs, *WORDS, "--on", dask.file)
        wait_until(lambda: record_count(outputs) >= 1, run)
        slurm("scontrol", "requeue", f"{first}_1")
        wait_until(lambda: "JobState=TIMEOUT" in slurm("scontrol", "show", "job", first), run)
        second, before = submitted(slurm, tmp_path, dask.file, outputs), record_count(outputs)
        wait_until(lambda: record_count(outputs) > before, run)
        slurm("scancel", f"{second}_2")
        run.communicate(timeout=300)
        done = run_pretune(*WORDS, "--on", dask.file, outputs=outputs, timeout=300)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(rows_in(outputs, smoke, monkeypatch), expected)
