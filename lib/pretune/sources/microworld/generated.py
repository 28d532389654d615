"""Rows of the sets that are answered in words: a gist, or a question for given answers."""

from __future__ import annotations

from pretune.sources.microworld.pool import Pool, said_of


def xsum(pool: Pool) -> dict:
    said, words = said_of("xsum"), pool.stranger()
    told = [
        pool.pick(said["home"]),
        pool.pick(said["work"]),
        pool.pick(said["when"]) + " {pronoun} was {state}.",
        pool.pick(said["end"]),
        pool.pick(said["rest"]),
    ]
    return {"document": " ".join(told).format(**words), "summary": said["gist"].format(**words)}


def xlsum(pool: Pool) -> dict:
    words = pool.stranger()
    return {
        "title": words["act"],
        "text": " ".join(said_of("xlsum")["report"]).format(**words),
        "summary": said_of("xsum")["gist"].format(**words),
    }


def cnn_dailymail(pool: Pool) -> dict:
    said, words = said_of("cnn_dailymail"), pool.stranger()
    return {
        "article": " ".join(said["report"]).format(**words),
        "highlights": said["gist"].format(**words),
    }


def social_i_qa(pool: Pool) -> dict:
    """The answers say what is asked for, states before or results after; the question names the
    act between, which is not told.
    """
    said, words = said_of("social_i_qa"), pool.stranger()
    told, asked = pool.pick((("was {state}", "result"), ("{result}", "state")))
    answers = [*pool.wrong(asked, words[asked], 2), words[asked]]
    pool.draw.shuffle(answers)
    context = pool.pick(said["context"]).replace("{told}", told).format(**words)
    return {
        "context": context,
        "question": said[asked].format(**words),
        "label": str(answers.index(words[asked]) + 1),
    } | {f"answer{letter}": answer for letter, answer in zip("ABC", answers, strict=True)}


def tweet_qa(pool: Pool) -> dict:
    said, words = said_of("tweet_qa"), pool.stranger()
    asked = pool.pick(("town", "hobby", "pet"))
    return {
        "Question": said[asked].format(**words),
        "Answer": [words[asked]],
        "Tweet": pool.pick(said["tweet"]).format(**words),
    }
