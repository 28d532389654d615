"""The microworld: people, towns, jobs and rules of daily life, all drawn from one seed.

- Everything a model could know about the world is in this one frozen object, so what it learned,
  and what it lost, can be counted (the method of Allen-Zhu & Li, "Physics of Language Models":
  controlled synthetic text).
- *Facts about people* are arbitrary (who lives where): they can only be memorised.
- *Facts about towns* are arbitrary too, but shared by many people, and they compose: person, town,
  country.
- *Jobs* and *rules* (a state leads to an act, the act to a result) are English words a reader
  understands.
- Every pool of words and of syllables is cut in two *sides*. Worlds of one side share jobs and
  rules and differ in names and facts; worlds of two sides share no name, no fact and no rule.
- *Strangers* are names without facts, in three pools that never meet: pre-training text, tuning,
  evaluation.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, product

import yaml

VERSION = 5  # raise by hand when the same seed would give another world, text or dataset
NAMES = 24  # first names, and last names


@cache
def _words() -> dict:
    """All words, as `words.yaml` has them."""
    return yaml.safe_load(resources.files(__package__).joinpath("words.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Town:
    name: str
    country: str
    product: str
    river: str
    traits: tuple[str, ...]

    def words(self) -> dict[str, str]:
        """What a template may say about the town; likewise below."""
        said = {"town": self.name, "country": self.country}
        return said | {"product": self.product, "river": self.river}


@dataclass(frozen=True)
class Job:
    name: str
    place: str
    tool: str
    traits: tuple[str, ...]

    def words(self) -> dict[str, str]:
        return {"job": self.name, "place": self.place, "tool": self.tool}


@dataclass(frozen=True)
class Rule:
    state: str
    act: str
    result: str

    def words(self) -> dict[str, str]:
        return {"state": self.state, "act": self.act, "result": self.result}


@dataclass(frozen=True)
class Person:
    name: str
    female: bool
    town: Town
    job: Job
    hobby: str
    pet: str

    def words(self) -> dict[str, str]:
        pronoun = "she" if self.female else "he"
        said = {
            "name": self.name,
            "pronoun": pronoun,
            "Pronoun": pronoun.capitalize(),
            "hobby": self.hobby,
            "pet": self.pet,
        }
        return said | self.town.words() | self.job.words()


@dataclass(frozen=True)
class World:
    """What is true. `strangers` maps a pool (`text`, `train`, `evaluation`) to (name, female)
    pairs.
    """

    seed: int
    side: int
    countries: tuple[str, ...]
    towns: tuple[Town, ...]
    jobs: tuple[Job, ...]
    rules: tuple[Rule, ...]
    hobbies: tuple[str, ...]
    pets: tuple[str, ...]
    people: tuple[Person, ...]
    opposites: dict[str, str]  # of every trait
    strangers: dict[str, tuple[tuple[str, bool], ...]]


def make_world(
    seed: int, people: int = 80, towns: int = 40, countries: int = 8, side: int = 0
) -> World:
    """The world of `seed`: the same seed gives the same world on every machine."""
    draw = random.Random(f"world {seed} {side}")
    ours = {kind: some[side::2] for kind, some in _words().items() if isinstance(some, list)}
    traits = {kind: some[side::2] for kind, some in _words()["traits"].items()}
    parts = syllables(side)
    lands = made_names(draw, parts, "country", countries)
    named = made_names(draw, parts, "town", towns)
    settled = _towns(draw, named, lands, ours, traits["town"])
    jobs = tuple(
        Job(*words, _drawn(draw, traits["job"])) for words in _shuffled(draw, ours["jobs"])
    )
    rules = tuple(Rule(*parts) for parts in _shuffled(draw, ours["rules"]))
    full = full_names(draw, parts, NAMES)
    folk = tuple(
        Person(
            name,
            female,
            settled[i % towns],
            draw.choice(jobs),
            draw.choice(ours["hobbies"]),
            draw.choice(ours["pets"]),
        )
        for i, (name, female) in enumerate(full[:people])
    )
    rest = full[people:]
    pools = {pool: tuple(rest[i::3]) for i, pool in enumerate(("text", "train", "evaluation"))}
    hobbies, pets = tuple(ours["hobbies"]), tuple(ours["pets"])
    return World(
        seed, side, lands, settled, jobs, rules, hobbies, pets, folk, _opposites(traits), pools
    )


def _towns(
    draw: random.Random, names: tuple[str, ...], lands: tuple[str, ...], ours: dict, traits: list
) -> tuple[Town, ...]:
    """Towns, drawn again until a question about one has a right answer and three wrong ones."""
    while True:
        settled = tuple(
            Town(
                name,
                lands[i // 2 % len(lands)],
                draw.choice(ours["products"]),
                draw.choice(ours["rivers"]),
                _drawn(draw, traits),
            )
            for i, name in enumerate(names)
        )
        if min(len({town.product for town in settled}), len({town.river for town in settled})) > 3:
            return settled


def _drawn(draw: random.Random, pairs: list[list[str]]) -> tuple[str, ...]:
    return tuple(map(draw.choice, pairs))


def _opposites(traits: dict[str, list[list[str]]]) -> dict[str, str]:
    found = {}
    for one, other in chain.from_iterable(traits.values()):
        found |= {one: other, other: one}
    return found


def syllables(side: int) -> list[str]:
    """Those that the names of a side begin with."""
    every = list(map("".join, product(_words()["onsets"], _words()["vowels"])))
    random.Random("sides").shuffle(every)
    return every[side::2]


def _shuffled(draw: random.Random, things: list) -> list:
    return draw.sample(things, len(things))


def made_names(draw: random.Random, parts: list[str], kind: str, count: int) -> tuple[str, ...]:
    """`count` different capitalised names, of syllables, with one of the ends of their kind."""
    ends = _words()["ends"][kind]
    return tuple((stem + draw.choice(ends)).capitalize() for stem in draw.sample(parts, count))


def full_names(draw: random.Random, parts: list[str], count: int) -> list[tuple[str, bool]]:
    """Every one of `count` first names with every one of as many last names, and the gender of the
    first name, in random order.
    """
    first, last = (made_names(draw, parts, kind, count) for kind in ("first", "last"))
    female = {name: i % 2 == 0 for i, name in enumerate(first)}
    full = [(f"{one} {two}", female[one]) for one, two in product(first, last)]
    draw.shuffle(full)
    return full
