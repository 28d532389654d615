"""The people of a register, and what is true of them: all drawn from one seed.

- Six facts a person, each independent of all others: they can only be memorised, or read (after
  Allen-Zhu & Li, "Physics of Language Models" 3.1, arXiv 2309.14316).
- *Seen* people stand in pre-training text: of a half questions may be asked in training, the other
  half is *held* out of all questions. *New* people are taught after pre-training, *never* told
  ones nowhere. *Strangers* are names only: each time one is told of, the facts are others.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from pretune.sources.microworld.world import full_names, made_names, syllables
from pretune.study.sources import People

VERSION = 1  # raise by hand when the same seed would give other people, text or datasets
NAMES = 40  # first names, and last names
TOWNS = 20
STRANGERS = 100


@cache
def wordings() -> dict:
    """All words and sentences, as `wordings.yaml` has them."""
    return yaml.safe_load(resources.files(__package__).joinpath("wordings.yaml").read_text("utf-8"))


KINDS = tuple(wordings()["told"])  # of facts


@dataclass(frozen=True)
class Person:
    """`facts` are the values of each kind of fact, in the order of `wordings`."""

    name: str
    female: bool
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Register:
    """Everybody by pool."""

    seed: int
    shown: tuple[Person, ...]  # half of the seen
    held: tuple[Person, ...]  # the other half
    new: tuple[Person, ...]
    never: tuple[Person, ...]
    strangers: tuple[tuple[str, bool], ...]  # name, and whether female
    values: tuple[tuple[str, tuple[str, ...]], ...]  # of each kind of fact

    @property
    def seen(self) -> tuple[Person, ...]:
        return (*self.shown, *self.held)

    def some_strangers(self, draw: random.Random, count: int) -> list[Person]:
        """So many different ones, with facts that are made up on the spot."""
        names = draw.sample(self.strangers, count)
        return [Person(*one, _facts(draw, self.values)) for one in names]


def make_register(size: People) -> Register:
    """The register of a seed: the same seed gives the same people on every machine."""
    draw, seen, new = random.Random(f"register {size.seed}"), size.seen, size.new
    parts = syllables(0)
    towns = made_names(draw, parts, "town", TOWNS)
    values = {"town": towns} | {kind: tuple(some) for kind, some in wordings()["values"].items()}
    values = tuple(values.items())
    full = full_names(draw, parts, NAMES)
    folk = [Person(*one, _facts(draw, values)) for one in full[: seen + new + size.never]]
    half = seen // 2
    strangers = tuple(full[len(folk) : len(folk) + STRANGERS])
    pools = (folk[:half], folk[half:seen], folk[seen : seen + new], folk[seen + new :])
    return Register(size.seed, *map(tuple, pools), strangers, values)


def _facts(draw: random.Random, values: tuple) -> tuple[tuple[str, str], ...]:
    return tuple((kind, draw.choice(some)) for kind, some in values)
