"""A study of a user's own checkpoints: from three folders to pages with two commands."""

import json
import re
import shutil

import pytest
import torch

from conftest import run_here
from pretune import paths
from pretune.models import loading
from pretune.models.checkpoint import Checkpoint
from pretune.sources.datasets import data_folder
from pretune.study.load import load_study
from small_models import small

STEP = ("--tokens-per-step", "4096")


@pytest.fixture
def mine(tmp_path, tokenizer, monkeypatch):
    """Three checkpoints of a Llama, named as its trainer names them, in `checkpoints`."""
    monkeypatch.chdir(tmp_path)
    network = small("llama")
    for step in (1000, 2000, 3000):
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        network.save_pretrained(f"checkpoints/checkpoint-{step}")
        tokenizer.save_pretrained(f"checkpoints/checkpoint-{step}")
    return tmp_path


def test_the_example_is_what_is_written_for_three_folders(mine, monkeypatch):
    example = (paths.PARAMS / "own-model.yaml").read_text()
    monkeypatch.setattr(paths, "PARAMS", mine)
    done = run_here("new", "own-model", "--folder", "checkpoints", *STEP)
    assert done.returncode == 0, done.stderr
    assert "3 checkpoints of llama: steps 1,000 to 3,000" in done.stdout
    assert (mine / "own-model.yaml").read_text().replace(str(mine), "/data") == example


def test_a_folder_of_any_name_is_written_so_that_it_is_read(mine):
    folder = mine / "my: run, #1 {x}"
    (mine / "checkpoints").rename(folder)
    done = run_here("new", "own.yaml", "--folder", str(folder), *STEP)
    assert done.returncode == 0, done.stderr
    assert load_study("own.yaml").checkpoints.folder == str(folder)


def test_what_a_folder_of_rows_holds_is_scored_and_tuned_on(mine):
    for place in ("mnli/train", "mnli/validation_matched", "rte/train", "paws/train"):
        (mine / "rows" / place).parent.mkdir(parents=True, exist_ok=True)
        (mine / "rows" / f"{place}.jsonl").write_text("{}\n")
    done = run_here("new", "own.yaml", "--folder", "checkpoints", *STEP, "--rows", "rows")
    assert done.returncode == 0, done.stderr
    own = load_study("own.yaml")
    assert own.probing.datasets == ("mnli",) and list(own.recipes) == ["base", "mnli"]


def test_a_checkpoint_without_its_tokenizer_is_refused_in_one_line(mine):
    folder = mine / "checkpoints" / "checkpoint-1000"
    for file in folder.glob("tokenizer*"):
        file.unlink()
    point = Checkpoint("step-1000", 0, "pretraining", 1000, 1, "0", folder, late=False)
    with pytest.raises(
        loading.CheckpointError, match="step-1000: no tokenizer can be read"
    ) as told:
        loading.check(folder, point)
    assert len(str(told.value).splitlines()) == 1


def test_two_commands_lead_from_folders_to_pages(mine, smoke):
    for name in ("xsum", "cnn_dailymail", "mnli", "rte", "arc_easy", "sciq"):
        shutil.copytree(data_folder(smoke) / name, mine / "rows" / name)
    done = run_here("new", "own.yaml", "--folder", "checkpoints", *STEP, "--rows", "rows")
    assert done.returncode == 0 and "next: pretune plan own.yaml" in done.stdout, done.stderr
    sizes = ("tuning.examples=8", "tuning.epochs=1", "probing.items=4", "probing.shots=1")
    chosen = [word for size in sizes for word in ("--set", size)]
    done = run_here("run", "own.yaml", *chosen, outputs=mine / "outputs")
    assert done.returncode == 0, done.stderr
    assert (mine / "outputs" / "own" / "site" / "index.html").is_file()
    lines = json.loads((mine / "outputs" / "own" / "findings.json").read_text())
    assert {line["claim"][0] for line in lines} == set("12345")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Own", "--folder", "checkpoints"), "a study is named by its file"),
        (("own.yaml", "--folder", "nowhere"), "nowhere: no such folder"),
        (("own.yaml", "--folder", "checkpoints"), "checkpoint-1000 does not say .*--tokens-per-st"),
        (("own.yaml", "--folder", "checkpoints/checkpoint-1000"), "names that are read: step1000"),
        (("smoke", "--folder", "checkpoints"), "smoke.yaml exists"),
        (("own.yaml", "--folder", "checkpoints", *STEP, "--rows", "."), "no dataset is there"),
    ],
)
def test_what_cannot_be_begun_is_one_line(mine, words, said):
    done = run_here("new", *words)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr), done.stderr
