"""Rows of the sets on two sentences: does one follow from the other, do they say the same?"""

from __future__ import annotations

from pretune.sources.microworld.pool import Pool, said_of
from pretune.sources.microworld.text import OPPOSED, relations


def _follows(
    pool: Pool, name: str, topics: tuple[str, ...], labels: tuple[int, ...] = (0, 0, 1, 2, 2)
) -> tuple[str, str, int]:
    """Premise, hypothesis and label: it follows (0), nothing is said of it (1), it goes against
    the premise (2).
    """
    said, key, label = said_of(name), pool.pick(topics), pool.pick(labels)
    words = pool.stranger()
    premise = pool.pick(said["premise"]).format(**words)
    if label == 1:
        return premise, pool.pick(said_of("neutral")).format(**words), label
    if key in ("town", "job"):
        words |= pool.trait(key, words, right=label == 0)
    elif label == 2:
        words[key] = pool.wrong(key, words[key])[0]
    return premise, said[key].format(**words), label


def mnli(pool: Pool, name: str = "mnli") -> dict:
    premise, hypothesis, label = _follows(pool, name, ("town", "job"))
    return {"premise": premise, "hypothesis": hypothesis, "label": label}


def mnli_mismatched(pool: Pool) -> dict:
    return mnli(pool, "mnli_mismatched")


def rte(pool: Pool) -> dict:
    premise, hypothesis, label = _follows(pool, "rte", ("river", "tool"), (0, 0, 1, 2))
    return {"sentence1": premise, "sentence2": hypothesis, "label": min(label, 1)}


def gpt3_nli(pool: Pool) -> dict:
    premise, hypothesis, label = _follows(pool, "gpt3_nli", ("act",))
    return {"text_a": premise, "text_b": hypothesis, "label": label}


def _alike(pool: Pool, patterns: dict[str, list[str]]) -> tuple[str, str, int]:
    """Two sentences about the same name and thing that say the same relation (1) or opposed ones
    (0).

    Of all pairs of wordings, half serve training and the other half evaluation.
    """
    half = 0 if pool.name == "train" else 1
    while True:
        (one, other), label = pool.draw.sample(pool.pick(OPPOSED), 2), pool.draw.randrange(2)
        second = one if label else other
        places = pool.draw.randrange(len(patterns[one])), pool.draw.randrange(len(patterns[second]))
        if sum(places) % 2 == half and (places[0] != places[1] or one != second):
            break
    words = pool.stranger()
    return (
        patterns[one][places[0]].format(**words),
        patterns[second][places[1]].format(**words),
        label,
    )


def paws(pool: Pool) -> dict:
    one, two, label = _alike(pool, relations(pool.world))
    return {"sentence1": one, "sentence2": two, "label": label}


def qqp(pool: Pool) -> dict:
    one, two, label = _alike(pool, said_of("qqp"))
    return {"question1": one, "question2": two, "label": label}


def stsb(pool: Pool) -> dict:
    """5 the same in other words, 4 what belongs to it, 1 what belongs to another trade, 0
    another trade.
    """
    said, words = said_of("stsb"), pool.stranger()
    label = pool.pick((5.0, 4.0, 1.0, 0.0))
    other = words
    if label < 2:
        other = pool.pick([job for job in pool.jobs if job.name != words["job"]]).words()
    second = pool.pick(said["near" if label in (4.0, 1.0) else "same"])
    return {
        "sentence1": pool.pick(said["one"]).format(**words),
        "sentence2": second.format(**words | other),
        "label": label,
    }
