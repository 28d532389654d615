"""Pairs of sentences: does one follow from the other (inference), do they say the same
(paraphrase)?

Scored by the likelihood of the whole label.
"""

from pretune.tasks.example import Example, asked, label_of, text_of

INFERENCE = {
    "default": "### Input_1: {one}\n ### Input_2: {two}\n ### Inference:",
    "instruct": "Consider the following texts: Text 1: {one} Text 2: {two} The relation is",
    "io": "{one} {two}",
}
PARAPHRASE = {
    "default": "### Input_1: {one}\n ### Input_2: {two}\n ### Paraphrase Classification:",
    "instruct": (
        "Let’s compare the two sentences: Sentence_1: {one} Sentence_2: {two} Are they "
        "paraphrasing?:"
    ),
    "io": "{one} {two}",
}
THREE = ("entailment", "neutral", "contradiction")
# RTE's second label, "not entailment", in the words of the first three
TWO = ("entailment", "neutral")
YES_NO = ("no", "yes")
ALIKE = 3.5  # STS-B: a similarity above this is a paraphrase (Sun & Dredze)


def inference(row: dict, form: str, one: str, two: str, labels: tuple[str, ...]) -> Example:
    """`one` and `two` name the columns of premise and hypothesis; `labels` are the words of
    labels 0, 1, ...
    """
    gold = label_of(row, "label", len(labels))
    return asked(INFERENCE, form, labels, gold, one=text_of(row, one), two=text_of(row, two))


def paraphrase(row: dict, form: str, one: str, two: str) -> Example:
    return asked(
        PARAPHRASE,
        form,
        YES_NO,
        label_of(row, "label", 2),
        one=text_of(row, one),
        two=text_of(row, two),
    )


def similarity(row: dict, form: str) -> Example:
    """STS-B: a similarity from 0 to 5 becomes yes or no."""
    likeness = float(row["label"])
    label = int(likeness > ALIKE) if likeness >= 0 else -1
    return paraphrase(row | {"label": label}, form, "sentence1", "sentence2")
