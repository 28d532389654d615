"""Datasets from the Hub and from folders: pinned, whole, held against what they must be before
anything is scored.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import OUTPUTS, plan_of, run_here, run_pretune
from local_hub import LocalHub, mnli, write_parquet
from pretune import paths
from pretune.errors import StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.plan import costs, lengths
from pretune.plan.cells import Model
from pretune.recipes.sft import Sft
from pretune.run import cell, fetch, prepare, validate
from pretune.sources import checkpoints, datasets, hub
from pretune.study.config import PROTOCOLS
from pretune.study.load import load_study
from pretune.tasks import rows
from pretune.tasks.registry import REGISTRY

POINT = Checkpoint("step-0", 0, "pretraining", 0, 0, "none", Path("nowhere"), False)


def study(tmp_path, source, **changes):
    """The smoke study on MNLI alone, with other datasets."""
    raw = yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = source
    raw["recipes"] = {"base": {}, "mnli": {"dataset": "mnli"}}
    raw |= {"findings": ["01_dataset_dichotomy"]}
    raw["probing"] = raw["probing"] | {"datasets": ["mnli"]} | changes
    file = tmp_path / "own.yaml"
    file.write_text(json.dumps(raw))
    return load_study(str(file))


@pytest.fixture
def served(tmp_path, monkeypatch):
    """MNLI behind a local Hub, its train split in two files, and outputs in a folder of their
    own.
    """
    glue = tmp_path / "glue"
    train, scored = (
        [mnli(number) for number in range(100)],
        [mnli(number) for number in range(100, 140)],
    )
    write_parquet(glue, "mnli", {"train": [train[:60], train[60:]], "validation_matched": [scored]})
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "outputs" / "cache")
    monkeypatch.setattr(hub, "PAUSES", (0.01, 0.01))
    with LocalHub({}, {"nyu-mll/glue": glue}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        yield server


def test_a_dataset_of_the_hub_is_pinned_and_read_whole(served, tmp_path):
    own = study(tmp_path, {"source": "hub"})
    prepare.prepare_data(own)
    folder = datasets.data_folder(own)
    table = rows.read(folder, REGISTRY["mnli"], "train")
    assert (
        len(table) == 100
        and table[99] == mnli(99)
        and len(rows.read(folder, REGISTRY["mnli"], "validation_matched")) == 40
    )
    assert not [path for path in folder.rglob("*") if "raw" in path.name or "partial" in path.name]
    commit, before = (
        served.commits["datasets/nyu-mll/glue"]["refs/convert/parquet"],
        len(served.asked),
    )
    assert datasets.pinned_data(own)["mnli"] == {
        "repo": "nyu-mll/glue",
        "config": "mnli",
        "commit": commit,
    }
    # the branch moves on
    served.commits["datasets/nyu-mll/glue"] = {"refs/convert/parquet": "0" * 40}
    prepare.prepare_data(own)
    assert len(served.asked) == before and datasets.data_folder(own) == folder


def test_a_dataset_that_is_left_out_for_once_keeps_its_pin(served, tmp_path):
    served.commits["datasets/nyu-mll/glue"] = {"refs/convert/parquet": "1" * 40}
    two = study(tmp_path, {"source": "hub"}, datasets=["mnli", "rte"])
    assert datasets.pinned_data(two)["rte"]["commit"] == "1" * 40
    served.commits["datasets/nyu-mll/glue"] = {"refs/convert/parquet": "2" * 40}
    assert (
        datasets.pinned_data(study(tmp_path, {"source": "hub"}, datasets=["mnli", "qqp"]))["qqp"][
            "commit"
        ]
        == "2" * 40
    )
    assert datasets.pinned_data(two)["rte"]["commit"] == "1" * 40


def test_a_break_while_data_is_fetched_is_taken_up(served, tmp_path):
    own = study(tmp_path, {"source": "hub"})
    served.trouble = lambda method, path: (
        (404, {}) if "validation" in path and "resolve" in path else None
    )
    with pytest.raises(hub.HubError, match="nyu-mll/glue"):
        prepare.prepare_data(own)
    assert not datasets.are_ready(own)
    served.trouble, before = lambda method, path: None, len(served.asked)
    prepare.prepare_data(own)
    assert not [
        path for method, path, _ in served.asked[before:] if method == "GET" and "/train/" in path
    ]


def test_a_commit_that_is_given_is_taken(served, tmp_path):
    own = study(tmp_path, {"source": "hub", "commits": {"mnli": "f" * 40}})
    assert datasets.pinned_data(own)["mnli"]["commit"] == "f" * 40
    with pytest.raises(hub.HubError, match="nyu-mll/glue"):
        prepare.prepare_data(own)


def test_a_dataset_without_parquet_is_refused_with_a_way_out(served, tmp_path):
    served.commits["datasets/nyu-mll/glue"] = {"refs/convert/duckdb": "0" * 40}
    with pytest.raises(
        hub.HubError, match="holds no refs/convert/parquet of it; put its rows into a folder"
    ):
        prepare.prepare_data(study(tmp_path, {"source": "hub"}))


def local(tmp_path, train, scored):
    """A folder with MNLI as JSON-Lines."""
    folder = tmp_path / "rows"
    (folder / "mnli").mkdir(parents=True, exist_ok=True)
    for split, some in (("train", train), ("validation_matched", scored)):
        (folder / "mnli" / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in some)
        )
    return {"source": "folder", "folder": str(folder)}


@pytest.mark.parametrize(
    ("train", "scored", "words"),
    [
        (
            range(100),
            [mnli(number, -1) for number in range(40)],
            "validation_matched: label is -1, which marks a split with hidden",
        ),
        (range(100), [mnli(number, 3) for number in range(40)], "label is 3, allowed are 0 to 2"),
        (
            range(100),
            [mnli(number) | {"hypothesis": " "} for number in range(40)],
            "hypothesis is empty or missing",
        ),
        (
            range(100),
            [{"text": "no columns"} for number in range(40)],
            "premise is empty or missing|label",
        ),
        (
            range(100),
            [mnli(number) for number in range(40)],
            "mnli: .*% of its items stand in the train split word for word",
        ),
    ],
)
def test_rows_that_cannot_be_scored_are_refused_before_anything_is(
    tmp_path, monkeypatch, train, scored, words
):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    own = study(tmp_path, local(tmp_path, map(mnli, train), scored))
    with pytest.raises(StudyError, match=words):
        prepare.prepare_data(own)


def test_a_run_on_hidden_labels_ends_in_one_line_and_scores_nothing(tmp_path):
    study(
        tmp_path, local(tmp_path, map(mnli, range(100)), [mnli(number, -1) for number in range(40)])
    )
    done = run_here(
        "run", str(tmp_path / "own.yaml"), "--no-notebooks", outputs=tmp_path / "outputs"
    )
    assert (
        done.returncode == 2
        and "marks a split with hidden labels" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert not list((tmp_path / "outputs" / "own").glob("records/*"))


def test_a_stand_in_takes_the_place_of_a_split(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    data = local(tmp_path, map(mnli, range(100)), [])
    own = study(
        tmp_path,
        data
        | {
            "stand_ins": {
                "mnli/train": "mnli/train[40:]",
                "mnli/validation_matched": "mnli/train[:40]",
            }
        },
    )
    fetch.fetch_data(own)
    folder = datasets.data_folder(own)
    sizes = {
        split: len(rows.read(folder, REGISTRY["mnli"], split))
        for split in ("train", "validation_matched")
    }
    assert sizes == {"train": 60, "validation_matched": 40} and validate.faults(own) == []


@pytest.mark.parametrize(
    ("place", "taken", "words"),
    [
        (
            "mnli/trian",
            "mnli/train",
            "datasets.stand_ins: 'mnli/trian' is refused; allowed: mnli/train, "
            "mnli/validation_matched",
        ),
        (
            "mnli/train",
            "mnli/nothing",
            r"mnli needs rows in mnli/nothing \(in the place of mnli/train\), .jsonl or .parquet",
        ),
        (
            "mnli/train",
            "../../etc/passwd",
            r"mnli needs rows in ../../etc/passwd \(in the place of mnli/train\)",
        ),
        (
            "mnli/train",
            "/etc/passwd",
            r"mnli needs rows in /etc/passwd \(in the place of mnli/train\)",
        ),
    ],
)
def test_a_stand_in_that_cannot_be_is_refused(tmp_path, place, taken, words):
    some = [mnli(number) for number in range(100)]
    own = study(tmp_path, local(tmp_path, some, some) | {"stand_ins": {place: taken}})
    with pytest.raises(StudyError, match=words) as error:
        plan_of(own)
    assert "\n" not in str(error.value)


def test_parquet_stands_in_too_whole_and_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    write_parquet(tmp_path / "mine", "", {"rows": [[mnli(number) for number in range(100)]]})
    source = {"source": "folder", "folder": str(tmp_path / "mine")}
    own = study(
        tmp_path,
        source
        | {
            "stand_ins": {
                "mnli/train": "rows/0000[40:]",
                "mnli/validation_matched": "rows/0000[:40]",
            }
        },
    )
    plan_of(own)
    prepare.prepare_data(own)
    folder = datasets.data_folder(own)
    assert (
        rows.read(folder, REGISTRY["mnli"], "train")[0] == mnli(40)
        and len(rows.read(folder, REGISTRY["mnli"], "train")) == 60
    )
    assert list(rows.read(folder, REGISTRY["mnli"], "validation_matched")) == [
        mnli(number) for number in range(40)
    ]


BOTH = {"datasets": ["mnli", "wikitext"]}


def test_what_a_folder_of_datasets_lacks_is_refused_by_name_before_anything_else(tmp_path):
    """One line a dataset: those that are scored, and those that are only tuned on."""
    source = local(tmp_path, [], map(mnli, range(40)))  # a file that is empty
    study(tmp_path, source, **BOTH)
    own = json.loads((tmp_path / "own.yaml").read_text())
    own["recipes"]["instruct"] = {"dataset": "alpaca"}
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    for words in (("plan",), ("run", "--no-notebooks"), ("status",)):
        done = run_here(
            words[0], str(tmp_path / "own.yaml"), *words[1:], outputs=tmp_path / "outputs"
        )
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and len(lines) == 3, done.stderr
        start = (
            f"pretune: {tmp_path / 'own.yaml'}: datasets.folder: {source['folder']!r} is refused; "
        )
        assert lines[0].startswith(start + "mnli needs rows in mnli/train, .jsonl or .parquet")
        assert lines[1].startswith(
            start + "wikitext needs rows in wikitext/train and wikitext/validation, "
        )
        assert lines[2].startswith(start + "alpaca needs rows in alpaca/train, ")
    assert not (tmp_path / "outputs" / "own").exists()


def test_a_fault_of_the_data_ends_a_run_whose_checkpoints_are_all_there(smoke, tmp_path):
    """It is found before any cell is tried, and told once a dataset."""
    shutil.copytree(OUTPUTS / "cache" / "pretrained", tmp_path / "outputs" / "cache" / "pretrained")
    study(tmp_path, local(tmp_path, map(mnli, range(100)), [mnli(100, 3)]), **BOTH)
    folder = tmp_path / "rows" / "wikitext"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": "too short"}) + "\n")
    done = run_here("run", str(tmp_path / "own.yaml"), outputs=tmp_path / "outputs")
    told = [line for line in done.stderr.splitlines() if line.startswith("pretune: ")]
    assert (
        done.returncode == 2 and "failed" not in done.stderr and "Traceback" not in done.stderr
    ), done.stderr
    assert (
        len(told) == 2
        and told[0] == "pretune: mnli: row 0 of validation_matched: label is 3, allowed are 0 to 2"
    )
    assert "wikitext: " in told[1] and "holds no row that can be used" in told[1]
    left = {path.name for path in (tmp_path / "outputs" / "own").iterdir()}
    assert not left & {"records", "failed.json", "data.json", "site"}


def test_rows_that_are_only_tuned_on_are_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    some = [mnli(number) for number in range(140)]
    own = study(tmp_path, local(tmp_path, some[:100], some[100:]))
    (tmp_path / "rows" / "alpaca").mkdir()
    (tmp_path / "rows" / "alpaca" / "train.jsonl").write_text(
        json.dumps({"instruction": "Say yes.", "output": " "}) + "\n"
    )
    own = own.model_copy(update={"recipes": own.recipes | {"instruct": Sft(dataset="alpaca")}})
    with pytest.raises(StudyError, match="^alpaca: row 0 of train: .*empty or missing$"):
        prepare.prepare_data(own)


def test_the_data_are_checked_again_when_they_or_what_is_asked_of_them_change(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    some = [mnli(number) for number in range(140)]
    own = study(tmp_path, local(tmp_path, some[:100], some[100:]))
    prepare.prepare_data(own)
    assert datasets.are_ready(own)
    published = own.model_copy(update={"protocol": PROTOCOLS["published"]})
    assert not datasets.are_ready(published)
    os.utime(tmp_path / "rows" / "mnli" / "train.jsonl", (1, 1))
    assert not datasets.are_ready(own)


def test_another_split_of_datasets_that_are_there_is_fetched(served, tmp_path):
    """With another protocol, which scores another one, or another dataset of the same folder."""
    own = study(tmp_path, {"source": "hub"})
    prepare.prepare_data(own)
    (datasets.data_folder(own) / "mnli" / "validation_matched.parquet").unlink()
    before = len(served.asked)
    prepare.prepare_data(own)
    assert datasets.are_ready(own) and not [
        path for _, path, _ in served.asked[before:] if "train/0" in path
    ]


def test_data_prints_its_table_and_then_every_fault(smoke, tmp_path):
    study(
        tmp_path, local(tmp_path, map(mnli, range(100)), []), datasets=["mnli", "wikitext", "rte"]
    )
    folder = tmp_path / "rows" / "rte"
    folder.mkdir()
    pair = {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 0}
    for split, some in (
        ("train", [pair] * 20),
        ("validation", [pair | {"sentence1": "It snows."}] * 20),
    ):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    model = str(checkpoints.checkpoints(smoke)[0].folder)
    done = run_here(
        "data", str(tmp_path / "own.yaml"), "--tokenizer", model, outputs=tmp_path / "outputs"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    shown = done.stdout.splitlines()
    assert [line.split()[:3] for line in shown[1:4]] == [
        ["mnli", "validation_matched", "fault"],
        ["wikitext", "validation", "fault"],
        ["rte", "validation", "20"],
    ]
    assert "--- rte, default" in done.stdout
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["mnli", "wikitext"]
    study(tmp_path, local(tmp_path, map(mnli, range(100)), []), datasets=["nothing"])
    done = run_here(
        "data", str(tmp_path / "own.yaml"), "--tokenizer", model, outputs=tmp_path / "outputs"
    )
    assert done.returncode == 2 and "'nothing' is refused; allowed datasets: " in done.stderr


def test_the_survey_prints_what_fits_and_a_prompt_in_every_format(smoke, tmp_path):
    data = local(tmp_path, map(mnli, range(100)), map(mnli, range(100, 140)))
    study(tmp_path, data, shots=2)
    model = str(checkpoints.checkpoints(smoke)[0].folder)
    done = run_here(
        "data", str(tmp_path / "own.yaml"), "--tokenizer", model, outputs=tmp_path / "outputs"
    )
    assert done.returncode == 0, done.stderr
    # before there is a checkpoint, with the tokenizer that it will have
    early = run_here("data", str(tmp_path / "own.yaml"), outputs=tmp_path / "outputs")
    assert early.stdout == done.stdout
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("mnli"))
    assert "validation_matched" in line and "100%" in line
    for form in ("default", "instruct", "io", "chat"):
        assert f"--- mnli, {form}" in done.stdout


def test_the_survey_leaves_how_long_items_and_training_rows_are(tokenizer, tmp_path, monkeypatch):
    """Of conversations too, which are tuned on and not scored; and what is planned goes by it."""
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    own = load_study("smoke", ("probing.datasets=[mnli, xsum]", "recipes.instruct.examples=90"))
    prepare.prepare_data(own)
    validate.table(own, tokenizer, 320)
    found = lengths.noted(own)
    assert set(found) == {"mnli", "xsum", "tulu_v2"} and "item" not in found["tulu_v2"]
    for recipe in ("mnli", "xsum", "instruct"):
        made, _ = cell._training_rows(own, Model(POINT, recipe, 0, "none"), 10**6, tokenizer)
        sizes, own_dataset = [len(row.ids) for row in made], own.recipe(recipe).dataset
        assert found[own_dataset]["longest"] == max(sizes) and found[own_dataset]["row"] == int(
            np.median(sizes)
        )
    items = rows.examples(
        datasets.data_folder(own),
        REGISTRY["mnli"],
        "validation_matched",
        "default",
        rows.chosen(datasets.data_folder(own), REGISTRY["mnli"], "validation_matched", 12, 0),
    )
    sizes = [len(tokenizer(one.prompt + one.completion)["input_ids"]) for one in items]
    assert found["mnli"]["item"] == int(np.median(sizes)) and lengths.basis(own) == "measured"
    one = next(cell for cell in plan_of(own).cells if cell.model.recipe == "instruct")
    assert costs.cell_cost(plan_of(own), one).trained_tokens == 90 * found["tulu_v2"]["row"]


@pytest.mark.parametrize("folder", ["gpt2", "."])
def test_a_tokenizer_that_is_no_folder_of_one_is_refused(tmp_path, folder):
    study(tmp_path, local(tmp_path, map(mnli, range(100)), map(mnli, range(100, 140))))
    done = run_pretune(
        "data",
        str(tmp_path / "own.yaml"),
        "--tokenizer",
        folder,
        outputs=tmp_path / "outputs",
        cwd=tmp_path,
    )
    assert (
        done.returncode == 2
        and done.stderr.startswith("pretune: ")
        and done.stderr.count("\n") == 1
    ), done.stderr


def test_a_quarter_of_real_summaries_fit_four_shots(real_rows, olmo, tmp_path, monkeypatch):
    """XSum with OLMo's tokenizer and context: 4 shots fit a fifth to a third of the items, so
    two are used.
    """
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    own = study(
        tmp_path,
        {
            "source": "folder",
            "folder": str(real_rows),
            "stand_ins": {"xsum/train": "xsum/extra_from_test"},
        },
        datasets=["xsum"],
        items=500,
        shots=4,
        new_tokens=60,
    )
    fetch.fetch_data(own)
    [line] = validate.table(own, *prepare.tokenizer_of(own, str(olmo))).to_dict("records")
    assert (
        0.15 < float(line["fit 4-shot"].strip("%")) / 100 < 0.35
        and line["shots"] == 2
        and line["in train"] == 0
    )


def test_fewer_rows_than_a_recipe_tunes_on_are_told_before_anything_is_done(tmp_path):
    own = study(tmp_path, local(tmp_path, map(mnli, range(30)), map(mnli, range(100, 140))))
    [line] = validate.faults(own)
    assert line == (
        "mnli: recipes.mnli.examples is 48, its train split has 27 rows beside the tenth that is "
        "reserved"
    )
