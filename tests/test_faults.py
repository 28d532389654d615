"""A bad day, on the smoke study: workers that die, losses that run away, full disks, damaged
files, and two machines.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from conftest import OUTPUTS, ROOT, plan_of, run_here, run_pretune
from pretune import measures, paths, records
from pretune.run import local, queue, status
from pretune.run.outcome import Outcome
from pretune.study.load import load_study
from running import WHO, Forked, gone, record_count, rows_in, run_forked, wait_until

ONE = "findings=[02_latent_benefits]"  # the pages of one finding are enough
KILL = """
import os, pathlib, signal
run_cell, mark = cells.run_cell, pathlib.Path({mark!r})
def killed(study, cell, report=None):
    if cell.model.name == {name!r} and ({always} or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_cell(study, cell, report)
cells.run_cell = killed
"""


@pytest.fixture
def copied(smoke, tmp_path):
    """The finished smoke study in a folder of its own."""
    shutil.copytree(OUTPUTS, tmp_path, dirs_exist_ok=True)
    return tmp_path


def drop(outputs, *patterns):
    """Remove records, so that there is something to do."""
    for pattern in patterns:
        for folder in (outputs / "smoke" / "records").glob(pattern):
            shutil.rmtree(folder)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def expected():
    return records.load(plan_of(load_study("smoke"))).sort_values(WHO, ignore_index=True)


def rerun(outputs, *words):
    return run_here("run", "smoke", *words, outputs=outputs)


def test_a_worker_that_is_killed_is_replaced_and_its_cell_done_again(copied, tmp_path, monkeypatch):
    drop(copied, "step-36.*")
    code = KILL.format(mark=str(tmp_path / "mark"), name="step-36.mnli.0", always=False)
    done = run_forked(copied, "run", "smoke", "--no-notebooks", sabotage=code)
    assert (
        done.returncode == 0
        and "its process was killed (out of memory?); it is tried again" in done.stderr
    ), done.stderr
    pd.testing.assert_frame_equal(expected(), rows_in(copied, load_study("smoke"), monkeypatch))


@pytest.fixture
def here(copied, monkeypatch):
    """The copy, for this process too."""
    monkeypatch.setenv("PRETUNE_OUTPUTS", str(copied))
    monkeypatch.setattr(paths, "OUTPUTS", copied)
    monkeypatch.setattr(paths, "CACHE", copied / "cache")
    return copied


def test_a_worker_that_is_killed_with_nothing_to_do_is_replaced(smoke, here, monkeypatch):
    drop(here, "step-36.base.*")
    killed = []

    class Pool(ProcessPoolExecutor):
        def submit(self, *asked):
            if not killed:
                killed.append(True)
                raise BrokenProcessPool
            return super().submit(*asked)

    monkeypatch.setattr(local, "ProcessPoolExecutor", Pool)
    assert queue.measure(plan_of(smoke).of(only=("step-36",))).failed == {} and killed
    assert not status.missing(plan_of(smoke).of(only=("step-36",)))


SLOW = """
import os, signal, time
run_cell = cells.run_cell
def slow(*asked):
    time.sleep(3)
    return run_cell(*asked)
cells.run_cell = slow
"""


def test_pre_training_that_kills_its_process_each_time_fails_what_waits_for_it(copied):
    """The cells of the other checkpoint, which is there, are done."""
    drop(copied, "step-36.base.*", "step-38.base.*")
    [folder] = (copied / "cache" / "pretrained").glob("*/step-36")
    shutil.rmtree(folder)
    code = SLOW + "prepare.prepare_checkpoint = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    words = ("--only", "step-36", "step-38", "--no-notebooks")
    done = run_forked(copied, "run", "smoke", *words, sabotage=code)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("pretune: ")]
    assert told == ["pretune: step-36.base.0 failed: its process was killed (out of memory?)"]


def test_a_checkpoint_without_its_notes_is_made_again(smoke, copied, monkeypatch):
    drop(copied, "step-36.base.*")
    [notes] = (copied / "cache" / "pretrained").glob("*/step-36/checkpoint.json")
    notes.unlink()
    done = rerun(copied, "--only", "step-36", "--no-notebooks")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(expected(), rows_in(copied, smoke, monkeypatch))


def test_a_suspect_that_waits_for_its_checkpoint_does_not_stop_the_others(smoke, here):
    """Else the room in a small cache, which they have to leave for it, would never come."""
    drop(here, "step-36.base.*", "step-38.base.*")
    [folder] = (here / "cache" / "pretrained").glob("*/step-36")
    shutil.rmtree(folder)
    still = SimpleNamespace(free=2, submit=lambda *_, **__: Future())
    pool = queue._Queue(plan_of(smoke), status.missing(plan_of(smoke)), 2, Outcome(), still)
    pool.suspects.add("step-36.base.0")
    pool._submit()
    assert set(pool.running.values()) == {"prepare", "step-38.base.0"}


def test_a_cell_that_kills_its_process_fails_and_the_others_and_the_pages_go_on(copied, tmp_path):
    drop(copied, "step-36.mnli.*", "step-36.xsum.*", "step-38.xsum.*")
    code, words = (
        KILL.format(mark=str(tmp_path / "mark"), name="step-36.mnli.0", always=True),
        ("--set", ONE),
    )
    both = ("--only", "step-36", "step-38")
    done = run_forked(copied, "run", "smoke", *both, *words, sabotage=code)
    assert done.returncode == 1 and "step-36.mnli.0 failed: its process was killed" in done.stderr
    assert "xsum.0 failed" not in done.stderr and "Traceback" not in done.stderr
    state = json.loads(run_here("status", "smoke", "--json", *words, outputs=copied).stdout)
    assert state["cells"]["missing"] == ["step-36.mnli.0"]
    assert {f"02_latent_benefits{which}" for which in ("", ".step-36", ".step-38")}.isdisjoint(
        state["pages"]["stale"]
    )
    page = (copied / "smoke" / "site" / "02_latent_benefits.html").read_text()
    assert "This page is partial and gives no verdict" in page and "its process was killed" in page
    assert "The grid is partial" in page
    done = rerun(copied, "--only", "step-36", *words)  # what it was killed for is gone
    assert (
        done.returncode == 0
        and "partial and gives no verdict"
        not in (copied / "smoke" / "site" / "02_latent_benefits.html").read_text()
    )
    assert not json.loads((copied / "smoke" / "failed.json").read_text())


def test_a_loss_that_runs_away_fails_with_step_and_values_and_leaves_a_hole(copied):
    done = rerun(
        copied, "--only", "step-36", "--set", "recipes.xsum.learning_rate=1.0", "--set", ONE
    )
    # said, and listed
    assert (
        done.returncode == 1
        and done.stderr.count("step-36.xsum.0 failed: TrainingFailed: loss") == 2
    )
    assert (
        re.search(r"at step \d \(first [\d.]+, .*learning rate", done.stderr)
        and "Traceback" not in done.stderr
    )
    page = (copied / "smoke" / "site" / "02_latent_benefits.step-36.html").read_text()
    assert "step-36.xsum.0" in page and "TrainingFailed: loss" in page


@pytest.mark.parametrize(
    ("gone", "limit", "named"),
    [
        ("cache/pretrained", 150_000, "cache/pretrained"),
        ("cache/tuned", 150_000, "cache/arrow"),
        ("smoke/site", 60_000, "smoke/site"),
    ],
    ids=["checkpoints", "datasets", "pages"],
)
def test_a_full_disk_stops_the_run_names_the_place_and_damages_nothing(
    smoke, copied, gone, limit, named, monkeypatch
):
    """With the largest size of a file as a full disk."""
    shutil.rmtree(copied / gone)
    if named != "smoke/site":
        drop(copied, "step-36.mnli.*")
    before = {
        path: path.read_bytes()
        for path in (copied / "smoke").rglob("*")
        if path.is_file() and path.name != "failed.json"
    }

    done = run_forked(copied, "run", "smoke", limit=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"no room to write {copied / named}" in done.stderr.splitlines()[-1]
    assert all(path.read_bytes() == old for path, old in before.items())
    assert not list(copied.rglob("*.partial"))
    assert rerun(copied, *(() if named == "smoke/site" else ("--no-notebooks",))).returncode == 0
    pd.testing.assert_frame_equal(expected(), rows_in(copied, smoke, monkeypatch))


def test_what_is_damaged_in_the_cache_is_named_set_aside_and_made_again(smoke, copied, monkeypatch):
    """A checkpoint, and a tuned model of another one; what else can be wrong with them is in
    test_models.
    """
    drop(copied, "step-36.mnli.*", "step-36.base.*", "step-38.mnli.*")
    [folder] = (copied / "cache" / "pretrained").glob("*/step-36")
    flip(folder / "model.safetensors")
    model = next(cell.model for cell in plan_of(smoke).cells if cell.model.name == "step-38.mnli.0")
    flip(copied / "cache" / "tuned" / model.key / "model.safetensors")
    done = rerun(copied, "--no-notebooks")
    assert done.returncode == 0, done.stderr
    assert "step-36: a file is not what was written: set aside, to be made again" in done.stderr
    assert (
        f"{model.key}: a file is not what was written: set aside, to be tuned again" in done.stderr
    )
    assert folder.with_name("step-36.damaged").is_dir()
    pd.testing.assert_frame_equal(expected(), rows_in(copied, smoke, monkeypatch))


def test_ctrl_c_twice_stops_at_once_and_leaves_no_process(copied):
    drop(copied, "step-20.*", "step-36.*")
    before = record_count(copied)
    process = Forked(copied, "run", "smoke", "--no-notebooks")
    wait_until(lambda: record_count(copied) > before, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=3)
    assert process.returncode == 130 and "Traceback" not in said
    assert gone(family)


APART = """
import contextlib
from pretune import storage
from pretune.run import queue
storage.lock = queue.alone = lambda name: contextlib.nullcontext()
storage._machine = lambda: {name!r}
"""


def test_two_machines_in_one_folder_do_no_harm(smoke, tmp_path, monkeypatch):
    """Locks do not reach the other machine: both do all the work, and each row is there once."""
    fewer = "recipes={base: {}, mnli: {dataset: mnli}}"
    words = ("run", "smoke", "--only", "step-20", "--no-notebooks", "--set", fewer)
    names = ("one", "two")
    both = [Forked(tmp_path, *words, sabotage=APART.format(name=name)) for name in names]
    for process in both:
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    study = load_study("smoke", (fewer,))
    wanted = of_step_20(study, OUTPUTS, monkeypatch)
    assert set(wanted["recipe"]) == {"base", "mnli"}
    pd.testing.assert_frame_equal(wanted, of_step_20(study, tmp_path, monkeypatch))
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.damaged"))


def of_step_20(study, outputs, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    return records.load(plan_of(study), where={"checkpoint": "step-20"}).sort_values(
        WHO, ignore_index=True
    )


def test_another_number_of_processes_gives_the_same_rows(smoke, copied, monkeypatch):
    drop(copied, "step-20.*")
    shutil.rmtree(copied / "cache" / "tuned")
    done = rerun(copied, "--only", "step-20", "--jobs", "1", "--no-notebooks")
    assert done.returncode == 0, done.stderr
    wanted, there = (
        measures.scored(of_step_20(smoke, outputs, monkeypatch)) for outputs in (OUTPUTS, copied)
    )
    assert wanted["prediction"].equals(there["prediction"])
    for one, other in zip(wanted["log_likelihood"], there["log_likelihood"], strict=True):
        assert list(one) == pytest.approx(list(other), abs=1e-3)


def test_it_runs_without_a_home_in_a_plain_locale_under_an_odd_path_and_writes_nowhere_else(
    tmp_path,
):
    outputs = tmp_path / "Münch en {x}"
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    before = {ROOT / name: (ROOT / name).stat().st_mtime_ns for name in tracked.split("\0") if name}
    bare = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PRETUNE_OUTPUTS": str(outputs)}
    words = (
        "run",
        "smoke",
        "--only",
        "step-20",
        "--set",
        "findings=[01_dataset_dichotomy]",
        "--set",
        "recipes={base: {}}",
    )
    done = run_pretune(*words, outputs=outputs, environment=bare)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip().splitlines()[-1]).is_file()
    assert all(path.stat().st_mtime_ns == old for path, old in before.items())


@pytest.mark.parametrize("place", ["/sys/pretune", "file"])
def test_where_nothing_can_be_written_it_says_so(place, tmp_path):
    (tmp_path / "file").touch()
    done = run_pretune("run", "smoke", outputs=Path(tmp_path, place))
    assert (
        done.returncode == 1
        and str(Path(tmp_path, place)) in done.stderr
        and "PRETUNE_OUTPUTS" in done.stderr
    )
    assert done.stderr.count("\n") == 1
