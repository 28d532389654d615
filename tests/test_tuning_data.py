"""Finding 9: which rows recipes train on, what models write, and what is said of made-up models
over the amount of data.
"""

import json
import shutil
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import OUTPUTS, ROOT, plan_of, run_pretune
from pretune import paths
from pretune.analysis import amounts, contrasts, treatments, written
from pretune.analysis.claims import judge
from pretune.analysis.results import Results
from pretune.analysis.scores import Term
from pretune.errors import StudyError
from pretune.findings import tuning_data
from pretune.measures import find, writing
from pretune.measures.base import Asked, Subject
from pretune.models import loading, scoring, tuned
from pretune.models.checkpoint import Checkpoint
from pretune.models.scoring import Generation
from pretune.plan import costs, lengths
from pretune.plan.cells import Cell, Model, Plan
from pretune.plan.needs import Need
from pretune.recipes.base import Asking
from pretune.report.open import open_results
from pretune.run import cell, cluster, parcel, prepare, validate
from pretune.run.waiting import Waiting
from pretune.sources import datasets
from pretune.study.load import load_study
from pretune.tasks.example import USER
from pretune.tasks.registry import REGISTRY

POINT = Checkpoint("step-0", 0, "pretraining", 0, 0, "none", paths.ROOT / "nowhere", False)
NOT_ASKED = Asking(None, None)


def study_with(**recipe):
    """The smoke study with one more recipe, `own`, of MNLI unless it says otherwise."""
    said = {"dataset": "mnli"} | recipe
    return load_study("smoke", (f"recipes.own={json.dumps(said)}",))


def rows_with(tokenizer, asking=NOT_ASKED, seed=0, **recipe):
    """The rows that such a recipe trains on."""
    study = study_with(**recipe)
    prepare.prepare_data(study)
    made, _ = cell._training_rows(study, Model(POINT, "own", seed, "none"), 512, tokenizer)
    return study.recipes["own"].finished(made, study.tuning_of("own"), asking)


def said(tokenizer, row):
    """Prompt and answer of a training row."""
    start = int(row.counted.argmax())
    parts = (tokenizer.decode(part) for part in (row.ids[:start], row.ids[start:-1]))
    return tuple(part.strip() for part in parts)


@pytest.mark.parametrize("dataset", ["mnli", "arc_easy", "xsum"])
def test_a_share_of_answers_is_wrong(tokenizer, dataset):
    """So many and no more, each an answer that the set has; prompts and the rest stay. Of a smaller
    share they are some of those of a larger.
    """
    clean = rows_with(tokenizer, dataset=dataset)
    few, many = (rows_with(tokenizer, dataset=dataset, wrong=share) for share in (0.2, 0.4))
    marked = [{at for at, row in enumerate(rows) if row.is_wrong} for rows in (few, many)]
    assert [len(some) for some in marked] == [10, 19] and marked[0] < marked[1]
    answers = {said(tokenizer, row)[1] for row in clean}
    for at, (right, wrong) in enumerate(zip(clean, many, strict=True)):
        (prompt, answer), (same, other) = (said(tokenizer, row) for row in (right, wrong))
        assert prompt == same and (answer != other) == (at in marked[1])
        if dataset == "mnli":
            assert other in answers
    assert not any(row.is_wrong for row in clean)


def test_few_examples_are_the_first_of_many(tokenizer):
    many = [said(tokenizer, row) for row in rows_with(tokenizer, examples=48)]
    few = [said(tokenizer, row) for row in rows_with(tokenizer, examples=16)]
    later = rows_with(tokenizer, examples=16, skip=16, wrong=0.25)
    assert few == many[:16] and [said(tokenizer, row)[0] for row in later] == [
        prompt for prompt, _ in many[16:32]
    ]
    assert sum(row.is_wrong for row in later) == 4


def test_one_kind_of_request_is_asked_for_by_its_first_words(tokenizer):
    """Of a conversation its first exchange, where that is asked for; more than there are is refused
    before anything is trained.
    """
    words = {"dataset": "tulu_v2", "opening": "Do you know", "examples": 40}
    texts = [tokenizer.decode(row.ids) for row in rows_with(tokenizer, **words)]
    assert all(one.startswith(f"{USER}Do you know") for one in texts) and len(texts) == 40
    assert max(one.count(USER) for one in texts) > 1
    alone = rows_with(tokenizer, **words, first_exchange=True)
    assert {tokenizer.decode(row.ids).count(USER) for row in alone} == {1}
    assert not validate.faults(study_with(**words))
    [fault] = validate.faults(study_with(**words | {"opening": "Do you know him", "examples": 9}))
    assert "own takes 9 rows of its train split, which has 0 that it may take" in fault


def test_rows_of_other_sets_are_mixed_in(tokenizer):
    rows = rows_with(tokenizer, examples=12, beside={"xsum": 5, "arc_easy": 3})
    own = [said(tokenizer, row) for row in rows_with(tokenizer, examples=12)]
    assert len(rows) == 20 and [said(tokenizer, row) for row in rows[:12]] == own
    alone = [said(tokenizer, row) for row in rows_with(tokenizer, dataset="xsum", examples=5)]
    assert [said(tokenizer, row) for row in rows[12:17]] == alone


def test_a_part_is_chosen_by_length_or_by_loss(tokenizer):
    pool = rows_with(tokenizer, dataset="xsum", examples=24, wrong=0.25)
    long = rows_with(
        tokenizer,
        dataset="xsum",
        examples=6,
        wrong=0.25,
        filtered={"by": "length", "keep": "highest", "of": 4},
    )
    sizes = sorted(int(row.counted.sum()) for row in pool)
    assert sorted(int(row.counted.sum()) for row in long) == sizes[-6:]
    asked = []

    def losses(rows):
        asked.append(len(rows))
        return [float(row.is_wrong) for row in rows]

    likely = rows_with(
        tokenizer,
        Asking(losses, None),
        dataset="xsum",
        examples=6,
        wrong=0.25,
        beside={"arc_easy": 2},
        filtered={"by": "loss", "keep": "lowest", "of": 4},
    )
    assert asked == [24] and len(likely) == 8 and not any(row.is_wrong for row in likely)


def test_a_student_is_not_asked_what_its_teacher_was_tuned_on(tokenizer):
    """Nor the same question with other answers to choose from."""
    how = {"dataset": "fact_recall", "distinct": True}
    teacher = rows_with(tokenizer, examples=12, **how)
    student = rows_with(tokenizer, examples=8, skip=12, **how)
    asked = [{said(tokenizer, row)[0] for row in rows} for rows in (teacher, student)]
    assert len(asked[0]) == 12 and len(asked[1]) == 8 and not asked[0] & asked[1]
    [fault] = validate.faults(study_with(**how, examples=100, skip=500))
    assert "own takes 600 rows" in fault


def test_a_student_is_tuned_on_what_its_teacher_writes(tokenizer):
    answer = np.array([*tokenizer(" in a far town.")["input_ids"], tokenizer.eos_token_id])
    rows = rows_with(
        tokenizer,
        Asking(None, lambda starts: [answer for _ in starts]),
        dataset="tulu_v2",
        examples=20,
        answers_of={"recipe": "instruct", "step": 40},
    )
    right = rows_with(tokenizer, dataset="tulu_v2", examples=20)
    for row, other in zip(rows, right, strict=True):
        start = int(other.counted.argmax())
        assert (row.ids[:start] == other.ids[:start]).all() and (row.ids[start:] == answer).all()
        assert not row.counted[:start].any() and row.counted[start:].all()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"dataset": "tulu_v2", "wrong": 0.2}, ("own.wrong", "conversations")),
        ({"opening": "Do you"}, ("own.opening", "conversations")),
        ({"skip": -1}, ("skip", "greater than or equal to 0")),
        ({"first_exchange": True}, ("own.first_exchange", "conversations")),
        ({"beside": {"tulu_v2": 3}}, ("own.beside", "not mixed in")),
        (
            {"answers_of": {"recipe": "mnli", "step": 40}, "skip": 40},
            ("own.skip", "the first 48 rows: skip as many"),
        ),
        (
            {"dataset": "xsum", "wrong": 0.2, "answers_of": {"recipe": "mnli", "step": 40}},
            ("own.wrong", "stay as they are"),
        ),
        (
            {"dataset": "tulu_v2", "answers_of": {"recipe": "own", "step": 40}},
            ("answers_of.recipe", "allowed recipes: xsum, mnli, instruct, lora_mnli"),
        ),
        (
            {"dataset": "tulu_v2", "answers_of": {"recipe": "mnli", "step": 41}},
            ("own.answers_of.step", "allowed: 0, 20, 36, 38, 40"),
        ),
        ({"beside": {"nowhere": 3}}, ("own.beside.nowhere", "allowed datasets")),
        ({"beside": {"mnli": 3}}, ("beside", "raise its `examples`")),
        ({"wrong": 1.2}, ("wrong", "less than or equal to 1")),
        ({"max_steps": 0}, ("max_steps", "greater than 0")),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(recipe, words):
    with pytest.raises(StudyError) as error:
        plan_of(study_with(**recipe))
    assert all(word in str(error.value) for word in words), error.value


def key_with(**recipe):
    plan = plan_of(study_with(**recipe))
    return next(one.model.key for one in plan.cells if one.model.name == "step-40.own.0")


def test_each_option_makes_another_model():
    """And none, one that is known already."""
    chats = {"dataset": "tulu_v2"}
    options = [
        *({}, {"max_steps": 3}, {"wrong": 0.2}, {"wrong": 0.4}, {"beside": {"xsum": 4}}),
        *({"skip": 3}, {"distinct": True}),
        *({"filtered": {"by": by, "keep": "lowest", "of": 2}} for by in ("loss", "length")),
        *({"filtered": {"by": "loss", "keep": "highest", "of": of}} for of in (2, 3)),
        *(chats, chats | {"opening": "Do you"}, chats | {"first_exchange": True}),
        *(chats | {"answers_of": {"recipe": "mnli", "step": step}} for step in (36, 40)),
    ]
    keys = [key_with(**one) for one in options]
    assert len(set(keys)) == len(keys)
    known = plan_of(load_study("smoke")).cells
    assert keys[0] == next(one.model.key for one in known if one.model.name == "step-40.mnli.0")


def test_another_teacher_makes_another_student():
    """Tuned otherwise, or writing longer answers."""
    student = {"dataset": "tulu_v2", "answers_of": {"recipe": "mnli", "step": 40}}
    own, keys = f"recipes.own={json.dumps(student)}", set()
    for changed in ((), ("recipes.mnli.learning_rate=2.0e-3",), ("probing.new_tokens=8",)):
        plan = plan_of(load_study("smoke", (own, *changed)))
        keys |= {one.model.key for one in plan.cells if one.model.name == "step-40.own.0"}
    assert len(keys) == 3


def test_a_plan_counts_the_steps_that_are_asked_for():
    plan = plan_of(study_with(max_steps=30, beside={"xsum": 16}))
    cells = {one.model.name: one for one in plan.cells}
    one, plain = (costs.cell_cost(plan, cells[f"step-40.{name}.0"]) for name in ("own", "mnli"))
    assert one.trained_tokens == 10 * plain.trained_tokens  # thirty batches of 16 against three


def test_a_plan_counts_what_models_say_of_rows_and_the_rows_of_every_set():
    def cost(**recipe):
        cells = plan_of(study_with(examples=8, **recipe)).cells
        [one] = [one for one in cells if one.model.name == "step-40.own.0"]
        return costs.cell_cost(plan_of(study_with(examples=8, **recipe)), one)

    plain, by = cost(dataset="xsum"), {"keep": "lowest", "of": 3}
    read = cost(dataset="xsum", filtered={"by": "loss"} | by)
    assert read.scored_tokens - plain.scored_tokens == 24 * 60  # all that are drawn
    assert cost(dataset="xsum", filtered={"by": "length"} | by) == plain
    taught = cost(dataset="xsum", answers_of={"recipe": "mnli", "step": 40})
    assert taught.scored_tokens - plain.scored_tokens == 8 * (60 + 16)
    study = load_study("olmo-1b-data")
    short, long = (lengths.row(study, name, 2048) for name in ("mnli", "xsum"))
    assert short < lengths.row(study, "mixture", 2048) < long


def test_a_student_waits_for_the_checkpoint_of_its_teacher(tmp_path):
    def point(step):
        return Checkpoint(f"step-{step}", 0, "", step, 0, str(step), tmp_path / str(step), False)

    def appear(some):
        some.folder.mkdir()
        some.about.write_text("{}")

    early, late = point(1), point(2)
    teacher = Model(late, "instruct", 0, "teacher")
    student = Cell(Model(early, "student", 0, "student", teacher), ())
    waiting = Waiting([student])
    # what its teacher needs comes first: the other is held until that is there
    assert waiting.missing() == [late, early] and waiting.of(late) == [student]
    appear(early)
    assert waiting.missing() == [late] and not list(waiting.ready())
    appear(late)
    assert list(waiting.ready()) == [student]
    waiting.remove(student)
    assert not waiting and not waiting.of(late) and not waiting.missing()


def test_the_checkpoint_of_a_teacher_travels_with_its_student():
    """To machines that share no folder, where both lie in other outputs."""
    teacher = {"dataset": "tulu_v2", "answers_of": {"recipe": "mnli", "step": 40}}
    study = study_with(**teacher)
    [one] = [one for one in plan_of(study).cells if one.model.name == "step-20.own.0"]
    needed, _ = parcel.folders(study, one)
    assert {point.folder for point in one.model.points} < set(needed)
    assert [point.step for point in one.model.points] == [20, 40]
    moved = cluster._here(one, paths.CACHE).model  # of a caller whose outputs are our cache
    for here, there in zip(moved.points, one.model.points, strict=True):
        assert here.folder == paths.OUTPUTS / there.folder.relative_to(paths.CACHE)


def test_an_answer_counts_where_it_is_named_and_no_other(tokenizer, monkeypatch):
    study = load_study("smoke")
    prepare.prepare_data(study)
    from pretune.tasks import rows

    folder, dataset = datasets.data_folder(study), REGISTRY["rte"]
    made = rows.examples(folder, dataset, dataset.train, "default", list(range(6)))
    right = [one.completion.strip() for one in made]
    other = [next(c.strip() for c in one.choices if c.strip() != right[at])
             for at, one in enumerate(made)]  # fmt: skip
    texts = [right[0], f"Well, {right[1].upper()}.", other[2], "who knows", "", right[5] + "x"]
    monkeypatch.setattr(
        scoring,
        "generate",
        lambda *_, **__: [Generation(text, 3, "end", np.nan, (1,)) for text in texts],
    )
    asked = Asked(dataset, "", made, 8, study.protocol)
    subject = Subject(SimpleNamespace(), tokenizer, POINT, True)
    found = [one.values for one in find("writing").rows(subject, asked)]
    assert [one["right"] for one in found] == [True, True, False, False, False, False]
    assert [one["named"] for one in found] == [1, 1, 1, 0, 0, 0]


def test_the_longer_of_two_answers_is_named():
    known = writing.pattern(iter(["entailment", " no entailment"]))
    assert known.findall("No entailment here") == ["No entailment"]
    assert known.findall("entailment, no entailment") == ["entailment", "no entailment"]
    assert writing.pattern(iter(["tea", "tea house"])).findall("a tea house") == ["tea house"]


def test_text_has_the_right_form_where_it_ends_and_is_about_as_long_as_the_right_one():
    """From half to twice as long, the token that ended it aside."""
    page = page_of(np.random.default_rng(7), lambda *_: 0.5)
    text = page.rows["dataset"] == "xsum"
    lengths_ = [3, 4, 2, 11, 12, 5, 10]  # with an end token: 2, 3, 1, 10, 11; cut: 5, 10
    ends = ["end"] * 4 + ["newline"] + ["length"] * 2
    right = 4  # tokens of the right answer
    some = page.rows[text].head(7).assign(length=lengths_, stop=ends)
    some = some.assign(choice_tokens=[[right]] * 7)
    own = replace(page, rows=some)
    own._made["writing"] = page.measured("writing").head(0)
    assert written.written(own)["form"].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_no_number_of_examples_is_enough_where_nothing_was_learnt():
    page = page_of(np.random.default_rng(8), lambda tokens, *_: 0.1 + 0.6 * (tokens > 10**6))
    table = tuning_data.to_take_home(page)["examples"]
    table = table[["chat" not in name for name in table.index]]  # of which nothing is made up
    assert set(table[[name.endswith("step 100") for name in table.index]]) == {"–"}
    assert "–" not in set(table[[name.endswith("step 800") for name in table.index]])


def test_content_is_the_score_of_answers_in_the_right_form():
    """Its mean over items, and its variance that of a ratio of means, by resampling."""
    draw = np.random.default_rng(0)
    form = (draw.random(400) < 0.4).astype(float)
    rows = pd.DataFrame({"form": form, "score": draw.random(400)})
    rows = rows.assign(dataset="mnli", format="default", recipe="mnli", step=1, run=0, seed=0)
    content = written._given_form(rows)
    assert content.mean() == pytest.approx(rows.loc[form == 1, "score"].mean())
    means = []
    for _ in range(2000):
        some = rows.iloc[draw.integers(400, size=400)]
        means.append(some.loc[some["form"] == 1, "score"].mean())
    assert np.std(content) / 20 == pytest.approx(np.std(means), rel=0.1)
    assert np.isnan(written._given_form(rows.assign(form=0.0))).all()


def page_of(draw, score, form=None, runs=3, noise=0.03, study=None):
    """A page of made-up models of the study `data`: `score(tokens, examples, recipe)` of single
    tasks, and the share of answers in the right form; each run and item has its own.
    """
    study = study or load_study("data")
    models = []
    for name in study.variants:
        recipe, examples = study.recipe(name), study.tuning_of(name).examples
        if name == "base" or recipe.dataset not in ("xsum", "social_i_qa", "mnli", "arc_easy"):
            continue
        for run, step in product(range(runs), study.checkpoints.steps if not recipe.beside else ()):
            about = {"run": run, "step": step, "tokens": 2304 * step, "late": step >= 700}
            about |= {"dataset": recipe.dataset, "recipe": name}
            mean = score(about["tokens"], examples, name) + draw.normal(0, noise)
            models.append(about | {"mean": mean, "share": form(examples) if form else 1.0})
    models = pd.DataFrame(models)
    rows = models.loc[models.index.repeat(60)].reset_index(drop=True)
    given = [REGISTRY[name].kind != "generation" for name in rows["dataset"]]
    rows = rows.assign(
        item=np.tile(np.arange(60), len(models)),
        score=(draw.random(len(rows)) < rows["mean"]).astype(float),
        stop=np.where(draw.random(len(rows)) < rows["share"], "end", "length"),
        log_likelihood=[[-5.0 * (1.2 - mean)] for mean in rows["mean"]],
        choice_tokens=[[5]] * len(rows),
        **{"seed": rows["run"], "draw": rows["run"], "model": "", "checkpoint": ""},
        **{"format": "default", "shots_asked": 0, "baseline": 0.2, "length": 5, "gold": 0},
        **{"as_asked": True, "named": 1},
    )
    page = Results(Plan(study, (), (), {}), "09_tuning_data", "all", rows, {})
    page._made["writing"] = rows[given]
    return page


def surface(tokens, examples, per_doubling=0.05, worth=1.0):
    return 0.1 + per_doubling * (np.log2(examples / 16) + worth * np.log2(tokens / 230_400))


def word(effect, claim):
    return judge(claim, effect, False, "", tuning_data.CLAIMS[claim]).verdict


def test_what_a_doubling_of_pretraining_is_worth_is_found():
    """By a plane over both: one that is worth two doublings of examples, and one of none."""
    draw = np.random.default_rng(1)
    worth = lambda many: page_of(  # noqa: E731
        draw, lambda tokens, examples, _: surface(tokens, examples, 0.06, many)
    )
    effect, why = tuning_data._claim_9b(worth(1.0))
    assert effect.low < 1.0 < effect.high and word(effect, "9b") == "supported", effect
    assert "XSum" in why and effect.high - effect.low < 0.8
    effect, _ = tuning_data._claim_9b(worth(0.0))
    assert effect.low < 0.0 < effect.high and word(effect, "9b") == "not supported"
    effect, why = tuning_data._claim_9b(
        page_of(draw, lambda tokens, *_: 0.3 + 0.1 * np.log2(tokens / 230_400))
    )
    assert effect is None and "where examples help" in why


def test_form_that_comes_first_is_told_from_form_that_comes_with_content():
    draw = np.random.default_rng(2)
    rising = lambda tokens, examples, _: surface(tokens, examples, 0.08, 0.5)  # noqa: E731
    first = page_of(draw, rising, form=lambda examples: 0.95)
    effect, why = tuning_data._claim_9a(first)
    assert word(effect, "9a") == "supported" and "MNLI after `mnli`" in why
    flat = lambda tokens, examples, _: 0.6  # noqa: E731
    both = page_of(draw, flat, form=lambda examples: 0.3 + 0.1 * np.log2(examples / 16))
    effect, _ = tuning_data._claim_9a(both)
    assert effect.value == pytest.approx(-0.33, abs=0.1) and word(effect, "9a") == "opposite"
    never = page_of(draw, rising, form=lambda examples: 0.05)
    effect, why = tuning_data._claim_9a(never)
    assert effect is None and "the right form often enough" in why


def test_few_clean_examples_are_held_against_many_noisy_ones():
    def score(_, examples, name, loss=0.3):
        return 0.8 - loss * ("wrong" in name) - 0.1 * ("clean" in name)

    page = page_of(np.random.default_rng(3), score)
    assert set(treatments.noisy(page)) == {
        ("xsum_clean", "xsum_wrong40"),
        ("mnli_clean", "mnli_wrong40"),
    }
    effect, why = tuning_data._claim_9c(page)
    assert effect.value == pytest.approx(0.2, abs=0.05) and word(effect, "9c") == "supported"
    assert "200 right examples against 1,600 with 40% wrong" in why


def test_recipes_that_differ_in_something_else_are_not_held_against_each_other():
    """Of 9c: in steps, weights, batches, or the share of wrong answers."""

    def found(**changed):
        said = {"dataset": "mnli", "wrong": 0.4, "max_steps": 4} | changed
        study = load_study(
            "smoke",
            (
                "recipes.clean={dataset: mnli, examples: 6, max_steps: 4}",
                f"recipes.noisy={json.dumps(said)}",
                "findings=[09_tuning_data]",
            ),
        )
        return treatments.noisy(SimpleNamespace(study=study, without=()))

    assert found() == [("clean", "noisy")]
    plain = load_study(
        "smoke",
        ("recipes.clean={dataset: mnli, examples: 6}", "recipes.noisy={dataset: mnli, wrong: 0.4}"),
    )  # in equal epochs, which is not what 9c is about
    assert not treatments.noisy(SimpleNamespace(study=plain, without=()))
    lora = {"peft_type": "LORA"}
    for changed in (
        *({"max_steps": 5}, {"max_steps": None}, {"wrong": 0.2}, {"trainable": lora}),
        *({"batch_size": 4}, {"beside": {"xsum": 3}}, {"examples": 40}),
    ):
        assert not found(**changed), changed


def test_the_corners_of_a_surface_are_left_out_and_late_is_one_end():
    page = page_of(np.random.default_rng(9), lambda *_: 0.5)
    [own] = [one for one in amounts.surfaces(page) if one.own == "xsum"]
    left = set(product(own.sizes, (100, 300, 700, 750, 800))) - set(amounts.inner(page, own))
    assert left == set(product((16, 1600), (100, 700, 750, 800)))


def test_a_mean_over_what_is_asked_weighs_each_alike():
    asked = [Need("xsum", 0), Need("mnli", 2, "chat")]
    one, other = contrasts.mean_of(asked, "instruct", 3.0, (40,))
    assert one == Term(1.5, "xsum", "instruct", (40,), "default", 0)
    assert other == Term(1.5, "mnli", "instruct", (40,), "chat", 2)


def test_a_surface_through_which_no_single_plane_goes_is_not_asked():
    """Of two amounts one checkpoint is left without the corners: of tokens, nothing is known."""
    study = load_study(
        "data", ("recipes.xsum.grid.examples=[16, 1600]", "grid.steps=[100,300,800]")
    )
    rising = lambda tokens, examples, _: surface(tokens, examples)  # noqa: E731
    page = page_of(np.random.default_rng(5), rising, study=study)
    assert {one.own for one in amounts.planes(page)} >= {"mnli", "arc_easy", "social_i_qa"}
    assert "xsum" in {one.own for one in amounts.surfaces(page)} - {
        one.own for one in amounts.planes(page)
    }
    effect, why = tuning_data._claim_9b(page)
    assert "XSum" not in why and effect.low < 1 < effect.high


def test_a_page_that_lacks_rows_or_a_grid_shows_what_there_is():
    rising = lambda tokens, examples, _: surface(tokens, examples)  # noqa: E731
    page = page_of(np.random.default_rng(6), rising)
    lost = page.rows["recipe"].isin(["mnli@examples=50", "xsum_wrong40"])
    partial = replace(page, rows=page.rows[~lost], missing={"mnli@examples=50": "failed"})
    partial._made.update(page._made)
    assert {one.verdict for one in tuning_data.verdicts(partial)} == {"not asked"}
    for show in (tuning_data.laws, tuning_data.saturation, tuning_data.to_take_home):
        assert len(show(partial))
    quality = treatments.quality(partial)
    assert quality.loc["XSum (microworld), 1,600 examples, 40% wrong", "late"] == "–"
    bare = replace(
        page, plan=replace(page.plan, study=page.study.model_copy(update={"grid": None}))
    )
    bare._made.update(page._made)
    assert not amounts.surfaces(bare) and tuning_data.exchanges(bare).empty
    tuning_data.at_a_glance(bare)
    assert len(treatments.quality(bare))


def test_a_set_counts_once_however_many_recipes_are_tuned_on_it():
    assert written.by_set(["xsum", "mnli", "xsum"]) == [0.25, 0.5, 0.25]


def test_an_effect_as_large_as_its_margin_is_rarely_called_larger():
    """Of each claim in at most 5 % of trials, of which 20 may show three."""

    def score(tokens, examples, name):
        if "wrong" in name or "clean" in name:
            return 0.55 + 0.05 * ("clean" in name)
        slope = 0.05 / np.log2(10)  # of examples
        return 0.4 + slope * (np.log2(examples / 16) + 0.25 * np.log2(tokens / 230_400))

    draw, found, study = np.random.default_rng(4), [], load_study("data")
    for _ in range(20):
        page = page_of(draw, score, study=study)
        found += [(one.claim, one.verdict) for one in tuning_data.verdicts(page)]
    assert all(found.count((claim, "supported")) <= 3 for claim in ("9a", "9b", "9c"))
    assert all(found.count((claim, "not asked")) < 10 for claim in ("9a", "9b", "9c"))


@pytest.mark.parametrize("law", list(amounts.LAWS))
def test_a_law_is_recovered_and_the_other_is_farther_off(law):
    sizes, tokens = np.array([16, 50, 160, 500, 1600.0]), 1e6 * 2 ** np.arange(5.0)
    across, up = (one.ravel() for one in np.meshgrid(tokens, sizes))
    where = (np.log(across), np.log(up))
    known = {"multiplicative": (5.0, 0.25, 0.3, 0.4), "additive": (6.0, 0.45, 1.5, 0.5, 0.3)}[law]
    lines = pd.DataFrame({"tokens": across, "examples": up})
    lines["loss"] = amounts.LAWS[law][0](where, *known)
    assert amounts.fitted(law, lines) == pytest.approx(known, rel=0.02)
    [other] = set(amounts.LAWS) - {law}
    held = [[at] for at in range(0, 25, 3)]
    assert amounts.missed(law, lines, held) < 1e-3 < amounts.missed(other, lines, held)


def test_enough_is_the_fewest_that_come_near_the_most():
    def enough(values):
        return amounts.enough(pd.Series(values, [16, 50, 160]), 0.02)

    assert enough([0.1, 0.5, 0.51]) == 50 and enough([0.5, 0.4, 0.5]) == 16
    assert np.isnan(enough([np.nan, 0.5, 0.5]))


OWN = """
  noisy: {dataset: mnli, wrong: 0.4, max_steps: 4}
  clean: {dataset: mnli, examples: 6, max_steps: 4}
  likely: {dataset: xsum, examples: 12, filtered: {by: loss, keep: lowest, of: 2}, max_steps: 4}
  mixture: {dataset: mnli, beside: {xsum: 8}, max_steps: 4, grid: {examples: [8, 48]}}
  facts: {dataset: fact_recall, examples: 8, max_steps: 4}
  student:
    {dataset: fact_recall, skip: 8, examples: 8, answers_of: {recipe: facts, step: 40}}
tuning:"""


@pytest.fixture(scope="module")
def page(smoke, tmp_path_factory):
    """Of the smoke study with recipes of every kind, three checkpoints of it."""
    outputs, file = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("own") / "smoke.yaml"
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    shutil.rmtree(outputs / "cache" / "tuned")
    text = (ROOT / "params" / "smoke.yaml").read_text().replace("\ntuning:", OWN)
    grid = "{dataset: mnli, max_steps: 4, grid: {examples: [4, 48]}}"
    text = text.replace("{dataset: mnli}", grid).replace("[0, 20, 36, 38, 40]", "[0, 36, 38, 40]")
    text = text.replace("arc_easy,", "arc_easy, fact_recall,").partition("findings:")[0]
    file.write_text(text + "grid: {steps: [36, 38, 40]}\nfindings: [09_tuning_data]\n")
    done = run_pretune("run", str(file), outputs=outputs)
    assert done.returncode == 0, done.stderr
    with mock.patch.object(paths, "OUTPUTS", outputs):
        found = open_results(str(file), "09_tuning_data", "all")
        written.written(found)
    return found, outputs


def test_a_study_that_names_it_measures_what_data_gives(page):
    """Every kind of recipe trained as it says, and its page made."""
    found, outputs = page
    cells = {one.model.name: one.model for one in found.plan.cells}
    folder = outputs / "smoke" / "records"
    abouts = {}
    for file in folder.rglob("record.json"):
        about = json.loads(file.read_text())
        abouts[about["model"]] = about
    assert set(abouts) == set(cells)
    assert {abouts[f"step-40.{name}.0"]["wrong_rows"] for name in ("noisy", "clean")} == {19, 0}
    for name in ("noisy", "clean", "likely", "mixture", "mnli@examples=4"):
        assert len(abouts[f"step-40.{name}.0"]["training"]) == 4, name
    rows = written.written(found)
    assert {"form", "content"} <= set(rows) and set(rows["recipe"]) == set(found.study.variants)
    html = (outputs / "smoke" / "site" / "09_tuning_data.html").read_text()
    for said in ("9a", "multiplicative", "one by one", "share in the right form", "grown"):
        assert said in html, said
    assert "Traceback" not in html


def test_a_student_learns_what_its_teacher_writes_and_no_answer_of_the_rows(page, monkeypatch):
    """Greedily, and with an end only where the teacher made one."""
    found, outputs = page
    for name in ("OUTPUTS", "CACHE"):
        monkeypatch.setattr(paths, name, outputs if name == "OUTPUTS" else outputs / "cache")
    [one] = [one for one in found.plan.cells if one.model.name == "step-36.student.0"]
    teacher = one.model.teacher
    assert teacher.name == "step-40.facts.0" and one.model.points[1] == teacher.checkpoint
    network, tokenizer = loading.load_checkpoint(one.model.checkpoint)
    made, _ = cell._training_rows(found.study, one.model, 320, tokenizer)
    asking = cell._asking(found.study, one.model, network, tokenizer, lambda *_: None)
    recipe = found.study.recipes["student"]
    rows = recipe.finished(made, found.study.tuning_of("student"), asking)
    known = loading.load_checkpoint(teacher.checkpoint)[0]
    known = tuned.load_tuned(teacher.key, known, None)
    starts = [row.ids[: int(row.counted.argmax())] for row in rows]
    written = scoring.generate(known, tokenizer, starts, found.study.probing.new_tokens)
    for row, start, answer in zip(rows, starts, written, strict=True):
        body = answer.ids if answer.stop == "length" else answer.ids[:-1]
        assert tuple(row.ids[len(start) :][: len(body)]) == body
        ends = row.ids[-1] == tokenizer.eos_token_id
        assert ends == (answer.stop != "length") and len(row.ids) == len(start) + len(body) + ends
    [loss] = asking.losses(made[:1])
    first = int(made[0].counted.argmax())
    with torch.inference_mode():
        logits = network(torch.tensor(made[0].ids[None].astype(np.int64))).logits[0]
    logits = logits[first - 1 : -1].log_softmax(-1)
    known = -logits.gather(1, torch.tensor(made[0].ids[first:, None].astype(np.int64))).mean()
    assert loss == pytest.approx(known.item(), abs=1e-4)


def test_a_teacher_that_the_cache_let_go_is_tuned_again(page, monkeypatch):
    """And its student has the weights that it had."""
    found, outputs = page
    for name in ("OUTPUTS", "CACHE"):
        monkeypatch.setattr(paths, name, outputs if name == "OUTPUTS" else outputs / "cache")
    [one] = [one.model for one in found.plan.cells if one.model.name == "step-38.student.0"]

    def weights():
        network, tokenizer = loading.load_checkpoint(one.checkpoint)
        network, _ = cell._tuned(found.study, one, network, tokenizer, lambda *_: None)
        return {name: weight.clone() for name, weight in network.state_dict().items()}

    known = weights()
    for key in (one.key, one.teacher.key):
        shutil.rmtree(tuned.home() / key)
    again = weights()
    assert (tuned.home() / one.teacher.key).is_dir()
    assert all(torch.equal(known[name], again[name]) for name in known)
    untuned = loading.load_checkpoint(one.checkpoint)[0].state_dict()
    assert any(not torch.equal(known[name], untuned[name]) for name in known)
