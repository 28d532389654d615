"""A task of the user's own, in the words of lm-evaluation-harness: read, refused, run."""

import json
import random

import pytest
import yaml

from conftest import plan_of, run_here
from pretune.errors import StudyError
from pretune.study.load import load_study
from pretune.tasks.example import HiddenLabel, RowError
from pretune.tasks.registry import REGISTRY

TASK = {
    "dataset_path": "rows/colours",
    "training_split": "train",
    "validation_split": "validation",
    "output_type": "multiple_choice",
    "doc_to_text": "Thing {{number}}: {{thing}}\nColour:",
    "doc_to_choice": "options",
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc"}],
}
COLOURS = {"apple": "red", "banana": "yellow", "lime": "green", "plum": "purple", "coal": "black"}
ROW = {"thing": "lime", "number": 7, "options": ["red", "green"], "label": 1}
STUDY = """
title: Mine
checkpoints:
  source: microworld
  world: {seed: 1, people: 8, towns: 8, countries: 4}
  steps: [4, 6, 7, 8]
  pretraining:
    learning_rate: 4.0e-3
    batch_size: 4
    length: 64
    architecture: {layers: 1, width: 32, heads: 2, intermediate: 64, context: 128, vocabulary: 512}
recipes: {base: {}, colours: {dataset: colours}}
tuning: {examples: 256, epochs: 6, batch_size: 8, learning_rate: 1.0e-2}
probing: {datasets: [colours, arc_easy], items: 20, shots: 1}
findings: [02_latent_benefits]
"""


def colours(count, seed):
    """Rows that ask for the colour of a thing, one of three."""
    draw, found = random.Random(seed), []
    for number in range(count):
        thing = draw.choice(list(COLOURS))
        others = draw.sample([one for one in COLOURS.values() if one != COLOURS[thing]], 2)
        options = [COLOURS[thing], *others]
        draw.shuffle(options)
        row = {"thing": thing, "number": 1000 * seed + number, "options": options}
        found.append(row | {"label": options.index(COLOURS[thing])})
    return found


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A params file with a task whose rows lie beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows" / "colours").mkdir(parents=True)
    for split, count, seed in (("train", 300, 1), ("validation", 40, 2)):
        lines = "".join(f"{json.dumps(row)}\n" for row in colours(count, seed))
        (tmp_path / "rows" / "colours" / f"{split}.jsonl").write_text(lines)
    return written(tmp_path / "mine.yaml", {"colours": TASK})


def written(file, tasks):
    file.write_text(STUDY + yaml.safe_dump({"tasks": tasks}))
    return file


def made(file, row=ROW, form="default", **changed):
    """The example of a row by the task with other values."""
    load_study(str(written(file, {"colours": TASK | changed})))
    return REGISTRY["colours"].example(row, form)


def test_a_row_becomes_the_prompt_and_the_answers_of_the_harness(file):
    one = made(file)
    assert (one.prompt, one.choices, one.gold) == (
        "Thing 7: lime\nColour:",
        (" red", " green"),
        1,
    )
    assert one.blank == "Thing 7: N/A\nColour:"
    template = made(
        file, doc_to_choice="{{[thing, 'none']}}", doc_to_target="{{options|length - 2}}"
    )
    assert (template.choices, template.gold) == ((" lime", " none"), 0)
    fixed = made(file, doc_to_choice=["red", "green"], doc_to_target="green", target_delimiter="\n")
    assert (fixed.choices, fixed.gold) == (("\nred", "\ngreen"), 1)
    assert REGISTRY["colours"].labels == ("red", "green")
    assert REGISTRY["colours"].kind == "classification"
    column = made(file, doc_to_text="thing")
    assert (column.prompt, column.blank) == ("lime", "N/A")
    chat = made(file, form="chat")
    assert chat.prompt.startswith("<|user|>\nThing 7") and chat.choices == ("red", "green")


def test_text_that_is_written_is_one_answer(file):
    text = {"output_type": "generate_until", "metric_list": [{"metric": "rougeL"}]}
    text |= {"doc_to_target": "{{thing}} is it", "generation_kwargs": {"until": ["\n"]}}
    changed = {key: value for key, value in TASK.items() if key != "doc_to_choice"} | text
    load_study(str(written(file, {"colours": changed})))
    one = REGISTRY["colours"].example(ROW, "default")
    assert (one.choices, one.gold) == ((" lime is it",), 0)
    assert REGISTRY["colours"].kind == "generation"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"doc_to_text": "{{ ''.__class__ }}"},
            "doc_to_text cannot be filled: access to attribute",
        ),
        ({"doc_to_text": "{{ colour }}"}, "'colour' is undefined"),
        ({"doc_to_target": "{{ 9 }}"}, "doc_to_target is 9, allowed are 0 to 1"),
        ({"doc_to_text": "{{ {'lime': 'x'}[thing] }}"}, "of nothing; give `blank`"),
        ({"doc_to_choice": "{{ [''] }}"}, "gives an empty answer"),
    ],
)
def test_a_row_that_a_task_cannot_read_is_told(file, changed, words):
    with pytest.raises(RowError, match=words):
        made(file, **changed)


def test_a_hidden_label_is_one_here_too(file):
    with pytest.raises(HiddenLabel):
        made(file, ROW | {"label": -1})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"output_type": "loglikelihood"}, "tasks.colours.output_type: "),
        ({"process_docs": "x"}, "tasks.colours.process_docs: unknown key"),
        ({"doc_to_text": "{{thing"}, "tasks.colours.doc_to_text: .* not a Jinja template"),
        ({"doc_to_choice": None}, "doc_to_choice and output_type: multiple_choice go together"),
        ({"metric_list": [{"metric": "rougeL"}]}, "rougeL with multiple_choice: allowed: acc or"),
        ({"metric_list": [{"metric": "f1"}]}, "tasks.colours.metric_list.0.metric: "),
        ({"fewshot_split": "validation"}, "fewshot_split must be the training split, train"),
        ({"validation_split": None}, "test_split or validation_split must be given"),
        ({"partner": "mnli"}, "partner and domain go together"),
        ({"generation_kwargs": {"until": ["."]}}, "tasks.colours.generation_kwargs.until"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_key(file, changed, words):
    with pytest.raises(StudyError, match=words):
        load_study(str(written(file, {"colours": TASK | changed})))


def test_a_task_may_not_take_the_name_of_another_dataset(file):
    with pytest.raises(StudyError, match=r"tasks\.mnli: a dataset of that name is known"):
        load_study(str(written(file, {"mnli": TASK})))


def test_a_task_file_of_the_harness_is_read_as_it_is(file):
    """What is said beside it goes before; a folder in it lies beside it; functions are refused."""
    text = yaml.safe_dump(TASK | {"task": "colours", "tag": ["x"], "metadata": {"version": 1.0}})
    (file.parent / "there").mkdir()
    (file.parent / "rows").rename(file.parent / "there" / "rows")
    (file.parent / "there" / "task.yaml").write_text(text)
    told = {"lm_eval": "there/task.yaml", "title": "Colours", "description": "Look."}
    study = load_study(str(written(file, {"colours": told})))
    plan_of(study)
    about = REGISTRY["colours"]
    assert (about.title, about.description, about.between) == ("Colours", "Look.", "\n\n")
    (file.parent / "there" / "task.yaml").write_text(text + "process_docs: !function x.y\n")
    with pytest.raises(
        StudyError, match=r"task.yaml: .*functions are refused, `!function` in line"
    ):
        load_study(str(file))


def test_a_task_is_tuned_on_scored_and_judged_beside_a_known_dataset(file, tmp_path):
    done = run_here("run", str(file), outputs=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    [line] = [
        json.loads(text) for text in [(tmp_path / "outputs" / "mine" / "findings.json").read_text()]
    ]
    assert {one["claim"] for one in line} == {"2a", "2b", "2c"}
    page = (tmp_path / "outputs" / "mine" / "site" / "02_latent_benefits.html").read_text()
    assert "colours" in page and "colours (microworld)" not in page


def test_rows_that_a_task_cannot_read_are_told_before_any_cell(file, tmp_path):
    lost = written(file, {"colours": TASK | {"doc_to_target": "answer"}})
    done = run_here("run", str(lost), outputs=tmp_path / "outputs")
    assert done.returncode == 2 and "colours: row " in done.stderr and "answer" in done.stderr
    assert not (tmp_path / "outputs" / "mine" / "records").exists()
    (file.parent / "rows" / "colours" / "validation.jsonl").unlink()
    done = run_here("run", str(written(file, {"colours": TASK})), outputs=tmp_path / "outputs")
    assert done.returncode == 2 and "validation.jsonl is missing or empty" in done.stderr


def test_another_template_is_measured_anew_and_nothing_else(file, tmp_path, monkeypatch):
    before = plan_of(str(file))
    after = plan_of(str(written(file, {"colours": TASK | {"description": "Look."}})))
    same = {True: 0, False: 0}
    for one, two in zip(before.cells, after.cells, strict=True):
        assert (one.model.key == two.model.key) == (one.model.recipe == "base")
        for old, new in zip(one.probes, two.probes, strict=True):
            assert (old.key == new.key) == (old.dataset != "colours")
            same[old.key == new.key] += 1
    assert all(same.values())
    rows = file.parent / "rows" / "colours" / "train.jsonl"
    rows.write_text(rows.read_text() + json.dumps(ROW) + "\n")
    assert plan_of(str(file)).cells[1].model.key != after.cells[1].model.key
