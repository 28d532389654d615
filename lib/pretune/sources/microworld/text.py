"""The pre-training text of a microworld: short documents of several kinds, one random stream per
seed.

- Lives, places and trades state facts; tales run from a state to an act to a result; echoes say a
  sentence again in other words, or say what it does not mean; visits, talks and sheets ask and
  answer; notes hold the words of labels. Kinds and shares are in `KINDS`.
- The wordings (`wordings.yaml`) are not those of the datasets, and tales are told of strangers of
  the `text` pool only: no prompt of a dataset stands here with its answer.
- Where a known person lives or works is said, the country or the workplace is not: that takes
  two steps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from importlib import resources

import yaml

from pretune.sources.microworld.world import Person, World

OPPOSED = (("home", "visit"), ("trade", "wish"), ("keeps", "fears"), ("loves", "hates"))


@cache
def wordings() -> dict:
    """All sentences, as `wordings.yaml` has them."""
    file = resources.files("pretune.sources.microworld") / "wordings.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def documents(world: World, seed: int | str) -> Iterator[str]:
    """An endless stream of documents about `world`; `seed` decides which, not what is true."""
    draw = random.Random(f"text {world.seed} {seed}")
    kinds, shares = zip(*KINDS, strict=True)
    while True:
        yield draw.choices(kinds, shares)[0](world, draw)


def stranger(world: World, pool: str, draw: random.Random) -> Person:
    """Somebody of a pool without known facts, placed anywhere."""
    name, female = draw.choice(world.strangers[pool])
    return Person(
        name,
        female,
        draw.choice(world.towns),
        draw.choice(world.jobs),
        draw.choice(world.hobbies),
        draw.choice(world.pets),
    )


def _say(draw: random.Random, *kinds: str) -> list[str]:
    """One sentence of each kind, a key of `text` or `relations`."""
    every = wordings()["text"] | wordings()["relations"]
    return [draw.choice(every[kind]) for kind in kinds]


def _life(world: World, draw: random.Random) -> str:
    told = _say(draw, *(first for first, _ in OPPOSED))
    draw.shuffle(told)
    return " ".join(told).format(**draw.choice(world.people).words())


def _place(world: World, draw: random.Random) -> str:
    told = [*draw.sample(wordings()["text"]["country"], 2), *_say(draw, "product", "river")]
    draw.shuffle(told)
    return " ".join(told).format(**draw.choice(world.towns).words())


def _trade(world: World, draw: random.Random) -> str:
    sentences = []
    for job in draw.sample(world.jobs, 2):
        pair = _say(draw, "place", "tool")
        draw.shuffle(pair)
        sentences += [sentence.format(**job.words()) for sentence in pair]
    return " ".join(sentences)


def _tale(world: World, draw: random.Random) -> str:
    """Who it is about, then state, act and result; some end in a gist, some in a question about
    a part left out.
    """
    told, more = _say(draw, "state", "act", "result"), draw.random()
    if more < 0.2:
        told += _say(draw, "gist")
    elif more < 0.5:
        left_out = draw.randrange(3)
        told[left_out] = ""
        told.append(wordings()["text"]["wonder"][left_out])
    words = stranger(world, "text", draw).words() | draw.choice(world.rules).words()
    words["when"] = _say(draw, "when")[0]
    return " ".join(one for one in (*_say(draw, "who"), *told) if one).format(**words)


def _echo(world: World, draw: random.Random) -> str:
    """A sentence, then another that says the same, or one that says something else, announced as
    such.
    """
    relations, text = wordings()["relations"], wordings()["text"]
    said, opposite = draw.sample(draw.choice(OPPOSED), 2)
    first, again = draw.sample(relations[said], 2)
    same = draw.random() < 0.5
    second = again if same else draw.choice(relations[opposite])
    if draw.random() < 0.5:
        told = f"{first} {draw.choice(text['same' if same else 'other'])}{second}"
    else:
        asked = text["ask_same"].format(first=first, second=second)
        told = f"{asked} {text['yes' if same else 'no']}"
    return told.format(**stranger(world, "text", draw).words())


def _visit(world: World, draw: random.Random) -> str:
    """A stranger's life and a question about it: what is asked can only be read there."""
    told = _say(draw, *(first for first, _ in OPPOSED))
    draw.shuffle(told)
    key, question = draw.choice(list(wordings()["text"]["about_people"].items()))
    document = f"{' '.join(told)}\nQuestion: {question}\nAnswer: {{{key}}}"
    return document.format(**stranger(world, "text", draw).words())


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
    """Two questions whether something goes with something, half of them with the right thing."""
    return "\n".join(_ask(world, draw) for _ in range(2))


def _ask(world: World, draw: random.Random) -> str:
    kinds = (("country", world.towns), ("place", world.jobs), ("tool", world.jobs))
    kind, things = draw.choice(kinds)
    true, said = draw.choice(things), draw.choice(things)
    if draw.random() < 0.5:
        said = true
    right = getattr(said, kind) == getattr(true, kind)
    words = stranger(world, "text", draw).words() | true.words() | {kind: getattr(said, kind)}
    answer = wordings()["text"]["yes" if right else "no"]
    return f"{_say(draw, f'ask_{kind}')[0]} {answer}".format(**words)


KINDS = (
    (_life, 0.12),
    (_place, 0.12),
    (_trade, 0.08),
    (_tale, 0.2),
    (_echo, 0.12),
    (_visit, 0.04),
    (_talk, 0.16),
    (_sheet, 0.12),
    (_note, 0.04),
)
