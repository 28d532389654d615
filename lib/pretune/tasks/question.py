"""Writing the question, from a context and its answers, as the reference study uses SocialIQa,
SciQ and TweetQA; and questions about facts, where the answer is written.
"""

from pretune.tasks import choice
from pretune.tasks.example import Example, asked, text_of

TEMPLATES = {
    "default": "### Input: {context}\n ### Answer: {answers}\n ### Question:",
    "instruct": (
        "Given the context: {context} And the answer: {answers} Generate a suitable question:"
    ),
    "io": "{context} {answers}",
}

OPEN = {form: "{passages}\n" + text for form, text in choice.TEMPLATES.items()}


def social_i_qa(row: dict, form: str) -> Example:
    answers = [text_of(row, field) for field in ("answerA", "answerB", "answerC")]
    return _written(form, text_of(row, "context"), answers, text_of(row, "question"))


def sciq(row: dict, form: str) -> Example:
    """SciQ: the passage as context. Rows without one are refused. The order of answers follows
    from the text.
    """
    answers = sorted(
        text_of(row, field)
        for field in ("correct_answer", "distractor1", "distractor2", "distractor3")
    )
    return _written(form, text_of(row, "support"), answers, text_of(row, "question"))


def tweet_qa(row: dict, form: str) -> Example:
    return _written(form, text_of(row, "Tweet"), row["Answer"][:1], text_of(row, "Question"))


def fact(row: dict, form: str, answer: str) -> Example:
    """A question about a fact, answered in a word or two, with `passages` before it where a row
    has some.
    """
    passages = row.get("passages")
    said = {"passages": passages} if passages else {}
    templates = OPEN if passages else choice.TEMPLATES
    said |= {"question": text_of(row, "question")}
    return asked(templates, form, [text_of(row, answer)], 0, **said)


def _written(form: str, context: str, answers: list[str], question: str) -> Example:
    lettered = zip("ABCD", answers, strict=False)
    named = " ".join(f"Answer {letter}: {answer}" for letter, answer in lettered)
    return asked(TEMPLATES, form, [question], 0, source=context, context=context, answers=named)
