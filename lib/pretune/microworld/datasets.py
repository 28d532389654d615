"""The datasets of a microworld, under the names, splits and columns that the real ones have on the Hub.

Each asks for another ability, as the real ones do:

| dataset | ability | held out for evaluation |
|---|---|---|
| xsum | gist: who (trade and country, both to be inferred) did what | half of the towns and trades |
| mnli | inference over what goes together: town and country, trade and workplace | half of the towns and trades |
| rte | the same, other topics (town and river, trade and tool), longer premise, two labels | half of them |
| hellaswag | continuation: the act a state leads to, the result an act has | every name |
| arc_easy | direct facts about towns and trades, no passage | two thirds of the facts |
| sciq | an answer that stands in the passage | every name |

Wordings are not those of the pre-training text, and names in passages are strangers of the pool of their split, so
no prompt with its answer stands in the text or in another split.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from pretune.microworld.text import JOYS, LIVES, MORNINGS, PETS, TRADE, job_words, person_words, rule_words, town_words
from pretune.microworld.world import HOBBIES, Person, World
from pretune.microworld.world import PETS as ANIMALS

TRAIN_ROWS, EVALUATION_ROWS = 2000, 600  # at most; sets of facts are smaller

ASKED_TOWN = {
    "country": "Which country does {town} belong to?",
    "product": "What is bought by visitors of {town}?",
    "river": "Which river passes {town}?",
}
ASKED_JOB = {
    "place": "Where would you look for a {job}?",
    "tool": "What belongs in the hands of a {job}?",
    "job": "Who is busy with the {tool}?",
}
ASKED_PERSON = {
    "town": "Which town is home to {name}?",
    "job": "What does {name} do for a living?",
    "pet": "Which animal keeps {name} company?",
    "hobby": "What is the pastime of {name}?",
}
NEUTRAL = ("{name} feeds a {pet}.", "{name} is good at {hobby}.", "{name} is {state} today.")


def write_datasets(world: World, folder: Path) -> None:
    """Write every dataset as `folder/<dataset>/<split>.jsonl`."""
    for name, splits in SPLITS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split in splits:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in dataset_rows(world, name, split)]
            (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def dataset_rows(world: World, name: str, split: str) -> list[dict]:
    """The rows of one split; the same world gives the same rows."""
    draw = random.Random(f"{name} {split} {world.seed}")
    return MAKERS[name](world, "train" if split == "train" else "evaluation", draw)


def _distinct(make: Callable[[], dict], pool: str) -> list[dict]:
    """Rows of `make` without repeats, as many as the pool's size; some sets run out of new ones before."""
    rows, wanted = {}, TRAIN_ROWS if pool == "train" else EVALUATION_ROWS
    for _ in range(3 * wanted):
        row = make()
        rows.setdefault(json.dumps(row), row)
        if len(rows) == wanted:
            break
    return list(rows.values())


def _half(things: tuple, pool: str) -> tuple:
    """The even ones for training, the odd ones for evaluation."""
    return things[0::2] if pool == "train" else things[1::2]


def _two_thirds(facts: list, pool: str, draw: random.Random) -> list:
    """A third of the facts for training, the rest for evaluation; the cut does not depend on the pool."""
    random.Random("facts").shuffle(facts)
    cut = len(facts) // 3
    part = facts[:cut] if pool == "train" else facts[cut:]
    draw.shuffle(part)
    return part


def _stranger(world: World, pool: str, draw: random.Random) -> Person:
    """Somebody without known facts, placed in the pool's half of towns and trades."""
    name, female = draw.choice(world.strangers[pool])
    towns, jobs = _half(world.towns, pool), _half(world.jobs, pool)
    return Person(name, female, draw.choice(towns), draw.choice(jobs), draw.choice(HOBBIES), draw.choice(ANIMALS))


def _others(right: str, options: set[str], count: int, draw: random.Random) -> list[str]:
    return draw.sample(sorted(options - {right}), count)


def _xsum(world: World, pool: str, draw: random.Random) -> list[dict]:
    def make() -> dict:
        person, rule = _stranger(world, pool, draw), draw.choice(world.rules)
        words = person_words(person) | rule_words(rule, person.name, person.female)
        told = [
            draw.choice(("{name} was raised in {town}.", "{name} is a native of {town}.")),
            draw.choice(("All day {pronoun} is busy in the {place}.", "The {place} is full when {pronoun} is there.")),
            f"{draw.choice(('At noon', 'Before dawn', 'Late at night', 'On market day'))} {{pronoun}} was {{state}}.",
            draw.choice(("{Pronoun} {act}, and nobody minded.", "At once {pronoun} {act}, as one does.")),
            draw.choice(("The sky was grey.", "The streets were quiet.", "A bell was heard far away.")),
        ]
        return {"document": " ".join(told).format(**words), "summary": "A {job} from {country} {act}.".format(**words)}

    return [{**row, "id": str(i)} for i, row in enumerate(_distinct(make, pool))]


def _claim(world: World, pool: str, draw: random.Random, topics: tuple, label: int) -> tuple[Person, str]:
    """A person and a hypothesis that follows from (0), says nothing of (1), or goes against (2) town or trade."""
    person, rule = _stranger(world, pool, draw), draw.choice(world.rules)
    words = person_words(person) | town_words(person.town) | {"state": rule.state}
    if label == 1:
        return person, draw.choice(NEUTRAL).format(**words)
    key, sentence = draw.choice(topics)
    if label == 2:
        known = {getattr(thing, key) for thing in (world.towns if hasattr(person.town, key) else world.jobs)}
        words[key] = _others(words[key], known, 1, draw)[0]
    return person, sentence.format(**words)


def _mnli(world: World, pool: str, draw: random.Random) -> list[dict]:
    topics = (("country", "{name} comes from somewhere in {country}."), ("place", "{name} is at work in the {place}."))

    def make() -> dict:
        label = draw.randrange(3)
        person, hypothesis = _claim(world, pool, draw, topics, label)
        premise = draw.choice(("{name}, the {job}, was raised in {town}.", "{name} of {town} earns a living as a {job}."))
        return {"premise": premise.format(**person_words(person)), "hypothesis": hypothesis, "label": label}

    return [{**row, "idx": i} for i, row in enumerate(_distinct(make, pool))]


def _rte(world: World, pool: str, draw: random.Random) -> list[dict]:
    topics = (("river", "{name} has seen the {river} many times."), ("tool", "{name} knows how to use the {tool}."))

    def make() -> dict:
        label = draw.randrange(2)
        person, hypothesis = _claim(world, pool, draw, topics, draw.choice((1, 2)) if label else 0)
        premise = "The home of {name} was always {town}. {Pronoun} was a {job} there, and {pronoun} liked it."
        return {"sentence1": premise.format(**person_words(person)), "sentence2": hypothesis, "label": label}

    return [{**row, "idx": i} for i, row in enumerate(_distinct(make, pool))]


def _hellaswag(world: World, pool: str, draw: random.Random) -> list[dict]:
    def make() -> dict:
        person, rule = _stranger(world, pool, draw), draw.choice(world.rules)
        words = rule_words(rule, person.name, person.female)
        key, first, then = draw.choice((("act", "{name} was {state} that day.", "Without delay {pronoun}"),
                                        ("result", "{name} {act} when {pronoun} was {state}.", "Later {pronoun}")))
        right = getattr(rule, key)
        endings = _others(right, {getattr(other, key) for other in world.rules}, 3, draw) + [right]
        draw.shuffle(endings)
        first, then = first.format(**words), then.format(**words)
        return {"activity_label": draw.choice(MORNINGS), "ctx_a": first, "ctx_b": then, "ctx": f"{first} {then}",
                "endings": [f"{ending}." for ending in endings], "label": str(endings.index(right))}

    extra = {"source_id": "microworld", "split": pool, "split_type": "indomain"}
    return [{"ind": i, **row, **extra} for i, row in enumerate(_distinct(make, pool))]


def _arc_easy(world: World, pool: str, draw: random.Random) -> list[dict]:
    facts = [(town_words(town), key, ASKED_TOWN[key], world.towns) for town in world.towns for key in ASKED_TOWN]
    facts += [(job_words(job), key, ASKED_JOB[key], world.jobs) for job in world.jobs for key in ASKED_JOB]
    rows = []
    for words, key, question, things in _two_thirds(facts, pool, draw):
        options = {getattr(thing, "name" if key == "job" else key) for thing in things}
        texts = _others(words[key], options, 3, draw) + [words[key]]
        draw.shuffle(texts)
        rows.append({"id": f"{pool}-{len(rows)}", "question": question.format(**words),
                     "choices": {"text": texts, "label": list("ABCD")}, "answerKey": "ABCD"[texts.index(words[key])]})
    return rows


def _sciq(world: World, pool: str, draw: random.Random) -> list[dict]:
    known = {"town": {town.name for town in world.towns}, "job": {job.name for job in world.jobs},
             "pet": set(ANIMALS), "hobby": set(HOBBIES)}

    def make() -> dict:
        person = _stranger(world, pool, draw)
        words, key = person_words(person), draw.choice(sorted(ASKED_PERSON))
        told = [draw.choice(LIVES[:4]), draw.choice(TRADE[:3]), draw.choice(JOYS), draw.choice(PETS)]
        wrong = _others(words[key], known[key], 3, draw)
        return {"question": ASKED_PERSON[key].format(**words), "correct_answer": words[key],
                "support": " ".join(told).format(**words)} | {f"distractor{i + 1}": wrong[i] for i in range(3)}

    return _distinct(make, pool)


MAKERS = {"xsum": _xsum, "mnli": _mnli, "rte": _rte, "hellaswag": _hellaswag, "arc_easy": _arc_easy, "sciq": _sciq}
SPLITS = {
    "xsum": ("train", "test"),
    "mnli": ("train", "validation_matched"),
    "rte": ("train", "validation"),
    "hellaswag": ("train", "validation"),
    "arc_easy": ("train", "validation"),
    "sciq": ("train", "validation"),
}
