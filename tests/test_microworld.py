"""The generated world: determined by its seed, with the real columns, and without answers leaking into the text."""

import itertools
import json

import pytest

from conftest import ROOT
from pretune.microworld.datasets import SPLITS, dataset_rows, write_datasets
from pretune.microworld.text import documents
from pretune.microworld.world import make_world
from pretune.tasks.registry import REGISTRY


@pytest.fixture(scope="module")
def examples(world):
    return {
        (name, split): [REGISTRY[name].example(row, "default") for row in dataset_rows(world, name, split)]
        for name, splits in SPLITS.items() for split in splits
    }


def test_a_seed_is_a_world(world):
    assert make_world(1) == world and make_world(2) != world
    one, two = (list(itertools.islice(documents(world, 0), 200)) for _ in range(2))
    assert one == two != list(itertools.islice(documents(world, 1), 200))
    assert dataset_rows(world, "mnli", "train") == dataset_rows(make_world(1), "mnli", "train")


def test_names_are_unique(world):
    names = [person.name for person in world.people] + [name for pool in world.strangers.values() for name, _ in pool]
    assert len(set(names)) == len(names)
    assert len({town.name for town in world.towns}) == len(world.towns)
    assert {town.country for town in world.towns} == set(world.countries)


def test_every_registered_dataset_has_rows_for_its_splits(world):
    for name, dataset in REGISTRY.items():
        for split in (dataset.train, dataset.evaluation):
            assert len(dataset_rows(world, name, split)) >= 40


def test_columns_are_those_of_the_real_datasets(world, real_rows):
    for name, splits in SPLITS.items():
        for split in splits:
            file = real_rows / name / f"{split}.jsonl"
            if file.exists():
                real = set(json.loads(file.open().readline()))
                assert set(dataset_rows(world, name, split)[0]) >= real - {"idx"}, name


def test_no_prompt_stands_with_its_answer_in_the_text_or_in_another_split(world, examples):
    """The item alone, its question and answer, in 20,000 documents: more than the quick study reads."""
    text = "\n".join(itertools.islice(documents(world, 0), 20_000))
    for (name, split), made in examples.items():
        for example in made[:300]:
            item = example.prompt.removeprefix("### Input: ").removeprefix("Question: ").split("\n")[0]
            assert item not in text, (name, split, item)
    for name, (train, evaluation) in SPLITS.items():
        seen = {example.prompt for example in examples[name, train]}
        assert not seen & {example.prompt for example in examples[name, evaluation]}, name


@pytest.mark.parametrize("name", ["xsum", "mnli", "rte"])
def test_evaluation_holds_out_towns(world, name):
    towns = {town.name for town in world.towns}
    field = {"xsum": "document", "mnli": "premise", "rte": "sentence1"}[name]
    used = {split: {town for row in dataset_rows(world, name, split) for town in towns if town in row[field]}
            for split in SPLITS[name]}
    train, evaluation = used.values()
    assert train and evaluation and not train & evaluation


def test_labels_are_balanced_and_gold_places_vary(examples):
    for (name, split), made in examples.items():
        if len(made[0].choices) > 1:
            golds = [example.gold for example in made]
            for place in range(len(made[0].choices)):
                assert golds.count(place) > 0.5 * len(golds) / len(made[0].choices), (name, split)


def test_gold_follows_from_the_world(world):
    country = {town.name: town.country for town in world.towns}
    for row in dataset_rows(world, "mnli", "validation_matched"):
        if "comes from somewhere in" in row["hypothesis"]:
            town = next(town for town in country if town in row["premise"])
            assert (country[town] in row["hypothesis"]) == (row["label"] == 0)


def test_datasets_are_written_where_the_readers_look(world, tmp_path):
    write_datasets(world, tmp_path)
    for name, dataset in REGISTRY.items():
        for split in (dataset.train, dataset.evaluation):
            lines = (tmp_path / name / f"{split}.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == dataset_rows(world, name, split)


def test_no_real_text_is_in_the_project(real_rows):
    """Facts and names of columns are fine, rows are not."""
    ours = "".join(path.read_text() for path in (ROOT / "lib").rglob("*.py"))
    for line in (real_rows / "sciq" / "train.jsonl").open():
        assert json.loads(line)["question"] not in ours
