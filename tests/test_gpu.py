"""What holds on a processor holds on a GPU. Without one, all of this is skipped."""

import copy
import json
import logging
import os

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import run_pretune
from pretune.models import adapters, comparing, device, group, muon, scoring, training
from pretune.recipes.optimisation import Tuning
from pretune.recipes.trainable import Lora
from pretune.tasks.prompts import Row
from small_models import FAMILIES, small
from test_divergence import alone as apart
from test_divergence import moved
from test_divergence import requests as sequences
from test_group import NEAR, alone, losses, task_of, together
from test_methods import STAYING, items
from test_scoring import requests

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
CHANCE = {"gpt2": {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}, "opt": {"dropout": 0}}
TUNING = Tuning(learning_rate=1e-3, batch_size=8, examples=1, epochs=3, precision="float32")


def rows(count=24, seed=0) -> list[Row]:
    draw, made = np.random.default_rng(seed), []
    for size in draw.integers(5, 30, count):
        ids = draw.integers(2, 500, size).astype(np.int32)
        made.append(Row(ids, np.arange(size) >= draw.integers(1, size - 1)))
    return made


def on_gpu(model):
    return copy.deepcopy(model).to(device.pick_device())


def weights(model) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().cpu() for weight in model.parameters()])


@pytest.mark.parametrize("family", ["olmo", *FAMILIES])
def test_scores_and_outputs_are_those_of_the_processor(family, tokenizer):
    model, items = small(family), requests(tokenizer)
    there = on_gpu(model)
    here = scoring.log_likelihoods(model, items, 900)
    for some, one, two in zip(items, here, scoring.log_likelihoods(there, items, 900), strict=True):
        for request, mine, other in zip(some, one, two, strict=True):
            assert other == pytest.approx(mine, abs=1e-4 * (len(request.ids) - request.start))
    prompts = [some[0].ids[: some[0].start] for some in items[:4]]
    golds = [some[0].ids[some[0].start :] for some in items[:4]]
    one, two = (
        scoring.generate(each, tokenizer, prompts, 8, golds, newline=False)
        for each in (model, there)
    )
    assert [made.text for made in one] == [made.text for made in two]
    assert [made.gold for made in one] == pytest.approx([made.gold for made in two], abs=1e-3)


@pytest.mark.parametrize("family", ["olmo", *FAMILIES])
def test_the_distances_of_two_models_are_those_of_the_processor(family):
    """Of these widened weights float32 itself leaves up to 1.3e-4 nats, on either."""
    base = small(family)
    tuned = moved(base)
    here = apart(tuned, base, sequences())
    there = apart(on_gpu(tuned), on_gpu(base), sequences())
    for mine, other in zip(here, there, strict=True):
        for name, one, two in zip(comparing.NUMBERS, mine, other, strict=True):
            assert two == pytest.approx(one, abs=1 if name.endswith("rank") else 3e-4), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_are_those_of_the_processor(optimizer, precision):
    model = small("olmo")
    settings = TUNING.model_copy(update={"optimizer": optimizer, "precision": precision})
    here = training.train(copy.deepcopy(model), rows(), settings, 0)
    there = training.train(on_gpu(model), rows(), settings, 0)
    near = 1e-3 if (optimizer, precision) == ("adamw", "float32") else 0.05
    assert [step.loss for step in there] == pytest.approx([step.loss for step in here], rel=near)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["olmo", *FAMILIES])
def test_the_same_seed_gives_the_same_weights_to_the_byte(family, precision):
    model = small(family, **CHANCE.get(family, {}))
    settings = TUNING.model_copy(update={"precision": precision})
    trained = [on_gpu(model), on_gpu(model)]
    for one in trained:
        training.train(one, rows(), settings, 0)
    first, second = map(weights, trained)
    assert torch.equal(first, second) and not torch.equal(first, weights(model))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_training_that_was_killed_ends_with_the_weights_it_would_have_had(optimizer, tmp_path):
    class Killed(Exception):
        pass

    def kill(step):
        if step.step == 5:
            raise Killed

    model, state = small("olmo"), tmp_path / "running.safetensors"
    settings = TUNING.model_copy(update={"optimizer": optimizer, "precision": "bfloat16"})
    whole, cut = on_gpu(model), on_gpu(model)
    training.train(whole, rows(), settings, 0)
    with pytest.raises(Killed):
        training.train(cut, rows(), settings, 0, state, 0.0, after_step=kill)
    again = on_gpu(model)
    log = training.train(again, rows(), settings, 0, state)
    assert len(log) == 9 and torch.equal(weights(again), weights(whole))


def test_a_batch_that_does_not_fit_the_memory_is_cut_and_gives_the_same_loss(caplog):
    """With all but half a gigabyte of the device taken away."""
    model = small("olmo", vocab_size=50_048, hidden_size=256, intermediate_size=1024)
    one = Row(np.arange(500, dtype=np.int32) % 499 + 2, np.arange(500) > 0)
    settings = TUNING.model_copy(update={"batch_size": 64, "epochs": 1})
    [wide] = training.train(on_gpu(model), [one] * 64, settings, 0)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.2e9 / total)
    try:
        with caplog.at_level(logging.WARNING):
            [narrow] = training.train(on_gpu(model), [one] * 64, settings, 0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory on cuda: micro-batch lowered to 32 rows" in caplog.text.replace(":0", "")
    assert narrow.loss == pytest.approx(wide.loss, rel=1e-5)


def test_scoring_goes_on_in_smaller_batches_where_memory_ends(tokenizer, caplog):
    model, items = small("olmo", hidden_size=512, intermediate_size=4096), requests(tokenizer) * 200
    there = on_gpu(model)
    wide = scoring.log_likelihoods(there, items, 10**6)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.4e9 / total)
    try:
        with caplog.at_level(logging.WARNING):
            narrow = scoring.log_likelihoods(there, items, 10**6)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "scored in batches of at most" in caplog.text
    assert sum(narrow, []) == pytest.approx(sum(wide, []), abs=1e-3)


def test_directions_of_muon_are_orthogonal_in_bfloat16():
    torch.manual_seed(0)
    made = muon.orthogonal(torch.randn(3, 64, 192, device=device.pick_device()))
    sizes = torch.linalg.svdvals(made.float())
    assert made.dtype == torch.float32 and sizes.min() > 0.6 and sizes.max() < 1.3


def test_adapters_are_the_same_after_saving(tmp_path):
    model, lora = on_gpu(small("olmo")), Lora(peft_type="LORA")
    fresh = copy.deepcopy(model)
    with adapters.part(model, lora, 0) as part:
        training.train(part.model, rows(), TUNING, 0)
        part.save(tmp_path)
    again = adapters.restored(fresh, lora, tmp_path)
    assert torch.allclose(weights(again), weights(model), atol=1e-6)


@pytest.mark.parametrize("trainable", STAYING, ids=["bottleneck", "prefix", "prompt"])
def test_what_stays_beside_the_weights_is_trained_and_read_there(trainable, tmp_path):
    """As on the processor, which gives the same of what was kept."""
    model, other = on_gpu(small("olmo")), small("olmo")
    with adapters.part(model, trainable, 0) as part:
        log = training.train(part.model, rows(), TUNING, 0)
        part.save(tmp_path)
    with adapters.part(other, trainable, 0) as part:
        assert losses(training.train(part.model, rows(), TUNING, 0)) == pytest.approx(
            losses(log), abs=1e-3
        )
    again = adapters.restored(small("olmo"), trainable, tmp_path)
    here, there = (scoring.log_likelihoods(one, items()) for one in (again, model))
    assert sum(there, []) == pytest.approx(sum(here, []), abs=1e-2)


def on_the_first(place: int, *given: object, member=group._member) -> None:
    """What a process of a group does where all have the same GPU. NCCL refuses that of two
    processes, unless it takes them for two machines.
    """
    os.environ.update({"NCCL_HOSTID": str(place), "NCCL_SOCKET_IFNAME": "lo"})
    torch.cuda.set_device = lambda _: None
    member(place, *given)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("trainable", [None, {"peft_type": "LORA"}])
def test_a_group_makes_the_model_that_one_process_makes(trainable, size, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "_member", on_the_first)
    small("olmo", tie_word_embeddings=True).save_pretrained(tmp_path)
    task = task_of(tmp_path, trainable)
    one, log = alone(task)
    many, found = together(task, size)
    assert losses(found) == pytest.approx(losses(log), abs=1e-5)
    torch.testing.assert_close(weights(many), weights(one), **NEAR)


def test_two_workers_on_one_device_leave_the_rows_of_one(tmp_path):
    """Run through the command line, from nothing: pre-training, tuning, scoring."""
    found = []
    for jobs in ("1", "2"):
        outputs = tmp_path / jobs
        words = ("run", "smoke", "--no-notebooks", "--only", "step-40", "--jobs", jobs)
        done = run_pretune(*words, outputs=outputs)
        assert done.returncode == 0, done.stderr
        files = (outputs / "smoke" / "records").glob("*/*/*.parquet")
        found.append({(file.parts[-3], file.name): pd.read_parquet(file) for file in files})
    one, two = found
    assert one and one.keys() == two.keys()
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, two[name])


def test_records_say_which_device_and_how_much_of_its_memory(tmp_path):
    done = run_pretune("run", "smoke", "--no-notebooks", "--only", "step-40", outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "smoke" / "records").glob("*/*/*.json")
    told = [json.loads(file.read_text()) for file in files]
    assert {one["device"] for one in told} == {torch.cuda.get_device_name()}
    assert all(0 < one["peak_gpu_memory_gb"] < 5 for one in told)


def test_a_cell_that_holds_its_base_beside_finds_a_model_where_it_was(tmp_path):
    """Tuned at a rate that moves no weight, in the precision in which large models are probed."""
    words = ["run", "smoke", "--no-notebooks", "--only", "step-40"]
    words += ["--set", "findings=[08_distribution_shift]", "--set", "probing.precision=bfloat16"]
    words += ["--set", "tuning.learning_rate=1.0e-12"]
    done = run_pretune(*words, outputs=tmp_path)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "smoke" / "records").glob("*/*/divergence.parquet")
    found = pd.concat(map(pd.read_parquet, files))
    assert set(found["recipe"]) == {"xsum", "mnli", "instruct", "lora_mnli"}
    distances = np.concatenate([*found["kl_tuned_base"], *found["kl_base_tuned"]])
    assert np.abs(distances).max() < 1e-6
