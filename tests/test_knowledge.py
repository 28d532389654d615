"""Finding 10: a register of people, how its text tells of them, how new facts are taught and asked,
and what is said of made-up models.
"""

import json
from collections import Counter
from itertools import islice, product
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from conftest import plan_of, run_pretune
from pretune import paths
from pretune.analysis import knowledge, results, teaching
from pretune.analysis.claims import judge
from pretune.analysis.results import Results
from pretune.errors import StudyError
from pretune.findings import knowledge_injection
from pretune.measures import find
from pretune.measures.base import Asked, Subject
from pretune.models import pretraining, scoring
from pretune.models.scoring import Generation
from pretune.plan import lengths, needs
from pretune.plan.cells import Model
from pretune.recipes.pretrain import Architecture, Pretraining
from pretune.report.open import open_plan, open_results
from pretune.run import cell, prepare
from pretune.sources.register import datasets as asked_of_register
from pretune.sources.register import people, text
from pretune.study.load import load_study
from pretune.study.sources import People, Told
from pretune.tasks import retrieval, rows
from pretune.tasks.registry import REGISTRY
from test_plan import OLMO_1B
from test_tuning_data import POINT

SIZE = People(seed=3, seen=40, new=20, never=10)
QUICK = "knowledge-quick"


@pytest.fixture(scope="module")
def register():
    return people.make_register(SIZE)


@pytest.fixture(scope="module")
def written(register, tmp_path_factory):
    folder = tmp_path_factory.mktemp("register")
    asked_of_register.write_datasets(register, folder)
    return folder


@pytest.fixture(scope="module")
def coder(register):
    """The tokenizer of a run on the register."""
    shape = Architecture(vocabulary=700, width=32, layers=1, heads=2, intermediate=64)
    settings = Pretraining(learning_rate=1e-3, batch_size=8, architecture=shape)
    return pretraining.tokenizer_of(text.documents(register, Told(both=1), 0), settings)


def read(folder, name, split):
    lines = (folder / name / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def names_in(said, some):
    return {one.name for one in some if one.name in said}


def test_the_same_seed_gives_the_same_people_who_are_in_one_pool_each(register):
    assert people.make_register(SIZE) == register
    assert people.make_register(SIZE.model_copy(update={"seed": 4})) != register
    pools = (register.shown, register.held, register.new, register.never)
    names = [person.name for pool in pools for person in pool]
    names += [name for name, _ in register.strangers]
    assert len(names) == len(set(names)) and list(map(len, pools)) == [20, 20, 20, 10]
    assert {tuple(kind for kind, _ in one.facts) for one in register.held} == {people.KINDS}


@pytest.mark.parametrize(
    ("way", "texts", "orders"),
    [("single", 1, 1), ("multi", 5, 1), ("permute", 5, 5), ("both", 5, 5)],
)
def test_a_person_is_told_of_in_as_many_texts_as_the_way_has(register, way, texts, orders):
    """Each tells all facts, in other words or in the same; the name stands in the first sentence
    alone.
    """
    most = {"texts": 0, "orders": 0}
    for person in register.held:
        told = {text.entry(register, person, version, way) for version in range(text.VERSIONS)}
        facts = [value for _, value in person.facts]
        order = {tuple(sorted(facts, key=one.index)) for one in told}
        assert all(value in one for one in told for value in facts)
        assert {one.split(".")[0].count(person.name) for one in told} == {1}
        assert {one.count(person.name) for one in told} == {1}
        assert way in ("permute", "both") or order == {tuple(facts)}
        found = {"texts": told, "orders": order}
        most = {name: max(most[name], len(some)) for name, some in found.items()}
    assert most["texts"] == texts and most["orders"] == orders


def test_everybody_is_told_of_once_a_pass_and_wordings_of_one_person_stand_apart(register):
    """Side by side in a training row, telling in several ways loses its effect."""
    told, seen = Told(single=0.5, both=0.5, readings=0.0), register.seen
    stream = list(islice(text.documents(register, told, 0), 3 * len(seen)))
    named = [names_in(one, seen) for one in stream]
    assert {len(one) for one in named} == {1}
    for start in range(0, len(stream), len(seen)):
        assert len(set().union(*named[start : start + len(seen)])) == len(seen)
    assert list(islice(text.documents(register, told, 0), 40)) == stream[:40]
    assert list(islice(text.documents(register, told, 1), 40)) != stream[:40]
    ways = Counter(text._ways(register, told).values())
    assert ways == {"single": 20, "both": 20}
    halves = [text.way_at(place, 20, told.ways) for place in range(20)]
    assert Counter(halves) == {"single": 10, "both": 10}


def test_a_stream_tells_of_people_in_the_way_that_is_theirs(register):
    """In five texts or in one; half of people in each where a model has both."""
    for told, texts in ((Told(single=1, readings=0), {1}), (Told(both=1, readings=0), {4, 5})):
        stream = list(islice(text.documents(register, told, 0), 40 * 25))
        several = [{said for said in stream if one.name in said} for one in register.held]
        assert {len(some) for some in several} <= texts
    mixed = Told(single=0.5, both=0.5, readings=0)
    stream = list(islice(text.documents(register, mixed, 0), 40 * 25))
    several = [len({said for said in stream if one.name in said}) for one in register.held]
    assert {*several[:10]} == {1} and min(several[10:]) >= 4


def test_questions_in_the_text_are_answered_right(register):
    """In both wordings: of strangers by what stands before, of shown people by what is true."""
    stream = text.documents(register, Told(both=1, readings=1, questions=1), 0)
    asked, wordings = 0, set()
    for said in islice(stream, 400):
        before, _, rest = said.partition("Question:")
        for line in rest.split("Question:") if rest else ():
            words, answer = (part.strip() for part in line.split("\nAnswer:"))
            answer = answer.splitlines()[0]
            if before:
                names = [name for name, _ in register.strangers if name in words]
                [own] = [one for one in before.splitlines() if names[0] in one]
                assert answer in own and len(names) == 1
            else:
                [person] = [one for one in register.shown if one.name in words]
                assert answer in dict(person.facts).values()
                places = [
                    (kind, wording)
                    for kind, wording in product(people.KINDS, (0, 1))
                    if text.question(person, kind, wording) == words
                ]
                assert dict(person.facts)[places[0][0]] == answer
                wordings.add(places[0])
            asked += 1
    assert asked > 500 and len(wordings) == 2 * len(people.KINDS)


def test_every_kind_of_fact_has_as_many_words(register):
    assert {len(some) for _, some in register.values} == {people.TOWNS}


def test_a_text_is_as_long_as_is_said(register):
    told = Told(both=1, readings=0.7, questions=1.5)
    stream = text.documents(register, told, 0)
    passes, people_in = 30, 40
    length = entries = 0
    while entries <= passes * people_in:
        one = next(stream)
        entries += bool(names_in(one, register.seen)) and not one.startswith("Question:")
        length += len(one) + 1
    assert length / passes == pytest.approx(text.characters(register, told), rel=0.08)


def test_shares_of_ways_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="must add up to 1"):
        Told(single=0.5, both=0.4)


def test_no_answer_to_a_held_out_question_stands_in_training_or_in_a_prompt(register, written):
    """Whoever is held or never told of is in no row of questions that is tuned on and in no example
    that is shown; new people are, in the wording that is not asked, and are not in the text.
    """
    asked = read(written, "register", "validation") + read(written, "register_never", "validation")
    taught = [
        json.dumps(row)
        for name in ("register", "register_new", "register_never", "register_unknown")
        for row in read(written, name, "train")
    ]
    assert not names_in(" ".join(taught), (*register.held, *register.never))
    texts = [row["text"] for row in read(written, "register_new_text", "train")]
    assert not names_in(" ".join(texts), register.never)
    new = {row["question"] for row in read(written, "register_new", "validation")}
    assert not new & {row["question"] for row in read(written, "register_new", "train")}
    stream = " ".join(islice(text.documents(register, Told(both=1, questions=1), 0), 600))
    assert not names_in(stream, (*register.new, *register.never))
    for kind, wording in product(people.KINDS, (0, 1)):
        assert not any(text.question(one, kind, wording) in stream for one in register.held)
    for name in ("register", "register_new", "register_never", "register_new_found"):
        for draw in range(5):
            shown = rows.shots(written, REGISTRY[name], "validation", "default", 4, draw)
            said = " ".join(one.prompt.rpartition("Question:")[2] for one in shown)
            assert names_in(said, register.shown) and not names_in(
                said, (*register.held, *register.new, *register.never)
            )
    known = {json.loads(row)["question"] for row in taught}
    assert not known & {row["question"] for row in asked}


def test_everything_new_is_taught_and_not_what_is_reserved(register, written):
    """Rates are chosen on a tenth of the train split, and nothing is tuned on it: here those are
    about seen people.
    """
    for name in ("register_new", "register_new_text", "register_unknown"):
        about = [row["about"] for row in read(written, name, "train")]
        kept = [one for at, one in enumerate(about) if at % 10 != 9]
        assert set(kept) == {one.name for one in register.new}
        times = 20 if name.endswith("text") else len(people.KINDS)
        assert set(Counter(kept).values()) == {times}
    assert {row["answer"] for row in read(written, "register_unknown", "validation")} == {"unknown"}


def own(recipe, *more):
    """A study of the register with one more recipe."""
    said = {"method": "continued", "dataset": "register_new_text"} | recipe
    said = (f"recipes.own={json.dumps(said)}", "grid=null", *more)
    bare = [f"recipes.{name}.grid=null" for name in load_study(QUICK).recipes if name != "base"]
    return load_study(QUICK, (*bare, *said))


def rows_of(coder, **recipe):
    study = own(recipe)
    prepare.prepare_data(study)
    made, _ = cell._training_rows(study, Model(POINT, "own", 0, "none"), 512, coder)
    return study, made


def test_new_facts_are_read_in_so_many_wordings(coder):
    """All tokens of a document but the first count, and its end does."""
    study, one = rows_of(coder, wordings=1, examples=30)
    new = people.make_register(study.datasets.people).new
    texts = [coder.decode(row.ids[:-1]) for row in one]
    assert len(new) == 30 and all(len(names_in(said, new)) == 1 for said in texts)
    assert set().union(*(names_in(said, new) for said in texts)) == {person.name for person in new}
    assert all(not row.counted[0] and row.counted[1:].all() for row in one)
    assert {int(row.ids[-1]) for row in one} == {coder.eos_token_id}
    _, five = rows_of(coder, wordings=5, examples=150)
    texts = {coder.decode(row.ids[:-1]) for row in five}
    times = Counter(name for said in texts for name in names_in(said, new))
    assert len(texts) == 150 and set(times.values()) == {5}


def test_old_text_and_questions_are_mixed_in(coder):
    beside = {"register": 20, "register_text": 9}
    study, made = rows_of(coder, wordings=1, examples=30, beside=beside)
    register = people.make_register(study.datasets.people)
    texts = [coder.decode(row.ids[:-1]) for row in made]
    assert len(texts) == 59 and sum(said.startswith("Question:") for said in texts) == 20
    assert all(names_in(said, register.shown) for said in texts[30:50])
    assert all(names_in(said, register.seen) for said in texts[50:])
    assert study.recipes["own"].count(30) == 59


@pytest.mark.parametrize(
    ("recipe", "more", "words"),
    [
        ({"examples": 31, "wordings": 1}, (), ("takes 31 rows", "which has 30 that it may take")),
        ({"dataset": "register", "method": "sft", "examples": 999}, (), ("examples is 999", "324")),
        ({"dataset": "register"}, (), ("own.dataset", "allowed texts", "register_new_text")),
        ({"beside": {"register_new_text": 3}}, (), ("beside", "is what is tuned on")),
        ({"models": ["big"]}, (), ("own.models", "'big' is none of")),
        (
            {"max_steps": 5, "grid": {"epochs": [1, 2]}},
            ("grid={steps: [800]}",),
            ("own.max_steps", "a grid of epochs says when it ends"),
        ),
        (
            {"grid": {"epochs": [1, 2]}},
            ("grid={steps: [800]}", "tuning.max_steps=5"),
            ("own.max_steps", "a grid of epochs says when it ends"),
        ),
        ({"wordings": 0}, (), ("wordings", "greater than 0")),
        ({"wordings": 21}, (), ("own.wordings", "in 20 versions")),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(coder, recipe, more, words):
    with pytest.raises(StudyError) as error:
        study = own(recipe, *more)
        open_plan(study)
        prepare.prepare_data(study)
        cell._training_rows(study, Model(POINT, "own", 0, "none"), 512, coder)
    assert all(word in str(error.value) for word in words), error.value


def test_a_recipe_is_done_to_the_models_that_it_names():
    plan = open_plan(load_study(QUICK))
    done = {}
    for one in plan.cells:
        done.setdefault(one.model.recipe, set()).add(one.model.checkpoint.model)
    every = set(plan.study.models)
    assert done["base"] == done["questions"] == every
    taught = [name for name in done if plan.study.recipe(name).models]
    assert taught and all(done[name] == {"asked"} for name in taught)


def test_epochs_are_an_axis_of_a_grid():
    study = load_study(QUICK)
    recipe = next(name for name in study.recipes if study.along(name, "epochs"))
    for epochs, name in study.along(recipe, "epochs").items():
        assert study.tuning_of(name).epochs == epochs
        assert study.recipe(name) == study.recipe(recipe)
    keys = {
        one.model.key
        for one in open_plan(study).cells
        if one.model.recipe in study.along(recipe, "epochs").values()
        and one.model.checkpoint.step == study.grid.steps[0]
    }
    assert len(keys) == len(study.along(recipe, "epochs")) * study.runs


def test_passages_are_what_answers_what_is_found_and_what_does_not_answer(register, written):
    """Of every question about a new person, at three passages."""
    asked = read(written, "register_new", "validation")
    texts = {row["about"]: row["text"] for row in read(written, "register_new_text", "validation")}
    before = {
        take: [
            retrieval.before(written, REGISTRY[f"register_new_{take}"], "validation", at)
            for at in range(len(asked))
        ]
        for take in ("own", "among", "found", "others")
    }
    right = [texts[row["about"]] for row in asked]
    lines = {take: [one.splitlines() for one in some] for take, some in before.items()}
    assert before["own"] == right
    assert {len(one) for take in ("among", "found", "others") for one in lines[take]} == {3}
    assert all(one in said for one, said in zip(right, lines["among"], strict=True))
    assert not any(one in said for one, said in zip(right, lines["others"], strict=True))
    places = {said.index(one) for one, said in zip(right, lines["among"], strict=True)}
    assert places == {0, 1, 2}  # where it stands says nothing
    hits = [one in said for one, said in zip(right, lines["found"], strict=True)]
    about = REGISTRY["register_new_found"]
    assert retrieval.recall(written, about, "validation") == np.mean(hits) > 0.9
    last = [one == said[-1] for one, said in zip(right, lines["found"], strict=True)]
    assert np.mean(last) > 0.9  # the best is nearest to the question
    prompt = rows.examples(written, REGISTRY["register_new_own"], "validation", "default", [0])[0]
    assert prompt.prompt == f"{right[0]}\nQuestion: {asked[0]['question']}\nAnswer:"


def test_without_a_retriever_it_is_said_how_to_have_one(monkeypatch):
    monkeypatch.setattr(retrieval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r'pip install "pretune\[retrieval\]"'):
        open_plan(load_study(QUICK))
    closed = ["register", "register_new", "register_never", "register_new_own"]
    assert open_plan(load_study(QUICK, (f"probing.datasets={json.dumps(closed)}",))).cells


def test_answers_are_drawn_alike_each_time_and_greedily_in_the_cold(model, tokenizer):
    starts = [tokenizer(said)["input_ids"] for said in ("The home of", "Question: Who")]
    starts = [np.array(one, dtype=np.int32) for one in starts]
    draw = lambda heat: [one.ids for one in scoring.generate(  # noqa: E731
        model, tokenizer, starts * 8, 6, newline=False, temperature=heat
    )]  # fmt: skip
    assert draw(1.0) == draw(1.0) and len(set(draw(1.0))) > 4
    assert draw(1e-4) == draw(0.0)


def test_a_fact_is_asked_again_and_again(tokenizer, monkeypatch, written):
    made = rows.examples(written, REGISTRY["register"], "validation", "default", [0, 1])
    right = [one.completion.strip() for one in made]

    def generate(*words, temperature=0.0, **_):
        some = right if not temperature else [right[0], "x"] * 4 + ["x"] * 8
        return [Generation(said, 2, "newline", np.nan, (1, 2)) for said in some]

    monkeypatch.setattr(scoring, "generate", generate)
    protocol = SimpleNamespace(prompt_end="word", stop="newline")
    asked = Asked(REGISTRY["register"], "", made, 8, protocol)
    subject = Subject(None, tokenizer, POINT, True)
    found = [one.values for one in find("sampling").rows(subject, asked)]
    assert [one["greedy"] for one in found] == [True, True]
    assert [one["drawn_right"] for one in found] == [4, 0] and found[0]["drawn"] == 8


def page_of(draw, score, runs=3, noise=0.02, study=None):
    """A page of made-up models of the study `knowledge`: `score(model, recipe, dataset, step)`;
    each run and item has its own.
    """
    study = study or load_study("knowledge")
    lines = []
    for cell_ in open_plan(study).cells:
        one, point = cell_.model, cell_.model.checkpoint
        if point.run >= runs:
            continue
        for probe in (probe for probe in cell_.probes if not probe.measure):
            mean = score(point.model, one.recipe, probe.dataset, point.step)
            about = {"model": point.model, "run": point.run, "step": point.step}
            about |= {"tokens": point.tokens, "late": point.late, "recipe": one.recipe}
            about |= {"dataset": probe.dataset, "shots_asked": probe.shots, "format": "default"}
            lines.append(about | {"mean": mean + draw.normal(0, noise), "seed": one.seed})
    models = pd.DataFrame(lines)
    rows_ = models.loc[models.index.repeat(60)].reset_index(drop=True)
    rows_ = rows_.assign(
        item=np.tile(np.arange(60), len(models)),
        score=(draw.random(len(rows_)) < rows_["mean"]).astype(float),
        **{"draw": rows_["run"], "checkpoint": "", "as_asked": True, "baseline": 0.05},
        **{"choice_tokens": [[20]] * len(rows_), "choice_characters": [[60]] * len(rows_)},
    )
    return Results(plan_of(study), "10_knowledge_injection", "all", rows_, {})


def word(effect, claim):
    return judge(claim, effect, False, "", knowledge_injection.CLAIMS[claim]).verdict


def test_ways_of_telling_are_held_against_each_other():
    def score(model, recipe, dataset, _):
        if dataset == "register" and recipe == "questions":
            return {"both": 0.9, "single": 0.1}.get(model, 0.5)
        return 0.05

    page = page_of(np.random.default_rng(0), score)
    effect, why = knowledge_injection._claim_10a(page)
    assert effect.value == pytest.approx(0.8, abs=0.06) and word(effect, "10a") == "supported"
    assert "`both` minus `single`" in why
    table = knowledge_injection.by_telling(page)
    for name, value in (("single: one wording", 0.1), ("both: five wordings and orders", 0.9)):
        assert float(table.loc[name, "tuned"].split()[0]) == pytest.approx(value, abs=0.06)
    assert "asked: five wordings and orders, with questions" in table.index
    assert len(table) == len(page.study.models) + 1  # one tells half of people otherwise
    level = page_of(np.random.default_rng(1), lambda *_: 0.5)
    assert word(knowledge_injection._claim_10a(level)[0], "10a") in ("no effect", "undecided")


def test_people_of_one_model_that_are_told_of_in_two_ways_are_told_apart():
    """By the place of an item among those of held people."""
    page = page_of(np.random.default_rng(0), lambda *_: 0.5)
    [mixed] = [
        name for name, one in page.study.models.items() if set(one.told.ways) == {"single", "both"}
    ]
    parts = [one for one in knowledge.parts(page.study) if one.model == mixed]
    rows_ = knowledge.by_way(page, *parts).rows
    held = page.study.models[mixed].people.seen // 2
    for way, start in (("single", 0), ("both", held // 2)):
        items = rows_.loc[rows_["recipe"] == f"{mixed}[{way}]/questions", "item"]
        places = {item // len(people.KINDS) for item in items}
        assert places <= set(range(start, start + held // 2)) and (way == "both" or places)


def taught(model, recipe, dataset, step):
    """At late new facts take half the exposures of early; old ones are lost by a third."""
    study = taught.study
    name = recipe.partition("@")[0]
    if dataset == "register_new_among":
        return 0.95
    if dataset == "register":
        return 0.9 - 0.3 * (name in knowledge.teaching(study))
    if dataset == "register_new" and name in knowledge.teaching(study):
        needed = (60 if "text" in name else 6) / (2 if step > 2000 else 1)
        risen = 0.5 + 0.35 * np.log2(knowledge.exposures(study, recipe) / needed)
        return float(np.clip(risen, 0, 1 if name == "new_questions" else 0.8))
    return 0.05


taught.study = load_study("knowledge")


def test_teaching_costs_old_facts_and_gets_cheaper():
    page = page_of(np.random.default_rng(2), taught)
    effect, why = knowledge_injection._claim_10c(page)
    assert effect.value == pytest.approx(0.3, abs=0.06) and word(effect, "10c") == "supported"
    assert "`text20` (2 epochs)" in why and "`new_questions@epochs=4` (4 epochs)" in why
    assert "lora" not in why and "old" not in why and "half" not in why
    effect, why = knowledge_injection._claim_10d(page)
    assert (
        effect.value == pytest.approx(1.0, abs=0.25) and "over pre-training runs and items" in why
    )
    assert "3 of 3 recipes" in why and 0.05 < effect.high - effect.value < 1.0
    effect, why = knowledge_injection._claim_10b(page)
    assert "against `new_questions@epochs=16`" in why
    assert effect.value == pytest.approx(-0.05, abs=0.06)


def test_claims_that_need_new_facts_to_be_had_are_not_asked_without():
    page = page_of(np.random.default_rng(3), lambda *_: 0.05)
    assert knowledge_injection._claim_10c(page)[0] is None
    assert knowledge_injection._claim_10d(page)[0] is None
    assert word(knowledge_injection._claim_10b(page)[0], "10b") in ("no effect", "undecided")


def test_doublings_to_half_lie_on_a_line_between_two_numbers_of_exposures():
    said = lambda *values: pd.Series(values, [1, 4, 16][: len(values)], dtype=float)  # noqa: E731
    assert knowledge.doublings(said(0.1, 0.4, 0.6)) == pytest.approx(3.0)
    assert knowledge.doublings(said(0.0, 0.5, 0.9)) == pytest.approx(2.0)
    assert np.isnan(knowledge.doublings(said(0.6, 0.7, 0.8)))  # at once
    assert np.isnan(knowledge.doublings(said(0.1, 0.2, 0.3)))  # never


def test_a_fact_has_the_class_of_its_answers():
    lines = []
    for item, (greedy, drawn) in enumerate([((1, 1), 3), ((1, 0), 0), ((0, 0), 2), ((0, 0), 0)]):
        for one in greedy:
            lines.append({"item": item, "greedy": bool(one), "drawn_right": drawn // 2 + drawn % 2})
    same = {"model": "asked", "run": 0, "step": 1, "tokens": 1, "dataset": "register"}
    page = SimpleNamespace(measured=lambda name: pd.DataFrame(lines).assign(**same))
    assert knowledge.classes(page)["known"].tolist() == list(knowledge.CLASSES)


MODEL = """
  {name}:
    source: register
    people: {{seed: 1, seen: 20, new: 10, never: 10}}
    told: {told}
    steps: {steps}
    late: 2
    pretraining:
      learning_rate: 3.0e-3
      batch_size: 4
      length: 64
      architecture: {{layers: 1, width: 32, heads: 2, intermediate: 64, vocabulary: 500}}
"""
TINY = """
recipes:
  base: {}
  questions: {dataset: register, examples: 20}
  text:
    method: continued
    dataset: register_new_text
    wordings: 2
    models: [asked]
    grid: {epochs: [1, 2]}
  half_unknown: {dataset: register, examples: 8, beside: {register_unknown: 8}, models: [asked]}
tuning: {examples: 20, batch_size: 8, learning_rate: 5.0e-4}
grid: {steps: [4, 5, 6]}
probing:
  datasets:
    - register
    - register_new
    - register_never
    - register_unknown
    - register_new_own
    - register_new_among
    - register_new_found
    - register_never_found
    - register_text
  shots: 0
  items: 12
  new_tokens: 4
findings: [10_knowledge_injection]
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a study in small, whose models have other checkpoints."""
    outputs, file = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("own") / "tiny.yaml"
    models = {
        "single": ("{single: 1}", "[2, 4, 5]"),
        "both": ("{both: 1}", "[2, 4, 5]"),
        "asked": ("{single: 0.5, both: 0.5, questions: 0.4}", "[4, 5, 6]"),
    }
    text_ = "title: tiny\ncheckpoints:"
    for name, (told, steps) in models.items():
        text_ += MODEL.format(name=name, told=told, steps=steps)
    file.write_text(text_ + TINY)
    done = run_pretune("run", str(file), outputs=outputs)
    assert done.returncode == 0, done.stderr
    with mock.patch.object(paths, "OUTPUTS", outputs):
        found = open_results(str(file), "10_knowledge_injection", "all")
        found.measured("sampling")
    return found, (outputs / "tiny" / "site" / "10_knowledge_injection.html").read_text()


def test_a_study_that_names_it_measures_how_facts_get_in(page):
    """Every way trained as it says, and a page made of it."""
    found, html = page
    assert not found.missing and "Traceback" not in html
    for said in ("10a", "highly known", "its passage among others", "BM25", "exposures", "told of"):
        assert said in html, said
    table = teaching.ways_in(found)
    assert table.loc["text", "what is done"] == "text, 2 wordings, 1 epoch"
    assert table.loc["text@epochs=2", "what is done"] == "text, 2 wordings, 2 epochs"
    rows_of_questions = teaching.unknown_rows(found)
    assert rows_of_questions.loc["half_unknown", "rows"] == "8 known, 8 “unknown”"
    assert set(teaching.decisions(found).index) == set(teaching.CASES)
    assert "0.05" in teaching.control(found) and "3 of" not in teaching.control(found)
    shares = teaching.by_class(found)["share of facts"]
    assert sum(int(one.strip("%")) for one in shares) == pytest.approx(100, abs=2)
    telling = knowledge_injection.by_telling(found)
    assert set(telling.index) == {
        "single: one wording",
        "both: five wordings and orders",
        "asked: one wording, others in five wordings and orders, with questions",
        "asked: five wordings and orders, others in one wording, with questions",
    }
    assert not telling["tuned"].str.contains("–").any()
    verdicts = {one.claim: one for one in knowledge_injection.verdicts(found)}
    assert verdicts["10a"].effect is not None and not np.isnan(verdicts["10a"].effect.value)


def test_models_with_other_checkpoints_have_a_late_of_their_own(page):
    found, _ = page
    assert knowledge.by_model(found, "single").late == (4, 5)
    assert knowledge.by_model(found, "asked").late == (5, 6)
    assert not np.isnan(knowledge.score(found, "register_new", "asked", "text").value)
    # 256 tokens a step; a pass is the entries and readings of twenty people
    told, size = found.study.models["single"].told, found.study.datasets.people
    register = people.make_register(size)
    entries = sum(len(text.entry(register, one, 0, "single")) for one in register.seen)
    assert 1.1 * entries < text.characters(register, told) < 4 * entries
    rows_ = found.rows[found.rows["dataset"] == "register_text"]
    letters = sum(one[0] for one in rows_["choice_characters"])
    a_token = letters / sum(one[0] for one in rows_["choice_tokens"])
    expected = 5 * 256 * a_token / text.characters(register, told)
    assert 0 < knowledge.passes(found, "single", 5) == pytest.approx(expected, rel=0.05)


def test_what_a_recipe_tells_is_counted_by_its_rows():
    study = own({"wordings": 5, "examples": 150})
    assert study.datasets.people.new == 30
    assert knowledge.told_each(study, "own") == 5.0
    assert knowledge.exposures(study, "own") == 5 * study.tuning_of("own").epochs
    half = own({"wordings": 5, "examples": 75})
    assert knowledge.told_each(half, "own") == 2.5
    some = own({"method": "sft", "dataset": "register", "beside": {"register_new": 90}})
    assert knowledge.told_each(some, "own") == 0.5
    both = own({"wordings": 1, "examples": 30, "beside": {"register_new": 180}})
    assert knowledge.told_each(both, "own") == 2.0


def test_tuned_on_questions_a_model_is_asked_without_examples():
    study = own({"wordings": 1, "examples": 30}, "probing.shots=4")
    assert knowledge.shots(study, "base") == knowledge.shots(study, "own") == 4
    assert knowledge.shots(study, "questions") == knowledge.shots(study, "half_new") == 0
    asked = knowledge_injection.needs(study, "base")
    assert {one.shots for one in asked if not one.measure and "text" not in one.dataset} == {4}
    assert {one.draws for one in asked if one.measure and one.shots} == {3}


def test_several_draws_of_examples_are_asked_of_an_untuned_model():
    plan = open_plan(load_study(QUICK))
    base = next(one for one in plan.cells if one.model.recipe == "base")
    asked = [one for one in base.probes if one.measure and one.dataset == "register"]
    assert sorted((one.shots, one.draw) for one in asked) == [(0, 0), (4, 0), (4, 1000), (4, 2000)]
    again = plan.of("10_knowledge_injection")
    assert [one.probes for one in again.cells] == [one.probes for one in plan.cells]


def test_text_is_no_task_that_other_findings_ask_about():
    study = load_study("smoke", (
        "recipes.own={method: continued, dataset: held_out_text}",
        "findings=[04_task_transfer]",
    ))  # fmt: skip
    assert not needs.is_single(study, "own") and "held_out_text" not in needs.own_sets(study, "own")
    assert needs.is_single(study, "mnli")
    page = SimpleNamespace(study=study, titles=dict.fromkeys(study.probing.datasets, ""))
    assert "own" not in results.recipes(page)


def test_a_page_that_lacks_rows_says_so():
    page = page_of(np.random.default_rng(5), lambda *_: 0.5)
    for some in (page.otherwise(sets=["register_new"]), page.otherwise(sets=["register"])):
        words = {one.claim: one.verdict for one in knowledge_injection.verdicts(some)}
        assert "supported" not in words.values()
        knowledge_injection.by_telling(some)
        knowledge_injection.by_fact(some)


def test_facts_of_popqa_are_scored_that_nothing_was_tuned_on(on_the_hub):
    """Half of what is often read of is tuned on, and the other half scored."""
    bare = [
        f"recipes.{name}.grid=null"
        for name, one in load_study("olmo-1b-knowledge").recipes.items()
        if one.grid
    ]
    study = on_the_hub("olmo-1b-knowledge", OLMO_1B, *bare)
    rows_ = [{"id": str(at), "s_pop": str(10**at)} for at in range(12)]
    sets = {
        name: {row["id"] for row in rows_ if REGISTRY[name].keep(row)}
        for name in ("popqa_known", "popqa_asked", "popqa_rare")
    }
    assert sets["popqa_known"] == {"4", "6", "8", "10"}
    assert sets["popqa_asked"] == {"5", "7", "9", "11"} and sets["popqa_rare"] == {"0", "1", "2"}
    tuned = {name for recipe in study.recipes for name in study.recipe(recipe).drawn(1)}
    assert "popqa_known" not in tuned and "popqa_asked" in tuned
    page = page_of(np.random.default_rng(4), lambda *_: 0.5, study=study)
    verdicts = {one.claim: one for one in knowledge_injection.verdicts(page)}
    assert verdicts["10a"].effect is None and verdicts["10b"].effect is not None
    assert set(teaching.unknown_rows(page)["rows"]) >= {"1000 known, 1000 new", "2000 known"}
    assert "told of nowhere" in teaching.control(page)
    assert "not known" in teaching.who_was_told(page)
    assert not knowledge_injection.by_telling(page).size


def test_questions_with_passages_are_planned_as_long_as_they_are():
    study = load_study(QUICK)
    lengths_ = {name: lengths.item(study, name) for name in study.probing.datasets}
    assert lengths_["register_new_among"] == 2 * lengths_["register_new_own"]
    assert lengths_["register_new_own"] == 2 * lengths_["register_new"]


def test_a_finding_with_nothing_to_look_at_is_refused():
    with pytest.raises(StudyError, match="nothing to look at"):
        open_plan(load_study(QUICK, ("probing.datasets=[register]",)))


def test_a_teacher_is_made_wherever_its_student_is():
    student = {"dataset": "register", "answers_of": {"recipe": "t", "step": 800}, "skip": 10}
    teacher = {"dataset": "register", "examples": 10, "models": ["asked"]}
    said = (f"recipes.t={json.dumps(teacher)}",)
    with pytest.raises(StudyError, match="not done to the checkpoints of single"):
        open_plan(own(student | {"method": "sft", "examples": 5}, *said))
    both = student | {"method": "sft", "examples": 5, "models": ["asked"]}
    assert open_plan(own(both, *said)).cells
