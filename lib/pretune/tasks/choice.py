"""Questions with given answers, scored by the likelihood of each answer's text (the cloze form, fit for small models)."""

from pretune.tasks.example import BLANK, Example, RowError, label_of, text_of

TEMPLATES = {
    "default": "Question: {question}\nAnswer:",
    "instruct": "Please answer the question: {question} The answer is",
    "io": "{question}",
}


def arc(row: dict, form: str) -> Example:
    """ARC and OpenBookQA: `choices` holds texts and labels, `answerKey` one of the labels."""
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    if row["answerKey"] not in labels:
        raise RowError(f"answerKey is {row['answerKey']!r}, allowed are {', '.join(labels)}")
    return _asked(text_of(row, "question"), texts, labels.index(row["answerKey"]), form)


def sciq(row: dict, form: str) -> Example:
    """SciQ: the passage before the question where there is one. The order of answers follows from the text."""
    answers = sorted(text_of(row, field) for field in ("correct_answer", "distractor1", "distractor2", "distractor3"))
    passage = " ".join(str(row.get("support") or "").split())
    question = text_of(row, "question")
    return _asked(f"{passage} {question}".strip(), answers, answers.index(text_of(row, "correct_answer")), form)


def hellaswag(row: dict, form: str) -> Example:
    """HellaSwag: the context itself is the prompt in every format, and the endings continue it."""
    endings = tuple(" " + " ".join(ending.split()) for ending in row["endings"])
    prefix = "Continue the text: " if form == "instruct" else ""
    return Example(prefix + text_of(row, "ctx"), endings, label_of(row, "label", len(endings)), prefix + BLANK)


def _asked(question: str, answers: list[str], gold: int, form: str) -> Example:
    template = TEMPLATES[form]
    choices = tuple(" " + answer for answer in answers)
    return Example(template.format(question=question), choices, gold, template.format(question=BLANK))
