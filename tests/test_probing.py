"""What a probe shows of a model, under the corrected and under the published protocol."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import OUTPUTS
from pretune import measures
from pretune.analysis import statistics
from pretune.errors import StudyError
from pretune.measures import choices
from pretune.measures.base import Subject
from pretune.models import pretraining
from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Model, Probe
from pretune.recipes import sft
from pretune.recipes.pretrain import Architecture
from pretune.run import cell, prepare
from pretune.run import probe as probes
from pretune.sources import datasets
from pretune.sources.microworld.text import documents
from pretune.sources.microworld.world import make_world
from pretune.study.load import load_study
from pretune.tasks import prompts, rows
from pretune.tasks.dataset import RESERVE
from pretune.tasks.example import RowError
from pretune.tasks.registry import REGISTRY

POINT = Checkpoint("step-0", 0, "pretraining", 0, 0, "none", Path("nowhere"), False)


def seen(model, tokenizer, dataset, *overrides, **changes):
    """What the smoke study sees of one dataset in the untrained model; `changes` are fields of
    the probe.
    """
    study = load_study("smoke", overrides)
    prepare.prepare_data(study)
    probe = Probe(
        dataset, datasets.evaluation_split(study, REGISTRY[dataset]), "default", 2, 0, 12, 8, "", ""
    )
    found = probes.Seen()
    probes.look(
        study,
        Model(POINT, "base", 0, "none"),
        Subject(model, tokenizer, POINT, False),
        replace(probe, **changes),
        found,
    )
    return SimpleNamespace(rows=next(iter(found.tables.values())), **vars(found))


@pytest.fixture(scope="module", autouse=True)
def prepared():
    prepare.prepare_data(load_study("smoke"))


def folder():
    return datasets.data_folder(load_study("smoke"))


@pytest.mark.parametrize(
    "dataset",
    [name for name, one in REGISTRY.items() if one.world == "microworld" and one.kind != "chat"],
)
def test_every_dataset_can_be_looked_at(model, tokenizer, dataset):
    changes = {"shots": 0} if REGISTRY[dataset].kind == "text" else {}
    for form in ("default",) if changes else ("default", "instruct", "io", "chat"):
        made = seen(model, tokenizer, dataset, format=form, items=4, **changes)
        assert len(made.rows) == 4 and all(
            np.isfinite(row["log_likelihood"]).all() for row in made.rows
        )
        assert (REGISTRY[dataset].kind == "generation") == ("rouge_l" in made.rows[0])


CHOICES = [
    name for name, one in REGISTRY.items() if one.world == "microworld" and one.kind == "choices"
]


@pytest.fixture(scope="module")
def usual_tokenizer():
    """That of a world as large as those of the studies."""
    return pretraining.train_tokenizer(
        itertools.islice(documents(make_world(2, 60, 24, 8), 0), 4000), 1024
    )


@pytest.mark.parametrize("dataset", CHOICES)
def test_random_weights_are_never_better_than_no_skill(usual_tokenizer, dataset):
    """On every set with given answers."""
    shape = Architecture(layers=2, width=32, heads=2, intermediate=64, context=256, vocabulary=1024)
    world, found = "checkpoints.world={seed: 1, people: 32, towns: 12, countries: 4}", []
    for seed in range(3):
        network = pretraining.new_model(shape, usual_tokenizer, seed).eval()
        scored = measures.scored(
            pd.DataFrame(seen(network, usual_tokenizer, dataset, world, items=200, shots=0).rows)
        )
        found.append(
            scored.assign(score=scored["score"] - scored["baseline"], level=scored["baseline"])
        )
    rows = pd.concat(found)
    assert statistics.over_items(rows).low <= 0 and rows["level"].mean() >= 0.25


def test_without_a_skill_the_best_of_chance_of_tokens_alike_and_of_answers_without_their_question():
    """Four answers: the one of fewest tokens is wrong, the longest for its tokens right."""
    base = {
        "dataset": "arc_easy",
        "checkpoint": "a",
        "recipe": "base",
        "seed": 0,
        "draw": 0,
        "format": "default",
        "shots_asked": 0,
        "gold": 1,
        "baseline": 0.25,
        "log_likelihood": [-1.0, -9.0, -9.0, -9.0],
        "choice_tokens": [1, 2, 2, 2],
        "choice_characters": [4, 16, 8, 8],
        "blank_log_likelihood": [-5.0, -6.0, -6.0, -6.0],
        "rouge_l": None,
    }
    level = {
        how: measures.scored(pd.DataFrame([base]), how)["baseline"].item()
        for how in choices.NORMALISATIONS
    }
    assert level == {
        "dataset": 1.0,
        "characters": 1.0,
        "sum": 0.25,
        "tokens": 1 / 3,
        "calibrated": 0.25,
    }
    tied = base | {"blank_log_likelihood": [-1.0] * 4, "choice_tokens": [2, 1, 1, 2]}
    # two are as short, one of them right
    assert measures.scored(pd.DataFrame([tied]), "sum")["baseline"].item() == 0.5
    # the best by the mean of all items, not item by item
    two = pd.DataFrame([base, base | {"gold": 0}])
    assert list(measures.scored(two, "dataset")["baseline"]) == [1.0, 0.0]


def test_items_are_the_same_for_every_model_and_shots_follow_their_draw(model, tokenizer):
    one, two = (seen(model, tokenizer, "mnli", draw=draw) for draw in (0, 1))
    assert [row["item"] for row in one.rows] == [row["item"] for row in two.rows]
    assert one.texts[0]["prompt"] != two.texts[0]["prompt"]


def test_shots_come_from_train_and_are_never_scored(model, tokenizer):
    """Also where the train split is what is scored."""
    for name in ("mnli", "gpt3_nli"):
        dataset, made = REGISTRY[name], seen(model, tokenizer, name, items=2000)
        prefix = made.texts[0]["prompt"].split("### Input_1")[1]
        scored = {text["prompt"].split("### Input_1")[-1] for text in made.texts}
        assert f" ### Inference:{prefix.split(' ### Inference:')[1]}" and not any(
            prefix.startswith(one) for one in scored
        )
        shown = rows.shots(folder(), dataset, dataset.evaluation, "default", 2, 0)
        assert not {example.prompt for example in shown} & {f"### Input_1{one}" for one in scored}


def test_reserved_rows_are_never_trained_on_or_shown():
    dataset = REGISTRY["mnli"]
    reserved = set(rows.chosen(folder(), dataset, RESERVE, 10**6))
    trained = set().union(
        *(rows.chosen(folder(), dataset, "train", 10**6, seed) for seed in range(3))
    )
    assert len(reserved) == 200 and len(trained) == 1800 and not reserved & trained


def test_held_out_text_is_scored_whole_as_nats_per_token(model, tokenizer):
    made = seen(model, tokenizer, "held_out_text", shots=0, items=3)
    for row, text in zip(made.rows, made.texts, strict=True):
        ids = tokenizer(tokenizer.eos_token + text["choices"][0], return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            loss = model(ids, labels=ids).loss.item()
        assert row["choice_tokens"] == [ids.shape[1] - 1] and np.isnan(row["baseline"])
        assert -row["log_likelihood"][0] / row["choice_tokens"][0] == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("dataset", ["mnli", "hellaswag", "xsum", "held_out_text"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_no_numbers_gives_no_answers(model, tokenizer, dataset, value):
    """NaN is no larger than any other: the first choice would be taken."""
    with torch.no_grad():
        model.get_output_embeddings().weight[7, 3] = value
    with pytest.raises(
        probes.NotFinite,
        match=rf"step-0\.base\.0: {dataset}: row \d+ of .*: log_likelihood is \[.*(nan|inf)",
    ):
        seen(model, tokenizer, dataset, items=4, shots=0)


def test_a_content_free_prompt_without_numbers_is_refused_too(model, tokenizer, monkeypatch):
    monkeypatch.setattr(
        choices, "blank_likelihoods", lambda _, asked: [[0.0, np.nan, 0.0]] * len(asked.examples)
    )
    with pytest.raises(
        probes.NotFinite, match=r"mnli: row \d+ of .*: blank_log_likelihood is \[0.0, nan, 0.0\]"
    ):
        seen(model, tokenizer, "mnli")


def test_published_shots_are_the_first_items_and_stay_scored(model, tokenizer):
    made = seen(model, tokenizer, "mnli", "protocol=published")
    assert [row["item"] for row in made.rows] == list(range(12))
    assert [row["flag"] for row in made.rows] == ["shot"] * 2 + [""] * 10
    first = REGISTRY["mnli"].example(
        rows.read(folder(), REGISTRY["mnli"], "validation_matched")[0], "default"
    )
    assert made.texts[5]["prompt"].startswith(f"{first.prompt}{first.completion}\n")


def test_published_hidden_labels_are_marked_where_the_corrected_protocol_refuses(model, tokenizer):
    made = seen(model, tokenizer, "qqp", "protocol=published", "protocol.too_long=refuse")
    assert Counter(row["flag"] for row in made.rows) == {"hidden label shot": 2, "hidden label": 10}
    assert {row["gold"] for row in made.rows} == {0} and made.rows[0]["split"] == "test"
    with pytest.raises(RowError, match=r"qqp: row \d+ of test: .*hidden labels"):
        seen(model, tokenizer, "qqp", "protocol.splits=published")
    assert {row["flag"] for row in seen(model, tokenizer, "qqp").rows} == {""}


def test_published_long_prompts_are_scored_and_marked_where_the_corrected_protocol_lowers_shots(
    model, tokenizer
):
    model.config.max_position_embeddings = 130
    corrected = seen(model, tokenizer, "mnli")
    assert {row["shots"] for row in corrected.rows} == {1} or {
        row["shots"] for row in corrected.rows
    } == {0}
    published = seen(model, tokenizer, "mnli", "protocol=published")
    assert {row["shots"] for row in published.rows} == {2} and len(published.rows) == 12
    assert any("too long" in row["flag"] for row in published.rows) and not published.left_out


def test_published_labels_are_read_from_their_likeliest_sub_token(model, tokenizer):
    """Against one forward pass over the prompt with a space at its end."""
    made = seen(model, tokenizer, "mnli", "protocol=published")
    row, text = made.rows[7], made.texts[7]
    with torch.inference_mode():
        logits = (
            model(tokenizer(text["prompt"] + " ", return_tensors="pt")["input_ids"])
            .logits[0, -1]
            .log_softmax(-1)
        )
    for label, found in zip(REGISTRY["mnli"].labels, row["log_likelihood"], strict=True):
        parts = {token for word in (label, " " + label) for token in tokenizer(word)["input_ids"]}
        assert found == pytest.approx(max(logits[token].item() for token in parts), abs=1e-4)


def test_published_generation_goes_past_a_newline(model, tokenizer):
    made = seen(model, tokenizer, "xsum", "protocol=published", new_tokens=40)
    assert {row["stop"] for row in made.rows} <= {"length", "end"}


def test_training_rows_that_do_not_fit_are_passed_over_or_cut(model, tokenizer):
    study, tuned = load_study("smoke"), Model(POINT, "xsum", 0, "none")
    whole, none = cell._training_rows(study, tuned, 512, tokenizer)
    longest = max(len(row.ids) for row in whole)
    made, long = cell._training_rows(study, tuned, longest - 1, tokenizer)
    assert none == [] and long and len(made) == 48 and max(len(row.ids) for row in made) < longest
    with pytest.raises(StudyError, match="rows that fit 30 tokens"):
        cell._training_rows(study, tuned, 30, tokenizer)
    cut, none = cell._training_rows(
        load_study("smoke", ("protocol=published",)), tuned, 60, tokenizer
    )
    assert max(len(row.ids) for row in cut) == 60 and len(cut) == 48 and none == []


def test_rows_longer_than_max_length_are_passed_over_and_counted_or_cut(tokenizer):
    """As those are that exceed the context, and never more than the context holds."""
    tuned, study = Model(POINT, "xsum", 0, "none"), load_study("smoke")
    whole, none = cell._training_rows(study, tuned, 512, tokenizer)
    longest = max(len(row.ids) for row in whole)
    made, long = cell._training_rows(
        load_study("smoke", (f"tuning.max_length={longest - 1}",)), tuned, 512, tokenizer
    )
    assert none == [] and long and len(made) == 48 and max(len(row.ids) for row in made) < longest
    order = rows.chosen(folder(), REGISTRY["xsum"], "train", 48 + len(long), 0)
    assert set(long) <= set(order) and [
        len(sft.row_of(folder(), REGISTRY["xsum"], index, tokenizer).ids)
        for index in order
        if index not in long
    ] == [len(row.ids) for row in made]
    with pytest.raises(StudyError, match="rows that fit 30 tokens"):
        cell._training_rows(load_study("smoke", ("tuning.max_length=30",)), tuned, 512, tokenizer)
    for limit, context in ((60, 512), (512, 60)):
        published = load_study("smoke", ("protocol=published", f"tuning.max_length={limit}"))
        cut, none = cell._training_rows(published, tuned, context, tokenizer)
        assert max(len(row.ids) for row in cut) == 60 and len(cut) == 48 and none == []


def test_examples_that_are_trained_on_count_their_completion_only(tokenizer):
    study = load_study("smoke")
    for recipe, said in (("mnli", {"entailment", "neutral", "contradiction"}), ("instruct", None)):
        made, _ = cell._training_rows(study, Model(POINT, recipe, 0, "none"), 512, tokenizer)
        answers = {
            tokenizer.decode(row.ids[row.counted]).replace(tokenizer.eos_token, "").strip()
            for row in made
        }
        assert answers == said if said else all("<|user|>" not in answer for answer in answers)
    assert OUTPUTS in folder().parents and prompts.FITTING == 0.95
