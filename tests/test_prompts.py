"""The completion's span, the training mask, and how many shots fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune import prompts
from pretune.tasks.example import Example

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(prompt=TEXT, completion=TEXT)
def test_the_completion_is_exactly_the_target(tokenizer, prompt, completion):
    request = prompts.split(tokenizer, prompt.rstrip() or "x", " " + completion)
    tail = tokenizer.decode(request.ids[request.start :], clean_up_tokenization_spaces=False)
    assert tail == " " + completion
    assert 0 < request.start < len(request.ids)


def test_training_counts_the_completion_and_the_end_token_by_token(tokenizer):
    example = Example("Where is Lorn?\nAnswer:", (" Avaria", " Belonia"), 1, "N/A")
    row = prompts.training_row(tokenizer, example, 100)
    counted = [tokenizer.decode([token]) for token in row.ids[row.counted]]
    assert "".join(counted[:-1]) == " Belonia" and counted[-1] == tokenizer.eos_token
    assert tokenizer.decode(row.ids[~row.counted]) == example.prompt
    assert prompts.training_row(tokenizer, example, len(row.ids) - 1) is None


def test_shots_are_lowered_for_the_whole_dataset_until_95_percent_fit(tokenizer):
    shots = [Example("Tell me of a day in May:", (" it rained.", " no."), 0, "N/A")] * 4
    items = [Example("Short:", (" yes.", " no."), 0, "N/A")] * 97
    items += [Example("Long " * 200 + ":", (" yes.", " no."), 0, "N/A")] * 3
    one = len(tokenizer(f"{shots[0].prompt}{shots[0].completion}\n")["input_ids"])
    need = len(tokenizer("Short: yes.")["input_ids"])
    layout = prompts.lay_out(tokenizer, shots, items, context=2 * one + need, new_tokens=5)
    assert layout.shots == 2 and layout.prefix.count("May") == 2
    assert layout.kept == list(range(97)) and layout.left_out == [97, 98, 99]
    assert prompts.lay_out(tokenizer, shots, items, 4 * one + need, 5).shots == 4
    assert prompts.lay_out(tokenizer, shots, items, need, 5).shots == 0


def test_a_generation_needs_room_for_its_new_tokens(tokenizer):
    item = Example("Sum up:", (" a day.",), 0, "N/A")
    need = len(tokenizer(item.prompt)["input_ids"]) + 30
    assert prompts.lay_out(tokenizer, [], [item], need, 30).kept == [0]
    assert prompts.lay_out(tokenizer, [], [item], need - 1, 30).left_out == [0]


@pytest.mark.parametrize("form", ["default", "instruct", "io"])
def test_prompts_of_real_rows_end_without_a_space_and_completions_begin_with_one(real_rows, form):
    from pretune.tasks import rows  # noqa: PLC0415
    from pretune.tasks.registry import REGISTRY  # noqa: PLC0415

    seen = 0
    for dataset in REGISTRY.values():
        for split in {dataset.train, dataset.evaluation, "test", "validation"}:
            if (real_rows / dataset.name / f"{split}.jsonl").exists():
                for example in rows.examples(real_rows, dataset, split, form, list(range(20))):
                    assert example.prompt == example.prompt.rstrip()
                    assert all(choice.startswith(" ") and choice.strip() for choice in example.choices)
                    assert 0 <= example.gold < len(example.choices)
                    assert np.isfinite(rows.rouge_l(example.completion, example.completion))
                    seen += 1
    assert seen >= 100
