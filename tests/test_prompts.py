"""The completion's span, the training mask, and how many shots fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretune.recipes import sft
from pretune.tasks import chat, prompts
from pretune.tasks.example import Example, HiddenLabel, RowError
from pretune.tasks.registry import REGISTRY

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(prompt=TEXT, completion=TEXT)
def test_the_completion_is_exactly_the_target(tokenizer, prompt, completion):
    request = prompts.split(tokenizer, prompt.rstrip() or "x", " " + completion)
    tail = tokenizer.decode(request.ids[request.start :], clean_up_tokenization_spaces=False)
    assert tail == " " + completion
    assert 0 < request.start < len(request.ids)


def test_training_counts_the_completion_and_the_end_token_by_token(tokenizer):
    example = Example("Where is Lorn?\nAnswer:", (" Avaria", " Belonia"), 1, "N/A")
    row = sft.training_row(tokenizer, example)
    counted = [tokenizer.decode([token]) for token in row.ids[row.counted]]
    assert "".join(counted[:-1]) == " Belonia" and counted[-1] == tokenizer.eos_token
    assert tokenizer.decode(row.ids[~row.counted]) == example.prompt


def test_a_conversation_counts_every_answer_and_its_end_and_nothing_else(tokenizer):
    said = (
        ("user", "Where is Lorn?"),
        ("assistant", "In Avaria."),
        ("user", "Thanks."),
        ("assistant", "Welcome."),
    )
    turns = chat.turns({"messages": [{"role": role, "content": text} for role, text in said]})
    row, end = sft.chat_row(tokenizer, turns), tokenizer.eos_token
    assert tokenizer.decode(row.ids[row.counted]) == f"In Avaria.{end}Welcome.{end}"
    assert tokenizer.decode(row.ids) == (
        "<|user|>\nWhere is Lorn?\n<|assistant|>\nIn "
        f"Avaria.{end}\n<|user|>\nThanks.\n<|assistant|>\nWelcome.{end}"
    )


@pytest.mark.parametrize(
    "roles", ["assistant user", "user user", "user", "system", "user assistant user"]
)
def test_conversations_that_do_not_alternate_are_refused(roles):
    with pytest.raises(RowError):
        chat.turns({"messages": [{"role": role, "content": "text"} for role in roles.split()]})


def test_chat_is_the_default_prompt_as_a_turn_of_the_user():
    row = {"sentence1": "A b.", "sentence2": "B a.", "label": 1}
    default, said = (REGISTRY["paws"].example(row, form) for form in ("default", "chat"))
    assert said.prompt == f"<|user|>\n{default.prompt}\n<|assistant|>\n"
    assert default.completion == " yes" and said.completion == "yes"


def test_shots_are_lowered_for_the_whole_dataset_until_95_percent_fit(tokenizer):
    shots = [Example("Tell me of a day in May:", (" it rained.", " no."), 0, "N/A")] * 4
    items = [Example("Short:", (" yes.", " no."), 0, "N/A")] * 97
    items += [Example("Long " * 200 + ":", (" yes.", " no."), 0, "N/A")] * 3
    two, four = (
        len(tokenizer(f"{shots[0].prompt}{shots[0].completion}\n" * n)["input_ids"]) for n in (2, 4)
    )
    need = max(len(tokenizer(f"Short: {word}.")["input_ids"]) for word in ("yes", "no"))
    layout = prompts.lay_out(tokenizer, "", shots, "\n", items, two + need, 5)
    assert layout.shots == 2 and layout.prefix.count("May") == 2
    assert layout.kept == list(range(97)) and layout.left_out == [97, 98, 99]
    assert prompts.lay_out(tokenizer, "", shots, "\n", items, four + need, 5).shots == 4
    assert prompts.lay_out(tokenizer, "", shots, "\n", items, need, 5).shots == 0


def test_a_generation_needs_room_for_its_new_tokens(tokenizer):
    item = Example("Sum up:", (" a day.",), 0, "N/A")
    need = len(tokenizer(item.prompt)["input_ids"]) + 30
    assert prompts.lay_out(tokenizer, "", [], "\n", [item], need, 30).kept == [0]
    assert prompts.lay_out(tokenizer, "", [], "\n", [item], need - 1, 30).left_out == [0]


@pytest.mark.parametrize("form", ["default", "instruct", "io", "chat"])
def test_prompts_of_real_rows_end_without_a_space_and_completions_begin_with_one(real_rows, form):
    """Every dataset of the study that is there, under whatever split; chat markup ends in a
    newline instead.
    """
    from pretune.tasks import rows

    seen = set()
    for dataset in REGISTRY.values():
        files = (
            sorted((real_rows / dataset.folder).glob("*.jsonl")) if dataset.metric != "nats" else []
        )
        for file in files[: 1 if dataset.name != "sciq_question" else None]:
            if dataset.name == "sciq_question" and file.stem == "test":
                continue  # these rows came without passages
            for example in rows.examples(real_rows, dataset, file.stem, form, list(range(20))):
                assert example.prompt == example.prompt.rstrip() + "\n" * (form == "chat")
                assert all(
                    choice.startswith(" ") == (form != "chat") and choice.strip()
                    for choice in example.choices
                )
                assert 0 <= example.gold < len(example.choices)
                seen.add(dataset.name)
    assert len(seen) >= 17, seen


def test_hidden_labels_are_refused_by_name():
    for name, row in (
        ("qqp", {"question1": "A?", "question2": "B?", "label": -1}),
        ("stsb", {"sentence1": "A.", "sentence2": "B.", "label": -1.0}),
    ):
        with pytest.raises(HiddenLabel, match="hidden labels"):
            REGISTRY[name].example(row, "default")
