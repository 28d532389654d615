"""What is said of a dataset: its source, what it measures, how a row becomes an example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pretune.tasks import chat
from pretune.tasks.example import FORMATS, Example

# what gives the score of a dataset, by its metric
OWN_MEASURES = {"accuracy": "choices", "rouge_l": "generation", "nats": "text_loss"}
# stands for a split: the tenth of the train split that learning rates are chosen on
RESERVE = "train reserve"


class Passages(NamedTuple):
    """Passages that stand before a question: the one that answers it (`own`), that `among` others,
    those that a retriever `found`, or `others` only.

    The collection are the rows of `split` of some datasets, of which `text` makes passages; a
    question's own has the same value in the column `key`.
    """

    take: Literal["own", "among", "found", "others"]
    of: tuple[str, ...]
    split: str
    key: str
    text: Callable[[dict], str]
    count: int = 3

    @property
    def many(self) -> int:
        """How many stand before a question."""
        return 1 if self.take == "own" else self.count


@dataclass(frozen=True)
class Dataset:
    """One dataset.

    `hub` is the repository and configuration on the Hub, `train` and `evaluation` are splits;
    the reference study scored `published` where that is another one. `rows` names the folder of
    the rows where it is not `name`; `keep` says which of them are items at all. `turns` makes a
    row of an instruction set a conversation. `world`: which generated one offers it too. `labels`
    are the words of a classification with the same labels everywhere; empty for questions with
    answers of their own and for generation. `normalisation` is what the log-likelihood of an
    answer is divided by for the headline accuracy: nothing (`sum`), its `tokens` or `characters`
    (OLMES, arXiv 2406.08446, divides by characters where answers differ in length). `partner`
    names the dataset whose task this is, in its domain or out of it.
    """

    name: str
    title: str
    hub: tuple[str, str]
    train: str
    evaluation: str
    example: Callable[[dict, str], Example]
    metric: Literal["accuracy", "rouge_l", "nats"] = "accuracy"
    normalisation: Literal["sum", "tokens", "characters"] = "sum"
    labels: tuple[str, ...] = ()
    partner: str = ""
    domain: Literal["in", "out", ""] = ""
    knowledge: bool = False  # asks for what pre-training teaches
    published: str = ""
    rows: str = ""
    world: Literal["microworld", "register", ""] = "microworld"
    turns: Callable[[dict], chat.Turns] | None = None
    keep: Callable[[dict], bool] | None = None
    formats: tuple[str, ...] = FORMATS  # in which it can be asked
    description: str = ""  # stands before the examples of a prompt
    between: str = "\n"  # stands after each of them
    # the dataset whose train split examples are of, where its own would tell what is asked
    shown: str = ""
    passages: Passages | None = None
    by_name: bool = False  # only in studies that name it

    @property
    def kind(self) -> Literal["generation", "classification", "choices", "text", "chat"]:
        if self.metric == "nats":
            return "chat" if self.turns else "text"
        if self.metric == "rouge_l":
            return "generation"
        return "classification" if self.labels else "choices"

    @property
    def competes(self) -> bool:
        """Whether several answers to an item are given, of which one is right."""
        return self.kind in ("classification", "choices")

    @property
    def measure(self) -> str:
        """The measure that gives its score."""
        return OWN_MEASURES[self.metric]

    @property
    def folder(self) -> str:
        return self.rows or self.name
