"""Checkpoints on the Hub: listed, pinned, fetched whole, against a local server that speaks its
protocol.
"""

import errno
import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import struct
import threading
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from conftest import plan_of, run_here, run_pretune
from local_hub import LocalHub, mnli, write_parquet
from pretune import paths, records
from pretune.errors import HubError, Outage, RunError, StudyError
from pretune.models import loading
from pretune.models.checkpoint import weights_checksum
from pretune.run import fetch, prepare, queue, status
from pretune.run.outcome import alone
from pretune.sources import cache, found, hub
from pretune.sources.checkpoints import checkpoints
from pretune.study import config
from pretune.study.load import load_study
from running import sabotaged, start

REPO = "lab/tiny-olmo"
ON_HUB = {"source": "hub", "repo": REPO, "steps": [0, 20, 40], "late": 1, "tokens_per_step": 1024}
FOR_ONE = {"max_gb": 0.0008}  # a cache that holds one checkpoint of the smoke study


@pytest.fixture
def served(model, tokenizer, tmp_path, monkeypatch):
    """Four branches of a small model behind a local Hub, and outputs in a folder of their own."""
    folders = {}
    for name, shift in (
        ("main", 4),
        ("step10-tokens1B", 1),
        ("step20-tokens2B", 2),
        ("step30-tokens3B", 3),
    ):
        for weight in model.parameters():
            weight.data += 0.001 * shift
        folders[name] = tmp_path / "repo" / name
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    monkeypatch.setattr(hub, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(hub, "PATIENCE", (0.01,) * 12)
    with LocalHub({REPO: folders}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield server


def study(tmp_path, **asked):
    """A study with checkpoints on the Hub, and the datasets of a microworld."""
    raw = yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = {"source": "microworld", "world": raw["checkpoints"]["world"]}
    raw["checkpoints"] = {"source": "hub", "repo": REPO, "late": 1} | asked
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(raw))
    return load_study(str(file))


def test_branches_are_found_by_step_and_pinned_to_commits(served, tmp_path):
    own = study(tmp_path, steps=[10, 30])
    found = checkpoints(own)
    assert [(one.name, one.step, one.tokens, one.late) for one in found] == [
        ("step-10", 10, 10**9, False),
        ("step-30", 30, 3 * 10**9, True),
    ]
    assert [one.revision for one in found] == [
        served.commits[REPO][f"step{step}-tokens{step // 10}B"] for step in (10, 30)
    ]
    before = len(served.asked)
    moved = served.commits[REPO].pop("step10-tokens1B")  # the branch goes, or moves on
    assert checkpoints(own) == found and len(served.asked) == before
    served.commits[REPO]["step10-tokens1B"] = moved
    assert [one.step for one in checkpoints(study(tmp_path, count=2))] == [10, 30]
    assert [one.step for one in checkpoints(study(tmp_path, steps="all"))] == [10, 20, 30]


def test_a_step_that_is_not_there_names_the_nearest(served, tmp_path):
    with pytest.raises(
        StudyError,
        match="no checkpoint at step 25; the nearest are step10-tokens1B, step20-tokens2B, step30",
    ):
        checkpoints(study(tmp_path, steps=[10, 25]))


def test_a_commit_is_fetched_and_a_break_taken_up(served, tmp_path):
    commit = served.commits[REPO]["step20-tokens2B"]
    target = tmp_path / "outputs" / "cache" / "hub" / commit
    served.trouble = lambda method, path: (404, {}) if path.endswith("tokenizer.json") else None
    with pytest.raises(HubError):
        hub.fetch(REPO, commit, target)
    served.trouble, before = lambda method, path: None, len(served.asked)
    hub.fetch(REPO, commit, target)
    assert not [
        path
        for method, path, _ in served.asked[before:]
        if method == "GET" and path.endswith(".safetensors")
    ]
    there = {file.name for file in target.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= there
    assert (target / "model.safetensors").read_bytes() == (
        served.folders[commit] / "model.safetensors"
    ).read_bytes()


def fetch_all(own):
    for point in checkpoints(own):
        fetch.fetch_checkpoint(own, point)


@pytest.fixture
def crowded(served, tmp_path):
    """A study whose cache holds two checkpoints, and both of them are there."""
    own = study(tmp_path, steps=[10, 20, 30])
    own = own.model_copy(
        update={
            "cache": config.Cache(max_gb=2.5 * found.pinned(own)["checkpoints"][0]["bytes"] / 1e9)
        }
    )
    for point in checkpoints(own)[:2]:
        hub.fetch(REPO, point.revision, point.folder)
        point.about.write_text("{}")
    return own


def test_what_earlier_runs_left_makes_room_and_what_is_needed_stays(crowded):
    first, second, third = checkpoints(crowded)
    assert cache.make(crowded, third, {second.revision, third.revision}) == ""
    assert not first.exists() and second.exists()
    # one fits beside the next
    assert cache.make(crowded, third, {third.revision}) == "" and second.exists()
    why = cache.make(smaller(crowded, 0.1), third, {second.revision, third.revision})
    assert re.fullmatch(
        "step-30 needs .* GB in .*, which holds .* GB that cannot be removed, .* raise "
        "cache.max_gb",
        why,
    )
    assert second.exists()


def smaller(own, share):
    return own.model_copy(update={"cache": config.Cache(max_gb=own.cache.max_gb * share)})


def test_what_another_run_at_work_needs_stays_until_it_ends(crowded):
    first, second, third = checkpoints(crowded)
    other = crowded.model_copy(update={"name": "other"})
    with alone(paths.study_folder("other")):
        cache.claim(other, {first.revision, second.revision})
        assert "cannot be removed" in cache.make(crowded, third, {third.revision})
        assert (
            first.exists()
            and second.exists()
            and cache.claimed(crowded) == {first.revision, second.revision}
        )
        cache.claim(other, {second.revision})
        assert (
            cache.make(crowded, third, {third.revision}) == ""
            and not first.exists()
            and second.exists()
        )
    # the run is over
    assert cache.make(smaller(crowded, 0.1), third, {third.revision}) == "" and not second.exists()


@pytest.mark.parametrize("left", ["damaged", "partial", "without its notes"])
def test_what_is_no_checkpoint_makes_room_first(crowded, left):
    first, second, third = checkpoints(crowded)
    needed = {first.revision, second.revision, third.revision}
    if left == "without its notes":
        first.about.unlink()
    else:
        first.folder.rename(first.folder.with_name(f"{first.folder.name}.{left}"))
        needed -= {first.revision} if left == "partial" else set()
    assert cache.make(smaller(crowded, 0.9), third, needed) == ""
    assert second.exists() and not list(first.folder.parent.glob(f"{first.folder.name}*"))


def test_what_another_run_is_fetching_stays_and_takes_no_room(crowded):
    """Else two runs could wait for each other."""
    first, second, third = checkpoints(crowded)
    partial = first.folder.rename(first.folder.with_name(f"{first.folder.name}.partial"))
    with alone(paths.study_folder("other")):
        cache.claim(crowded.model_copy(update={"name": "other"}), {first.revision})
        assert (
            cache.make(smaller(crowded, 0.9), third, {second.revision, third.revision}) == ""
            and partial.is_dir()
        )
        assert cache.claimed(crowded) == set()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_trouble_is_tried_again_and_said(served, status, caplog):
    left = [status] * 2
    served.trouble = lambda method, path: (
        (left.pop(), {"Retry-After": "0"}) if left and path.endswith("refs") else None
    )
    assert "step10-tokens1B" in hub.branches(REPO)
    assert caplog.text.count("trying again in") == 2 and str(status) in caplog.text


def test_fetching_has_an_hour_of_patience_and_a_list_half_a_minute(served, tmp_path, monkeypatch):
    monkeypatch.undo()
    assert 3600 <= sum(hub.PATIENCE) < 3700 and max(hub.PATIENCE) == 60 and sum(hub.PAUSES) == 31
    slept = []
    monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    served.trouble = lambda method, path: (
        (503, {}) if method == "GET" and path.endswith(("refs", ".safetensors")) else None
    )
    with pytest.raises(Outage, match="lab/tiny-olmo: .*503.*; try again later"):
        hub.branches(REPO)
    assert slept == list(hub.PAUSES)
    slept.clear()
    with pytest.raises(Outage):
        hub.fetch(REPO, served.commits[REPO]["main"], tmp_path / "there")
    assert slept == list(hub.PATIENCE)


def test_without_a_network_a_user_is_told_in_seconds(monkeypatch):
    slept = []
    monkeypatch.setattr(hub, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(Outage, match="lab/tiny-olmo: .*is there a network?"):
        hub.branches(REPO)
    assert sum(slept) == hub.UNREACHED


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "RevisionNotFound"), (404, "EntryNotFound"), (403, "GatedRepo"), (401, "")],
)
def test_what_is_final_is_no_outage_and_is_not_tried_again(served, tmp_path, status, code, caplog):
    served.trouble = lambda method, path: (status, {"X-Error-Code": code})
    with pytest.raises(HubError) as error:
        hub.fetch(REPO, served.commits[REPO]["main"], tmp_path / "there")
    assert not isinstance(error.value, Outage) and "trying again" not in caplog.text


def test_a_server_that_asks_to_wait_longer_than_the_patience_is_not_waited_for(served):
    served.trouble = lambda method, path: (429, {"Retry-After": "100000"})
    with pytest.raises(Outage, match="429"):
        hub.branches(REPO)


def test_a_client_that_is_set_offline_says_so_at_once(served, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="lab/tiny-olmo: .*HF_HUB_OFFLINE") as error:
        hub.fetch(REPO, served.commits[REPO]["main"], tmp_path / "there")
    assert not isinstance(error.value, Outage) and "trying again" not in caplog.text


def test_a_full_disk_is_no_trouble_of_the_hub(served, tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub.HfApi, "snapshot_download", full)
    with pytest.raises(HubError, match="No space left on device"):
        hub.fetch(REPO, served.commits[REPO]["main"], tmp_path / "there")
    assert "trying again" not in caplog.text


@pytest.mark.parametrize(
    ("repo", "trouble", "words"),
    [
        ("lab/none", None, "lab/none: .*; is the name right"),
        (REPO, (401, {}), "lab/tiny-olmo: .*"),
        (
            REPO,
            (403, {"X-Error-Code": "GatedRepo"}),
            "gated; accept its terms on the Hub and set HF_TOKEN",
        ),
        (REPO, (500, {}), "lab/tiny-olmo: HfHubHTTPError: .*500"),
    ],
)
def test_what_does_not_pass_is_one_line(served, repo, trouble, words):
    served.trouble = lambda method, path: trouble
    with pytest.raises(HubError, match=words) as error:
        hub.branches(repo)
    assert "\n" not in str(error.value)


def test_no_server_is_one_line(served, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="lab/tiny-olmo: .*"):
        hub.branches(REPO)


def test_a_branch_that_does_not_say_its_tokens_asks_for_the_size_of_a_step(served, tmp_path):
    served.commits[REPO] = {
        "step10": served.commits[REPO]["main"],
        "step20": served.commits[REPO]["step20-tokens2B"],
    }
    with pytest.raises(
        StudyError,
        match="step10 does not say how many tokens it has read; give checkpoints.tokens_per_step",
    ):
        checkpoints(study(tmp_path, steps=[10, 20]))
    assert [
        one.tokens for one in checkpoints(study(tmp_path, steps=[10, 20], tokens_per_step=512))
    ] == [5120, 10240]


def test_a_study_on_the_hub_gives_the_rows_of_the_same_checkpoints_made_here(
    smoke, tmp_path, monkeypatch
):
    """The smoke study's own checkpoints under branch names, in a cache that holds but one of
    them at a time.
    """
    made = checkpoints(smoke)
    raw = yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = {"source": "microworld", "world": raw["checkpoints"]["world"]}
    raw["checkpoints"] = {
        "source": "hub",
        "repo": REPO,
        "steps": [0, 20, 40],
        "late": 1,
        "tokens_per_step": 1024,
    }
    raw["recipes"] = {"base": {}, "mnli": {"dataset": "mnli"}}
    raw |= {
        "findings": ["01_dataset_dichotomy"],
        "cache": FOR_ONE,
        "probing": raw["probing"] | {"datasets": ["mnli"]},
    }
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(raw))
    branches = {f"step{one.step}": one.folder for one in made} | {"main": made[-1].folder}
    with LocalHub({REPO: branches}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        plan = run_here("plan", str(file), outputs=tmp_path / "outputs")
        assert plan.returncode == 0 and "155,648 parameters" in plan.stdout, plan.stderr
        done = run_here(
            "run",
            str(file),
            "--jobs",
            "1",
            "--no-notebooks",
            outputs=tmp_path / "outputs",
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outputs" / "cache" / "hub").glob("*/*"))) == 1
    about = json.loads(
        next(
            (tmp_path / "outputs" / "own" / "records").glob("step-20.mnli.0.*/*/record.json")
        ).read_text()
    )
    assert (
        about["checkpoint_sha256"]
        == json.loads((made[1].folder / "checkpoint.json").read_text())["sha256"]
    )
    names = ["step-0", "step-20", "step-40"]
    here = records.load(
        plan_of(smoke), where={"recipe": ["base", "mnli"], "dataset": "mnli", "checkpoint": names}
    )
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    there = records.load(plan_of(load_study(str(file))), where={"dataset": "mnli"})
    both = there.merge(
        here, on=["recipe", "step", "item", "format", "shots_asked", "draw"], suffixes=("", "_here")
    )
    assert len(both) == len(there) == 2 * 3 * 12
    assert (both["log_likelihood"].map(list) == both["log_likelihood_here"].map(list)).all()


@pytest.mark.parametrize("listed", [True, False])
def test_two_branches_with_the_same_weights_are_refused(listed, smoke, tmp_path, monkeypatch):
    """Both, and before anything is fetched, where the listing says what large files hold; else the
    second.
    """
    entry = LocalHub.entry
    plain = lambda *given: {name: one for name, one in entry(*given).items() if name != "lfs"}  # noqa: E731
    monkeypatch.setattr(LocalHub, "entry", staticmethod(entry if listed else plain))
    made, raw = checkpoints(smoke), yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = {"source": "microworld", "world": raw["checkpoints"]["world"]}
    raw["checkpoints"] = {
        "source": "hub",
        "repo": REPO,
        "steps": [20, 30],
        "late": 1,
        "tokens_per_step": 1024,
    }
    raw |= {
        "recipes": {"base": {}},
        "findings": ["01_dataset_dichotomy"],
        "probing": raw["probing"] | {"datasets": ["mnli"]},
    }
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(raw))
    copy = tmp_path / "copy"
    shutil.copytree(made[1].folder, copy)
    (copy / "README.json").write_text("{}")  # another commit
    with LocalHub({REPO: {"step20": made[1].folder, "step30": copy}}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        done = run_here("run", str(file), "--no-notebooks", outputs=tmp_path / "outputs")
        fetched = [path for _, path, _ in server.asked if path.endswith("model.safetensors")]
    assert done.returncode == 1 and (fetched == []) == listed
    said = "step 20 (step20) and step 30 (step30) have the very same model.safetensors"
    for name in ("step-20", "step-30"):
        assert (f"{name}: {said}: one branch is wrong" in done.stderr) == listed
    assert ("step-30 has the very weights of step 20" in done.stderr) != listed


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_bad_checkpoint_fails_its_own_cells_with_the_reason_and_the_others_are_measured(
    smoke, tmp_path, monkeypatch
):
    folders = {}
    for one in checkpoints(smoke):
        folders[f"step{one.step}"] = shutil.copytree(one.folder, tmp_path / "repo" / one.name)
    shutil.copy(folders["step0"] / "model.safetensors", folders["step36"])
    without_a_weight(folders["step38"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with LocalHub({REPO: folders}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        gone = f"{server.commits[REPO]['step20']}/model.safetensors"
        server.trouble = lambda method, path: (
            (404, {"X-Error-Code": "EntryNotFound"}) if path.endswith(gone) else None
        )
        done = run_own(own_study(tmp_path, ON_HUB | {"steps": "all"}), tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert measured(tmp_path) == {"step-40"}
    twins = r"step 0 \(step0\) and step 36 \(step36\) have the very same model.safetensors"
    for name, why in (
        ("step-0", f"HubError: step-0: {twins}: one branch is wrong"),
        ("step-20", "HubError: lab/tiny-olmo: .*404"),
        ("step-36", f"HubError: step-36: {twins}"),
        ("step-38", "CheckpointError: .*weights do not match the model: .*missing_keys"),
    ):
        assert re.search(f"^pretune: {name}.base.0 failed: {why}", done.stderr, re.MULTILINE), (
            done.stderr
        )


def own_study(tmp_path, source, **changes):
    """The smoke study on base and MNLI with other checkpoints."""
    raw = yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = {"source": "microworld", "world": raw["checkpoints"]["world"]}
    raw |= {"checkpoints": source, "recipes": {"base": {}}, "findings": ["01_dataset_dichotomy"]}
    raw["probing"] |= {"datasets": ["mnli"]}
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(raw | changes))
    return file


@pytest.fixture
def of_smoke(smoke, tmp_path, monkeypatch):
    """The checkpoints of the smoke study behind a local Hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with LocalHub({REPO: {f"step{one.step}": one.folder for one in checkpoints(smoke)}}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def run_own(file, tmp_path, *words):
    return run_here("run", str(file), "--no-notebooks", *words, outputs=tmp_path / "outputs")


def measured(tmp_path):
    """The checkpoints that there are records of."""
    return {
        path.name.split(".")[0] for path in (tmp_path / "outputs" / "own" / "records").iterdir()
    }


@pytest.mark.parametrize("words", [("--only", "step-20"), ("--sweep",)])
def test_only_what_a_run_looks_at_is_fetched_and_it_ends_where_one_fits(of_smoke, tmp_path, words):
    more = {"grid": {"learning_rate": [1e-3, 2e-3], "steps": [20]}} if words == ("--sweep",) else {}
    file = own_study(
        tmp_path, ON_HUB, cache=FOR_ONE, recipes={"base": {}, "mnli": {"dataset": "mnli"}}, **more
    )
    done = run_own(file, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    fetched = {
        path.split("/")[4]
        for method, path, _ in of_smoke.asked
        if method == "GET" and path.endswith(".safetensors")
    }
    assert fetched == {of_smoke.commits[REPO]["step20"]}


IMPATIENT = """
import pathlib, time
from pretune.sources import hub
hub.PAUSES = hub.PATIENCE = (0.2,)
run_cell, there = cells.run_cell, pathlib.Path({there!r})
def last(study, cell, report=None):
    while cell.model.name == "step-0.mnli.0" and not there.exists():
        time.sleep(0.1)
    return run_cell(study, cell, report)
cells.run_cell = last
"""


def test_after_an_outage_it_is_fetched_again_as_long_as_there_is_other_work(of_smoke, tmp_path):
    """The Hub gives one checkpoint once there is a record of another, whose last cell takes that
    long, and a third one never.
    """
    commits, outputs = of_smoke.commits[REPO], tmp_path / "outputs"

    def trouble(method, path):
        late = f"{commits['step20']}/model" in path and not list(
            outputs.glob("own/records/*/*/record.json")
        )
        return (
            (500, {})
            if method == "GET" and (late or f"{commits['step40']}/model" in path)
            else None
        )

    of_smoke.trouble = trouble
    file = own_study(tmp_path, ON_HUB, recipes={"base": {}, "mnli": {"dataset": "mnli"}})
    there = outputs / "cache" / "hub" / "lab--tiny-olmo" / commits["step20"]
    done = run_pretune(
        *("run", str(file), "--no-notebooks"),
        outputs=tmp_path / "outputs",
        environment=sabotaged(IMPATIENT.format(there=str(there))),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(
        "step-20: lab/tiny-olmo: .*500.*; it is fetched again while there is other work",
        done.stderr,
    ), done.stderr
    assert measured(tmp_path) == {"step-0", "step-20"}
    assert (
        len(
            re.findall(
                "^pretune: step-40.* failed: Outage: lab/tiny-olmo: ", done.stderr, re.MULTILINE
            )
        )
        == 2
    )


def test_a_study_of_the_hub_writes_in_its_outputs_only(smoke, tmp_path):
    """Planned, looked at and run, with datasets of the Hub; the folders that libraries would
    write to are not even made.
    """
    rows = [mnli(number) for number in range(140)]
    write_parquet(
        tmp_path / "glue", "mnli", {"train": [rows[:100]], "validation_matched": [rows[100:]]}
    )
    file = own_study(
        tmp_path,
        ON_HUB,
        datasets={"source": "hub"},
        recipes={"base": {}, "mnli": {"dataset": "mnli"}},
    )
    places = {
        name: tmp_path / "elsewhere" / name
        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folders = {f"step{one.step}": one.folder for one in checkpoints(smoke)}
    with LocalHub({REPO: folders}, {"nyu-mll/glue": tmp_path / "glue"}) as server:
        server.trouble = lambda method, path: (
            server.as_json({"harnesses": {}}) if path.endswith("agent-harnesses") else None
        )
        bare = {name: str(place) for name, place in places.items()} | {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": server.endpoint,
            "TMPDIR": str(scratch),
        }
        for words in (
            ("plan", str(file)),
            ("data", str(file)),
            ("run", str(file), "--only", "step-20", "--no-notebooks"),
        ):
            done = run_pretune(*words, outputs=tmp_path / "outputs", environment=bare, cwd=scratch)
            assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists() and not [
        path for path in scratch.rglob("*") if path.is_file()
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"glue", "own.yaml", "scratch", "outputs"}


def test_a_tokenizer_is_fetched_once(served, tmp_path):
    own = study(tmp_path, steps=[10, 20])
    prepare.tokenizer_of(own, None)
    before = len(served.asked)
    assert prepare.tokenizer_of(own, None)[1] == 256 and len(served.asked) == before


def test_a_damaged_checkpoint_is_fetched_again_where_one_fits(of_smoke, tmp_path):
    file = own_study(tmp_path, ON_HUB, cache=FOR_ONE)
    assert run_own(file, tmp_path, "--only", "step-20").returncode == 0
    [weights] = (tmp_path / "outputs" / "cache" / "hub").glob("*/*/model.safetensors")
    weights.write_bytes(flipped(weights.read_bytes()))
    shutil.rmtree(tmp_path / "outputs" / "own" / "records")
    done = run_own(file, tmp_path)
    assert done.returncode == 0 and "set aside, to be made again" in done.stderr, done.stderr
    assert measured(tmp_path) == {"step-0", "step-20", "step-40"}


def test_a_run_waits_for_room_that_another_run_holds(of_smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    file = own_study(tmp_path, ON_HUB, cache=FOR_ONE)
    own = load_study(str(file))
    first = checkpoints(own)[0]
    fetch.fetch_checkpoint(own, first)
    with alone(paths.study_folder("other")):
        cache.claim(own.model_copy(update={"name": "other"}), {first.revision})
        process = start(
            tmp_path / "outputs", "run", str(file), "--no-notebooks", "--only", "step-20"
        )
        said = next(line for line in process.stderr if "waits for room" in line)
        assert "step-20 waits for room in the cache" in said and first.exists()
    assert process.wait(60) == 0 and not first.exists() and measured(tmp_path) == {"step-20"}


def test_a_disk_without_room_fails_what_waits_with_what_it_needs(of_smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("PRETUNE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    own = load_study(str(own_study(tmp_path, ON_HUB)))
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    failed = queue.measure(plan_of(own).of(only=("step-20",))).failed
    assert set(failed) == {"step-20.base.0"}
    assert re.fullmatch(
        r"step-20 needs .* GB in .*, 0.0 GB are free; make room there or set PRETUNE_OUTPUTS to .*",
        failed["step-20.base.0"],
    )


def test_a_folder_of_checkpoints_is_a_study_and_stays_as_it_is(smoke, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    for one in checkpoints(smoke)[-2:]:
        shutil.copytree(
            one.folder,
            mine / f"step{one.step}-tokens{one.step}B",
            ignore=shutil.ignore_patterns("checkpoint.json"),
        )
    before = sorted(str(path) for path in mine.rglob("*"))
    file = own_study(tmp_path, {"source": "folder", "folder": str(mine), "steps": "all", "late": 1})
    done = run_here("run", str(file), "--no-notebooks", outputs=tmp_path / "outputs")
    assert done.returncode == 0 and sorted(str(path) for path in mine.rglob("*")) == before, (
        done.stderr
    )
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    there = records.load(plan_of(load_study(str(file))), where={"recipe": "base"})
    assert sorted(there["step"].unique()) == [one.step for one in checkpoints(smoke)[-2:]]
    weights = next(mine.glob("step38-*")) / "model.safetensors"
    content, then = bytearray(weights.read_bytes()), weights.stat()
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(then.st_atime_ns, then.st_mtime_ns))  # as on a disk that fails
    shutil.rmtree(tmp_path / "outputs" / "own" / "records")
    done = run_here(
        "run",
        str(file),
        "--no-notebooks",
        "--only",
        "step-38",
        outputs=tmp_path / "outputs",
    )
    assert done.returncode == 1 and "its weights are not those that were checked" in done.stderr


def copies(made, folder, *steps):
    """Those of the checkpoints `made` at these steps as a user has them, in `folder`."""
    for one in made:
        if one.step in steps:
            shutil.copytree(
                one.folder,
                folder / f"step{one.step}",
                ignore=shutil.ignore_patterns("checkpoint.json"),
            )
    return {
        "source": "folder",
        "folder": str(folder),
        "steps": "all",
        "late": 1,
        "tokens_per_step": 1024,
    }


@pytest.fixture
def made(smoke, tmp_path, monkeypatch):
    """The checkpoints of the smoke study, and outputs in a folder of their own."""
    found = checkpoints(smoke)
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    return found


def test_a_folder_is_listed_anew_and_what_is_pinned_is_not_read_again(
    made, tmp_path, monkeypatch, caplog
):
    hashed, real = [], found.weights_checksum
    monkeypatch.setattr(
        found, "weights_checksum", lambda folder: hashed.append(folder.name) or real(folder)
    )
    own = load_study(str(own_study(tmp_path, copies(made, tmp_path / "mine", 20, 36))))
    before = checkpoints(own)
    assert [point.late for point in before] == [False, True] and hashed == ["step20", "step36"]
    found.remember(own, before[0], "0" * 64)
    copies(made, tmp_path / "mine", 40)
    after = checkpoints(own)
    assert [point.step for point in after if point.late] == [40] and hashed == [
        "step20",
        "step36",
        "step40",
    ]
    assert [point.revision for point in after[:2]] == [point.revision for point in before]
    assert [cell.model.name for cell in status.missing(plan_of(own))] == [
        "step-20.base.0",
        "step-36.base.0",
        "step-40.base.0",
    ]
    assert found.pinned(own)["checkpoints"][0]["sha256"] == "0" * 64
    assert [
        point.step
        for point in checkpoints(load_study(own.file, ("checkpoints.late=2",)))
        if point.late
    ] == [36, 40]
    shutil.rmtree(tmp_path / "mine" / "step20")
    assert [point.step for point in checkpoints(own)] == [36, 40] and len(hashed) == 3
    assert (
        f"{tmp_path / 'mine' / 'step20'} is gone: step 20 is no part of own any more" in caplog.text
    )
    with pytest.raises(
        StudyError, match="no checkpoint at step 20; the nearest are step36, step40"
    ):
        checkpoints(load_study(own.file, ("checkpoints.steps=[20, 40]",)))


def test_a_folder_with_other_weights_than_were_pinned_is_a_checkpoint_of_its_own(made, tmp_path):
    """What was tuned from the old ones is kept under their checksum."""
    own = load_study(str(own_study(tmp_path, copies(made, tmp_path / "mine", 20, 36))))
    point = checkpoints(own)[0]
    weights = tmp_path / "mine" / "step20" / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    with pytest.raises(
        RunError, match="step-20: .*step20 holds other weights than when it was pinned; run again"
    ):
        fetch.fetch_checkpoint(own, point)
    assert not point.exists()
    fetch.fetch_checkpoint(own, checkpoints(own)[0])
    assert checkpoints(own)[0].revision == weights_checksum(weights.parent) != point.revision


def test_weights_that_changed_under_a_study_that_is_finished_are_measured_anew(made, tmp_path):
    """They have as many bytes as those before."""
    own = load_study(str(own_study(tmp_path, copies(made, tmp_path / "mine", 20, 36))))
    before = checkpoints(own)
    weights = tmp_path / "mine" / "step20" / "model.safetensors"
    found.remember(own, before[0], "0" * 64)
    weights.write_bytes(flipped(weights.read_bytes()))
    after = checkpoints(own)
    assert after[0].revision == weights_checksum(weights.parent) != before[0].revision
    assert "sha256" not in found.pinned(own)["checkpoints"][0]
    assert after[1].revision == before[1].revision


def test_a_folder_that_is_gone_when_it_is_looked_at_is_named(made, tmp_path):
    own = load_study(str(own_study(tmp_path, copies(made, tmp_path / "mine", 20, 36))))
    point = checkpoints(own)[0]
    fetch.fetch_checkpoint(own, point)
    assert point.exists()
    shutil.rmtree(point.folder)
    assert not point.exists()
    with pytest.raises(
        RunError, match=f"step-20: {point.folder} is gone; put it back, or take it out of the study"
    ):
        fetch.fetch_checkpoint(own, point)


def test_two_folders_with_the_same_weights_are_refused(smoke, tmp_path):
    file = own_study(tmp_path, copies(checkpoints(smoke), tmp_path / "mine", 20, 36))
    shutil.copy(tmp_path / "mine" / "step20" / "model.safetensors", tmp_path / "mine" / "step36")
    done = run_here("plan", str(file), outputs=tmp_path / "outputs")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        f"{str(tmp_path / 'mine')!r} is refused; step20 and step36 hold the same weights"
        in done.stderr
    )


def test_two_branches_of_one_commit_are_refused(served, tmp_path):
    served.commits[REPO]["step20-tokens2B"] = served.commits[REPO]["step10-tokens1B"]
    with pytest.raises(
        StudyError, match="step10-tokens1B and step20-tokens2B hold the same weights"
    ):
        checkpoints(study(tmp_path, steps=[10, 20]))


def test_the_shape_of_a_model_is_read_by_the_names_of_its_family(smoke, tmp_path):
    file = own_study(tmp_path, copies(checkpoints(smoke), tmp_path / "mine", 20, 36))
    shape = {
        "model_type": "gpt2",
        "n_layer": 3,
        "n_embd": 64,
        "n_head": 2,
        "n_positions": 320,
        "vocab_size": 512,
    }
    (tmp_path / "mine" / "step20" / "config.json").write_text(json.dumps(shape))
    done = run_here("plan", str(file), outputs=tmp_path / "outputs")
    assert done.returncode == 0 and f"{512 * 64 + 3 * 16 * 64**2:,} parameters" in done.stdout, (
        done.stderr
    )


def test_a_model_whose_shape_is_not_told_is_refused(smoke, tmp_path):
    file = own_study(tmp_path, copies(checkpoints(smoke), tmp_path / "mine", 20, 36))
    (tmp_path / "mine" / "step20" / "config.json").write_text('{"model_type": "gpt2"}')
    done = run_here("plan", str(file), outputs=tmp_path / "outputs")
    assert (
        done.returncode == 2
        and "says nothing of layers, width, heads, " in done.stderr
        and done.stderr.count("\n") == 1
    )
    (tmp_path / "mine" / "step20" / "config.json").unlink()
    done = run_here("plan", str(file), outputs=tmp_path / "outputs")
    assert (
        done.returncode == 2
        and "step20: its config.json cannot be read" in done.stderr
        and done.stderr.count("\n") == 1
    )


def test_several_runs_of_one_family_are_one_study(smoke, tmp_path, monkeypatch):
    """Two repositories that differ in a seed: what is replicated is the run."""
    made = checkpoints(smoke)
    repos = {
        f"lab/tiny-seed{seed}": {f"step{one.step}": one.folder for one in made[seed:]}
        for seed in (0, 1)
    }
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    with LocalHub(repos) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        file = own_study(
            tmp_path,
            {
                "source": "hub",
                "repo": "lab/tiny-{run}",
                "runs": ["seed0", "seed1"],
                "steps": [20, 40],
                "late": 1,
                "tokens_per_step": 1024,
            },
        )
        found = checkpoints(load_study(str(file)))
    assert [(one.name, one.run, one.step) for one in found] == [
        ("seed0-step-20", 0, 20),
        ("seed0-step-40", 0, 40),
        ("seed1-step-20", 1, 20),
        ("seed1-step-40", 1, 40),
    ]
    assert load_study(str(file)).replicates == 2


def test_one_repository_for_each_checkpoint(served, tmp_path):
    for step, tokens in ((240, "503b"), (480, "1T"), (955, "token-2T")):
        served.commits[f"lab/Tiny-1.1B-intermediate-step-{step}k-{tokens}"] = {
            "main": served.commits[REPO]["main"]
        }
    repos = [repo for repo in served.commits if repo != REPO]
    found = checkpoints(
        load_study(
            str(own_study(tmp_path, {"source": "hub", "repos": repos, "steps": "all", "late": 1}))
        )
    )
    assert [(one.step, one.tokens // 10**9) for one in found] == [
        (240_000, 503),
        (480_000, 1000),
        (955_000, 2000),
    ]


def test_what_a_repository_has_is_listed_with_gaps(served, tmp_path):
    served.commits[REPO] |= {
        f"step{step}-tokens{step // 10}B": "0" * 40 for step in (40, 50, 60, 5000, 5010)
    }
    done = run_here("checkpoints", REPO)
    assert (
        done.returncode == 0 and "pre-training: 8 checkpoints, steps 10 to 5,010" in done.stdout
    ), done.stderr
    assert (
        "gap: nothing between steps 60 and 5,000" in done.stdout
        and "no points of a run: main" in done.stdout
    )
    wrong = run_here("checkpoints", "lab/none")
    assert wrong.returncode == 1 and "lab/none" in wrong.stderr and "Traceback" not in wrong.stderr


def test_pickled_weights_are_refused_unless_allowed_and_then_kept_as_safetensors(
    served, model, tokenizer, tmp_path, caplog
):
    commit = served.commits[REPO]["step10-tokens1B"]
    folder = served.folders[commit]
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(
        StudyError, match="step10-tokens1B holds no .*pickled weights are refused unless"
    ):
        checkpoints(study(tmp_path, steps=[10, 20]))
    own = study(tmp_path, steps=[10, 20], tokens_per_step=512, allow_pickle_weights=True)
    fetch_all(own)
    first = checkpoints(own)[0]
    assert "weights are pickled" in caplog.text
    assert [
        file.name for file in first.folder.iterdir() if file.suffix in (".bin", ".safetensors")
    ] == ["model.safetensors"]
    loaded, _ = loading.load_checkpoint(first)
    assert all(
        torch.equal(one, two)
        for one, two in zip(loaded.parameters(), model.parameters(), strict=True)
    )


def test_a_pickle_that_would_run_code_is_refused(served, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    folder = served.folders[served.commits[REPO]["step10-tokens1B"]]
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Harm()}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        fetch_all(study(tmp_path, steps=[10, 20], allow_pickle_weights=True))
    assert not (tmp_path / "harmed").exists()


def weights_of(served, step):
    """The commit of a step and the bytes of its weights."""
    commit = served.commits[REPO][f"step{step}-tokens{step // 10}B"]
    return commit, (served.folders[commit] / "model.safetensors").read_bytes()


def bad(times, send):
    """The first `times` downloads of weights are answered by `send(request, content)` in place
    of the content.
    """
    left = [None] * times

    def trouble(method, path):
        return (
            send
            if method == "GET" and path.endswith(".safetensors") and left and not left.pop()
            else None
        )

    return trouble


def half_then(end):
    """Half of what was asked for, under the right length, and then `end(request)`."""

    def send(request, content):
        request.send_response(200)
        for name, value in {
            "Content-Length": len(content),
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
        }.items():
            request.send_header(name, str(value))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])
        request.wfile.flush()
        end(request)

    return send


def reset(request):
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()
    request.close_connection = True


def whole_answer(change):
    """An answer that is whole in itself, of content that is not right."""

    def send(request, content):
        content = change(content)
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return send


def flipped(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("send", "said"),
    [
        (half_then(reset), ""),
        (whole_answer(lambda content: content[:-100]), ""),
        (whole_answer(flipped), "model.safetensors that came is not the file that the Hub lists"),
    ],
    ids=["reset mid-file", "wrong length", "wrong hash"],
)
def test_a_transfer_that_goes_wrong_once_is_tried_again(served, tmp_path, caplog, send, said):
    commit, content = weights_of(served, 10)
    served.trouble = bad(1, lambda request: send(request, content))
    hub.fetch(REPO, commit, tmp_path / "there")
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == content
    assert said in caplog.text


@pytest.mark.parametrize(
    "change", [lambda content: content[:-100], flipped], ids=["wrong length", "wrong hash"]
)
def test_a_file_that_stays_wrong_is_refused_and_never_used(served, tmp_path, change):
    own = study(tmp_path, steps=[10, 20], tokens_per_step=1)
    commit, content = weights_of(served, 10)
    served.trouble = bad(99, lambda request: whole_answer(change)(request, content))
    with pytest.raises(HubError, match="lab/tiny-olmo: .*"):
        fetch_all(own)
    point, _ = checkpoints(own)
    assert not point.exists() and not list(tmp_path.glob("outputs/cache/hub/**/model.safetensors"))
    served.trouble = lambda method, path: None
    fetch_all(own)
    assert point.exists() and (point.folder / "model.safetensors").read_bytes() == content


def test_a_server_that_stops_sending_is_given_up_and_asked_again(served, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    over = threading.Event()
    commit, content = weights_of(served, 10)
    served.trouble = bad(1, lambda request: half_then(lambda _: over.wait(60))(request, content))
    hub.fetch(REPO, commit, tmp_path / "there")
    over.set()
    assert (tmp_path / "there" / "model.safetensors").read_bytes() == content


def test_a_token_goes_to_its_host_only(served, tmp_path, monkeypatch):
    """The Hub sends those who ask for large files to another host."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    commit, content = weights_of(served, 10)
    with LocalHub({REPO: {"main": served.folders[commit]}}) as other:
        host = other.endpoint.replace("127.0.0.1", "localhost")
        there = f"{host}/{REPO}/resolve/{commit}/model.safetensors"
        linked = {
            "Location": there,
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
        }
        served.trouble = lambda method, path: (
            (302, linked) if path.endswith(".safetensors") else None
        )
        hub.fetch(REPO, commit, tmp_path / "there")
        assert (tmp_path / "there" / "model.safetensors").read_bytes() == content
        assert [
            headers
            for _, _, headers in served.asked
            if headers.get("authorization") == "Bearer hf_secret"
        ]
        assert other.asked and "hf_secret" not in repr(other.asked)


def test_a_name_that_leads_out_of_its_folder_is_refused(served, tmp_path):
    commit, _ = weights_of(served, 10)
    entry = {"type": "file", "path": "../outside.json", "size": 2, "oid": "0" * 40}
    served.trouble = lambda method, path: served.as_json([entry]) if "/tree/" in path else None
    with pytest.raises(HubError, match=r"lab/tiny-olmo: .*'\.\./outside\.json'"):
        hub.fetch(REPO, commit, tmp_path / "a" / "there")
    assert not (tmp_path / "a" / "outside.json").exists()
