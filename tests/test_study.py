"""The whole way, as a user walks it: run, status, rerun, kill, Ctrl-C, papermill by itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import psutil
import pytest
from nbclient import NotebookClient

from conftest import OUTPUTS, ROOT, plan_of, run_here, run_pretune
from pretune import measures, paths, records
from pretune.report import pages, reference, site
from pretune.report.open import summary
from pretune.study.load import load_study
from running import WHO, Forked, gone, record_count, rows_in, wait_until


def test_the_run_leaves_every_row_and_says_what_it_took(smoke):
    rows = records.load(plan_of(smoke))
    assert (
        len(rows) == sum(len(cell.probes) for cell in plan_of(smoke).cells) * 12
        and not rows.duplicated(WHO).any()
    )
    scored, text = measures.scored(rows), rows["dataset"] == "held_out_text"
    assert scored.loc[~text, "score"].between(0, 1).all()
    # nats per token, of an all but untrained model with 512 tokens
    assert scored.loc[text, "score"].between(2, 8).all()
    about = json.loads((OUTPUTS / "smoke" / "run.json").read_text())
    assert set(about["process_seconds"]) == {"prepare", "load", "tune", "score"}
    assert {"measure", "notebooks", "site", "total"} == set(about["wall_seconds"])
    assert (
        about["tokens"]["prepare"] == 40 * 8 * 128
        and about["tokens"]["score"] > 10**5
        and max(about["peak_memory_gb"]) < 2
    )
    for recipe in ("mnli", "lora_mnli", "instruct"):
        log = records.training_log(
            smoke, next(cell.model for cell in plan_of(smoke).cells if cell.model.recipe == recipe)
        )
        assert len(log) == 3 and log["loss"].notna().all()


def test_status_for_people_and_programs(smoke):
    state = json.loads(run_here("status", "smoke", "--json").stdout)
    assert state["study"] == "smoke" and state["checkpoints"] == [
        f"step-{step}" for step in (0, 20, 36, 38, 40)
    ]
    assert state["cells"] == {"total": 25, "done": 25, "missing": []}
    assert state["pages"] == {"total": 31, "done": 31, "stale": []}
    assert "25 of 25 cells done" in run_here("status", "smoke").stdout


def test_nothing_to_do_takes_at_most_five_seconds_and_touches_nothing(smoke):
    files = {
        path: path.stat().st_mtime_ns for path in (OUTPUTS / "smoke").rglob("*") if path.is_file()
    }
    before = sum(os.times()[2:4])  # of children, so that other tests at work do not count
    done = run_pretune("run", "smoke")
    assert done.returncode == 0 and sum(os.times()[2:4]) - before <= 5
    assert done.stdout.strip().endswith("index.html")
    assert not {path for path, old in files.items() if path.stat().st_mtime_ns != old}


def test_only_what_is_missing_is_done_again(smoke):
    before = records.load(plan_of(smoke)).sort_values(WHO, ignore_index=True)
    cell = next(cell for cell in plan_of(smoke).cells if cell.model.name == "step-36.mnli.0")
    folder = records.record_folder(smoke, cell.model)
    stamps = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*.json")}
    shutil.rmtree(folder)
    state = json.loads(run_here("status", "smoke", "--json").stdout)
    assert state["cells"]["missing"] == ["step-36.mnli.0"]
    findings = set(smoke.findings)
    assert set(state["pages"]["stale"]) == {"00_overview"} | findings | {
        f"{finding}.step-36" for finding in findings
    }
    assert run_here("run", "smoke", "--no-notebooks").returncode == 0
    changed = {path for path, old in stamps.items() if path.stat().st_mtime_ns != old}
    assert {path.parent.parent for path in changed} == {folder}
    pd.testing.assert_frame_equal(
        before, records.load(plan_of(smoke)).sort_values(WHO, ignore_index=True)
    )


def test_resources_are_told_by_phase(smoke):
    about = records.provenance(plan_of(smoke))
    assert set(about["scoring_precision"]) == {"float32"} and about["commit"].nunique() == 1
    assert all(
        one["tune"] > 48 * 20 for one in about[~about["model"].str.contains("base")]["tokens"]
    )


def test_plan_prints_the_study_its_cells_and_what_it_expects(tmp_path):
    done = run_pretune("plan", "smoke", outputs=tmp_path)
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    words = (
        "warmup: 0.03",
        "25 cells",
        "step-20.mnli.0",
        "tokens",
        "floating-point operations",
        "minutes",
        "memory",
    )
    for word in words:
        assert word in done.stdout


def test_kill_nine_at_five_moments_ends_with_the_same_rows(smoke, tmp_path, monkeypatch):
    """A tenth, a half and most of the cells of two checkpoints are done when it is killed."""
    words = ("run", "smoke", "--no-notebooks", "--only", "step-0", "step-20")
    expected = of_two(smoke)
    pretrained = tmp_path / "cache" / "pretrained"
    moments = [
        lambda: list(pretrained.glob("*/step-0")),
        lambda: list(pretrained.glob("*/step-20")),
        lambda: record_count(tmp_path) >= 1,
        lambda: record_count(tmp_path) >= 5,
        lambda: record_count(tmp_path) >= 7,
    ]
    for moment in moments:
        process = Forked(tmp_path, *words)
        wait_until(moment, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert gone(family), "workers outlived the run"
        done_before = record_count(tmp_path)
    assert 7 <= done_before < 10
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "smoke").rglob("*.json")}
    assert run_here(*words, outputs=tmp_path).returncode == 0
    # nothing finished was done again
    assert all(path.stat().st_mtime_ns == old for path, old in stamps.items())
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    pd.testing.assert_frame_equal(expected, of_two(smoke))


def of_two(study):
    """The rows of two checkpoints."""
    plan = plan_of(study).of(only=("step-0", "step-20"))
    return records.load(plan).sort_values(WHO, ignore_index=True)


def test_ctrl_c_stops_soon_says_how_to_go_on_and_leaves_no_process(tmp_path):
    process = Forked(tmp_path, "run", "smoke", "--no-notebooks")
    wait_until(lambda: record_count(tmp_path) >= 1, process)
    family = psutil.Process(process.pid).children(recursive=True)
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and time.monotonic() - started < 5
    assert "Continue with: pretune run smoke" in said and "Traceback" not in said
    assert re.findall(r"\b\d+ of 2[0-9] parts.*stopped", said)
    assert gone(family)


def test_a_cell_that_fails_is_listed_and_the_others_go_on(tmp_path):
    wrong = ("--set", "recipes.mnli.examples=5000", "--set", "recipes.xsum.learning_rate=2.0e-4")
    done = run_here("run", "smoke", "--only", "step-0", "--no-notebooks", *wrong, outputs=tmp_path)
    assert done.returncode == 1
    assert (
        "step-0.mnli.0 failed" in done.stderr
        and "5000" in done.stderr
        and "1800 rows" in done.stderr
    )
    state = json.loads(
        run_here(
            "status", str(tmp_path / "smoke" / "smoke.yaml"), "--json", outputs=tmp_path
        ).stdout
    )
    assert state["cells"]["done"] == 4 and "step-0.mnli.0" in state["cells"]["missing"]


def test_of_several_pre_training_runs_only_what_is_asked_for_is_made(tmp_path):
    words = ("run", "smoke", "--only", "run-1-step-20", "--no-notebooks")
    changes = ("--set", "checkpoints.runs=[0, 1]", "--set", "recipes={base: {}}")
    changes += ("--set", "findings=[01_dataset_dichotomy]")
    done = run_here(*words, *changes, outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "cache" / "pretrained").iterdir()
    assert len(list(folder.glob("step-*"))) == 5
    [record] = (tmp_path / "smoke" / "records").glob("*/*/record.json")
    assert "run-1-step-20" in str(record)


def test_two_runs_of_one_study_at_once_are_refused(tmp_path):
    process = Forked(tmp_path, "run", "smoke", "--no-notebooks")
    wait_until(lambda: (tmp_path / "smoke" / "run.lock").exists(), process)
    second = run_pretune("run", "smoke", "--no-notebooks", outputs=tmp_path)
    assert second.returncode == 1 and "another run of smoke" in second.stderr
    process.kill()


def test_papermill_by_itself_measures_only_what_its_checkpoint_needs(tmp_path):
    out = tmp_path / "out.ipynb"
    source = ROOT / "notebooks" / "01_dataset_dichotomy.ipynb"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "papermill",
            str(source),
            str(out),
            "-p",
            "study",
            "smoke",
            "-p",
            "checkpoint",
            "step-20",
        ],
        env=os.environ | {"PRETUNE_OUTPUTS": str(tmp_path / "outputs")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folders = [path.name for path in (tmp_path / "outputs" / "smoke" / "records").iterdir()]
    assert len(folders) == 4 and all(name.startswith("step-20.") for name in folders)
    outputs = [output for cell in nbformat.read(out, 4).cells for output in cell.get("outputs", ())]
    assert sum("image/svg+xml" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error"]


def test_papermill_given_a_parameter_that_a_notebook_lacks_is_refused_and_nothing_is_measured(
    tmp_path,
):
    """It only warns by itself, and the page would be of another study than was asked for."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", ROOT / "notebooks" / "02_latent_benefits.ipynb"),
            *("out.ipynb", "-p", "study", "smoke", "-p", "checkpont", "step-20"),
        ],
        env=os.environ | {"PRETUNE_OUTPUTS": str(tmp_path / "outputs")},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode != 0 and not (tmp_path / "outputs").exists()
    allowed = "['checkpoint', 'margin', 'sets', 'study']"
    assert f"unknown parameters ['checkpont']; allowed: {allowed}" in done.stderr


def test_records_of_one_finding_leave_the_pages_of_others_fresh(smoke, tmp_path):
    """LoRA is looked at by findings 1, 2 and 5; without its records only their pages, and the
    overview, are stale.
    """
    shutil.copytree(OUTPUTS / "smoke", tmp_path / "smoke")
    for folder in (tmp_path / "smoke" / "records").glob("*.lora_mnli.*"):
        shutil.rmtree(folder)
    state = json.loads(run_pretune("status", "smoke", "--json", outputs=tmp_path).stdout)
    assert {page.split("_")[0] for page in state["pages"]["stale"]} == {"00", "01", "02", "05"}


def test_a_notebook_gives_the_same_figures_from_its_own_folder_as_in_the_report(smoke):
    """As JupyterLab runs it: in the folder of the notebook, with its own values of the
    parameters replaced by hand.
    """
    book = nbformat.read(ROOT / "notebooks" / "01_dataset_dichotomy.ipynb", 4)
    book.cells[1].source = book.cells[1].source.replace("quick", "smoke")
    NotebookClient(book, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    made = nbformat.read(OUTPUTS / "smoke" / "notebooks" / "01_dataset_dichotomy.ipynb", 4)
    assert figures_of(book) == figures_of(made) and len(figures_of(book)) >= 3


def test_only_a_study_as_its_file_says_is_kept_as_reference(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REFERENCE", tmp_path / "reference")
    kept = reference.keep_reference(plan_of(smoke))
    assert {file.name for file in kept} >= {
        "findings.json",
        "scores.parquet",
        "00_overview.ipynb",
        "01_dataset_dichotomy.svg",
    }
    scores = pd.read_parquet(tmp_path / "reference" / "smoke" / "scores.parquet")
    assert (
        len(scores) == sum(len(cell.probes) for cell in plan_of(smoke).cells)
        and scores["n"].eq(12).all()
    )
    text = "".join(file.read_text() for file in kept if file.suffix != ".parquet")
    assert (
        str(ROOT) not in text
        and str(OUTPUTS) not in text
        and sum(file.stat().st_size for file in kept) < 3e6
    )
    site.publish(tmp_path / "published")
    assert "Smoke" in (tmp_path / "published" / "index.html").read_text()
    assert (tmp_path / "published" / "smoke" / "index.html").is_file()
    with pytest.raises(
        pages.PageError,
        match="smoke was run with overrides; only a study as in params/smoke.yaml is kept",
    ):
        reference.keep_reference(plan_of(load_study("smoke", ("tuning.seeds=2",))))


def figures_of(book):
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    return [
        output.data["image/svg+xml"]
        for output in outputs
        if "image/svg+xml" in output.get("data", {})
    ]


def test_a_sweep_prints_and_keeps_its_table_and_names_the_better_rates(tmp_path, monkeypatch):
    grid = "grid={learning_rate: [1.0e-6, 1.0e-3], steps: [20, 40]}"
    done = run_here(
        "run",
        "smoke",
        "--sweep",
        "--set",
        grid,
        "--set",
        "tuning.learning_rate=1.0e-6",
        outputs=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "smoke" / "rates.csv")
    assert len(table) == 4 * 2 and list(table["used"]) == [True, False] * 4
    assert (table["mean"] - table[["step 20", "step 40"]].mean(axis=1)).abs().max() < 1e-3
    # its loss falls where a rate is more than nothing
    best = table[table["recipe"] == "instruct"].set_index("rate")
    assert best.loc[1e-3, "best"] and best.loc[1e-3, "mean"] < best.loc[1e-6, "mean"]
    assert "recipes.instruct.learning_rate: 0.001 is best, 1e-06 is used" in done.stdout
    study = load_study(str(tmp_path / "smoke" / "smoke.yaml"))
    rows = rows_in(tmp_path, study, monkeypatch)
    assert set(rows["split"]) == {"train reserve"} and summary(plan_of(study)).empty
    # the study as it is has no grid
    assert run_here("run", "smoke", "--sweep", outputs=tmp_path).returncode == 2
    both = run_here("run", "smoke", "--sweep", "--only", "step-20", outputs=tmp_path)
    assert both.returncode == 2 and "--sweep takes no --only" in both.stderr


def test_the_published_protocol_runs_and_marks_what_it_lets_pass(tmp_path, monkeypatch):
    words = (
        "--set",
        "protocol=published",
        "--set",
        "probing.datasets=[mnli, qqp]",
        "--set",
        "recipes={base: {}}",
        "--set",
        "findings=[01_dataset_dichotomy]",
    )
    done = run_here("run", "smoke", *words, "--only", "step-0", "--no-notebooks", outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    study = load_study(str(tmp_path / "smoke" / "smoke.yaml"))
    rows = rows_in(tmp_path, study, monkeypatch)
    assert rows.loc[rows["dataset"] == "qqp", "flag"].str.contains("hidden label").all()
    assert (rows["flag"].str.contains("shot") == (rows["item"] < rows["shots_asked"])).all()


def test_checkpoints_from_a_corpus_of_ones_own(tmp_path, world):
    from pretune.sources.microworld.text import documents

    stream = documents(world, 3)
    (tmp_path / "text").mkdir()
    for number in range(3):
        (tmp_path / "text" / f"{number}.txt").write_text(
            "\n".join(next(stream) for _ in range(400))
        )
    study = (ROOT / "params" / "smoke.yaml").read_text().replace(
        "  source: microworld\n  world: {seed: 1, people: 16, towns: 12, countries: 4}",
        f"  source: corpus\n  folder: {tmp_path / 'text'}",
    ) + "datasets: {source: microworld, world: {seed: 1, people: 16, towns: 12, countries: 4}}\n"
    (tmp_path / "mine.yaml").write_text(study)
    done = run_here(
        "run",
        str(tmp_path / "mine.yaml"),
        "--only",
        "step-36",
        "--set",
        "findings=[01_dataset_dichotomy]",
        outputs=tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert "step-36.html" in done.stdout or list(
        (tmp_path / "out" / "mine" / "site").glob("*.step-36.html")
    )
    (tmp_path / "empty").mkdir()
    refused = {
        "/nowhere": "it must be an existing folder",
        str(tmp_path / "empty"): "it must hold *.jsonl, *.jsonl.xz, *.txt",
    }
    for place, why in refused.items():
        (tmp_path / "mine.yaml").write_text(study.replace(str(tmp_path / "text"), place))
        done = run_here("run", str(tmp_path / "mine.yaml"), outputs=tmp_path / "out")
        assert (
            done.returncode == 2
            and f"checkpoints.folder: {place!r} is refused; {why}" in done.stderr
        )


def test_a_study_needs_no_torch_to_be_read():
    code = (
        "import sys; from pretune.report.open import open_plan; from pretune.study.load import "
        "load_study; open_plan(load_study('quick')); assert not {'torch', 'transformers', "
        "'datasets'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "minutes"), [("smoke", 1.25), ("quick", 10), ("control", 27), ("microworld", 105)]
)
def test_expected_time_is_within_the_promise(name, minutes):
    """The cost model says that a study of the README fits its promise on two cores."""
    from pretune.plan import costs

    plan = plan_of(name)
    assert costs.wall_seconds(plan, plan.cells, 2) < 60 * minutes
