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
from itertools import product

VERSION = 3  # raise by hand when the same seed would give another world, text or dataset
ONSETS = "b br d dr f g h j k l m n p r s st t tr v z".split()
VOWELS = "a e i o u".split()
FIRST_ENDS = "la na ra ri mi ko bo do vin len".split()
LAST_ENDS = "lan ter sen vik mar dow nell gard".split()
TOWN_ENDS = "ford wick ton mere holm by".split()
COUNTRY_ENDS = "aria onia istan uland".split()
JOBS = [
    line.split()
    for line in """
baker bakery tray; farmer field plough; doctor clinic needle; teacher school chalk; smith forge
hammer; sailor harbour rope; painter studio brush; cook kitchen knife; tailor workshop thread;
miner mine lamp; gardener garden spade; carpenter sawmill saw; judge court gavel; barber salon
razor; potter pottery wheel; librarian library ladder; brewer brewery barrel; hunter forest bow;
mason quarry chisel; clerk bureau stamp; weaver mill loom; shepherd meadow crook; jeweller
boutique loupe; plumber cellar wrench
""".replace("\n", " ").split(";")
]
HOBBIES = """
gambling singing dancing running swimming knitting drawing sailing reading riding juggling
climbing cooking fishing skating fencing
""".split()
PETS = (
    "cat dog goat parrot rabbit pony turtle hen hamster goose ferret mouse duck lizard donkey "
    "squirrel"
).split()
PRODUCTS = (
    "cheese honey silk glass wool wine salt paper leather copper sugar pepper rice amber tea "
    "carpets"
).split()
RIVERS = "Arn Belt Corve Dune Esk Fal Gant Hule Isk Jarl Kerr Lune Mosk Nid Orne Pell".split()
# A state of a person, the act it leads to, and what comes of it.
RULES = [
    tuple(rule.strip().split(" | "))
    for rule in """
thirsty | drank some water | was fresh again; hungry | ate some bread | was full at last;
tired | went to bed | slept for hours; cold | lit a fire | was warm soon;
wet | put on dry clothes | was comfortable; lost | asked for the way | found the road;
bored | opened a book | learned something new; ill | took a bitter herb | was healthy again;
dirty | washed with soap | was clean; scared | called a friend | was calm again;
late | took the fast cart | came on time; sad | sang an old song | smiled again;
lonely | visited a neighbour | made a friend; poor | sold an old ring | had some coins;
angry | counted to ten | spoke kindly; sleepy | drank strong coffee | stayed awake;
hot | sat in the shade | cooled down; curious | opened the box | knew the secret;
proud | showed the prize | was praised; nervous | took a deep breath | was brave;
hurt | put on a bandage | stopped bleeding; blind in the dark | lit a candle | saw the door;
in love | wrote a letter | got a sweet answer; homesick | packed the bags | was home at last;
in debt | worked all night | paid the bill; out of breath | stopped to rest | could walk on;
grateful | baked a cake | gave it away; jealous | bought a new coat | was content;
guilty | told the truth | was forgiven; clumsy | practised every day | won the contest;
confused | read the map | understood the plan; worried | locked the gate | was safe
""".split(";")
]


@dataclass(frozen=True)
class Town:
    name: str
    country: str
    product: str
    river: str

    def words(self) -> dict[str, str]:
        """What a template may say about the town; likewise below."""
        return {
            "town": self.name,
            "country": self.country,
            "product": self.product,
            "river": self.river,
        }


@dataclass(frozen=True)
class Job:
    name: str
    place: str
    tool: str

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
    countries: tuple[str, ...]
    towns: tuple[Town, ...]
    jobs: tuple[Job, ...]
    rules: tuple[Rule, ...]
    hobbies: tuple[str, ...]
    pets: tuple[str, ...]
    people: tuple[Person, ...]
    strangers: dict[str, tuple[tuple[str, bool], ...]]


def make_world(
    seed: int, people: int = 80, towns: int = 40, countries: int = 8, side: int = 0
) -> World:
    """The world of `seed`: the same seed gives the same world on every machine."""
    draw = random.Random(f"world {seed} {side}")
    syllables = [onset + vowel for onset, vowel in product(ONSETS, VOWELS)]
    random.Random("sides").shuffle(syllables)
    syllables = syllables[side::2]
    lands = _names(draw, syllables, COUNTRY_ENDS, countries)
    names = _names(draw, syllables, TOWN_ENDS, towns)
    settled = tuple(
        Town(
            name,
            lands[i // 2 % countries],
            draw.choice(PRODUCTS[side::2]),
            draw.choice(RIVERS[side::2]),
        )
        for i, name in enumerate(names)
    )
    jobs = tuple(Job(*words) for words in _shuffled(draw, JOBS[side::2]))
    rules = tuple(Rule(*parts) for parts in _shuffled(draw, RULES[side::2]))
    full = _full_names(draw, syllables)
    hobbies, pets = HOBBIES[side::2], PETS[side::2]
    folk = tuple(
        Person(
            name,
            female,
            settled[i % towns],
            draw.choice(jobs),
            draw.choice(hobbies),
            draw.choice(pets),
        )
        for i, (name, female) in enumerate(full[:people])
    )
    rest = full[people:]
    pools = {pool: tuple(rest[i::3]) for i, pool in enumerate(("text", "train", "evaluation"))}
    return World(seed, lands, settled, jobs, rules, tuple(hobbies), tuple(pets), folk, pools)


def _shuffled(draw: random.Random, things: list) -> list:
    return draw.sample(things, len(things))


def _names(
    draw: random.Random, syllables: list[str], ends: list[str], count: int
) -> tuple[str, ...]:
    """`count` different capitalised names with one of the `ends`."""
    return tuple((stem + draw.choice(ends)).capitalize() for stem in draw.sample(syllables, count))


def _full_names(draw: random.Random, syllables: list[str]) -> list[tuple[str, bool]]:
    """Every (first name, last name) with the gender of the first name, in random order."""
    first, last = _names(draw, syllables, FIRST_ENDS, 40), _names(draw, syllables, LAST_ENDS, 40)
    female = {name: i % 2 == 0 for i, name in enumerate(first)}
    full = [(f"{one} {two}", female[one]) for one, two in product(first, last)]
    draw.shuffle(full)
    return full
