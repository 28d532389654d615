"""What every family makes of a row, and the words the families share."""

from dataclasses import dataclass

FORMATS = ("default", "instruct", "io")  # the training format, a plain request, the bare inputs (Sun & Dredze, Table 5)
BLANK = "N/A"  # stands for the item in a content-free prompt (Zhao et al. 2021, contextual calibration)


class RowError(ValueError):
    """A dataset row that cannot be used: the message says which field and why."""


@dataclass(frozen=True)
class Example:
    """One item as text.

    `prompt` ends without a space. `choices` are the completions that compete, each with its leading space; a
    generation task has one, the gold text. `gold` is the index of the right one. `blank` is the prompt with `BLANK`
    in place of what the item says, to measure what the model would answer anyway. `source` is the text that a
    summary could copy its first sentence from, empty elsewhere.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int
    blank: str
    source: str = ""

    @property
    def completion(self) -> str:
        return self.choices[self.gold]


def text_of(row: dict, field: str) -> str:
    """The text in `field` on one line; an empty or missing one is an error."""
    text = " ".join(str(row.get(field) or "").split())
    if not text:
        raise RowError(f"{field} is empty or missing")
    return text


def label_of(row: dict, field: str, count: int) -> int:
    """The label in `field`, 0 to count - 1; hidden labels (-1) are refused."""
    label = int(row[field])
    if not 0 <= label < count:
        raise RowError(f"{field} is {label}, allowed are 0 to {count - 1} (-1 marks a split with hidden labels)")
    return label
