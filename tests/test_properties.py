"""What must hold for any input: studies, prompts, records, names of checkpoints, statistics
(hypothesis).
"""

import json
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from conftest import plan_of
from pretune import records
from pretune.analysis import claims, statistics
from pretune.errors import StudyError
from pretune.models import checkpoint
from pretune.plan.cells import Model
from pretune.recipes import sft
from pretune.records import store
from pretune.sources import revisions
from pretune.study.load import load_study
from pretune.tasks import prompts
from pretune.tasks.example import FORMATS
from pretune.tasks.registry import REGISTRY

FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
LETTERS = some.text(string.ascii_lowercase + string.digits + "_-./ @\u00e4\U0001f600", max_size=12)
VALUES = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(),
    some.floats(),
    LETTERS,
    some.lists(some.integers(-5, 5), max_size=3),
    some.sampled_from(
        [
            "!!python/name:os.system",
            "&a [*a]",
            "{a: 1, a: 2}",
            "[" * 60,
            "0x7f",
            "1_000",
            "../..",
            "2e-6",
            "null",
        ]
    ),
)


def key_paths(value, before=""):
    """Every key of a study, as `--set` names them."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield f"{before}{key}"
        yield from key_paths(inner, f"{before}{key}.")


KEYS = sorted(
    set(key_paths(json.loads(load_study("smoke").model_dump_json())))
    | {"recipes.../x.dataset", "a.b", ""}
)


@FEW
@given(some.lists(some.tuples(some.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
def test_any_override_gives_a_study_or_a_line_for_each_fault(overrides):
    texts = tuple(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in overrides
    )
    try:
        found = plan_of(load_study("smoke", texts)).cells
    except StudyError as refusal:
        lines = str(refusal).splitlines()
        assert 0 < len(lines) == len(set(lines)) and max(map(len, lines)) < 1500
    else:
        assert all(
            set(cell.model.name) <= set(string.ascii_lowercase + string.digits + "_-.@")
            for cell in found
        )


TEXTS = some.text(some.characters(exclude_categories=["Cs"]), max_size=40)


MADE = {
    "mnli": lambda one, two, number: {"premise": one, "hypothesis": two, "label": number % 3},
    "xsum": lambda one, two, number: {"document": one, "summary": two, "id": "0"},
    "boolq": lambda one, two, number: {"question": one, "passage": two, "answer": number % 2 == 0},
    "sciq": lambda one, two, number: {
        "question": one,
        "support": two,
        "correct_answer": one,
        "distractor1": two,
        "distractor2": "no",
        "distractor3": "none",
    },
}


@FEW
@given(
    some.sampled_from(sorted(MADE)),
    some.sampled_from(FORMATS),
    TEXTS,
    TEXTS,
    TEXTS,
    some.integers(0, 5),
)
def test_of_any_row_the_completion_span_is_exactly_the_target(
    tokenizer, name, form, before, one, two, number
):
    """Read back alone, the tokens that are scored, or count in training, give the target, and
    those before it the prompt.
    """
    assume(one.strip() and two.strip())
    example = REGISTRY[name].example(MADE[name](one, two, number), form)
    asked = prompts.split(tokenizer, f"{before}\n{example.prompt}", example.completion)
    assert tokenizer.decode(asked.ids[asked.start :]) == example.completion
    assert tokenizer.decode(asked.ids[: asked.start]) == f"{before}\n{example.prompt}"
    row = sft.training_row(tokenizer, example)
    assert (
        tokenizer.decode(row.ids[row.counted][:-1]) == example.completion
        and row.ids[-1] == tokenizer.eos_token_id
    )
    assert tokenizer.decode(row.ids[~row.counted]) == example.prompt


NUMBERS = some.floats(-1e6, 0, allow_nan=False)
ROWS = some.lists(
    some.tuples(
        some.integers(0, 10**6),
        some.lists(NUMBERS, min_size=2, max_size=2),
        some.floats(0, 1),
        TEXTS,
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)


@FEW
@given(ROWS)
def test_what_is_recorded_is_what_is_read(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("records")
    point = checkpoint.Checkpoint("step-1", 0, "pretraining", 1, 10, "r", folder / "none", True)
    model = Model(point, "base", 0, "key")
    table = [
        {"probe": "p", "dataset": "mnli", "item": item, "log_likelihood": values, "baseline": share}
        for item, values, share, _ in made
    ]
    texts = [
        {"probe": "p", "item": item, "prompt": text, "choices": [text], "output": None}
        for item, _, _, text in made
    ]
    records.write_record(folder / "model", {"choices": table}, texts, {"left_out": {}})
    [part] = (folder / "model").iterdir()
    read = pd.read_parquet(part / "choices.parquet"), pd.read_parquet(part / store.TEXTS)
    assert read[0]["item"].tolist() == [row[0] for row in made]
    assert [list(one) for one in read[0]["log_likelihood"]] == [row[1] for row in made]
    assert read[1]["prompt"].tolist() == [row[3] for row in made]
    assert not store._fault(part, json.loads((part / store.RECORD).read_text()), model)


@FEW
@given(
    some.integers(0, 10**8),
    some.one_of(some.none(), some.integers(0, 10**5)),
    some.sampled_from(["", "stage1-"]),
)
def test_a_name_made_of_a_step_gives_it_back(step, tokens, stage):
    name = f"{stage}step{step}" + (f"-tokens{tokens}B" if tokens is not None else "")
    [found] = (
        revisions.points([name], "", "") if not stage else revisions.points([name], "stage1", "")
    )
    assert (found.step, found.tokens) == (step, tokens)


@FEW
@given(some.lists(LETTERS, max_size=6, unique=True))
def test_names_that_are_no_checkpoints_are_never_joined(names):
    try:
        found = revisions.points(names, "", "")
    except revisions.RevisionError:
        return
    assert all(
        one.name in names and any(digit in one.name for digit in string.digits) for one in found
    )


SCORES = some.lists(some.floats(0, 1), min_size=3, max_size=30)


@FEW
@given(SCORES)
def test_an_interval_holds_its_mean_and_does_not_depend_on_order(values):
    def mean(some_values):
        return statistics.over_items(
            pd.DataFrame({"item": range(len(some_values)), "score": some_values})
        )

    found, turned = mean(values), mean(values[::-1])
    assert found.low <= found.value <= found.high and found.value == pytest.approx(
        np.mean(values), abs=1e-12
    )
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high), abs=1e-12)


@FEW
@given(some.integers(1, 500), some.data())
def test_a_share_stays_between_nothing_and_all(n, draw):
    found = statistics.share(draw.draw(some.integers(0, n)), n)
    assert 0 <= found.low <= found.value <= found.high <= 1


@FEW
@given(some.lists(some.tuples(some.floats(-1, 1), some.floats(1e-4, 0.3)), min_size=1, max_size=6))
def test_a_family_never_decides_more_than_its_claims_do_alone(effects):
    alone = [
        claims.judge(str(place), statistics.estimate(value, [(spread**2, 20)], 50), False, "")
        for place, (value, spread) in enumerate(effects)
    ]
    for one, together in zip(alone, claims.holm(alone), strict=True):
        weaker = ("not supported",) if one.verdict in ("opposite", "no effect") else ()
        assert together.p >= one.p and together.verdict in (one.verdict, "undecided", *weaker)
