"""A run on a Dask cluster: scheduler and workers are processes of their own, with outputs that they
share with the caller, or with their own.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest
from distributed import Client

import pretune
from conftest import plan_of, run_pretune
from pretune import paths, records
from pretune.errors import RunError
from pretune.run import cluster
from running import WHO, record_count, rows_in, start, wait_until

WORDS = ("run", "smoke", "--no-notebooks")
KILLS = 30


@contextmanager
def workers(folder: Path, outputs: list[Path], threads: int = 1, **environment: str):
    """A scheduler that answers, and a worker for each folder of outputs that is given."""
    folder.mkdir(exist_ok=True)
    file = folder / "scheduler.json"
    quiet = {"stdout": (folder / "log").open("a"), "stderr": subprocess.STDOUT, "cwd": folder}
    where = ["--scheduler-file", str(file), "--no-dashboard"]

    def begin(what: str, *words: str, **own: str) -> subprocess.Popen:
        dask = [sys.executable, "-m", f"distributed.cli.dask_{what}", *where, *words]
        return subprocess.Popen(dask, env=os.environ | environment | own, **quiet)

    def join(place: Path) -> None:
        words = ("--nthreads", str(threads), "--local-directory", str(folder))
        started.append(begin("worker", *words, PRETUNE_OUTPUTS=str(place), OMP_NUM_THREADS="1"))

    started = [begin("scheduler", "--port", "0")]
    try:
        for place in outputs:
            join(place)
        wait_until(file.exists, started[0])
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            if outputs:
                client.wait_for_workers(len(outputs), timeout=60)
        yield SimpleNamespace(file=str(file), scheduler=started[0], workers=started[1:], join=join)
    finally:
        for process in started:
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.kill()
            process.wait()


def children(process: subprocess.Popen) -> list[psutil.Process]:
    """What does the jobs: a worker starts it anew when it is gone."""
    return [
        one
        for one in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(one.cmdline())
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_rows_are_those_of_a_run_on_one_machine(shared, smoke, tmp_path, monkeypatch):
    """With no shared folder, datasets and checkpoints travel to the workers and records back."""
    outputs = tmp_path / "outputs"
    places = [outputs, outputs] if shared else [tmp_path / "one", tmp_path / "two"]
    with workers(tmp_path / "dask", places) as dask:
        only = ("--only", "step-0", "step-20")
        done = run_pretune(*WORDS, *only, "--on", dask.file, outputs=outputs, timeout=200)
    assert done.returncode == 0, done.stderr
    plan = plan_of(smoke).of(only=("step-0", "step-20"))
    expected = records.load(plan).sort_values(WHO, ignore_index=True)
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    found = records.load(plan).sort_values(WHO, ignore_index=True)
    pd.testing.assert_frame_equal(found, expected)


def test_a_job_that_kills_its_worker_twice_has_failed_and_others_have_not(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    # a while after it has said that it begins
    suicide = "__import__('time').sleep(1) or __import__('os').kill(__import__('os').getpid(), 9)"
    with (
        workers(tmp_path / "dask", [tmp_path] * 2) as dask,
        closing(cluster.Cluster(dask.file)) as found,
    ):
        wait_until(lambda: found.free == 2, dask.scheduler)
        bad = found.submit(eval, suicide)
        good = [found.submit(eval, f"{{'number': {number}}}") for number in range(6)]
        assert found.free == 0  # as where workers have left with jobs to do
        while wait([bad, *good], timeout=0.1).not_done:
            list(found.said())
        assert [one.result()["number"] for one in good] == list(range(6))
        assert "killed 2 times" in str(bad.exception())
        assert not found.killed(bad)


def test_what_cannot_be_used_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    with pytest.raises(RunError, match="no scheduler answers there"):
        cluster.Cluster("tcp://127.0.0.1:9")
    other = tmp_path / "lib"
    shutil.copytree(Path(pretune.__file__).parent, other / "pretune")
    with (other / "pretune" / "errors.py").open("a") as file:
        file.write("# another version\n")
    shared, own = tmp_path / "shared", tmp_path / "own"
    refused: dict[str, tuple[list, dict]] = {
        r"tcp://\S+ runs another version of pretune": ([shared], {"PYTHONPATH": str(other)}),
        "does not see the caller's outputs and others do": ([shared, own], {}),
        "give it --nthreads 1": ([shared], {"threads": 2}),
    }
    monkeypatch.setattr(paths, "OUTPUTS", shared)
    for number, (why, (places, environment)) in enumerate(refused.items()):
        with (
            workers(tmp_path / f"dask{number}", places, **environment) as dask,
            pytest.raises(RunError, match=why),
        ):
            cluster.Cluster(dask.file)
    assert not [one for one in shared.rglob("*") if one.is_file()]


def test_a_worker_that_joins_and_cannot_be_used_is_sent_away(tmp_path, monkeypatch, caplog):
    """Without the shared folder what it writes would be lost, and taken for done."""
    shared = tmp_path / "shared"
    monkeypatch.setattr(paths, "OUTPUTS", shared)
    written = "__import__('pathlib').Path(__import__('os').environ['PRETUNE_OUTPUTS'], '{}')"
    with (
        workers(tmp_path / "dask", [shared]) as dask,
        closing(cluster.Cluster(dask.file)) as found,
    ):
        dask.join(tmp_path / "own")
        wait_until(lambda: found.free == 2, dask.scheduler)
        work = [found.submit(eval, f"{written.format(n)}.touch() or {{}}") for n in range(8)]
        while wait(work, timeout=0.1).not_done:
            list(found.said())
        assert all("process" in one.result() for one in work)
        assert {str(n) for n in range(8)} < {one.name for one in shared.iterdir()}
        assert not any(one.name.isdigit() for one in (tmp_path / "own").glob("*"))
        wait_until(lambda: list(found.said()) or found.free == 1, dask.scheduler)
    (line,) = [one.getMessage() for one in caplog.records if "sent away" in one.getMessage()]
    assert "joined and does not see the caller's outputs" in line


def test_when_the_scheduler_is_gone_the_run_stops_and_goes_on_with_another(tmp_path):
    outputs, only = tmp_path / "outputs", ("--only", "step-0")
    with workers(tmp_path / "dask", [outputs]) as dask:
        run = start(outputs, *WORDS, *only, "--on", dask.file)
        wait_until(lambda: record_count(outputs) >= 1, run)
        dask.scheduler.kill()
        _, said = run.communicate(timeout=60)
        assert run.returncode == 1 and "the scheduler is gone" in said, said
        assert "Traceback" not in said, said
    left = record_count(outputs)
    with workers(tmp_path / "again", [outputs]) as dask:
        done = run_pretune(*WORDS, *only, "--on", dask.file, outputs=outputs, timeout=200)
    assert done.returncode == 0 and left < 5 == record_count(outputs)


@pytest.mark.slow
def test_what_a_silent_worker_had_is_done_elsewhere(smoke, tmp_path, monkeypatch):
    """One that was stopped, as a machine that hangs."""
    outputs, only = tmp_path / "outputs", ("--only", "step-0", "step-20")
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}  # minutes, if nothing is said
    with workers(tmp_path / "dask", [outputs] * 2, **patience) as dask:
        run = start(outputs, *WORDS, *only, "--on", dask.file)
        wait_until(lambda: record_count(outputs) >= 1, run)
        [hung] = children(dask.workers[0])
        hung.send_signal(signal.SIGSTOP)
        _, said = run.communicate(timeout=300)
        assert run.returncode == 0, said
    expected = rows_in(paths.OUTPUTS, smoke, monkeypatch, only=only[1:])
    pd.testing.assert_frame_equal(rows_in(outputs, smoke, monkeypatch, only=only[1:]), expected)


@pytest.mark.slow
def test_two_callers_share_workers_and_never_outputs(smoke, tmp_path, monkeypatch):
    """Neither waits for the other; a second one on the same outputs is refused."""
    only, places = ("--only", "step-0"), [tmp_path / "one", tmp_path / "two"]
    with workers(tmp_path / "dask", [tmp_path / "a", tmp_path / "b"]) as dask:
        runs = [start(place, *WORDS, *only, "--on", dask.file) for place in places]
        wait_until(lambda: (places[0] / "smoke" / "run.lock").exists(), runs[0])
        refused = run_pretune(*WORDS, *only, "--on", dask.file, outputs=places[0], timeout=60)
        assert refused.returncode == 1 and "is held: another run of smoke" in refused.stderr
        for run in runs:
            _, said = run.communicate(timeout=300)
            assert run.returncode == 0, said
    one, two = (rows_in(place, smoke, monkeypatch, only=only[1:]) for place in places)
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_thirty_kills_spread_over_a_run_lose_nothing(shared, smoke, tmp_path, monkeypatch):
    """Of workers, and of the run itself: `make test-cluster`."""
    draw, outputs = random.Random(0), tmp_path / "outputs"
    expected = rows_in(paths.OUTPUTS, smoke, monkeypatch)
    places = [outputs] * 4 if shared else [tmp_path / str(number) for number in range(4)]
    with workers(tmp_path / "dask", places) as dask:
        run, killed = start(outputs, *WORDS, "--on", dask.file), 0
        while killed < KILLS:
            if run.poll() is not None:
                shutil.rmtree(outputs / "smoke", ignore_errors=True)
                run = start(outputs, *WORDS, "--on", dask.file)
            before, end = record_count(outputs), time.monotonic() + draw.uniform(1, 4)
            while time.monotonic() < end and record_count(outputs) == before:
                time.sleep(0.05)
            family = [one for worker in dask.workers for one in children(worker)]
            chosen = draw.choice(
                [*family, psutil.Process(run.pid)][: len(family) + (killed % 5 == 0)]
            )
            chosen.send_signal(signal.SIGKILL)
            killed += 1
        run.communicate(timeout=300)
        for _ in range(3):  # what was killed twice is listed as failed, and tried again
            done = run_pretune(*WORDS, "--on", dask.file, outputs=outputs, timeout=300)
            if not done.returncode:
                break
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(rows_in(outputs, smoke, monkeypatch), expected)
