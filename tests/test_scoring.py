"""Shared prefixes change the speed and nothing else."""

import copy
import itertools

import numpy as np
import pytest
import torch

from pretune.models import reading, scoring
from pretune.tasks import prompts
from small_models import FAMILIES, small

PREFIX = (
    "Lorn is a town in Avaria. Lorn makes cheese.\nQuestion: Who uses the oven?\nAnswer: baker\n"
)
QUESTIONS = [
    "Question: Where is Lorn?\nAnswer:",
    "Question: What does Lorn make, and who buys it?\nAnswer:",
    "Where?",
    "Is",
]
CHOICES = [" Avaria", " Avaria is far", " in", " a very long answer with many words"]


def requests(tokenizer, prefix=PREFIX):
    return [
        [prompts.split(tokenizer, prefix + question, choice) for choice in CHOICES[: 2 + i % 3]]
        for i, question in enumerate(QUESTIONS * 3)
    ]


@torch.no_grad()
def alone(model, request):
    """Every sequence by itself, no cache, no padding, no batch."""
    ids = torch.tensor(request.ids[None].astype(np.int64))
    scores = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return scores[request.start - 1 :].sum().item()


@pytest.mark.parametrize("batch_tokens", [1, 700, 100_000])
@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_likelihoods_equal_scoring_each_sequence_alone(model, tokenizer, batch_tokens, prefix):
    items = requests(tokenizer, prefix)
    found = scoring.log_likelihoods(model, items, batch_tokens)
    for some, values in zip(items, found, strict=True):
        for request, value in zip(some, values, strict=True):
            assert value == pytest.approx(
                alone(model, request), abs=1e-4 * (len(request.ids) - request.start)
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_and_outputs_of_other_families_equal_each_sequence_alone(family, tokenizer):
    model, items = small(family), requests(tokenizer)
    for some, values in zip(items, scoring.log_likelihoods(model, items, 900), strict=True):
        for request, value in zip(some, values, strict=True):
            assert value == pytest.approx(
                alone(model, request), abs=1e-4 * (len(request.ids) - request.start)
            )
    prompts_ = [some[0].ids[: some[0].start] for some in items[:4]]
    for prompt, made in zip(
        prompts_, scoring.generate(model, tokenizer, prompts_, 8, newline=False), strict=True
    ):
        ids = torch.tensor(prompt[None].astype(np.int64))
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )[0, len(prompt) :]
        assert made.text == tokenizer.decode(out, skip_special_tokens=True).strip()


def test_scores_differ_between_choices_so_that_the_test_above_can_fail(model, tokenizer):
    values = scoring.log_likelihoods(model, requests(tokenizer))
    assert len({round(value, 2) for some in values for value in some}) > 12


def test_a_border_inside_a_token_belongs_to_the_completion(model, tokenizer):
    items = [[prompts.split(tokenizer, "Where is Lo", choice) for choice in ("rn", "rn in Avaria")]]
    for request, value in zip(items[0], scoring.log_likelihoods(model, items)[0], strict=True):
        assert value == pytest.approx(alone(model, request), abs=1e-3)


def test_what_prompts_share_is_read_once(model, tokenizer):
    items, read = requests(tokenizer, PREFIX * 4), []
    model.base_model.register_forward_pre_hook(lambda module, given: read.append(given[0].numel()))
    scoring.log_likelihoods(model, items)
    every = sum(len(request.ids) for some in items for request in some)
    assert read[0] >= len(tokenizer(PREFIX * 4)["input_ids"])
    assert sum(read) < every / 4


def test_one_token_choices_need_no_second_pass(model, tokenizer):
    yes, no = (
        next(" " + word for word in words if len(tokenizer(" " + word)["input_ids"]) == 1)
        for words in (["a", "in"], ["is", "the", "of"])
    )
    items, passes = (
        [
            [prompts.split(tokenizer, PREFIX + question, one) for one in (yes, no)]
            for question in QUESTIONS
        ],
        [],
    )
    model.base_model.register_forward_pre_hook(lambda module, given: passes.append(given[0].shape))
    scoring.log_likelihoods(model, items)
    assert len(passes) == 2  # the prefix, then all contexts


def encoded(tokenizer, prompts_):
    return [
        np.array(tokenizer(PREFIX + prompt)["input_ids"], dtype=np.int32) for prompt in prompts_
    ]


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_generation_equals_one_prompt_at_a_time(model, tokenizer, batch_tokens):
    asked = encoded(tokenizer, QUESTIONS)
    found = scoring.generate(model, tokenizer, asked, 20, batch_tokens=batch_tokens)
    for ids, made in zip(asked, found, strict=True):
        tokens = torch.tensor(ids[None].astype(np.int64))
        whole = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        text = tokenizer.decode(whole[0, len(ids) :], skip_special_tokens=True)
        assert made.text == text.split("\n")[0].strip()


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_a_gold_completion_beside_a_generation_scores_as_it_does_alone(
    model, tokenizer, batch_tokens
):
    requests = [
        prompts.split(tokenizer, PREFIX + question, f" {answer} and so on.")
        for question, answer in zip(
            QUESTIONS, itertools.cycle(("yes", "the longest of answers")), strict=False
        )
    ]
    alone = scoring.log_likelihoods(model, [[request] for request in requests])
    asked, golds = (
        [one.ids[: one.start] for one in requests],
        [one.ids[one.start :] for one in requests],
    )
    beside = scoring.generate(model, tokenizer, asked, 9, golds, batch_tokens=batch_tokens)
    assert [one.gold for one in beside] == pytest.approx([one[0] for one in alone], abs=1e-4)
    plain = scoring.generate(model, tokenizer, asked, 9)
    assert [one.text for one in beside] == [one.text for one in plain] and np.isnan(plain[0].gold)


@pytest.mark.parametrize(
    ("token", "stop"), [("\n", "newline"), ("<|endoftext|>", "end"), (" a", "length")]
)
def test_stop_reasons(model, tokenizer, token, stop, monkeypatch):
    """A head that always says one token."""
    forced = copy.deepcopy(model)
    wanted = tokenizer(token)["input_ids"][0]

    def head(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], forced.config.vocab_size)
        logits[..., wanted] = 1.0
        return logits

    monkeypatch.setattr(reading.State, "head", head)
    made = scoring.generate(forced, tokenizer, encoded(tokenizer, QUESTIONS), 7)
    assert {one.stop for one in made} == {stop}
    assert {one.length for one in made} == {7 if stop == "length" else 1}
    assert all("\n" not in one.text for one in made)


def short_of_memory(monkeypatch, fits, error):
    """No more than so many rows can be read at a time."""
    real = reading.State.feed

    def feed(self, ids, found):
        if len(ids) > fits:
            raise error
        return real(self, ids, found)

    monkeypatch.setattr(reading.State, "feed", feed)


CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), CPU], ids=["GPU", "CPU"]
)
@pytest.mark.parametrize("fits", [5, 8])
def test_a_batch_that_does_not_fit_the_memory_is_halved_and_nothing_changes(
    model, tokenizer, monkeypatch, caplog, fits, error
):
    items, asked, done = requests(tokenizer), encoded(tokenizer, QUESTIONS * 3), []
    golds = [request.ids[request.start :] for request, *_ in items]
    found, made = (
        scoring.log_likelihoods(model, items),
        scoring.generate(model, tokenizer, asked, 9, golds),
    )
    short_of_memory(monkeypatch, fits, error)
    for some, wanted in zip(
        scoring.log_likelihoods(model, items, after_batch=done.append), found, strict=True
    ):
        assert some == pytest.approx(wanted, abs=1e-3)
    for one, wanted in zip(
        scoring.generate(model, tokenizer, asked, 9, golds, after_batch=done.append),
        made,
        strict=True,
    ):
        assert (one.text, one.stop) == (wanted.text, wanted.stop) and one.gold == pytest.approx(
            wanted.gold, abs=1e-3
        )
    assert "out of memory on cpu: scored in batches of at most" in caplog.text and sum(done) == len(
        items
    ) + len(asked)


def test_what_does_not_fit_the_memory_alone_is_an_error_with_its_size(
    model, tokenizer, monkeypatch
):
    longest = max(len(request.ids) for some in requests(tokenizer) for request in some)
    real = reading.State.feed

    def fails_where(shared):
        """Reading what comes after what all share, or that itself."""

        def feed(self, ids, found):
            if bool(self.root) is not shared:
                raise CPU
            return real(self, ids, found)

        monkeypatch.setattr(reading.State, "feed", feed)

    fails_where(shared=False)
    with pytest.raises(
        scoring.ScoringFailed, match=r"out of memory with a single item of \d+ tokens on cpu"
    ):
        scoring.log_likelihoods(model, requests(tokenizer))
    ids = np.arange(3, 3 + longest, dtype=np.int32)
    with pytest.raises(
        scoring.ScoringFailed,
        match=rf"out of memory with a single item of {longest + 9} tokens on cpu",
    ):
        scoring.generate(model, tokenizer, [ids], 9)
    fails_where(shared=True)
    with pytest.raises(
        scoring.ScoringFailed,
        match=rf"out of memory with the {longest} tokens that all items share on cpu",
    ):
        scoring.generate(model, tokenizer, [np.append(ids, last) for last in (1, 2)], 9)


def test_other_errors_in_scoring_are_not_taken_for_memory(model, tokenizer, monkeypatch):
    short_of_memory(monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        scoring.log_likelihoods(model, requests(tokenizer))
