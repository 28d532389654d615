"""What the rows of one split may be made of."""

from __future__ import annotations

import random

from pretune.sources.microworld.text import documents, stranger, wordings
from pretune.sources.microworld.world import World


def said_of(name: str) -> dict:
    """The wordings of a dataset."""
    return wordings()["datasets"][name]


class Pool:
    """What a split may use of a world: its strangers, and its half of towns, jobs, rules and
    known people.
    """

    def __init__(self, world: World, name: str, draw: random.Random):
        start = 0 if name == "train" else 1
        self.world, self.name, self.draw = world, name, draw
        self.text = documents(world, f"held out {name}")
        self.towns, self.jobs = world.towns[start::2], world.jobs[start::2]
        self.rules, self.people = world.rules[start::2], world.people[start::2]
        self.known = {
            "town": [town.name for town in world.towns],
            "country": world.countries,
            "product": [town.product for town in world.towns],
            "river": [town.river for town in world.towns],
            "job": [job.name for job in world.jobs],
            "place": [job.place for job in world.jobs],
            "tool": [job.tool for job in world.jobs],
            "act": [rule.act for rule in world.rules],
            "state": [rule.state for rule in world.rules],
            "result": [rule.result for rule in world.rules],
            "pet": world.pets,
            "hobby": world.hobbies,
        }

    def pick(self, things):
        return self.draw.choice(things)

    def stranger(self) -> dict[str, str]:
        """Words about somebody without known facts, in this half of towns and jobs, with a rule
        at work.
        """
        person = stranger(self.world, self.name, self.draw, self.towns, self.jobs)
        return person.words() | self.pick(self.rules).words()

    def person(self) -> dict[str, str]:
        return self.pick(self.people).words()

    def trait(self, kind: str, words: dict[str, str], right: bool) -> dict[str, str]:
        """A trait of the town or the trade (`kind`) that `words` name, or the opposite of one."""
        things = self.towns if kind == "town" else self.jobs
        trait = self.pick(next(one for one in things if one.name == words[kind]).traits)
        return {"trait": trait if right else self.world.opposites[trait]}

    def wrong(self, key: str, right: str, count: int = 1) -> list[str]:
        """`count` things of the kind `key` that are not the right one, from the whole world."""
        return self.draw.sample(sorted(set(self.known[key]) - {right}), count)

    def other(self, key: str, right: str) -> str:
        """A thing of the kind `key` that is not the right one, of what this half may use."""
        things = self.towns if key in self.towns[0].words() else self.jobs
        there = {thing.words().get(key) for thing in things}
        if key == "pet":
            there = set(self.known[key])
        return self.pick(sorted(there - {right}) or self.wrong(key, right))

    def options(self, key: str, right: str) -> dict:
        """The right answer among three wrong ones, as ARC has them."""
        texts = [*self.wrong(key, right, 3), right]
        self.draw.shuffle(texts)
        return {
            "choices": {"text": texts, "label": list("ABCD")},
            "answerKey": "ABCD"[texts.index(right)],
        }
