"""Summarisation: a document becomes one sentence or a few. Scored by ROUGE-L on a greedy generation."""

from pretune.tasks.example import BLANK, Example, text_of

TEMPLATES = {
    "default": "### Input: {document}\n ### Summary:",
    "instruct": "Please read the following text: {document} Provide a summary:",
    "io": "{document}",
}


def example(row: dict, form: str, document: str = "document", summary: str = "summary") -> Example:
    """`document` and `summary` name the columns."""
    text, template = text_of(row, document), TEMPLATES[form]
    return Example(template.format(document=text), (" " + text_of(row, summary),), 0, template.format(document=BLANK), text)
