"""Finding 11 from the ground: what is trained of a model, beside it or after it; preferences."""

from __future__ import annotations

import copy
import itertools
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import OUTPUTS, ROOT, plan_of, run_pretune
from pretune import paths
from pretune.analysis import methods, preferences, results, written
from pretune.errors import StudyError
from pretune.findings import tuning_methods
from pretune.models import (
    adapters,
    comparing,
    gradients,
    learned,
    loading,
    scoring,
    training,
    tuned,
)
from pretune.models.states import fingerprint
from pretune.plan import costs, needs
from pretune.plan.cells import Plan
from pretune.recipes.dpo import Dpo
from pretune.recipes.optimisation import Tuning
from pretune.recipes.pretrain import Architecture
from pretune.recipes.trainable import Bottleneck, Ia3, Lora, Prefix, Prompt
from pretune.report.open import open_results
from pretune.run import cell, prepare
from pretune.sources import datasets
from pretune.study.load import load_study
from pretune.tasks import rows as reading
from pretune.tasks.prompts import Request, Row
from pretune.tasks.registry import REGISTRY
from small_models import small

SETTINGS = Tuning(learning_rate=1e-2, batch_size=8, examples=1, epochs=2, precision="float32")
LEARNED = [
    Prefix(peft_type="PREFIX_TUNING", num_virtual_tokens=6),
    Prompt(peft_type="PROMPT_TUNING", num_virtual_tokens=6),
]
STAYING = [Bottleneck(peft_type="BOTTLENECK", size=4), *LEARNED]
ADDED = [Lora(r=4, use_rslora=True), Lora(r=4, use_dora=True), Ia3(peft_type="IA3"), *STAYING]
NAMES = [f"{type(one).__name__}{n}" for n, one in enumerate(ADDED)]
NEAR = {"rtol": 0, "atol": 1e-4}


def some_rows(count=20, seed=0):
    draw, made = np.random.default_rng(seed), []
    for size in draw.integers(6, 24, count):
        ids = draw.integers(2, 500, size).astype(np.int32)
        made.append(Row(ids, np.arange(size) >= draw.integers(2, size - 1)))
    return made


def items(count=5, shared=8):
    """Requests with a common start, three completions each."""
    draw, root = np.random.default_rng(1), np.arange(9, 9 + shared)
    found = []
    for size in draw.integers(2, 7, count):
        context = np.concatenate([root, draw.integers(2, 500, size)])
        tails = [draw.integers(2, 500, 1 + n) for n in range(3)]
        ids = [np.concatenate([context, tail]).astype(np.int32) for tail in tails]
        found.append([Request(one, len(context)) for one in ids])
    return found


def trained(model, trainable, rows=None, **changes):
    with adapters.part(model, trainable, 0) as part:
        settings = SETTINGS.model_copy(update=changes)
        return training.train(part.model, rows or some_rows(), settings, 0)


def weights(model):
    return {name: one.detach().clone() for name, one in model.named_parameters()}


@pytest.mark.parametrize("trainable", ADDED, ids=NAMES)
def test_what_is_added_alone_is_trained_and_survives_saving_to_the_byte(
    trainable, tmp_path, monkeypatch
):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    fresh = small("olmo")
    model = copy.deepcopy(fresh)
    with adapters.part(model, trainable, 0) as part:
        taught = {name for name, one in part.model.named_parameters() if one.requires_grad}
        training.train(part.model, some_rows(), SETTINGS, 0)
        tuned.keep_tuned("key", part.save, {}, 1.0)
    assert taught and not taught & set(weights(fresh))
    again = tuned.load_tuned("key", copy.deepcopy(fresh), trainable)
    one, other = weights(model), weights(again)
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    assert scoring.log_likelihoods(again, items()) == scoring.log_likelihoods(model, items())
    assert tuned.tuning_of("key")["kept_bytes"] < 4 * sum(w.numel() for w in fresh.parameters()) / 2
    if trainable in STAYING:
        assert all(torch.equal(one[name], before) for name, before in weights(fresh).items())


@pytest.mark.parametrize("trainable", ADDED, ids=NAMES)
def test_a_training_of_what_is_added_that_was_killed_ends_as_it_would_have(trainable, tmp_path):
    class Killed(Exception):
        pass

    def die(step):
        if step.step == 4:
            raise Killed

    whole, broken = small("olmo"), small("olmo")
    with adapters.part(whole, trainable, 0) as part:
        log = training.train(part.model, some_rows(), SETTINGS, 0)
    given = {"state": tmp_path / "state", "state_every": 0}
    with pytest.raises(Killed), adapters.part(broken, trainable, 0) as part:
        training.train(part.model, some_rows(), SETTINGS, 0, after_step=die, **given)
    again = small("olmo")
    with adapters.part(again, trainable, 0) as part:
        assert training.train(part.model, some_rows(), SETTINGS, 0, **given) == log
    one, other = weights(whole), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", ["olmo", "olmo3", "gpt_neox", "smollm3"])
@pytest.mark.parametrize("trainable", STAYING, ids=["bottleneck", "prefix", "prompt"])
def test_what_stays_is_read_in_scoring_as_it_was_in_training(family, trainable):
    model = small(family)
    trained(model, trainable)
    rows = some_rows(seed=3)
    way = gradients.Way("float32", None, training.ALONE)
    with torch.enable_grad():
        loss, _ = gradients.gradients(model, rows, 8, way)
    asked = [[Request(row.ids, int(row.counted.argmax()))] for row in rows]
    found = sum(one for (one,) in scoring.log_likelihoods(model, asked))
    assert -found / sum(int(row.counted.sum()) for row in rows) == pytest.approx(loss, abs=1e-4)
    together = np.concatenate(scoring.log_likelihoods(model, items()))
    apart = np.concatenate([scoring.log_likelihoods(model, [one])[0] for one in items()])
    assert together == pytest.approx(apart, abs=1e-3)


def peft_of(model, trainable, values):
    """peft's own model with the same learned numbers."""
    from peft import get_peft_config, get_peft_model

    said = trainable.model_dump() | {"task_type": "CAUSAL_LM"}
    peer = get_peft_model(model, get_peft_config(said)).eval()
    if isinstance(trainable, Prefix):  # layers, 2, 1, heads, tokens, width: tokens in front
        values = values[:, :, 0].permute(3, 0, 1, 2, 4).reshape(values.shape[-2], -1)
    peer.prompt_encoder["default"].embedding.weight.data.copy_(values.squeeze(0))
    return peer


@pytest.mark.parametrize("trainable", LEARNED, ids=["prefix", "prompt"])
def test_learned_tokens_say_what_peft_says_with_them(trainable):
    model, fresh = small("llama"), small("llama")
    trained(model, trainable)
    peer = peft_of(fresh, trainable, learned.of(model).values.data)
    for row in some_rows(4):
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        with torch.no_grad():
            said = peer(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        said = said[-ids.shape[1] :].log_softmax(-1)
        expected = said[:-1].gather(1, ids[0, 1:, None])[1:].sum()
        [[found]] = scoring.log_likelihoods(model, [[Request(row.ids, 2)]])
        assert found == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("trainable", ADDED[:3], ids=NAMES[:3])
def test_merged_adapters_say_what_peft_says_with_them_apart(trainable):
    model = small("olmo")
    with adapters.part(model, trainable, 0) as part:
        training.train(part.model, some_rows(), SETTINGS, 0)
        ids = torch.arange(3, 60)[None]
        with torch.no_grad():
            apart = part.model.eval()(ids).logits.log_softmax(-1)
    with torch.no_grad():
        merged = model(ids).logits.log_softmax(-1)
    torch.testing.assert_close(merged, apart, **NEAR)


def test_a_bottleneck_begins_as_nothing_and_a_prompt_as_words_of_the_vocabulary():
    fresh, model, other = small("olmo"), small("olmo"), small("olmo")
    adapters.part_of(model, STAYING[0], 0)
    assert scoring.log_likelihoods(model, items()) == scoring.log_likelihoods(fresh, items())
    adapters.part_of(other, LEARNED[1], 0)
    table = fresh.get_input_embeddings().weight
    there = learned.of(other).values[0]
    assert all((table == one).all(1).any() for one in there)


def test_learned_tokens_take_room_in_the_context_and_count_as_a_change():
    fresh, model = small("olmo"), small("olmo")
    trained(model, LEARNED[0])
    assert learned.context(model) == 512 - 6 and learned.context(fresh) == 512
    values = float(learned.of(model).values.detach().double().square().sum())
    whole = sum(float(one.detach().double().square().sum()) for one in fresh.parameters())
    assert comparing.weight_change(model, fresh) == pytest.approx(math.sqrt(values / whole))
    [found] = comparing.compared(model, fresh, items(1))
    assert np.isfinite(np.concatenate(found, axis=1)).all()


@pytest.mark.parametrize("trainable", STAYING, ids=["bottleneck", "prefix", "prompt"])
def test_generation_begins_from_what_stays(trainable, monkeypatch):
    """The tokens that a model writes are those that it finds likeliest, one by one."""
    model = small("olmo")
    trained(model, trainable)
    prompt = np.arange(20, 30)
    monkeypatch.setattr(scoring, "_newline_tokens", lambda *_: torch.zeros(512, dtype=torch.bool))
    tokenizer = type("Plain", (), {"eos_token_id": -1, "decode": lambda *_, **__: ""})()
    [written] = scoring.generate(model, tokenizer, [prompt], 4, newline=False)
    so_far = prompt
    for token in written.ids:
        asked = [
            Request(np.append(so_far, other).astype(np.int32), len(so_far))
            for other in range(2, 512)
        ]
        [likely] = scoring.log_likelihoods(model, [asked])
        assert likely[token - 2] == pytest.approx(max(likely), abs=1e-4)
        so_far = np.append(so_far, token)


def test_what_has_no_place_for_it_is_refused_by_name():
    named = "BOTTLENECK: OPTForCausalLM.*model.decoder.layers.N.fc1.weight"
    with pytest.raises(adapters.NothingToTrain, match=named):
        adapters.part_of(small("opt"), STAYING[0], 0)
    with pytest.raises(adapters.NothingToTrain, match="PREFIX_TUNING: FalconForCausalLM"):
        adapters.part_of(small("falcon"), LEARNED[0], 0)
    with pytest.raises(adapters.NothingToTrain, match="IA3: GPTNeoX.*query_key_value"):
        adapters.part_of(small("gpt_neox"), ADDED[2], 0)
    factors = Ia3(
        peft_type="IA3",
        target_modules=("query_key_value", "dense_4h_to_h"),
        feedforward_modules=("dense_4h_to_h",),
    )
    part = adapters.part_of(small("gpt_neox"), factors, 0)
    assert any(one.requires_grad for one in part.model.parameters())


@pytest.mark.parametrize("trainable", ADDED, ids=NAMES)
def test_weights_are_counted_as_they_are(trainable):
    shape = Architecture(layers=4, width=32, heads=4, intermediate=64, context=512, vocabulary=512)
    part = adapters.part_of(small("olmo"), trainable, 0)
    taught = sum(one.numel() for one in part.model.parameters() if one.requires_grad)
    assert trainable.weights(shape) == taught


def pairs(count=12):
    rivals = some_rows(count, 7)
    leads = np.random.default_rng(2).normal(0, 3, count)
    made = zip(some_rows(count), rivals, leads, strict=True)
    return [replace(row, rival=other, lead=float(lead)) for row, other, lead in made]


def likelihood(model, row):
    ids = torch.from_numpy(row.ids.astype(np.int64))[None]
    logits = model(ids).logits[0, :-1].log_softmax(-1)
    counted = torch.from_numpy(row.counted[1:])
    return logits.gather(1, ids[0, 1:, None])[:, 0][counted].sum()


@pytest.mark.parametrize("micro", [12, 5, 1])
def test_the_loss_of_pairs_and_its_gradient_are_those_of_the_paper(micro):
    """Equation 7, whatever the micro-batch."""
    model, rows, beta = small("olmo"), pairs(), 0.3
    terms = [likelihood(model, row) - likelihood(model, row.rival) - row.lead for row in rows]
    expected = -torch.nn.functional.logsigmoid(beta * torch.stack(terms)).mean()
    expected.backward()
    slopes = [one.grad.clone() for one in model.parameters()]
    model.zero_grad()
    loss = Dpo(dataset="ultrafeedback", beta=beta).loss
    way = gradients.Way("float32", loss, training.ALONE)
    found, _ = gradients.gradients(model, rows, micro, way)
    assert found == pytest.approx(float(expected.detach()), abs=1e-4)
    for one, slope in zip(model.parameters(), slopes, strict=True):
        torch.testing.assert_close(one.grad, slope, rtol=1e-3, atol=1e-4)


def test_a_state_of_other_pairs_is_not_gone_on_from():
    rows = pairs()
    marks = {fingerprint(rows, SETTINGS, 0)}
    marks.add(fingerprint([replace(rows[0], lead=0.5), *rows[1:]], SETTINGS, 0))
    marks.add(fingerprint([replace(rows[0], rival=rows[1].rival), *rows[1:]], SETTINGS, 0))
    assert len(marks) == 3


PREFERRED = {"method": "dpo", "dataset": "ultrafeedback", "examples": 24}


def study_with(*more, **recipe):
    """The smoke study with one more recipe, `own`."""
    return load_study("smoke", (f"recipes.own={json.dumps(recipe)}", *more))


def own_of(study, name="step-40.own.0"):
    return next(one for one in plan_of(study).cells if one.model.name == name).model


def test_preferences_of_the_microworld_are_about_things_that_are_so(smoke):
    """The better answer is never the longer of two right ones, and half of the rows differ for
    the split that is scored.
    """
    prepare.prepare_data(study_with(**PREFERRED))
    folder, dataset = datasets.data_folder(smoke), REGISTRY["ultrafeedback"]
    asked = []
    for split in (dataset.train, dataset.evaluation):
        rows = reading.read(folder, dataset, split)
        asked.append({row["prompt"] for row in rows})
        assert len(rows) > 100
        for row in rows:
            better, worse = (row[name][1]["content"] for name in ("chosen", "rejected"))
            brief = row["prompt"].endswith("Be brief.")
            assert brief == (" " not in better) and better != worse
            assert better not in worse or len(worse) > len(better) or not brief
    assert not asked[0] & asked[1]
    made = reading.examples(folder, dataset, dataset.train, "default", list(range(100)))
    share = np.mean([one.gold for one in made])
    assert 0.2 < share < 0.8
    for one, row in zip(made, reading.read(folder, dataset, dataset.train), strict=False):
        assert one.completion == row["chosen"][1]["content"] and len(one.choices) == 2
        assert one.prompt.endswith("<|assistant|>\n") and row["prompt"] in one.prompt


def test_a_dataset_that_is_new_is_written_beside_those_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    study = study_with(**PREFERRED)
    prepare.prepare_data(study)
    folder = datasets.data_folder(study)
    kept = (folder / "mnli" / "train.jsonl").stat().st_mtime_ns
    for file in (folder / "ultrafeedback").iterdir():
        file.unlink()
    (folder / "ultrafeedback").rmdir()
    assert not datasets.are_ready(study)
    prepare.prepare_data(study)
    assert datasets.are_ready(study) and (folder / "ultrafeedback" / "test_prefs.jsonl").is_file()
    assert (folder / "mnli" / "train.jsonl").stat().st_mtime_ns == kept


def test_pairs_begin_with_the_lead_that_the_model_before_gives_them(smoke):
    study = study_with(**PREFERRED, after="mnli")
    prepare.prepare_data(study)
    model = own_of(study)
    assert model.before.name == "step-40.mnli.0"
    network, tokenizer = loading.load_checkpoint(model.checkpoint)
    rows, _ = cell._training_rows(study, model, learned.context(network), tokenizer)
    tuned_first = cell._first(study, model.before, network, tokenizer, lambda *_: None)
    asking = cell._asking(study, model, tuned_first, tokenizer, lambda *_: None)
    made = study.recipes["own"].finished(rows, study.tuning_of("own"), asking)
    assert len(made) == 24
    for row in made[:5]:
        with torch.no_grad():
            lead = likelihood(tuned_first, row) - likelihood(tuned_first, row.rival)
        assert row.lead == pytest.approx(float(lead), abs=1e-3)
        starts = [int(one.counted.argmax()) for one in (row, row.rival)]
        assert (row.ids[: starts[0]] == row.rival.ids[: starts[1]]).all()


def test_what_comes_after_a_recipe_begins_where_that_ended(smoke, tmp_path):
    """Step by step what one loop after the other gives."""
    study = study_with(dataset="xsum", after="mnli", examples=16)
    model = own_of(study)
    network, tokenizer = loading.load_checkpoint(model.checkpoint)
    made, _ = cell._tuned(study, model, network, tokenizer, lambda *_: None)
    again = loading.load_checkpoint(model.checkpoint)[0]
    for which in (model.before, model):
        rows, _ = cell._training_rows(study, which, learned.context(again), tokenizer)
        training.train(again, rows, study.tuning_of(which.recipe), 0)
    one, other = weights(made), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_key_of_what_comes_after_holds_what_came_before():
    said = {"dataset": "xsum", "after": "mnli"}
    keys = [
        own_of(study_with(**said)).key,
        own_of(study_with(**(said | {"after": "lora_mnli"}))).key,
        own_of(study_with("recipes.mnli.learning_rate=2.0e-3", **said)).key,
        own_of(study_with(dataset="xsum", learning_rate=1.1e-3)).key,
        own_of(study_with(**PREFERRED)).key,
        own_of(study_with(**PREFERRED, beta=0.2)).key,
    ]
    assert len(set(keys)) == len(keys)


def test_a_pair_is_planned_as_two_rows_and_is_no_task():
    study = study_with(**PREFERRED)
    plain = study_with(dataset="arc_easy", examples=24)
    tokens = []
    for one in (study, plain):
        [there] = [c for c in plan_of(one).cells if c.model.name == "step-40.own.0"]
        tokens.append(costs.cell_cost(plan_of(one), there).trained_tokens)
    assert tokens[0] == 2 * tokens[1]
    assert not needs.is_single(study, "own") and needs.is_single(plain, "own")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"dataset": "xsum", "after": "nothing"}, ("own.after", "xsum, mnli, instruct, lora_mnli")),
        ({"dataset": "xsum", "after": "own"}, ("own.after", "which stand before it")),
        ({"dataset": "xsum", "after": "base"}, ("own.after", "which stand before it")),
        (PREFERRED | {"dataset": "xsum"}, ("own.dataset", "answers compete", "ultrafeedback")),
        (PREFERRED | {"beta": 0}, ("beta", "greater than 0")),
        ({"dataset": "mnli", "trainable": {"peft_type": "HRA"}}, ("trainable", "PREFIX_TUNING")),
        (
            {"dataset": "mnli", "trainable": {"peft_type": "IA3", "r": 2}},
            ("trainable.r", "target_modules"),
        ),
        (
            {"dataset": "mnli", "trainable": {"peft_type": "PROMPT_TUNING", "size": 2}},
            ("trainable.size", "num_virtual_tokens"),
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(recipe, words):
    with pytest.raises(StudyError) as error:
        plan_of(study_with(**recipe))
    assert all(word in str(error.value) for word in words), error.value


def test_nothing_comes_after_what_stays_beside_the_weights():
    prompt = "recipes.mnli.trainable={peft_type: PROMPT_TUNING}"
    with pytest.raises(StudyError, match="PROMPT_TUNING adds stays beside"):
        plan_of(study_with(prompt, dataset="xsum", after="mnli"))


def test_a_group_begins_from_what_came_before(smoke):
    """Which one process has in memory, and several read from a folder."""
    study = study_with(dataset="xsum", after="lora_mnli", examples=12)
    model = own_of(study)
    network, tokenizer = loading.load_checkpoint(model.checkpoint)
    before = cell._first(study, model.before, network, tokenizer, lambda *_: None)
    with cell._start(model, before, 1) as alone, cell._start(model, before, 2) as start:
        there = loading.loaded(start)
    assert alone == model.checkpoint.folder and not start.exists()
    one, other = weights(before), weights(there)
    assert all(torch.equal(one[name], other[name]) for name in one)


METHODS = """
  mnli_text: {dataset: mnli, beside: {held_out_text: 2}}
  mnli_last: {dataset: mnli, trainable: "layers.1."}
  mnli_ia3: {dataset: mnli, trainable: {peft_type: IA3}, grid: {learning_rate: [1.0e-3, 1.0e-2]}}
  mnli_bottleneck: {dataset: mnli, trainable: {peft_type: BOTTLENECK, size: 4}}
  mnli_prefix: {dataset: mnli, trainable: {peft_type: PREFIX_TUNING, num_virtual_tokens: 4}}
  mnli_prompt: {dataset: mnli, trainable: {peft_type: PROMPT_TUNING, num_virtual_tokens: 4}}
  dpo: {method: dpo, dataset: ultrafeedback, after: xsum, examples: 16}
tuning:"""


@pytest.fixture(scope="module")
def page(smoke, tmp_path_factory):
    """Of the smoke study with every method, four checkpoints of it."""
    outputs, file = tmp_path_factory.mktemp("methods"), tmp_path_factory.mktemp("own")
    file = file / "smoke.yaml"
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    shutil.rmtree(outputs / "cache" / "tuned")
    text = (ROOT / "params" / "smoke.yaml").read_text().replace("\ntuning:", METHODS)
    grid = "{dataset: mnli, grid: {learning_rate: [5.0e-4, 1.0e-3]}}"
    text = text.replace("{dataset: mnli}", grid).replace("[0, 20, 36, 38, 40]", "[20, 36, 38, 40]")
    text = text.replace("  instruct: {dataset: tulu_v2}\n", "")
    text = text.replace("arc_easy,", "arc_easy, ultrafeedback,").partition("findings:")[0]
    file.write_text(text + "grid: {steps: [40]}\nfindings: [11_tuning_methods]\n")
    done = run_pretune("run", str(file), outputs=outputs)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(paths, "OUTPUTS", outputs)
        changed.setattr(paths, "CACHE", outputs / "cache")
        yield open_results(str(file), "11_tuning_methods", "all"), outputs


def test_a_study_that_names_it_measures_every_method_and_makes_its_page(page):
    found, outputs = page
    [own] = methods.by_set(found)
    assert own == "mnli" and set(methods.by_set(found)[own]) == {
        *("all weights", "all weights, 4% text", "only layers.1.", "LoRA, rank 8", "(IA)3"),
        *("bottlenecks of 4", "prefix of 4", "prompt of 4"),
    }
    costs = methods.costs(found)
    assert costs.loc["mnli_prompt", "weights"] == 4 * 64 < costs.loc["mnli_prefix", "weights"]
    assert (costs.loc[["mnli_prompt", "mnli_prefix"], "bytes"] < 10_000).all()
    assert costs.loc["mnli", "bytes"] > 4 * costs.loc["mnli", "weights"]
    html = (outputs / "smoke" / "site" / "11_tuning_methods.html").read_text()
    for said in ("11a", "prompt of 4", "better answer gained more", "LoRA, rank 8"):
        assert said in html, said
    assert "Traceback" not in html


def test_a_prefix_is_asked_with_what_it_learnt_and_base_without(page):
    """The measure that holds both beside each other finds them apart, and base as it was."""
    found, _ = page
    rows = found.measured("divergence")
    rows = rows[rows["recipe"].isin(["mnli_prefix", "mnli_bottleneck"])]
    assert len(rows) and (rows["weight_change"] > 0).all()
    assert all(np.max(one) > 0 for one in rows["kl_base_tuned"])


def test_the_reward_that_is_implied_is_that_of_the_paper(page):
    """beta times how much likelier each answer became, the better one minus the worse."""
    found, _ = page
    [pair] = preferences.pairs(found.study)
    assert pair == ("dpo", "xsum")
    rows = found.rows[(found.rows["dataset"] == "ultrafeedback") & found.rows["late"]]
    nats = {
        which: {
            (row.step, row.item): (row.log_likelihood[row.gold], row.log_likelihood[1 - row.gold])
            for row in rows[rows["recipe"] == which].itertuples()
        }
        for which in pair
    }
    rewards = [np.subtract(after, nats["xsum"][key]) for key, after in nats["dpo"].items()]
    expected = np.mean([better > worse for better, worse in rewards])
    assert preferences.implicit(found, pair).value == pytest.approx(expected)


RUNS, ITEMS, KNOWN = 5, 100, ("arc_easy", "sciq", "fact_recall")


def made_up(draw, monkeypatch, per_decade=0.0, lost=0.2, kept=0.0, gained=0.2, runs=RUNS, task=0.0):
    """A page of made-up models of `methods-quick`: each method's own score rises along its
    rates, what it forgets falls with the own score it reaches, and by `per_decade` with fewer
    weights; a share `kept` of it stays where text is mixed in. Preferences gain `gained`, and the
    task that was tuned on first `task`.
    """
    study = load_study("methods-quick", (f"checkpoints.runs={list(range(runs))}",))
    sizes = {name: _weights(study, name) for name in study.recipes}
    skill = {name: draw.normal(0, 0.25, ITEMS) for name in study.probing.datasets}
    models, scores = [], []

    def add(recipe, dataset, step, run, level, form="default", shots=4):
        scores.append(level + skill[dataset] + draw.normal(0, 0.15, ITEMS) + draw.normal(0, 0.01))
        about = {"recipe": recipe, "dataset": dataset, "step": step, "run": run}
        about |= {"seed": 0 if recipe == "base" else run}
        about |= {"draw": run, "format": form, "shots_asked": shots, "late": step > 100}
        about |= {"tokens": step * 1000, "checkpoint": f"run-{run}-step-{step}", "baseline": 0.25}
        models.append(about)

    for run, step in itertools.product(range(runs), study.checkpoints.steps):
        for name in (*KNOWN, "rte"):
            add("base", name, step, run, 0.9)
        add("base", "mnli", step, run, 0.3)
        for recipe, own in ((n, h.dataset) for n, h in study.recipes.items() if n != "base"):
            if own in ("tulu_v2", "ultrafeedback"):
                continue
            along = list(study.along(recipe, "learning_rate").values()) or [recipe]
            for place, name in enumerate(along):
                if step != 600 and name != recipe:
                    continue
                score = 0.3 + 0.6 * (place + 1) / len(along)
                text = methods.replayed(study, recipe) > 0
                forgot = lost * (score - 0.3) / 0.6 + per_decade * (sizes[recipe] - 5)
                add(name, own, step, run, score, shots=0)
                for known in KNOWN:
                    add(name, known, step, run, 0.9 - forgot * (1 - kept * text))
        for after, before in preferences.pairs(study):
            for which, more in ((before, 0.0), (after, 1.0)):
                add(which, "ultrafeedback", step, run, 0.55 + gained * more, shots=0)
            for need in written.asked(study, before):
                add(after, need.dataset, step, run, 0.9 + task, need.format, 0)
    frame = pd.DataFrame(models).loc[np.repeat(range(len(models)), ITEMS)].reset_index(drop=True)
    items = np.tile(range(ITEMS), len(models))
    frame = results.marked(study, frame.assign(item=items, score=np.concatenate(scores)))
    table = pd.DataFrame(
        {
            "weights": {
                n: 10.0 ** sizes[study.variants[n].recipe] for n in study.variants if n != "base"
            }
        }
    )
    monkeypatch.setattr(methods, "costs", lambda page: table)
    return results.Results(Plan(study, (), (), {}), "", "all", frame, {})


def _weights(study, recipe):
    """log10 of the weights that a recipe trains."""
    how = study.recipe(recipe).trainable
    shape = study.checkpoints.pretraining.architecture
    count = how.weights(shape) if hasattr(how, "weights") else shape.weights / (2 if how else 1)
    return float(np.log10(count))


def verdicts(*given, **said):
    return {one.claim: one for one in tuning_methods.verdicts(made_up(*given, **said))}


def test_methods_of_one_law_are_not_said_to_differ_by_their_size(monkeypatch):
    draw, found = np.random.default_rng(5), []
    for _ in range(12):
        found.append(verdicts(draw, monkeypatch)["11a"])
        assert found[-1].effect is not None, found[-1].why
    assert [one.verdict for one in found].count("supported") == 0
    assert np.mean([one.effect.low < 0 < one.effect.high for one in found]) > 0.8


def test_more_weights_that_forget_more_are_found(monkeypatch):
    """With the slope that was put in; the opposite is told as such."""
    draw = np.random.default_rng(6)
    found = [verdicts(draw, monkeypatch, per_decade=0.08)["11a"] for _ in range(4)]
    assert {one.verdict for one in found} == {"supported"}
    assert np.mean([one.effect.value for one in found]) == pytest.approx(0.08, abs=0.02)
    assert verdicts(draw, monkeypatch, per_decade=-0.08)["11a"].verdict == "opposite"


def test_a_single_run_has_the_doubt_of_its_own_items(monkeypatch):
    found = verdicts(np.random.default_rng(7), monkeypatch, per_decade=0.08, runs=1)["11a"]
    assert found.provisional and found.effect.low < 0.08 < found.effect.high


def test_methods_are_compared_at_a_score_that_they_reach(monkeypatch):
    """Along falling paths; one whose lowest rate is beyond it, or whose best is below, is not."""
    page = made_up(np.random.default_rng(8), monkeypatch)
    names = methods.alike(page, "mnli")
    scores = pd.Series(dtype=float)
    for recipe in names.values():
        along = list(page.study.along(recipe, "learning_rate").values())
        scores = pd.concat([scores, pd.Series(np.linspace(0.2, 1.0, len(along)), along)])
    found = methods.reached(page, "mnli", scores, list(names))
    assert set(found) == set(names)
    for weights in found.values():
        assert sum(scores[name] * share for name, share in weights.items()) == pytest.approx(0.8)
    prefix = [name for name in scores.index if name.startswith("mnli_prefix")]
    low, high = scores.copy(), scores.copy()
    low[prefix], high[prefix] = 0.5, 0.95
    for changed in (low, high, scores.drop(prefix[0])):
        assert set(methods.reached(page, "mnli", changed, list(names))) == {
            how for how, recipe in names.items() if recipe != "mnli_prefix"
        }
    full = [name for name in scores.index if name.partition("@")[0] == "mnli"]
    assert methods.reached(page, "mnli", scores.drop(full), list(names)) == {}


def test_text_that_is_mixed_in_is_judged_by_the_share_that_it_keeps(monkeypatch):
    draw = np.random.default_rng(9)
    found = verdicts(draw, monkeypatch, kept=0.9)
    for name in ("11b (1%)", "11b (5%)"):
        assert found[name].verdict == "supported"
        assert found[name].effect.value == pytest.approx(0.9, abs=0.1)
    little = verdicts(draw, monkeypatch, kept=0.1)["11b (1%)"]
    assert little.verdict == "not supported" and little.effect.value == pytest.approx(0.1, abs=0.1)
    nothing = verdicts(draw, monkeypatch, lost=0.02)["11b (1%)"]
    assert nothing.verdict == "not asked" and "more than the margin" in nothing.why


def test_the_share_kept_has_the_interval_of_a_ratio(monkeypatch):
    """It covers what was put in."""
    draw, covered = np.random.default_rng(10), []
    for _ in range(15):
        effect = verdicts(draw, monkeypatch, kept=0.6)["11b (5%)"].effect
        covered.append(effect.low < 0.6 < effect.high)
    assert np.mean(covered) > 0.8


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"gained": 0.3}, ("supported", "supported")),
        ({"gained": 0.3, "task": -0.3}, ("supported", "not supported")),
        ({"gained": 0.0}, ("no effect", "supported")),
        ({"gained": -0.2}, ("not asked", "not asked")),  # not half of them are right
    ],
)
def test_preferences_are_judged_by_what_they_gain_and_what_they_cost(monkeypatch, said, words):
    found = verdicts(np.random.default_rng(11), monkeypatch, **said)
    assert (found["11c"].verdict, found["11c (task)"].verdict) == words


def test_what_comes_after_adapters_that_were_kept_is_trained(smoke):
    """All weights, and not none, since adapters leave them frozen."""
    study = study_with(dataset="xsum", after="lora_mnli", examples=12, learning_rate=1.0e-3)
    model, made = own_of(study), []
    for _ in range(2):  # tuned first, then from the cache
        network, tokenizer = loading.load_checkpoint(model.checkpoint)
        before = cell._first(study, model.before, network, tokenizer, lambda *_: None)
        rows, _ = cell._training_rows(study, model, learned.context(network), tokenizer)
        training.train(before, rows, study.tuning_of("own"), 0)
        made.append(weights(before))
    # merged from what was kept, weights differ in the last digit
    for name, one in made[0].items():
        torch.testing.assert_close(made[1][name], one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_rows_as_long_as_the_context_are_trained_on_behind_learned_tokens(family):
    """Padding stays within what the model has positions for."""
    model = small(family)
    with adapters.part(model, LEARNED[0], 0) as part:
        longest = learned.context(part.model)
        row = Row(np.arange(longest, dtype=np.int32) % 400 + 5, np.arange(longest) > 2)
        rows = [row, *some_rows(3)]
        assert np.isfinite(training.train(part.model, rows, SETTINGS, 0)[-1].loss)


def test_methods_are_compared_where_all_weights_are_too_good_throughout(monkeypatch):
    """Their best score is what others are held against, whether they are or not."""
    page = made_up(np.random.default_rng(12), monkeypatch, per_decade=0.08)
    full = page.rows["recipe"].str.partition("@")[0] == "mnli"
    high = full & (page.rows["dataset"] == "mnli") & (page.rows["step"] == 600)
    page.rows.loc[high, "score"] = page.rows.loc[high, "score"].clip(lower=0.85)
    names = methods.comparable(page, "mnli")
    assert "all weights" not in names and len(names) == 4
    found = {one.claim: one for one in tuning_methods.verdicts(page)}["11a"]
    assert found.effect.value == pytest.approx(0.08, abs=0.03)
    equal = methods.at_equal_score(page, "mnli")
    assert set(equal.index) == set(names)
    assert ((equal["low"] < equal["forgot"]) & (equal["forgot"] < equal["high"])).all()
    looks = tuning_methods._looks(page)
    assert len(set(looks.values())) == len(looks) > len(names)


def page_with(monkeypatch, **more):
    """A made-up page of the study with recipes that are measured nowhere."""
    page = made_up(np.random.default_rng(13), monkeypatch)
    study = load_study(
        "methods-quick",
        (
            "checkpoints.runs=[0,1,2,3,4]",
            *(f"recipes.{n}={json.dumps(r)}" for n, r in more.items()),
        ),
    )
    return replace(page, plan=replace(page.plan, study=study))


def test_methods_are_those_on_the_same_rows_and_none_hides_another(monkeypatch):
    lora = {"peft_type": "LORA", "r": 8, "lora_alpha": 8}
    page = page_with(
        monkeypatch,
        mnli_wrong={"dataset": "mnli", "wrong": 0.4},
        mnli_more={"dataset": "mnli", "epochs": 4},
        mnli_other={"dataset": "mnli", "trainable": lora, "learning_rate": 2.0e-3},
        mnli_text0={"dataset": "mnli", "beside": {"held_out_text": 1}},
        mnli_text4={"dataset": "mnli", "beside": {"held_out_text": 5}},
        mnli_mixed={"dataset": "mnli", "beside": {"xsum": 5}},
    )
    some = methods.by_set(page)["mnli"]
    assert some["all weights"] == "mnli" and some["LoRA, rank 8 (mnli_other)"] == "mnli_other"
    assert {some["all weights, 0.2% text"], some["all weights, 1% text"]} == {
        "mnli_text0", "mnli_text1"
    }  # fmt: skip
    assert some["all weights, 1% text (mnli_text4)"] == "mnli_text4"
    assert not {"mnli_wrong", "mnli_more", "mnli_mixed"} & set(some.values())
    shares = methods.replays(page)
    assert shares["1%"] == [("mnli", "mnli_text1"), ("mnli", "mnli_text4")]
    assert set(shares) == {"1%", "5%", "0.2%"}


def test_a_page_that_lacks_models_says_so_and_shows_the_rest(monkeypatch):
    page = made_up(np.random.default_rng(14), monkeypatch)
    table = methods.costs(page).assign(bytes=1.0, seconds=1.0, held=1.0)
    table = table.reindex([*page.study.variants])
    table.loc["mnli_prefix"] = np.nan
    monkeypatch.setattr(methods, "costs", lambda page: table)
    page = replace(page, rows=page.rows[page.rows["recipe"] != "mnli_prefix"])
    assert tuning_methods.trained(page).loc["MNLI: prefix of 10", "weights trained"] == "–"
    assert "prefix of 10" not in tuning_methods.take_home(page).loc["MNLI"].tolist()
    assert "prefix of 10" not in methods.comparable(page, "mnli")
    nothing = page.otherwise(sets=["mnli", "ultrafeedback"])
    assert tuning_methods.take_home(nothing).empty and tuning_methods.replaying(nothing).empty
    words = {one.claim: one.why for one in tuning_methods.verdicts(nothing)}
    assert words["11a"] == words["11b"] == tuning_methods.NO_KNOWLEDGE
    left = {one.claim: one.why for one in tuning_methods.verdicts(page.otherwise(sets=["mnli"]))}
    assert "asked here" in left["11c"]


def test_what_a_user_takes_home_is_first_by_what_is_wanted(monkeypatch):
    page = made_up(np.random.default_rng(15), monkeypatch, per_decade=0.08)
    order = ["mnli_ia3", "mnli_bottleneck", "mnli_prefix", "mnli_lora", "mnli"]
    table = pd.DataFrame(index=list(page.study.variants))
    table["bytes"] = [float(name != "mnli_lora") for name in table.index]
    table["seconds"] = [float(name != "mnli_ia3") for name in table.index]
    monkeypatch.setattr(methods, "costs", lambda page: table)
    page = replace(page, rows=page.rows[page.rows["recipe"].isin(["base", *order])])
    best = page.rows["recipe"] == "mnli_bottleneck"
    page.rows.loc[best & (page.rows["dataset"] == "mnli"), "score"] += 0.02
    assert tuning_methods.take_home(page).loc["MNLI"].tolist() == [
        "bottlenecks of 8", "(IA)3", "LoRA, rank 8", "(IA)3"
    ]  # fmt: skip


def test_before_and_after_are_told_apart(monkeypatch):
    page = made_up(np.random.default_rng(16), monkeypatch, gained=0.3, task=-0.2)
    written_rows = page.rows[page.rows["dataset"] == "ultrafeedback"]
    longer = written_rows.assign(length=np.where(written_rows["recipe"] == "dpo", 5, 9))
    page._made["generation"] = longer
    nats = [[-3.0, -4.0 - (recipe == "dpo")] for recipe in page.rows["recipe"]]
    page = replace(page, rows=page.rows.assign(log_likelihood=nats, gold=0))
    page._made["generation"] = longer
    table = preferences.compared(page)
    said = ("better answer likelier", "its own task")
    first = {name: table[name].str.partition(" ")[0].astype(float) for name in said}
    assert first["better answer likelier"]["dpo"] == pytest.approx(0.85, abs=0.05)
    assert first["better answer likelier"]["mnli"] == pytest.approx(0.55, abs=0.05)
    gone = first["its own task"]["mnli"] - first["its own task"]["dpo"]
    assert gone == pytest.approx(0.2, abs=0.05)
    assert table["tokens of an answer"].str.partition(".")[0].tolist() == ["9", "5"]
    assert table["better answer gained more"]["dpo"].startswith("1.00")


def test_the_task_of_preferences_is_what_they_begin_with_and_no_text():
    study = load_study(
        "methods-quick",
        (
            "recipes.first={dataset: mnli, beside: {held_out_text: 5}}",
            "recipes.second={method: dpo, dataset: ultrafeedback, after: first}",
            "recipes.third={method: dpo, dataset: ultrafeedback, after: second}",
        ),
    )
    asked = [("mnli", 0)]
    for name in ("first", "second", "third"):
        assert [one[:2] for one in preferences.tasks(study, name)] == asked
    plan_needs = tuning_methods.needs(study, "third")
    assert {("mnli", 0), ("ultrafeedback", 0)} <= {one[:2] for one in plan_needs}
