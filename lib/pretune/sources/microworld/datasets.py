"""The datasets of a microworld, under the names, splits and columns that the real ones have on the
Hub.

Each asks for another ability, as the real ones do. Towns, trades, rules and known people are cut in
halves: one for training rows, one for evaluation rows, so what is asked was never tuned on and has
to come from pre-training. MNLI, which no small model learns in that way, holds out pairs of town
and trade; PAWS holds out pairs of wordings.

| dataset | ability | beside the set that is tuned on |
|---|---|---|
| xsum | gist: who (trade and country, both to be inferred) did what | |
| xlsum | the same | other style: a report, told backwards |
| cnn_dailymail | gist in two sentences | other topic (a market) and style |
| social_i_qa | asking for given answers: before, next or after, of whom (to be inferred) | |
| sciq_question | asking for a given answer | other topic (lives) and style |
| tweet_qa | asking for a given answer | other topic (pastimes), style of a tweet |
| mnli | inference over what goes together: town and country, trade and workplace | |
| mnli_mismatched | the same | other style: spoken |
| rte | inference, two labels | other topic (town and river, trade and tool) |
| gpt3_nli | consequence: state and act | other topic, short sentences |
| paws | restatement: do two sentences on the same name and thing say the same relation | |
| qqp | the same | other style: questions |
| stsb | likeness of captions | other topic (trades) and style |
| hellaswag | story continuation: the act a state leads to, the result an act has | |
| boolq | yes or no over a passage: does something go with what was read | |
| arc_easy | direct facts about towns and trades | |
| arc_challenge | two steps: person, town, country; person, trade, workplace | |
| openbookqa | association: workplace and tool, never named in one sentence of the text | |
| sciq | facts about known people, with a passage that says them | |
| fact_recall | the same facts, closed book; all were seen, in other wording | |
| held_out_text | documents of the pre-training stream that were not read | |
| tulu_v2 | instructions of a dozen kinds as conversations | |
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from pretune.sources.microworld.text import OPPOSED, documents, wordings
from pretune.sources.microworld.world import Person, World

TRAIN_ROWS, EVALUATION_ROWS = 2000, 600  # at most


def write_datasets(world: World, folder: Path) -> None:
    """Write every dataset as `folder/<dataset>/<split>.jsonl`."""
    for name, splits in SPLITS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split in splits:
            rows = dataset_rows(world, name, split)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def dataset_rows(world: World, name: str, split: str) -> list[dict]:
    """The rows of one split, without repeats; the same world gives the same rows."""
    half = "train" if split == "train" else "evaluation"
    pool = Pool(world, half, random.Random(f"{name} {split} {world.seed}"))
    make = _mnli_mismatched if split == "validation_mismatched" else MAKERS[name]
    wanted = TRAIN_ROWS if split == "train" else EVALUATION_ROWS
    rows: dict[str, dict] = {}
    for _ in range(3 * wanted):
        row = make(pool)
        rows.setdefault(json.dumps(row), row)
        if len(rows) == wanted:
            break
    extra = {"label": -1} if (name, split) in HIDDEN else {}
    key, form = IDS.get(name, ("", None))
    return [row | extra | ({key: form(i)} if form else {}) for i, row in enumerate(rows.values())]


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
        (name, female), world = self.pick(self.world.strangers[self.name]), self.world
        person = Person(
            name,
            female,
            self.pick(self.towns),
            self.pick(self.jobs),
            self.pick(world.hobbies),
            self.pick(world.pets),
        )
        return person.words() | self.pick(self.rules).words()

    def newcomer(self) -> dict[str, str]:
        """The same with any town and job, but in pairs that no other split has."""
        world, start = self.world, 0 if self.name == "train" else 1
        town, job = self.draw.randrange(len(world.towns)), self.draw.randrange(len(world.jobs))
        job = job if (town + job) % 2 == start else (job + 1) % len(world.jobs)
        return self.stranger() | world.towns[town].words() | world.jobs[job].words()

    def person(self) -> dict[str, str]:
        return self.pick(self.people).words()

    def wrong(self, key: str, right: str, count: int = 1) -> list[str]:
        """`count` things of the kind `key` that are not the right one, from the whole world."""
        return self.draw.sample(sorted(set(self.known[key]) - {right}), count)

    def options(self, key: str, right: str) -> dict:
        """The right answer among three wrong ones, as ARC has them."""
        texts = [*self.wrong(key, right, 3), right]
        self.draw.shuffle(texts)
        return {
            "choices": {"text": texts, "label": list("ABCD")},
            "answerKey": "ABCD"[texts.index(right)],
        }


def _said(name: str) -> dict:
    return wordings()["datasets"][name]


def _xsum(pool: Pool) -> dict:
    said, words = _said("xsum"), pool.stranger()
    told = [
        pool.pick(said["home"]),
        pool.pick(said["work"]),
        pool.pick(said["when"]) + " {pronoun} was {state}.",
        pool.pick(said["act"]),
        pool.pick(said["rest"]),
    ]
    return {"document": " ".join(told).format(**words), "summary": said["gist"].format(**words)}


def _xlsum(pool: Pool) -> dict:
    words = pool.stranger()
    return {
        "title": words["act"],
        "text": " ".join(_said("xlsum")["report"]).format(**words),
        "summary": _said("xsum")["gist"].format(**words),
    }


def _cnn_dailymail(pool: Pool) -> dict:
    said, words = _said("cnn_dailymail"), pool.stranger()
    return {
        "article": " ".join(said["report"]).format(**words),
        "highlights": said["gist"].format(**words),
    }


def _social_i_qa(pool: Pool) -> dict:
    """The answers say what is asked for: states before, acts next, results after."""
    said, words = _said("social_i_qa"), pool.stranger()
    told, asked = pool.pick((("was {state}", "act"), ("{act}", "state"), ("{act}", "result")))
    answers = [*pool.wrong(asked, words[asked], 2), words[asked]]
    pool.draw.shuffle(answers)
    context = pool.pick(said["context"]).replace("{told}", told).format(**words)
    return {
        "context": context,
        "question": said[asked].format(**words),
        "label": str(answers.index(words[asked]) + 1),
    } | {f"answer{letter}": answer for letter, answer in zip("ABC", answers, strict=True)}


def _tweet_qa(pool: Pool) -> dict:
    said, words = _said("tweet_qa"), pool.stranger()
    asked = pool.pick(("town", "hobby", "pet"))
    return {
        "Question": said[asked].format(**words),
        "Answer": [words[asked]],
        "Tweet": pool.pick(said["tweet"]).format(**words),
    }


def _infer(
    pool: Pool, name: str, topics: tuple[str, ...], labels: tuple[int, ...] = (0, 1, 2)
) -> tuple[str, str, int]:
    """Premise, hypothesis and label: it follows (0), nothing is said of it (1), it goes against
    the premise (2).
    """
    said, key, label = _said(name), pool.pick(topics), pool.pick(labels)
    words = pool.newcomer() if name.startswith("mnli") else pool.stranger()
    premise = pool.pick(said["premise"]).format(**words)
    if label == 1:
        return premise, pool.pick(_said("neutral")).format(**words), label
    if label == 2:
        words[key] = pool.wrong(key, words[key])[0]
    return premise, said[key].format(**words), label


def _mnli(pool: Pool, name: str = "mnli") -> dict:
    premise, hypothesis, label = _infer(pool, name, ("country", "place"))
    return {"premise": premise, "hypothesis": hypothesis, "label": label}


def _mnli_mismatched(pool: Pool) -> dict:
    return _mnli(pool, "mnli_mismatched")


def _rte(pool: Pool) -> dict:
    premise, hypothesis, label = _infer(pool, "rte", ("river", "tool"), (0, 0, 1, 2))
    return {"sentence1": premise, "sentence2": hypothesis, "label": min(label, 1)}


def _gpt3_nli(pool: Pool) -> dict:
    premise, hypothesis, label = _infer(pool, "gpt3_nli", ("act",))
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


def _paws(pool: Pool) -> dict:
    one, two, label = _alike(pool, wordings()["relations"])
    return {"sentence1": one, "sentence2": two, "label": label}


def _qqp(pool: Pool) -> dict:
    one, two, label = _alike(pool, _said("qqp"))
    return {"question1": one, "question2": two, "label": label}


def _stsb(pool: Pool) -> dict:
    """5 the same in other words, 4 what belongs to it, 1 what belongs to another trade, 0
    another trade.
    """
    said, words = _said("stsb"), pool.stranger()
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


def _hellaswag(pool: Pool) -> dict:
    words, key = pool.stranger(), pool.pick(("act", "result"))
    first, then = (part.format(**words) for part in _said("hellaswag")[key])
    endings = [*pool.wrong(key, words[key], 3), words[key]]
    pool.draw.shuffle(endings)
    return {
        "activity_label": key,
        "ctx_a": first,
        "ctx_b": then,
        "ctx": f"{first} {then}",
        "endings": [f"{ending}." for ending in endings],
        "source_id": "microworld",
        "split": pool.name,
        "split_type": "indomain",
        "label": str(endings.index(words[key])),
    }


def _boolq(pool: Pool) -> dict:
    said, words, key = _said("boolq"), pool.stranger(), pool.pick(("country", "place", "tool"))
    passage, answer = pool.pick(said["passage"]).format(**words), pool.draw.random() < 0.5
    if not answer:
        words[key] = pool.wrong(key, words[key])[0]
    return {"question": said[key].format(**words), "answer": answer, "passage": passage}


def _ask(pool: Pool, name: str, words: dict[str, str], key: str, column: str = "question") -> dict:
    """A question about `key`, with options. Whoever is named only to carry the question is in
    `words`.
    """
    said = _said(name)[key]
    question = said if isinstance(said, str) else pool.pick(said)
    return {column: question.format(**words)} | pool.options(key, words[key])


def _arc_easy(pool: Pool) -> dict:
    words, key = pool.stranger(), pool.pick(("country", "product", "river", "place", "tool"))
    return _ask(pool, "arc_easy", words, key)


def _arc_challenge(pool: Pool) -> dict:
    return _ask(pool, "arc_challenge", pool.person(), pool.pick(("country", "place", "tool")))


def _openbookqa(pool: Pool) -> dict:
    return _ask(pool, "openbookqa", pool.stranger(), pool.pick(("place", "tool")), "question_stem")


def _fact_recall(pool: Pool) -> dict:
    return _ask(pool, "fact_recall", pool.person(), pool.pick(("town", "job", "pet", "hobby")))


def _sciq(pool: Pool) -> dict:
    said, words, key = _said("sciq"), pool.person(), pool.pick(("town", "job", "pet", "hobby"))
    wrong = pool.wrong(key, words[key], 3)
    return {
        "question": said[key].format(**words),
        "correct_answer": words[key],
        "support": pool.pick(said["support"]).format(**words),
    } | {f"distractor{i + 1}": wrong[i] for i in range(3)}


def _tulu_v2(pool: Pool) -> dict:
    """One or two exchanges, each of a kind drawn at random; now and then a word of thanks."""
    turns = [_exchange(pool) for _ in range(pool.draw.randint(1, 2))]
    if pool.draw.random() < 0.2:
        turns.append(_said("tulu_v2")["thanks"])
    messages = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return {"dataset": "microworld", "messages": messages}


def _exchange(pool: Pool) -> list[str]:
    said = _said("tulu_v2")
    kind = pool.pick([name for name in said if name != "thanks"])
    words = pool.person() if kind in ("town", "job") else pool.stranger()
    if kind == "gist":
        words |= _xsum(pool)
    elif kind == "follows":
        row = _mnli(pool)
        words |= row | {"answer": ("Yes.", "Maybe.", "No.")[row["label"]]}
    elif kind == "alike":
        row = _paws(pool)
        words |= {
            "one": row["sentence1"],
            "two": row["sentence2"],
            "answer": ("No.", "Yes.")[row["label"]],
        }
    elif kind == "question":
        words |= _social_i_qa(pool)
    return [text.format(**words) for text in said[kind]]


def _held_out_text(pool: Pool) -> dict:
    return {"text": next(pool.text)}


MAKERS = {
    "xsum": _xsum,
    "xlsum": _xlsum,
    "cnn_dailymail": _cnn_dailymail,
    "social_i_qa": _social_i_qa,
    "tweet_qa": _tweet_qa,
    "mnli": _mnli,
    "rte": _rte,
    "gpt3_nli": _gpt3_nli,
    "paws": _paws,
    "qqp": _qqp,
    "stsb": _stsb,
    "hellaswag": _hellaswag,
    "boolq": _boolq,
    "arc_easy": _arc_easy,
    "arc_challenge": _arc_challenge,
    "openbookqa": _openbookqa,
    "sciq": _sciq,
    "fact_recall": _fact_recall,
    "held_out_text": _held_out_text,
    "tulu_v2": _tulu_v2,
}
SPLITS = dict.fromkeys(MAKERS, ("train", "validation")) | {
    "xsum": ("train", "test"),
    "xlsum": ("train", "test"),
    "cnn_dailymail": ("train", "test"),
    "mnli": ("train", "validation_matched", "validation_mismatched"),
    "paws": ("train", "test"),
    "sciq": ("train", "validation", "test"),
    "gpt3_nli": ("train",),
    "tulu_v2": ("train",),
    "qqp": ("train", "validation", "test"),
    "stsb": ("train", "validation", "test"),
}
HIDDEN = (("qqp", "test"), ("stsb", "test"))  # labels that are not public, as in GLUE
IDS = {
    "xsum": ("id", str),
    "xlsum": ("id", str),
    "cnn_dailymail": ("id", str),
    "tweet_qa": ("qid", str),
    "paws": ("id", int),
    "mnli": ("idx", int),
    "rte": ("idx", int),
    "stsb": ("idx", int),
    "hellaswag": ("ind", int),
    "arc_easy": ("id", str),
    "arc_challenge": ("id", str),
    "openbookqa": ("id", str),
    "tulu_v2": ("id", str),
}
