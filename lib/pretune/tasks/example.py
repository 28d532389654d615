"""What every family makes of a row, and the words the families share."""

from collections.abc import Sequence
from dataclasses import dataclass

# training format, plain request, bare inputs (Sun & Dredze, Table 5), chat
FORMATS = ("default", "instruct", "io", "chat")
# stands for the item in a content-free prompt (Zhao et al. 2021, contextual calibration)
BLANK = "N/A"
# chat markup of Tülu (Wang et al. 2023, arXiv 2306.04751)
USER, ASSISTANT = "<|user|>\n", "\n<|assistant|>\n"


class RowError(ValueError):
    """A dataset row that cannot be used: the message says which field and why."""


class HiddenLabel(RowError):
    """A row whose label is not public."""


@dataclass(frozen=True)
class Example:
    """One item as text.

    `prompt` ends without a space. `choices` are the completions that compete, each with its
    leading space (none in chat); a generation task has one, the gold text. `gold` is the index
    of the right one. `blank` is the prompt with `BLANK` in place of what the item says, to
    measure what the model would answer anyway. `source` is the text that a summary could copy
    its first sentence from, empty elsewhere.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int
    blank: str
    source: str = ""

    @property
    def completion(self) -> str:
        return self.choices[self.gold]


def asked(
    templates: dict[str, str],
    form: str,
    choices: Sequence[str],
    gold: int,
    source: str = "",
    **fields: str,
) -> Example:
    """The example that `templates[form]` makes of `fields`. In chat, the default prompt is the
    user's turn.
    """
    template = templates["default" if form == "chat" else form]
    prompt, blank = template.format(**fields), template.format(**dict.fromkeys(fields, BLANK))
    if form == "chat":
        return Example(
            USER + prompt + ASSISTANT, tuple(choices), gold, USER + blank + ASSISTANT, source
        )
    return Example(prompt, tuple(" " + choice for choice in choices), gold, blank, source)


def text_of(row: dict, field: str) -> str:
    """The text in `field` on one line; an empty or missing one is an error."""
    text = " ".join(str(row.get(field) or "").split())
    if not text:
        raise RowError(f"{field} is empty or missing")
    return text


def label_of(row: dict, field: str, count: int) -> int:
    """The label in `field`, 0 to count - 1; hidden labels (-1) are refused."""
    label = int(row[field])
    if label == -1:
        raise HiddenLabel(f"{field} is -1, which marks a split with hidden labels")
    if not 0 <= label < count:
        raise RowError(f"{field} is {label}, allowed are 0 to {count - 1}")
    return label
