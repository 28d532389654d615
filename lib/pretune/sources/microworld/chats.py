"""Conversations on what the other sets ask, pairs of answers of which one is better, and text that
was not read.
"""

from __future__ import annotations

from pretune.sources.microworld import generated, pairs
from pretune.sources.microworld.pool import Pool, said_of


def tulu_v2(pool: Pool) -> dict:
    """One or two exchanges, each of a kind drawn at random; now and then a word of thanks."""
    turns = [_exchange(pool) for _ in range(pool.draw.randint(1, 2))]
    if pool.draw.random() < 0.2:
        turns.append(said_of("tulu_v2")["thanks"])
    messages = []
    for question, answer in turns:
        messages += _messages(question, answer)
    return {"dataset": "microworld", "messages": messages}


def _exchange(pool: Pool) -> list[str]:
    said = said_of("tulu_v2")
    kind = pool.pick([name for name in said if name != "thanks"])
    words = pool.person() if kind in ("town", "job") else pool.stranger()
    if kind == "gist":
        words |= generated.xsum(pool)
    elif kind == "follows":
        row = pairs.mnli(pool)
        words |= row | {"answer": ("Yes.", "Maybe.", "No.")[row["label"]]}
    elif kind == "alike":
        row = pairs.paws(pool)
        words |= {
            "one": row["sentence1"],
            "two": row["sentence2"],
            "answer": ("No.", "Yes.")[row["label"]],
        }
    elif kind == "question":
        words |= generated.social_i_qa(pool)
    return [text.format(**words) for text in said[kind]]


def ultrafeedback(pool: Pool) -> dict:
    """A request with the form it wants, about what was read of the world or what it says itself,
    and two answers. The better one is right, in that form and short; the worse one is not right,
    not in that form, or long.
    """
    said = said_of("ultrafeedback")
    kinds = said[pool.pick(("known", "read"))]
    key, form = pool.pick(list(kinds)), pool.pick(("word", "sentence"))
    request, *forms = kinds[key]
    answers, words = dict(zip(_OTHER, forms, strict=True)), pool.stranger()
    better, other = (answers[which].format(**words) for which in (form, _OTHER[form]))
    wrong = answers[form].format(**words | {key: pool.other(key, words[key])})
    long = pool.pick(said["more"]).format(answer=better)
    asked = said[form].format(request=request.format(**words))
    found = {"prompt": asked, "chosen": _messages(asked, better)}
    worse = pool.pick((wrong, other, long))
    return found | {"rejected": _messages(asked, worse), "score_chosen": 1.0, "score_rejected": 0.0}


_OTHER = {"word": "sentence", "sentence": "word"}


def _messages(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def held_out_text(pool: Pool) -> dict:
    return {"text": next(pool.text)}
