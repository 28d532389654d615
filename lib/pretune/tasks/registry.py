"""Which datasets there are: where they come from, what they measure, how a row becomes an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pretune.tasks import choice, inference, summary
from pretune.tasks.example import Example


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `hub` is the repository and configuration on the Hub. `labels` are the words of a classification with the same
    labels everywhere; empty for questions with answers of their own and for generation. `normalisation` is what the
    log-likelihood of an answer is divided by for the headline accuracy: nothing (`sum`), its `tokens` or `characters`
    (OLMES, arXiv 2406.08446, divides by characters where answers differ in length). `domain_of` names the dataset
    whose task this is in another domain.
    """

    name: str
    title: str
    hub: tuple[str, str]
    train: str
    evaluation: str
    example: Callable[[dict, str], Example]
    metric: Literal["accuracy", "rouge_l"] = "accuracy"
    normalisation: Literal["sum", "tokens", "characters"] = "sum"
    labels: tuple[str, ...] = ()
    domain_of: str | None = None

    @property
    def kind(self) -> Literal["generation", "classification", "choices"]:
        if self.metric == "rouge_l":
            return "generation"
        return "classification" if self.labels else "choices"


def _inference(one: str, two: str, labels: tuple[str, ...]) -> dict:
    return {"example": partial(inference.example, one=one, two=two, labels=labels), "labels": labels}


REGISTRY = {
    dataset.name: dataset
    for dataset in (
        Dataset("xsum", "XSum", ("EdinburghNLP/xsum", "default"), "train", "test", summary.example, "rouge_l"),
        Dataset("mnli", "MNLI", ("nyu-mll/glue", "mnli"), "train", "validation_matched",
                **_inference("premise", "hypothesis", inference.THREE)),
        Dataset("rte", "RTE", ("nyu-mll/glue", "rte"), "train", "validation",
                **_inference("sentence1", "sentence2", inference.TWO), domain_of="mnli"),
        Dataset("hellaswag", "HellaSwag", ("Rowan/hellaswag", "default"), "train", "validation", choice.hellaswag,
                normalisation="characters"),
        Dataset("arc_easy", "ARC-Easy", ("allenai/ai2_arc", "ARC-Easy"), "train", "validation", choice.arc,
                normalisation="characters"),
        Dataset("sciq", "SciQ", ("allenai/sciq", "default"), "train", "validation", choice.sciq),
    )
}
