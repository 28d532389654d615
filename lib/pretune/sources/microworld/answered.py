"""Rows of the sets with given answers: what happens next, what is so, what a thing is."""

from __future__ import annotations

from pretune.sources.microworld.pool import Pool, said_of


def hellaswag(pool: Pool) -> dict:
    words, key = pool.stranger(), pool.pick(("act", "result"))
    first, then = (part.format(**words) for part in said_of("hellaswag")[key])
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


def boolq(pool: Pool) -> dict:
    said, words, kind = said_of("boolq"), pool.stranger(), pool.pick(("town", "job"))
    passage, answer = pool.pick(said["passage"]).format(**words), pool.draw.random() < 0.5
    words |= pool.trait(kind, words, right=answer)
    return {
        "question": pool.pick(said[kind]).format(**words),
        "answer": answer,
        "passage": passage,
    }


def _ask(pool: Pool, name: str, words: dict[str, str], key: str, column: str = "question") -> dict:
    """A question about `key`, with options. Whoever is named only to carry the question is in
    `words`.
    """
    said = said_of(name)[key]
    question = said if isinstance(said, str) else pool.pick(said)
    return {column: question.format(**words)} | pool.options(key, words[key])


def arc_easy(pool: Pool) -> dict:
    words, key = pool.stranger(), pool.pick(("country", "product", "river", "place", "tool"))
    return _ask(pool, "arc_easy", words, key)


def arc_challenge(pool: Pool) -> dict:
    return _ask(pool, "arc_challenge", pool.person(), pool.pick(("country", "place", "tool")))


def openbookqa(pool: Pool) -> dict:
    return _ask(pool, "openbookqa", pool.stranger(), pool.pick(("place", "tool")), "question_stem")


def fact_recall(pool: Pool) -> dict:
    return _ask(pool, "fact_recall", pool.person(), pool.pick(("town", "job", "pet", "hobby")))


def sciq(pool: Pool) -> dict:
    said, words, key = said_of("sciq"), pool.person(), pool.pick(("town", "job", "pet", "hobby"))
    wrong = pool.wrong(key, words[key], 3)
    return {
        "question": said[key].format(**words),
        "correct_answer": words[key],
        "support": pool.pick(said["support"]).format(**words),
    } | {f"distractor{i + 1}": wrong[i] for i in range(3)}
