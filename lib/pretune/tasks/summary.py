"""Summarisation: a document becomes one sentence or a few. Scored by ROUGE-L on a greedy
generation.
"""

from pretune.tasks.example import Example, asked, text_of

TEMPLATES = {
    "default": "### Input: {document}\n ### Summary:",
    "instruct": "Please read the following text: {document} Provide a summary:",
    "io": "{document}",
}


def example(row: dict, form: str, document: str, summary: str) -> Example:
    """`document` and `summary` name the columns."""
    text = text_of(row, document)
    return asked(TEMPLATES, form, [text_of(row, summary)], 0, source=text, document=text)
