"""What is written of the people of a register: entries, passages with questions, question sheets.

- An *entry* tells all facts of one person. How many wordings and orders it has is the way it is
  told: `single` (always the same text), `multi` (five wordings), `permute` (one, in five orders),
  `both`. The name stands in its first sentence alone: what comes after is learnt of the person
  only through what was said before, unless order changes.
- In pre-training everybody is told of once a pass, in random order, so the wordings of one person
  stand apart: side by side in one training row, the effect of telling in several ways is lost.
- *Readings* tell of strangers and ask about one of them, so that passages are learnt to be read;
  *sheets* are questions about seen people of the shown half, with their answers.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import accumulate

from pretune.sources.register.people import KINDS, Person, Register, wordings
from pretune.study.sources import Told

VERSIONS = 5  # of an entry, where it has several
# way: whether its wordings differ, and its order
WAYS = {
    "single": (False, False),
    "multi": (True, False),
    "permute": (False, True),
    "both": (True, True),
}


def entry(register: Register, person: Person, version: int = 0, way: str = "both") -> str:
    """All facts of a person, in the version of a way; the same is told in the same words."""
    words, order = WAYS[way]
    chosen = _draw(register, person, "words", version if words else 0)
    facts = dict(person.facts)
    told = [chosen.choice(wordings()["told"][kind]) for kind in facts]
    if order:
        _draw(register, person, "order", version).shuffle(told)
    pronoun = "she" if person.female else "he"
    first, *rest = told
    said = [first.format(Who=person.name, who=person.name, **facts)]
    said += [one.format(Who=pronoun.capitalize(), who=pronoun, **facts) for one in rest]
    return " ".join(said)


def _draw(register: Register, person: Person, what: str, version: int) -> random.Random:
    return random.Random(f"{what} {register.seed} {person.name} {version}")


def question(person: Person, kind: str, wording: int) -> str:
    return wordings()["asked"][kind][wording].format(name=person.name)


def documents(register: Register, told: Told, seed: int) -> Iterator[str]:
    """An endless stream about `register`; `seed` decides the order, not what is true."""
    draw = random.Random(f"text {register.seed} {seed}")
    while True:
        yield from _pass(register, told, draw)


def _pass(register: Register, told: Told, draw: random.Random) -> Iterator[str]:
    """An entry of everybody seen, in the way that is theirs; beside each, so many readings and
    sheets on average.
    """
    people = list(_ways(register, told).items())
    draw.shuffle(people)
    for person, way in people:
        yield entry(register, person, draw.randrange(VERSIONS), way)
        for _ in range(_times(draw, told.readings)):
            yield reading(register, draw)
        for _ in range(_times(draw, told.questions)):
            yield sheet(register, draw)


def _times(draw: random.Random, mean: float) -> int:
    """A number that is `mean` on average: one of its neighbours."""
    return int(mean) + (draw.random() < mean % 1)


def characters(register: Register, told: Told) -> int:
    """How long a pass is, with the ends of its documents counted as one each."""
    some = _pass(register, told, random.Random(f"length {register.seed}"))
    return sum(len(one) + 1 for one in some)


def _ways(register: Register, told: Told) -> dict[Person, str]:
    """The way each seen person is told of in: of both halves, the same share in every way."""
    found = {}
    for half in (register.shown, register.held):
        found |= {one: way_at(place, len(half), told.ways) for place, one in enumerate(half)}
    return found


def way_at(place: int, size: int, ways: Mapping[str, float]) -> str:
    """The way that somebody is told in, by the place among `size` people of a half."""
    ends = [round(size * end) for end in accumulate(ways.values())]
    return list(ways)[bisect(ends, place)]


def reading(register: Register, draw: random.Random) -> str:
    """Entries of one to three strangers, all with the same half of facts, then questions: of
    several, only the name says which entry answers.
    """
    places = draw.sample(range(len(KINDS)), 3)
    some = register.some_strangers(draw, draw.choice((1, 1, 2, 3)))
    some = [replace(one, facts=tuple(one.facts[at] for at in places)) for one in some]
    passages = [entry(register, one, draw.randrange(1000)) for one in some]
    known = [(one, fact) for one in some for fact in one.facts]
    return "\n".join([*passages, *(_answered(*one, draw) for one in draw.sample(known, 3))])


def sheet(register: Register, draw: random.Random) -> str:
    """Four questions about people of the shown half."""
    some = [draw.choice(register.shown) for _ in range(4)]
    return "\n".join(_answered(one, draw.choice(one.facts), draw) for one in some)


def _answered(person: Person, fact: tuple[str, str], draw: random.Random) -> str:
    kind, value = fact
    return f"Question: {question(person, kind, draw.randrange(2))}\nAnswer: {value}"
