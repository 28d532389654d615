"""Conversations to tune on, answers of which one is preferred, and plain text to measure perplexity
on.
"""

from collections.abc import Callable

from pretune.tasks.example import ASSISTANT, BLANK, USER, Example, RowError, text_of

Turns = list[tuple[str, str]]  # (prompt, answer): the prompt in chat markup, the answer as it is


def turns(row: dict) -> Turns:
    """The exchanges of a row with `messages` (role and content). A system message goes before the
    first question.

    Raises RowError unless user and assistant take turns and the assistant has the last word.
    """
    messages = [(message["role"], message["content"].strip()) for message in row["messages"]]
    system = messages.pop(0)[1] + "\n" if messages[0][0] == "system" else ""
    roles = [role for role, _ in messages]
    if not roles or len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        raise RowError(f"messages must be of user and assistant in turn, not {', '.join(roles)}")
    texts = [text for _, text in messages]
    return [
        (USER + (system if i == 0 else "") + texts[i] + ASSISTANT, texts[i + 1])
        for i in range(0, len(texts), 2)
    ]


def request(row: dict, asked: str, given: str, answered: str) -> Turns:
    """One exchange from columns: the request, what it is about (may be empty), the answer
    (Alpaca, Dolly).
    """
    about = str(row.get(given) or "").strip()
    about = f"\n{about}" if about else ""
    return [(USER + text_of(row, asked) + about + ASSISTANT, _text(row, answered))]


def _text(row: dict, field: str) -> str:
    """The text in `field` with its line ends."""
    text_of(row, field)
    return str(row[field]).strip()


def answer(row: dict, form: str, exchanges: Callable[[dict], Turns] = turns) -> Example:
    """The last answer after all that was said before it, to measure how likely it is."""
    *before, (asked, last) = exchanges(row)
    said = "".join(f"{prompt}{reply}\n" for prompt, reply in before)
    return Example(said + asked, (last,), 0, USER + BLANK + ASSISTANT)


def preference(row: dict, form: str) -> Example:
    """Two answers to the same request, the better one `chosen`, the other `rejected`, as
    conversations that differ in their last answer. In the order of their texts.

    Raises RowError where they are the same.
    """
    *before, (asked, better) = turns({"messages": row["chosen"]})
    worse = turns({"messages": row["rejected"]})[-1][1]
    if better == worse:
        raise RowError("chosen and rejected are the same")
    said = "".join(f"{prompt}{reply}\n" for prompt, reply in before)
    answers = tuple(sorted((better, worse)))
    return Example(said + asked, answers, answers.index(better), USER + BLANK + ASSISTANT)


def differs(row: dict) -> bool:
    """Whether the two answers of a preference are there, and are not the same."""
    better, worse = (row[name][-1]["content"].strip() for name in ("chosen", "rejected"))
    return bool(better and worse) and better != worse


def text(row: dict, form: str, of: Callable[[dict], str] | None = None) -> Example:
    """A document as one completion of nothing: `text`, or what `of` makes of a row."""
    said = text_of(row, "text") if of is None else of(row)
    return Example("", (said,), 0, "")
