"""What goes wrong, tried on every kind of recipe and on every measure that there is: one that is
added is tried too.
"""

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import ROOT, plan_of, run_here
from pretune import measures
from pretune.measures.base import Subject
from pretune.models import checkpoint, scoring, training
from pretune.plan.cells import Probe
from pretune.run import cell, prepare
from pretune.run import probe as probes
from pretune.sources import datasets
from pretune.study.load import load_study
from pretune.tasks.registry import REGISTRY

ASKED = {"choices": "mnli", "text_loss": "held_out_text", "writing": "mnli"}  # others: XSum


@pytest.mark.parametrize("measure", measures.names())
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_is_refused_by_every_measure(
    model, tokenizer, measure, broken
):
    """With model and dataset, before anything is kept."""
    study, lost, dataset = load_study("smoke"), copy.deepcopy(model), ASKED.get(measure, "xsum")
    prepare.prepare_data(study)
    with torch.no_grad():
        next(lost.parameters()).fill_(broken)
    about = plan_of(study).cells[0].model
    split = datasets.evaluation_split(study, REGISTRY[dataset])
    probe = Probe(dataset, split, "default", 0, 0, 4, 8, "", "", measure)
    subject, seen = Subject(lost, tokenizer, about.checkpoint, False), probes.Seen()
    with pytest.raises(probes.NotFinite, match=f"{about.name}: {dataset}: .*not finite"):
        probes.look(study, about, subject, probe, seen)
    assert not seen.tables


RECIPES = {  # a line for every kind, and for every thing that a kind may do
    "mnli": "{dataset: mnli}",
    "likely": "{dataset: xsum, filtered: {by: loss, keep: lowest, of: 2}, wrong: 0.5}",
    "beside": "{dataset: mnli, beside: {held_out_text: 2}}",
    "student": "{dataset: xsum, answers_of: {recipe: mnli, step: 40}}",
    "part": '{dataset: mnli, trainable: "layers.1."}',
    "lora": "{dataset: mnli, trainable: {peft_type: LORA, r: 4}}",
    "ia3": "{dataset: mnli, trainable: {peft_type: IA3}}",
    "bottleneck": "{dataset: mnli, trainable: {peft_type: BOTTLENECK, size: 4}}",
    "prefix": "{dataset: mnli, trainable: {peft_type: PREFIX_TUNING, num_virtual_tokens: 4}}",
    "dpo": "{method: dpo, dataset: ultrafeedback, after: mnli}",
}
FOUND = ["04_task_transfer", "08_distribution_shift", "11_tuning_methods"]
TOLD = """
title: Told
checkpoints:
  source: register
  people: {seed: 1, seen: 20, new: 10, never: 10}
  told: {both: 1}
  steps: [2, 4]
  late: 1
  pretraining:
    learning_rate: 3.0e-3
    batch_size: 4
    length: 64
    architecture: {layers: 1, width: 32, heads: 2, intermediate: 64, vocabulary: 500}
recipes:
  base: {}
  questions: {dataset: register, examples: 20}
  continued: {method: continued, dataset: register_new_text, wordings: 2, beside: {register: 8}}
tuning: {examples: 20, batch_size: 4, epochs: 1, learning_rate: 5.0e-4}
probing: {datasets: [register, register_new], shots: 0, items: 4, new_tokens: 4}
findings: [10_knowledge_injection]
"""


@pytest.fixture(scope="module", params=["microworld", "register"])
def run_once(request, tmp_path_factory):
    """A study with every kind of recipe, run without a fault: its file, outputs, records."""
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "kinds.yaml"
    if request.param == "register":
        file.write_text(TOLD)
    else:
        study = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
        study["checkpoints"] |= {"steps": [38, 40], "late": 1}
        study["recipes"] = {"base": {}} | {k: yaml.safe_load(v) for k, v in RECIPES.items()}
        study["tuning"] |= {"examples": 16, "batch_size": 4, "epochs": 1}
        study["probing"] |= {"datasets": ["mnli", "xsum", "ultrafeedback"], "items": 4}
        file.write_text(yaml.safe_dump(study | {"findings": FOUND}, sort_keys=False))
    done = run_here("run", str(file), "--no-notebooks", outputs=folder / "whole")
    assert done.returncode == 0, done.stderr
    return file, folder / "whole"


def copied(whole, target):
    """The outputs without what was tuned and what was measured."""
    shutil.copytree(whole, target)
    shutil.rmtree(target / "cache" / "tuned")
    shutil.rmtree(target / "kinds")
    return target


def kept(outputs):
    """Checksums of tuned models, and all rows."""
    tuned = {
        file.parent.name: json.loads(file.read_text())["sha256"]
        for file in (outputs / "cache" / "tuned").glob(f"*/{checkpoint.ABOUT}")
        if ".damaged" not in file.parent.name
    }
    tables = sorted((outputs / "kinds").rglob("*.parquet"))
    rows = {str(one.relative_to(outputs)): pd.read_parquet(one) for one in tables}
    return tuned, rows


def same(one, other):
    assert one[0] == other[0] and one[1].keys() == other[1].keys()
    for name, rows in one[1].items():
        pd.testing.assert_frame_equal(rows, other[1][name])


def test_a_training_of_any_kind_that_is_killed_goes_on_to_the_same_weights_and_rows(
    run_once, tmp_path, monkeypatch
):
    file, whole = run_once
    outputs, killed, went_on = copied(whole, tmp_path / "broken"), set(), {}
    train = training.train

    def once(model, rows, settings, seed, state, after_step, loss):
        """Killed at its second step the first time; every step is kept."""

        def after(step):
            went_on.setdefault(state.name, step.step) if state.name in killed else None
            after_step(step)
            if step.step == 2 and state.name not in killed:
                killed.add(state.name)
                raise MemoryError("as if it were killed")

        return train(model, rows, settings, seed, state, 0.0, after, loss=loss)

    monkeypatch.setattr(cell.training, "train", once)
    assert run_here("run", str(file), "--no-notebooks", outputs=outputs).returncode == 1
    again = run_here("run", str(file), "--no-notebooks", outputs=outputs)
    while "failed" in again.stderr and len(went_on) < len(killed):  # what waited for another
        again = run_here("run", str(file), "--no-notebooks", outputs=outputs)
    assert again.returncode == 0, again.stderr
    assert len(killed) == len(kept(whole)[0])  # every model that is tuned
    assert set(went_on) == killed and set(went_on.values()) == {2}
    same(kept(outputs), kept(whole))


def test_what_was_tuned_in_any_way_is_made_again_where_it_is_damaged(run_once, tmp_path, caplog):
    """Named and set aside, and the same as it was."""
    file, whole = run_once
    outputs = tmp_path / "damaged"
    shutil.copytree(whole, outputs)
    shutil.rmtree(outputs / "kinds")
    folders = sorted(one.parent for one in (outputs / "cache" / "tuned").glob("*/training.json"))
    for folder in folders:
        weights = next(folder.glob("*.safetensors"))
        said = weights.read_bytes()
        weights.write_bytes(said[:-1] + bytes([said[-1] ^ 1]))
    assert run_here("run", str(file), "--no-notebooks", outputs=outputs).returncode == 0
    assert all(f"{folder}: " in caplog.text for folder in folders)
    assert len(list((outputs / "cache" / "tuned").glob("*.damaged*"))) == len(folders)
    same(kept(outputs), kept(whole))


def test_of_a_batch_only_what_was_written_without_numbers_is_unsound(model, tokenizer):
    """Also where others end before it: a token that sound rows do not have makes no numbers."""
    lost, sound = copy.deepcopy(model), [np.array(one) for one in ([5, 6, 8], [9])]
    head = lost.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # not that of the embedding
    written = {token for one in scoring.generate(lost, tokenizer, sound, 6) for token in one.ids}
    bad = min(set(range(10, 100)) - written)
    with torch.no_grad():
        lost.get_input_embeddings().weight[bad] = float("nan")
    made = scoring.generate(lost, tokenizer, [sound[0], np.array([5, bad]), sound[1]], 6)
    assert [one.is_sound for one in made] == [True, False, True]
