"""The datasets of a register, one question a fact.

| dataset | train | validation |
|---|---|---|
| register | the shown half of seen people, in both wordings | the held half, in the first wording |
| register_new | new people, in the second wording | the same facts, in the first |
| register_never | as of register | never told people, in the first wording |
| register_unknown | as of register_new, all answered by `NOT_KNOWN` | of register_never, likewise |
| register_text | entries of seen people, as `both` tells them | the same people in other words |
| register_new_text | entries of new people in many versions | the same people in other words |

Whoever is asked about in a validation row, but for new people, is in no train row of a question;
and of those, none has the wording that is asked. Every tenth row of a train split is reserved
(module `tasks.rows`): where something is taught, those are about seen people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from pretune.sources.register.people import Person, Register
from pretune.sources.register.text import VERSIONS, entry, question

NOT_KNOWN = "unknown"
TAUGHT = 20  # versions of an entry about a new person
HELD_OUT = 1000  # a version that is in no text that is trained on


def write_datasets(register: Register, folder: Path) -> None:
    """Write every dataset as `folder/<dataset>/<split>.jsonl`."""
    for (name, split), rows in _splits(register).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _splits(register: Register) -> dict[tuple[str, str], list[dict]]:
    shown, held = register.shown, register.held
    new, never = register.new, register.never
    # from another place on, so that no fact is reserved in both wordings
    known = [*_questions(shown, 0), *_questions((*shown[1:], *shown[:1]), 1)]
    told = _entries(register, register.seen, range(VERSIONS))
    return {
        ("register", "train"): known,
        ("register", "validation"): list(_questions(held, 0)),
        ("register_new", "train"): _reserving(_questions(new, 1), known),
        ("register_new", "validation"): list(_questions(new, 0)),
        ("register_never", "train"): known,
        ("register_never", "validation"): list(_questions(never, 0)),
        ("register_unknown", "train"): _reserving(_questions(new, 1, NOT_KNOWN), known),
        ("register_unknown", "validation"): list(_questions(never, 0, NOT_KNOWN)),
        ("register_text", "train"): told,
        ("register_text", "validation"): _entries(register, register.seen, [HELD_OUT]),
        ("register_new_text", "train"): _reserving(_entries(register, new, range(TAUGHT)), told),
        ("register_new_text", "validation"): _entries(register, new, [HELD_OUT]),
    }


def _reserving(rows: Iterable[dict], others: Sequence[dict]) -> list[dict]:
    """The rows with others at the places that nothing is tuned on, so that all can be taught."""
    found, rest = [], cycle(others)
    for row in rows:
        found += [next(rest)] if len(found) % 10 == 9 else []
        found.append(row)
    return found


def _questions(people: Sequence[Person], wording: int, answer: str = "") -> Iterator[dict]:
    for person in people:
        for kind, value in person.facts:
            asked = question(person, kind, wording)
            yield {"question": asked, "answer": answer or value, "about": person.name, "fact": kind}


def _entries(register: Register, people: Sequence[Person], versions: Sequence[int]) -> list[dict]:
    """Version after version, so that the entries of one person stand apart; each begins with
    another person, so that nobody is reserved in all.
    """
    found = []
    for version in versions:
        start = version % len(people)
        for person in (*people[start:], *people[:start]):
            found.append({"text": entry(register, person, version), "about": person.name})
    return found
