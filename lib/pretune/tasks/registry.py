"""Which datasets there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from operator import itemgetter
from pathlib import Path

from pretune.tasks import chat, choice, question, sentence_pairs, summary
from pretune.tasks.dataset import Dataset, Passages

GENERATED = ("microworld", "register")  # sources that are made from a seed


def _summary(document: str, summary_: str) -> dict:
    return {
        "example": partial(summary.example, document=document, summary=summary_),
        "metric": "rouge_l",
    }


def _question(example: Callable) -> dict:
    return {"example": example, "metric": "rouge_l"}


def _inference(one: str, two: str, labels: tuple[str, ...] = sentence_pairs.THREE) -> dict:
    return {
        "example": partial(sentence_pairs.inference, one=one, two=two, labels=labels),
        "labels": labels,
    }


def _paraphrase(one: str, two: str) -> dict:
    return {
        "example": partial(sentence_pairs.paraphrase, one=one, two=two),
        "labels": sentence_pairs.YES_NO,
    }


def _choices(
    example: Callable, normalisation: str = "characters", labels: tuple[str, ...] = ()
) -> dict:
    return {"example": example, "normalisation": normalisation, "labels": labels, "knowledge": True}


def _instructions(turns: Callable[[dict], chat.Turns]) -> dict:
    return {"example": partial(chat.answer, exchanges=turns), "metric": "nats", "turns": turns}


def _register(name: str, title: str, **more) -> Dataset:
    """A dataset of the generated register of people."""
    return Dataset(name, title, ("", ""), "train", "validation", world="register", **more)


def _fact(row: dict) -> str:
    """What a row of PopQA holds, as a passage."""
    return f"{row['subj']}: {row['prop']}: {row['obj']}."


def _asked_with(take: str) -> dict:
    """Questions about the register, with passages of it before them."""
    texts = ("register_text", "register_new_text")
    passages = Passages(take, texts, "validation", "about", itemgetter("text"))
    return _of_people() | {"passages": passages}


def _of_people() -> dict:
    return {
        "example": partial(question.fact, answer="answer"),
        "metric": "rouge_l",
        "knowledge": True,
    }


def _is_known(row: dict) -> bool:
    """Whether what a row of PopQA asks about is often read of."""
    return int(row["s_pop"]) >= 10_000


POPQA = ("akariasai/PopQA", "default")
RARE = {"rows": "popqa", "keep": lambda row: int(row["s_pop"]) < 1000, "by_name": True}
# which passages stand before a question
TAKEN = {
    "own": "its passage",
    "among": "its passage among others",
    "found": "retrieved passages",
    "others": "others' passages",
}
TOLD_LATER = {
    "register_new": "Register, new people",
    "register_never": "Register, never told of",
}


def _popqa(take: str = "") -> dict:
    found = {"example": partial(question.fact, answer="obj"), "metric": "rouge_l"}
    found |= {"world": "", "knowledge": True}
    own = Passages(take, ("popqa",), "test", "id", _fact)
    return found | ({"passages": own} if take else {})


REGISTRY = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "xsum",
            "XSum",
            ("EdinburghNLP/xsum", "default"),
            "train",
            "test",
            **_summary("document", "summary"),
        ),
        Dataset(
            "xlsum",
            "XLSum",
            ("csebuetnlp/xlsum", "english"),
            "train",
            "test",
            **_summary("text", "summary"),
            partner="xsum",
            domain="in",
        ),
        Dataset(
            "cnn_dailymail",
            "CNN/DailyMail",
            ("abisee/cnn_dailymail", "3.0.0"),
            "train",
            "test",
            **_summary("article", "highlights"),
            partner="xsum",
            domain="out",
        ),
        Dataset(
            "social_i_qa",
            "SocialIQa",
            ("allenai/social_i_qa", "default"),
            "train",
            "validation",
            **_question(question.social_i_qa),
        ),
        Dataset(
            "sciq_question",
            "SciQ questions",
            ("allenai/sciq", "default"),
            "train",
            "test",
            **_question(question.sciq),
            partner="social_i_qa",
            domain="out",
            rows="sciq",
            keep=lambda row: bool(row["support"].strip()),
        ),
        Dataset(
            "tweet_qa",
            "TweetQA",
            ("ucsbnlp/tweet_qa", "default"),
            "train",
            "validation",
            **_question(question.tweet_qa),
            partner="social_i_qa",
            domain="out",
            published="train",
        ),
        Dataset(
            "mnli",
            "MNLI",
            ("nyu-mll/glue", "mnli"),
            "train",
            "validation_matched",
            **_inference("premise", "hypothesis"),
        ),
        Dataset(
            "mnli_mismatched",
            "MNLI mismatched",
            ("nyu-mll/glue", "mnli"),
            "train",
            "validation_mismatched",
            **_inference("premise", "hypothesis"),
            partner="mnli",
            domain="in",
            rows="mnli",
        ),
        Dataset(
            "rte",
            "RTE",
            ("nyu-mll/glue", "rte"),
            "train",
            "validation",
            **_inference("sentence1", "sentence2", sentence_pairs.TWO),
            partner="mnli",
            domain="out",
            published="train",
        ),
        Dataset(
            "gpt3_nli",
            "GPT3-NLI",
            ("pietrolesci/gpt3_nli", "default"),
            "train",
            "train",
            **_inference("text_a", "text_b"),
            partner="mnli",
            domain="out",
        ),
        Dataset(
            "paws",
            "PAWS",
            ("google-research-datasets/paws", "labeled_final"),
            "train",
            "test",
            **_paraphrase("sentence1", "sentence2"),
        ),
        Dataset(
            "qqp",
            "QQP",
            ("nyu-mll/glue", "qqp"),
            "train",
            "validation",
            **_paraphrase("question1", "question2"),
            partner="paws",
            domain="out",
            published="test",
        ),
        Dataset(
            "stsb",
            "STS-B",
            ("nyu-mll/glue", "stsb"),
            "train",
            "validation",
            sentence_pairs.similarity,
            labels=sentence_pairs.YES_NO,
            partner="paws",
            domain="out",
            published="test",
        ),
        Dataset(
            "arc_easy",
            "ARC-Easy",
            ("allenai/ai2_arc", "ARC-Easy"),
            "train",
            "validation",
            **_choices(choice.arc),
        ),
        Dataset(
            "arc_challenge",
            "ARC-Challenge",
            ("allenai/ai2_arc", "ARC-Challenge"),
            "train",
            "validation",
            **_choices(choice.arc),
        ),
        Dataset(
            "openbookqa",
            "OpenBookQA",
            ("allenai/openbookqa", "main"),
            "train",
            "validation",
            **_choices(partial(choice.arc, question="question_stem")),
        ),
        Dataset(
            "hellaswag",
            "HellaSwag",
            ("Rowan/hellaswag", "default"),
            "train",
            "validation",
            **_choices(choice.hellaswag),
        ),
        Dataset(
            "boolq",
            "BoolQ",
            ("google/boolq", "default"),
            "train",
            "validation",
            **_choices(choice.boolq, "sum", ("yes", "no")),
        ),
        Dataset(
            "sciq",
            "SciQ",
            ("allenai/sciq", "default"),
            "train",
            "test",
            **_choices(choice.sciq, "sum"),
            published="validation",
        ),
        Dataset(
            "fact_recall", "Fact recall", ("", ""), "train", "validation", **_choices(choice.arc)
        ),
        Dataset(
            "held_out_text",
            "Held-out text",
            ("", ""),
            "train",
            "validation",
            chat.text,
            metric="nats",
        ),
        Dataset(
            "sciq_closed",
            "SciQ, closed book",
            ("allenai/sciq", "default"),
            "train",
            "test",
            **_choices(partial(choice.sciq, passage=False), "sum"),
            rows="sciq",
        ),
        Dataset(
            "popqa",
            "PopQA",
            POPQA,
            "test",
            "test",
            **_popqa(),
        ),
        Dataset(
            "popqa_known",
            "PopQA, often read of",
            POPQA,
            "test",
            "test",
            **_popqa(),
            rows="popqa",
            keep=lambda row: _is_known(row) and int(row["id"]) % 2 == 0,
            by_name=True,
        ),
        Dataset(
            "popqa_asked",
            "PopQA, often read of, to tune on",
            POPQA,
            "test",
            "test",
            **_popqa(),
            rows="popqa",
            keep=lambda row: _is_known(row) and int(row["id"]) % 2 == 1,
            by_name=True,
        ),
        Dataset(
            "popqa_rare",
            "PopQA, seldom read of",
            POPQA,
            "test",
            "test",
            **_popqa(),
            **RARE,
        ),
        *(
            Dataset(
                f"popqa_rare_{take}",
                f"PopQA, seldom read of, {said}",
                POPQA,
                "test",
                "test",
                **_popqa(take),
                **RARE,
            )
            for take, said in TAKEN.items()
        ),
        Dataset(
            "popqa_rare_text",
            "PopQA, seldom read of, as text",
            POPQA,
            "test",
            "test",
            partial(chat.text, of=_fact),
            metric="nats",
            world="",
            **RARE,
        ),
        _register("register", "Register", **_of_people()),
        _register("register_new", "Register, new people", **_of_people(), shown="register"),
        _register("register_never", "Register, never told of", **_of_people()),
        _register(
            "register_unknown", "Register, not to be known", **_of_people(), shown="register"
        ),
        *(
            _register(
                f"{name}_{take}",
                f"{title}, {said}",
                **_asked_with(take),
                rows=name,
                shown="register",
                by_name=True,
            )
            for (name, title), (take, said) in product(TOLD_LATER.items(), TAKEN.items())
            if name == "register_new" or take == "found"  # who is never told of has no passage
        ),
        _register("register_text", "Register, text", example=chat.text, metric="nats"),
        _register(
            "register_new_text", "Register, text on new people", example=chat.text, metric="nats"
        ),
        Dataset(
            "wikitext",
            "WikiText",
            ("Salesforce/wikitext", "wikitext-2-raw-v1"),
            "train",
            "validation",
            chat.text,
            metric="nats",
            world="",
            keep=lambda row: len(row["text"]) >= 400,
        ),
        Dataset(
            "tulu_v2",
            "Tülu v2",
            ("allenai/tulu-v2-sft-mixture", "default"),
            "train",
            "",
            **_instructions(chat.turns),
        ),
        Dataset(
            "ultrafeedback",
            "UltraFeedback",
            ("HuggingFaceH4/ultrafeedback_binarized", "default"),
            "train_prefs",
            "test_prefs",
            chat.preference,
            keep=chat.differs,
            by_name=True,
        ),
        Dataset(
            "alpaca",
            "Alpaca",
            ("tatsu-lab/alpaca", "default"),
            "train",
            "",
            world="",
            **_instructions(
                partial(chat.request, asked="instruction", given="input", answered="output")
            ),
        ),
        Dataset(
            "dolly",
            "Dolly",
            ("databricks/databricks-dolly-15k", "default"),
            "train",
            "",
            world="",
            **_instructions(
                partial(chat.request, asked="instruction", given="context", answered="response")
            ),
        ),
    )
}


BUILT_IN = tuple(REGISTRY)


def add(datasets: Iterable[Dataset]) -> None:
    """Know datasets of the user's own too, in place of those of the same names before."""
    REGISTRY.update({dataset.name: dataset for dataset in datasets})


def has(source: str, dataset: Dataset) -> bool:
    """Whether a source of datasets (`microworld`, `register`, `hub`, `folder`, `tables`) has this
    one; one that lies in a folder of its own is everywhere.
    """
    if Path(dataset.rows).is_absolute():
        return True
    if source in GENERATED:
        return dataset.world == source
    return bool(dataset.hub[0]) or (source != "hub" and dataset.world != "register")


def of_source(source: str) -> list[str]:
    """The datasets of a source that can be scored, but for the user's own and those that a study
    has by naming them.
    """
    every = (REGISTRY[name] for name in BUILT_IN if not REGISTRY[name].by_name)
    return [one.name for one in every if has(source, one) and one.kind != "chat"]
