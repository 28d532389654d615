"""The generated world: determined by its seed, with the real columns, and without answers
leaking into the text.
"""

import itertools
import json
import re

import pytest

from conftest import ROOT
from pretune.sources.microworld.datasets import SPLITS, dataset_rows, write_datasets
from pretune.sources.microworld.text import documents, relations
from pretune.sources.microworld.world import make_world
from pretune.tasks.registry import REGISTRY


@pytest.fixture(scope="module")
def examples(world):
    """Every dataset that is asked, by name and split, as examples in the training format."""
    asked = [
        dataset
        for dataset in REGISTRY.values()
        if dataset.world == "microworld" and dataset.metric != "nats"
    ]
    return {
        (dataset.name, split): [
            dataset.example(row, "default") for row in dataset_rows(world, dataset.folder, split)
        ]
        for dataset in asked
        for split in dict.fromkeys((dataset.train, dataset.evaluation))
    }


def test_a_seed_is_a_world(world):
    assert make_world(1) == world and make_world(2) != world
    one, two = (list(itertools.islice(documents(world, 0), 200)) for _ in range(2))
    assert one == two != list(itertools.islice(documents(world, 1), 200))
    assert dataset_rows(world, "mnli", "train") == dataset_rows(make_world(1), "mnli", "train")


def test_names_are_unique(world):
    names = [person.name for person in world.people] + [
        name for pool in world.strangers.values() for name, _ in pool
    ]
    assert len(set(names)) == len(names)
    assert len({town.name for town in world.towns}) == len(world.towns)
    assert {town.country for town in world.towns} == set(world.countries)


def test_the_smallest_worlds_have_wrong_answers_enough():
    """Of eight towns drawn at random one world in twenty has three rivers or products."""
    for seed in range(40):
        towns = make_world(seed, people=20, towns=8, countries=4).towns
        assert min(len({town.river for town in towns}), len({town.product for town in towns})) > 3


def words_of(world):
    """Every name and every word of a fact or a rule."""
    facts = {word for town in world.towns for word in town.words().values()}
    facts |= {word for thing in (*world.jobs, *world.rules) for word in thing.words().values()}
    facts |= {*world.opposites}
    people = {person.name for person in world.people} | {
        name for pool in world.strangers.values() for name, _ in pool
    }
    return (
        facts
        | {*world.hobbies, *world.pets}
        | people
        | {part for name in people for part in name.split()}
    )


def test_worlds_of_two_sides_share_no_name_no_fact_and_no_rule():
    sizes = {"people": 60, "towns": 24, "countries": 8}
    one, other = make_world(1, **sizes), make_world(1, **sizes, side=1)
    assert not words_of(one) & words_of(other)
    assert words_of(one) & words_of(make_world(2, **sizes))
    # nor what says the same
    wordings = [set(itertools.chain(*relations(world).values())) for world in (one, other)]
    assert not wordings[0] & wordings[1] and len(wordings[0]) == len(wordings[1]) == 48


def test_every_registered_dataset_has_rows_for_its_splits(world):
    for dataset in (one for one in REGISTRY.values() if one.world == "microworld"):
        for split in (dataset.train, dataset.evaluation, dataset.published):
            if split:
                assert len(dataset_rows(world, dataset.folder, split)) >= 250, (dataset.name, split)
    # those that are tuned on
    for name in ("xsum", "social_i_qa", "mnli", "paws", "arc_easy", "hellaswag", "tulu_v2"):
        assert len(dataset_rows(world, name, "train")) == 2000


def test_columns_are_those_of_the_real_datasets(world, real_rows):
    for name, splits in SPLITS.items():
        for split in splits:
            file = real_rows / name / f"{split}.jsonl"
            if file.exists():
                real = set(json.loads(file.open().readline()))
                assert set(dataset_rows(world, name, split)[0]) >= real - {"idx"}, name


def item_of(example):
    """What an example says of its item, without the words of the template."""
    return (
        example.prompt.split("### Input")[-1]
        .split("Input: ")[-1]
        .removeprefix("Question: ")
        .split("\n")[0]
    )


def four_words_of(text):
    """All that four words in a row say in a text."""
    words = re.findall(r"\w+", text)
    return set(zip(words, words[1:], words[2:], words[3:], strict=False))


def inner(text):
    """A text without its first and its last word, of which a part may stand elsewhere."""
    return re.sub(r"^\W*\w+|\w+\W*$", "", text)


def test_no_prompt_stands_with_its_answer_in_the_text_or_in_another_split(world, examples):
    """The item alone, its question and answer, in 30,000 documents: more than the quick study
    reads.
    """
    text = "\n".join(itertools.islice(documents(world, 0), 30_000))
    chats, said = json.dumps(dataset_rows(world, "tulu_v2", "train")), four_words_of(text)
    for (name, split), made in examples.items():
        # a prompt that stood in the text would do so from its first line on
        asked = {one.prompt.removeprefix("Question: ").split("\n")[0] for one in made[:300]}
        asked |= {item_of(one) + one.completion for one in made[:300]}
        # what stands there has its inner words there, which are looked for first: much quicker
        likely = [one for one in asked if four_words_of(inner(one)) <= said]
        assert not [one for one in likely if one in text], (name, split)
        if split != "train":
            items = {item_of(one) for one in made[:300]}
            assert not [one for one in items if one in chats], (name, split)
    for name, dataset in (
        (name, REGISTRY[name]) for name, _ in examples if REGISTRY[name].evaluation != "train"
    ):
        seen = {example.prompt for example in examples[name, dataset.train]}
        assert not seen & {example.prompt for example in examples[name, dataset.evaluation]}, name


def test_facts_that_are_recalled_were_seen(world):
    """What fact_recall asks of a person stands in the text, in other words."""
    text = list(itertools.islice(documents(world, 0), 20_000))
    for row in dataset_rows(world, "fact_recall", "validation")[:40]:
        answer = row["choices"]["text"]["ABCD".index(row["answerKey"])]
        name = next(person.name for person in world.people if person.name in row["question"])
        assert any(name in document and answer in document for document in text)
        assert not any(row["question"] in document for document in text)


def test_two_steps_are_never_said_in_one(world):
    """No document on a known person names the country or the workplace that arc_challenge asks
    for.
    """
    for document in itertools.islice(documents(world, 0), 20_000):
        for line in document.split("\n"):
            for person in (person for person in world.people if person.name in line):
                assert not re.search(rf"\b({person.town.country}|{person.job.place})\b", line), line


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("xsum", "document"),
        ("mnli", "premise"),
        ("rte", "sentence1"),
        ("boolq", "passage"),
    ],
)
def test_evaluation_holds_out_towns(world, name, field):
    towns, dataset = {town.name for town in world.towns}, REGISTRY[name]
    train, evaluation = (
        {town for row in dataset_rows(world, name, split) for town in towns if town in row[field]}
        for split in (dataset.train, dataset.evaluation)
    )
    assert train and evaluation and not train & evaluation


@pytest.mark.parametrize(("name", "asked"), [("hellaswag", "ctx"), ("social_i_qa", "question")])
def test_evaluation_holds_out_rules_and_trades(world, name, asked):
    tell = {
        "ctx": [rule.state for rule in world.rules],
        "question": [job.name for job in world.jobs],
    }[asked]
    train, evaluation = (
        {one for row in dataset_rows(world, name, which) for one in tell if f" {one}" in row[asked]}
        for which in ("train", "validation")
    )
    assert train and evaluation and not train & evaluation


def test_what_a_gist_or_a_question_says_is_not_to_be_copied(world):
    """Of its content, trade, country and act, nothing stands in the document: it follows from what
    is said there and from what pre-training teaches.
    """
    told = {"xsum": ("document", "summary"), "social_i_qa": ("context", "question")}
    known = (
        {job.name for job in world.jobs} | {rule.act for rule in world.rules} | {*world.countries}
    )
    for name, (given, asked) in told.items():
        for row in dataset_rows(world, name, "train")[:200]:
            content = {one for one in known if one in row[asked]}
            assert len(content) >= 2 and not [one for one in content if one in row[given]], row


def test_paraphrase_holds_out_pairs_of_wordings(world):
    def pairs(split):
        names = {name for pool in world.strangers.values() for name, _ in pool}
        return {
            tuple(re.sub("|".join(names), "N", row[field]) for field in ("sentence1", "sentence2"))
            for row in dataset_rows(world, "paws", split)
        }

    train, evaluation = pairs("train"), pairs("test")
    assert len(train) > 100 and not train & evaluation


def test_labels_are_balanced_and_gold_places_vary(examples):
    for (name, split), made in examples.items():
        if len(made[0].choices) > 1:
            golds = [example.gold for example in made]
            for place in range(len(made[0].choices)):
                assert golds.count(place) > 0.5 * len(golds) / len(made[0].choices), (name, split)


def test_gold_follows_from_the_world(world):
    traits = {town.name: town.traits for town in world.towns}
    labels = []
    for row in dataset_rows(world, "mnli", "validation_matched"):
        if "comes from some place that is" in row["hypothesis"]:
            town = next(town for town in traits if town in row["premise"])
            labels.append(row["label"])
            said = row["hypothesis"].removesuffix(".").split()[-1]
            assert (said in traits[town]) == (row["label"] == 0)
            assert (world.opposites[said] in traits[town]) == (row["label"] == 2)
    assert {0, 2} == set(labels)


def test_datasets_are_written_where_the_readers_look(world, tmp_path):
    write_datasets(world, tmp_path)
    for dataset in (one for one in REGISTRY.values() if one.world == "microworld"):
        for split in (dataset.train, dataset.evaluation, dataset.published):
            if split:
                lines = (tmp_path / dataset.folder / f"{split}.jsonl").read_text().splitlines()
                assert [json.loads(line) for line in lines] == dataset_rows(
                    world, dataset.folder, split
                )
    for name in ("qqp", "stsb"):  # as in GLUE
        assert {row["label"] for row in dataset_rows(world, name, "test")} == {-1}


def test_no_real_text_is_in_the_project(real_rows):
    """Facts and names of columns are fine, rows are not."""
    ours = "".join(path.read_text() for path in (ROOT / "lib").rglob("*.py"))
    for line in (real_rows / "sciq" / "train.jsonl").open():
        assert json.loads(line)["question"] not in ours
