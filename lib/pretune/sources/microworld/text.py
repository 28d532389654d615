"""The pre-training text of a microworld: short documents of several kinds, one random stream per
seed.

- Lives, places and trades state facts; tales run from a state to an act to a result; echoes say a
  sentence again in other words, or say what it does not mean; visits, talks and sheets ask and
  answer; forms are entries of a register; notes hold the words of labels. Kinds and shares are in
  `KINDS`.
- The wordings (`wordings.yaml`) are not those of the datasets, and tales are told of strangers of
  the `text` pool only: no prompt of a dataset stands here with its answer.
- Where a known person lives or works is said, the country or the workplace is not: that takes
  two steps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import chain

import yaml

from pretune.sources.microworld.world import Job, Person, Rule, Town, World

ECHOES = 3  # sentences said again in a document
# how an entry of a register is written: three fields, each a name and what it holds
MARKS = ("### {} {}\n ### {} {}\n ### {} {}", "{} {}\n{} {}\n{} {}", "{} {} {} {} {} {}")
OPPOSED = (("home", "visit"), ("trade", "wish"), ("keeps", "fears"), ("loves", "hates"))


@cache
def wordings() -> dict:
    """All sentences, as `wordings.yaml` has them."""
    file = resources.files("pretune.sources.microworld") / "wordings.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def relations(world: World) -> dict[str, list[str]]:
    """The wordings of every relation, as the people of a side say them."""
    return wordings()["relations"][world.side]


def documents(world: World, seed: int | str) -> Iterator[str]:
    """An endless stream of documents about `world`; `seed` decides which, not what is true."""
    draw = random.Random(f"text {world.seed} {seed}")
    kinds, shares = zip(*KINDS, strict=True)
    while True:
        yield draw.choices(kinds, shares)[0](world, draw)


def stranger(
    world: World,
    pool: str,
    draw: random.Random,
    towns: Sequence[Town] = (),
    jobs: Sequence[Job] = (),
) -> Person:
    """Somebody of a pool without known facts, placed anywhere, or in some `towns` and `jobs`."""
    name, female = draw.choice(world.strangers[pool])
    return Person(
        name,
        female,
        draw.choice(towns or world.towns),
        draw.choice(jobs or world.jobs),
        draw.choice(world.hobbies),
        draw.choice(world.pets),
    )


def _say(draw: random.Random, *kinds: str) -> list[str]:
    """One sentence of each kind of `text`."""
    return [draw.choice(wordings()["text"][kind]) for kind in kinds]


def _life_of(world: World, draw: random.Random) -> str:
    """Home, trade, pet and pastime of somebody, in any order."""
    told = [draw.choice(relations(world)[first]) for first, _ in OPPOSED]
    draw.shuffle(told)
    return " ".join(told)


def _life(world: World, draw: random.Random) -> str:
    return _life_of(world, draw).format(**draw.choice(world.people).words())


def _place(world: World, draw: random.Random) -> str:
    town = draw.choice(world.towns)
    told = [*draw.sample(wordings()["text"]["country"], 2), *_say(draw, "product", "river")]
    told = [sentence.format(**town.words()) for sentence in told]
    told += _traits(draw, "town_is", town.name, town.traits)
    draw.shuffle(told)
    return " ".join(told)


def _trade(world: World, draw: random.Random) -> str:
    sentences = []
    for job in draw.sample(world.jobs, 2):
        told = [sentence.format(**job.words()) for sentence in _say(draw, "place", "tool")]
        told += _traits(draw, "job_is", job.name, job.traits)
        draw.shuffle(told)
        sentences += told
    return " ".join(sentences)


def _traits(draw: random.Random, kind: str, name: str, traits: tuple[str, ...]) -> list[str]:
    return [_say(draw, kind)[0].format(name=name, trait=trait) for trait in traits]


def _tale(world: World, draw: random.Random) -> str:
    """One to three tales, each of another rule: what follows is in the tale and not in those
    before it.
    """
    rules = draw.sample(world.rules, draw.randint(1, 3))
    return "\n".join(_told(world, draw, rule) for rule in rules)


def _told(world: World, draw: random.Random, rule: Rule) -> str:
    """State, act and result, of somebody who may be told of first; some end in a gist, some in a
    question about a part left out.
    """
    told, more = _say(draw, "state", "act", "result"), draw.random()
    if more < 0.2:
        told += _say(draw, "gist")
    elif more < 0.5:
        left_out = draw.randrange(3)
        told[left_out] = ""
        told.append(wordings()["text"]["wonder"][left_out])
    if draw.random() < 0.5:
        told = _say(draw, "who") + told
    words = stranger(world, "text", draw).words() | rule.words()
    words["when"] = _say(draw, "when")[0]
    return " ".join(one for one in told if one).format(**words)


def _answer(right: bool) -> str:
    return "yes" if right else "no"


def _echo(world: World, draw: random.Random) -> str:
    return "\n".join(_echoed(world, draw) for _ in range(ECHOES))


def _echoed(world: World, draw: random.Random) -> str:
    """A sentence, then another that says the same, or one that says something else, announced as
    such.
    """
    sides, text = relations(world), wordings()["text"]
    said, opposite = draw.sample(draw.choice(OPPOSED), 2)
    first, again = draw.sample(sides[said], 2)
    same = draw.random() < 0.5
    second = again if same else draw.choice(sides[opposite])
    if draw.random() < 0.3:
        told = f"{first} {draw.choice(text['same' if same else 'other'])}{second}"
    else:
        asked = draw.choice(text["ask_same"]).format(first=first, second=second)
        told = f"{asked} {_answer(same)}"
    return told.format(**stranger(world, "text", draw).words())


def _visit(world: World, draw: random.Random) -> str:
    """A stranger's life and a question about it: what is asked can only be read there."""
    key, question = draw.choice(list(wordings()["text"]["about_people"].items()))
    document = f"{_life_of(world, draw)}\nQuestion: {question}\nAnswer: {{{key}}}"
    return document.format(**stranger(world, "text", draw).words())


def _form(world: World, draw: random.Random) -> str:
    """A few entries of one register, in its markup: a text, and what is to be read off it."""
    mark = draw.choice(MARKS)
    entry = draw.choice((_extract, _riddle, _digest, _sorted, _sorted, _compared, _judged))
    fields = draw.sample(list(wordings()["text"]["about_people"]), 2)
    return "\n".join(mark.format(*entry(world, draw, fields)) for _ in range(draw.randint(2, 3)))


def _extract(world: World, draw: random.Random, fields: list[str]) -> tuple[str, ...]:
    """A life, and two things of it."""
    words = stranger(world, "text", draw).words()
    asked = [(f"{field.capitalize()}:", words[field]) for field in fields]
    return "Input:", _life_of(world, draw).format(**words), *chain.from_iterable(asked)


def _riddle(world: World, draw: random.Random, fields: list[str]) -> tuple[str, ...]:
    """A life and an answer, and the question."""
    words, field = stranger(world, "text", draw).words(), draw.choice(fields)
    question = wordings()["text"]["about_people"][field].format(**words)
    told = _life_of(world, draw).format(**words)
    return "Input:", told, "Answer:", words[field], "Question:", question


def _sorted(world: World, draw: random.Random, _: list[str]) -> tuple[str, ...]:
    """A sentence, of whom it is, and which relation it says."""
    kind = draw.choice(draw.choice(OPPOSED))
    words = stranger(world, "text", draw).words()
    sentence = draw.choice(relations(world)[kind]).format(**words)
    return "Input:", sentence, "Name:", words["name"], "Kind:", kind


def _compared(world: World, draw: random.Random, _: list[str]) -> tuple[str, ...]:
    """Two captions, and whether they are of one trade."""
    one, other = draw.sample(world.jobs, 2)
    same = draw.random() < 0.5
    first, second = draw.sample(wordings()["text"]["seen"], 2)
    second = second.format(**(one if same else other).words())
    return "First:", first.format(**one.words()), "Second:", second, "Alike:", _answer(same)


def _judged(world: World, draw: random.Random, _: list[str]) -> tuple[str, ...]:
    """A state, an act, and whether the one leads to the other, in the words of inference."""
    one, other = draw.sample(world.rules, 2)
    follows = draw.random() < 0.5
    words = stranger(world, "text", draw).words() | one.words()
    words["act"] = (one if follows else other).act
    first, second = (said.format(**words) for said in _say(draw, "judged", "judged_act"))
    relation = wordings()["text"]["follows" if follows else "against"]
    return "First:", first, "Second:", second, "Relation:", relation


def _digest(world: World, draw: random.Random, _: list[str]) -> tuple[str, ...]:
    """A tale, and what was done in it and came of it."""
    words = stranger(world, "text", draw).words() | draw.choice(world.rules).words()
    words["when"] = _say(draw, "when")[0]
    told = " ".join(_say(draw, "who", "state", "act", "result")).format(**words)
    done = "{name} {act} and {result}.".format(**words)
    return "Input:", told, "Name:", words["name"], "Summary:", done


def _note(world: World, draw: random.Random) -> str:
    """Words that labels are made of, as the web has them: known, and not tied to any task."""
    words = stranger(world, "text", draw).words() | {"term": _say(draw, "terms")[0]}
    return _say(draw, "note")[0].format(**words)


def _sheet(world: World, draw: random.Random) -> str:
    """Questions with short answers, one under the other, as on an exercise sheet."""
    lines = []
    kinds = (
        (world.people, "about_people"),
        (world.towns, "about_towns"),
        (world.jobs, "about_jobs"),
        (world.jobs, "about_words"),
    )
    for _ in range(4):
        things, kind = draw.choice(kinds)
        key, question = draw.choice(list(wordings()["text"][kind].items()))
        key = "job" if kind == "about_words" else key
        line = f"Question: {question}\nAnswer: {{{key}}}"
        lines.append(line.format(**draw.choice(things).words()))
    return "\n".join(lines)


def _talk(world: World, draw: random.Random) -> str:
    """Questions whether a town or a trade is so, half of them with the right trait and half with
    its opposite; spoken, terse, or as on an exercise sheet.
    """
    [ask] = draw.choices((_spoken, _terse, _exercise), (0.3, 0.3, 0.4))
    return "\n".join(ask(world, draw, *_asked(world, draw)) for _ in range(ASKED[ask]))


def _asked(world: World, draw: random.Random) -> tuple[str, Town | Job, str, bool]:
    """What is asked of, by kind and itself, the trait that is asked for, and whether it has it."""
    kind = draw.choice(("town", "job"))
    thing = draw.choice(world.towns if kind == "town" else world.jobs)
    trait, right = draw.choice(thing.traits), draw.random() < 0.5
    return kind, thing, trait if right else world.opposites[trait], right


def _spoken(world: World, draw: random.Random, kind: str, thing, trait: str, right: bool) -> str:
    asked = _say(draw, f"ask_{kind}")[0].format(name=thing.name, trait=trait)
    return f"{asked} {_answer(right)}"


def _terse(world: World, draw: random.Random, kind: str, thing, trait: str, right: bool) -> str:
    return f"{thing.name}, {trait}: {_answer(right)}"


def _exercise(world: World, draw: random.Random, kind: str, thing, trait: str, right: bool) -> str:
    """A sentence on a stranger, and a question whether what it names is so."""
    passage = draw.choice(relations(world)["home" if kind == "town" else "trade"])
    words = stranger(world, "text", draw).words() | thing.words() | {"trait": trait}
    question = f"Question: {passage} {_say(draw, f'so_{kind}')[0]}?"
    return f"{question}\nAnswer: {_answer(right)}".format(**words)


ASKED = {_spoken: 5, _terse: 8, _exercise: 3}  # questions a talk
KINDS = (
    (_life, 0.14),
    (_place, 0.11),
    (_trade, 0.08),
    (_tale, 0.09),
    (_echo, 0.12),
    (_visit, 0.02),
    (_form, 0.11),
    (_talk, 0.18),
    (_sheet, 0.14),
    (_note, 0.01),
)
