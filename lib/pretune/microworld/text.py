"""The pre-training text of a microworld: short documents of seven kinds, one random stream per seed.

- Lives, places and trades state facts in several wordings; tales run from a state to an act to a result;
  visits, talks and sheets ask and answer. Kinds and shares are in `KINDS`.
- The wordings here are not those of the datasets (`datasets.py`), and tales are told of strangers of the
  `text` pool only: no prompt of a dataset stands here with its answer.
- A gist or a yes/no question stands in a small share of documents, as it does in text from the web.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pretune.microworld.world import HOBBIES, Job, Person, Rule, Town, World
from pretune.microworld.world import PETS as ANIMALS

LIVES = ("{name} lives in {town}.", "{name} has a house in {town}.", "The home of {name} is in {town}.",
         "In {town} you may meet {name}.", "{name} grew up in {town}, a town in {country}.")
TRADE = ("{name} is a {job}.", "{name} works as a {job}.", "People know {name} as a {job}.",
         "{name} is a {job} and works in the {place}.", "{name} is a {job} and uses the {tool}.")
JOYS = ("{name} enjoys {hobby}.", "{Pronoun} spends the evenings {hobby}.", "What {pronoun} loves is {hobby}.")
PETS = ("{name} has a {pet}.", "{Pronoun} keeps a {pet} at home.", "A {pet} lives with {name}.")

ASKED = (("Where does {name} live?", "{Pronoun} lives in {town}."), ("What is the job of {name}?", "{Pronoun} is a {job}."),
         ("Which animal has {name}?", "{Pronoun} has a {pet}."), ("What does {name} enjoy?", "{Pronoun} enjoys {hobby}."))

ABOUT_PEOPLE = (("Where does {name} live?", "{town}"), ("What is the job of {name}?", "{job}"),
                ("Which pet has {name}?", "{pet}"), ("What does {name} enjoy?", "{hobby}"))
ABOUT_TOWNS = (("Where is {town}?", "{country}"), ("In which country lies {town}?", "{country}"),
               ("What does {town} make?", "{product}"), ("On which river stands {town}?", "{river}"))
ABOUT_JOBS = (("Where does a {job} work?", "{place}"), ("What does a {job} use?", "{tool}"),
              ("Who works in the {place}?", "{job}"), ("Who uses the {tool}?", "{job}"))

COUNTRY = ("{town} is a town in {country}.", "{town} lies in {country}.", "People from {town} come from {country}.",
           "One town of {country} is {town}.", "Who was born in {town} comes from {country}.")
PRODUCT = ("{town} makes {product}.", "Traders buy {product} in {town}.", "The {product} of {town} is famous.")
RIVER = ("{town} stands on the river {river}.", "The river {river} runs through {town}.")

WORKPLACE = ("A {job} works in the {place}.", "In the {place} you find a {job}.", "The {place} is where a {job} works.")
TOOLS = ("A {job} uses the {tool}.", "With the {tool} works a {job}.", "No {job} can do without the {tool}.")

MORNINGS = ("One morning", "One day", "Last week", "On a Monday", "Yesterday", "In the evening")
WAS = ("{when} {name} was {state}.", "{when} {pronoun} was {state}.", "{name} was {state}, {pronoun} said.")
THEN = ("So {pronoun} {act}.", "Then {pronoun} {act}.", "That is why {pronoun} {act}.", "Quickly {pronoun} {act}.",
        "Because of this {pronoun} {act}.", "In the end {pronoun} {act}.")
AFTER = ("After that {pronoun} {result}.", "Soon {pronoun} {result}.", "And {pronoun} {result}.",
         "Thanks to this {pronoun} {result}.", "Finally {pronoun} {result}.")
YES = ("Yes, indeed.", "Yes, that is right.", "Yes.")
NO = ("No, not at all.", "No, that is wrong.", "No.")


def documents(world: World, seed: int) -> Iterator[str]:
    """An endless stream of documents about `world`; `seed` decides which, not what is true."""
    draw = random.Random(f"text {world.seed} {seed}")
    kinds, shares = zip(*KINDS, strict=True)
    while True:
        yield draw.choices(kinds, shares)[0](world, draw)


def person_words(person: Person) -> dict[str, str]:
    """Every word a template may use about `person`."""
    return {
        "name": person.name, "pronoun": person.pronoun, "Pronoun": person.pronoun.capitalize(),
        "town": person.town.name, "country": person.town.country, "job": person.job.name,
        "place": person.job.place, "tool": person.job.tool, "hobby": person.hobby, "pet": person.pet,
    }


def town_words(town: Town) -> dict[str, str]:
    return {"town": town.name, "country": town.country, "product": town.product, "river": town.river}


def job_words(job: Job) -> dict[str, str]:
    return {"job": job.name, "place": job.place, "tool": job.tool}


def rule_words(rule: Rule, name: str, female: bool) -> dict[str, str]:
    pronoun = "she" if female else "he"
    return {"name": name, "pronoun": pronoun, "Pronoun": pronoun.capitalize(),
            "state": rule.state, "act": rule.act, "result": rule.result}


def _life(world: World, draw: random.Random) -> str:
    person = draw.choice(world.people)
    rest = [draw.choice(kind) for kind in (TRADE, JOYS, PETS)]
    draw.shuffle(rest)
    return " ".join([draw.choice(LIVES), *rest]).format(**person_words(person))


def _place(world: World, draw: random.Random) -> str:
    town = draw.choice(world.towns)
    sentences = [*draw.sample(COUNTRY, 2), draw.choice(PRODUCT), draw.choice(RIVER)]
    draw.shuffle(sentences)
    return " ".join(sentences).format(**town_words(town))


def _trade(world: World, draw: random.Random) -> str:
    sentences = []
    for job in draw.sample(world.jobs, 2):
        pair = [draw.choice(WORKPLACE), draw.choice(TOOLS)]
        draw.shuffle(pair)
        sentences += [sentence.format(**job_words(job)) for sentence in pair]
    return " ".join(sentences)


def _tale(world: World, draw: random.Random) -> str:
    rule, (name, female) = draw.choice(world.rules), draw.choice(world.strangers["text"])
    words = rule_words(rule, name, female)
    town, job = draw.choice(world.towns), draw.choice(world.jobs)
    about = draw.choice((f"{name} from {town.name} is a {job.name}.", f"{name} lives in {town.name}, {town.country}.",
                         f"{name} was at the {job.place} with the {job.tool}, as a {job.name} is."))
    told = [draw.choice(WAS), draw.choice(THEN), draw.choice(AFTER)]
    if draw.random() < 0.2:
        told.append(f"In short, a {job.name} from {town.country} {{act}}." if job.name in about
                    else f"In short, {{name}} from {town.country} {{act}}.")
    return " ".join([about, *told]).format(**words, when=draw.choice(MORNINGS))


def _visit(world: World, draw: random.Random) -> str:
    """A stranger's life and questions about it: what is asked can only be read there."""
    (name, female), job = draw.choice(world.strangers["text"]), draw.choice(world.jobs)
    person = Person(name, female, draw.choice(world.towns), job, draw.choice(HOBBIES), draw.choice(ANIMALS))
    told = [draw.choice(LIVES), *draw.sample([draw.choice(TRADE), draw.choice(JOYS), draw.choice(PETS)], 3)]
    if draw.random() < 0.5:
        asked = " ".join(" ".join(pair) for pair in draw.sample(ASKED, 2))
    else:
        asked = "Question: {}\nAnswer: {}".format(*draw.choice(ABOUT_PEOPLE))
    return f"{' '.join(told)} {asked}".format(**person_words(person))


def _sheet(world: World, draw: random.Random) -> str:
    """Questions with short answers, one under the other, as on an exercise sheet."""
    lines = []
    for _ in range(4):
        words, questions = draw.choice(((person_words(draw.choice(world.people)), ABOUT_PEOPLE),
                                        (town_words(draw.choice(world.towns)), ABOUT_TOWNS),
                                        (job_words(draw.choice(world.jobs)), ABOUT_JOBS)))
        question, answer = draw.choice(questions)
        lines.append(f"Question: {question}\nAnswer: {answer}".format(**words))
    return "\n".join(lines)


def _talk(world: World, draw: random.Random) -> str:
    return "\n".join(draw.choice((_ask_home, _ask_trade, _ask_country))(world, draw) for _ in range(2))


def _ask_home(world: World, draw: random.Random) -> str:
    person = draw.choice(world.people)
    return " ".join(draw.choice(ASKED)).format(**person_words(person))


def _ask_trade(world: World, draw: random.Random) -> str:
    job = draw.choice(world.jobs)
    said = job if draw.random() < 0.5 else draw.choice(world.jobs)
    name, _ = draw.choice(world.strangers["text"])
    relation = draw.choice(("work in the {place}", "use the {tool}")).format(**job_words(said))
    answer = draw.choice(YES if said == job else NO)
    return f"{name} is a {job.name}. Does a {job.name} {relation}? {answer}"


def _ask_country(world: World, draw: random.Random) -> str:
    town, (name, female) = draw.choice(world.towns), draw.choice(world.strangers["text"])
    country = town.country if draw.random() < 0.5 else draw.choice(world.countries)
    answer = draw.choice(YES if country == town.country else NO)
    return f"{name} was born in {town.name}. Does {'she' if female else 'he'} come from {country}? {answer}"


KINDS = (
    (_life, 0.10), (_place, 0.15), (_trade, 0.10), (_tale, 0.25), (_visit, 0.15), (_talk, 0.10), (_sheet, 0.15),
)
