"""Questions with given answers, scored by the likelihood of each answer's text (the cloze form,
fit for small models).
"""

from pretune.tasks.example import Example, RowError, asked, label_of, text_of

TEMPLATES = {
    "default": "Question: {question}\nAnswer:",
    "instruct": "Please answer the question: {question} The answer is",
    "io": "{question}",
}
STORY = {"default": "{context}", "instruct": "Continue the text: {context}", "io": "{context}"}


def arc(row: dict, form: str, question: str = "question") -> Example:
    """ARC and OpenBookQA: `choices` holds texts and labels, `answerKey` one of the labels."""
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    if row["answerKey"] not in labels:
        raise RowError(f"answerKey is {row['answerKey']!r}, allowed are {', '.join(labels)}")
    return asked(
        TEMPLATES, form, texts, labels.index(row["answerKey"]), question=text_of(row, question)
    )


def sciq(row: dict, form: str, passage: bool = True) -> Example:
    """SciQ: the passage before the question where there is one. The order of answers follows
    from the text.
    """
    answers = sorted(
        text_of(row, field)
        for field in ("correct_answer", "distractor1", "distractor2", "distractor3")
    )
    support = " ".join(str(row.get("support") or "").split()) if passage else ""
    question = f"{support} {text_of(row, 'question')}".strip()
    return asked(
        TEMPLATES, form, answers, answers.index(text_of(row, "correct_answer")), question=question
    )


def boolq(row: dict, form: str) -> Example:
    """BoolQ: passage, question, yes or no."""
    question = f"{text_of(row, 'passage')} {text_of(row, 'question')}?"
    return asked(TEMPLATES, form, ("yes", "no"), 0 if row["answer"] else 1, question=question)


def hellaswag(row: dict, form: str) -> Example:
    """HellaSwag: the context itself is the prompt, and the endings continue it."""
    endings = [" ".join(ending.split()) for ending in row["endings"]]
    return asked(
        STORY, form, endings, label_of(row, "label", len(endings)), context=text_of(row, "ctx")
    )
