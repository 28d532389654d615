"""Conversations on what the other sets ask, and text that was not read."""

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
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
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


def held_out_text(pool: Pool) -> dict:
    return {"text": next(pool.text)}
