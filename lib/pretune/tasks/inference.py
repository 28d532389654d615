"""Natural-language inference: does a hypothesis follow from a premise? Scored by the likelihood of the whole label."""

from pretune.tasks.example import BLANK, Example, label_of, text_of

TEMPLATES = {
    "default": "### Input_1: {one}\n ### Input_2: {two}\n ### Inference:",
    "instruct": "Consider the following texts: Text 1: {one} Text 2: {two} The relation is",
    "io": "{one} {two}",
}
THREE = ("entailment", "neutral", "contradiction")
TWO = ("entailment", "neutral")  # RTE's second label, "not entailment", in the words of the first three


def example(row: dict, form: str, one: str, two: str, labels: tuple[str, ...]) -> Example:
    """`one` and `two` name the columns of premise and hypothesis; `labels` are the words of labels 0, 1, ..."""
    template = TEMPLATES[form]
    prompt = template.format(one=text_of(row, one), two=text_of(row, two))
    choices = tuple(" " + label for label in labels)
    return Example(prompt, choices, label_of(row, "label", len(labels)), template.format(one=BLANK, two=BLANK))
