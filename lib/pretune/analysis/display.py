"""What a cell of a notebook shows: prose, tables, figures with a text for who cannot see them.

Whatever came from a dataset or a model is escaped before it is shown.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

GRID = (
    "display: grid; gap: .8rem; grid-template-columns: "
    "repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); align-items: start; max-width: {}rem"
)


def figure(
    title: str, panels: Sequence[str], legend: str, alt: str, numbers: pd.DataFrame | None = None
) -> None:
    """Display SVG `panels` side by side as far as there is room, with a title, a `legend` that is
    SVG too, `alt` for readers who cannot see them, and, folded, the `numbers` that are drawn.
    """
    grid = GRID.format(26 * min(len(panels), 3))
    drawn = "".join(re.sub("<svg ", '<svg aria-hidden="true" ', svg, count=1) for svg in panels)
    legend = re.sub("<svg ", '<svg aria-hidden="true" class="legend" ', legend, count=1)
    said, single = html.escape(alt), ' class="single"' if len(panels) == 1 else ""
    display(
        {
            "text/html": f"<figure{single}><figcaption>{html.escape(title)}</figcaption>"
            f'<div role="img" aria-label="{said}" style="{grid}">{drawn}</div>{legend}'
            f"{'' if numbers is None else folded('The numbers', numbers)}</figure>",
            "text/plain": alt,
        },
        raw=True,
    )


def answers(lines: Sequence[tuple[str, str, str, str]], rests_on: str) -> None:
    """Display a box of answers: of each its colour, its head, a sentence and a line of small print;
    below them what they rest on. All of it is HTML.
    """
    said = []
    for colour, *texts in lines:
        head, sentence, small = texts
        small = f" <small>{small}</small>" if small else ""
        style = f"border-left: 5px solid {colour}; padding-left: .7em; margin: .7em 0"
        said.append(f'<div style="{style}"><strong>{head}</strong> {sentence}{small}</div>')
    note = f"<p><small>{rests_on}</small></p>"
    display(HTML(f'<section class="answers">{"".join(said)}{note}</section>'))


def say(text: str) -> None:
    """Display a computed sentence as prose. Text from datasets and models must come through
    `quote`.
    """
    display(Markdown(text))


def quote(text: str, limit: int = 400) -> str:
    """Text from a dataset or a model, safe to show in `say` and `table`: escaped, shortened, its
    line ends visible.
    """
    short = text if len(text) <= limit else f"{text[: limit // 2]} […] {text[-limit // 2 :]}"
    printable = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", short)
    escaped = html.escape(printable, quote=False).replace("\n", " ↵ ")
    return re.sub(r"([\\`*_{}\[\]()#+!|$~])", lambda found: f"&#{ord(found[0])};", escaped)


def table(frame: pd.DataFrame, digits: int = 2, fold: str = "", shade: float = 0) -> None:
    """Display a table, numbers with `digits` decimals; folded away behind the words `fold`;
    shaded by sign and size, most where a number is as large as `shade`. Nothing is escaped here:
    text from data must come through `quote`.
    """
    if frame.empty:
        return say("*Nothing of this kind was measured here.*")
    display(HTML(folded(fold, frame, digits) if fold else as_html(frame, digits, shade)))


def folded(words: str, frame: pd.DataFrame, digits: int = 2) -> str:
    """A table as HTML behind `words` that open it."""
    return f"<details><summary>{html.escape(words)}</summary>{as_html(frame, digits)}</details>"


def as_html(frame: pd.DataFrame, digits: int = 2, shade: float = 0) -> str:
    """A table as HTML. Cells name their column too, for screens where a row becomes a card."""
    heads = "".join(f"<th>{name}</th>" for name in frame.columns)
    lines = []
    for name, line in zip(frame.index, frame.itertuples(index=False), strict=True):
        cells = [
            f'<td data-label="{_plain(column)}"{_shade(cell, shade)}>{_cell(cell, digits)}</td>'
            for column, cell in zip(frame.columns, line, strict=True)
        ]
        named = ": ".join(name) if isinstance(name, tuple) else name
        lines.append(f"<tr><th>{named}</th>{''.join(cells)}</tr>")
    wide = " wide" if len(frame.columns) > 6 else ""
    return (
        f'<div class="table{wide}"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _plain(name: object) -> str:
    """A heading without its tags."""
    return re.sub("<[^>]+>", "", str(name))


def _shade(cell: object, most: float) -> str:
    """Blue above nothing, orange below."""
    if not most or not isinstance(cell, float) or np.isnan(cell):
        return ""
    ink, part = ("1 115 178", "222 143 5")[cell < 0], min(1, abs(cell) / most)
    return f' style="background: rgb({ink} / {0.5 * part:.2f})"'


def _cell(cell, digits: int) -> str:
    """Numbers to the right; an interval in small print, never broken."""
    if isinstance(cell, Integral | float):
        return f'<div class="number">{_number(cell, digits)}</div>'
    interval = r"^([-+]?[.\d]+) (\([-+]?[.\d]+ to [-+]?[.\d]+\))"
    return re.sub(interval, r"\1 <small>\2</small>", str(cell))


def _number(number: Integral | float, digits: int) -> str:
    if isinstance(number, Integral):
        return f"{number:,}"
    return "–" if np.isnan(number) else f"{number:.{digits}f}"
