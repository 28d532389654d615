"""What a cell of a notebook shows: prose, tables, figures with a text for who cannot see them.

Whatever came from a dataset or a model is escaped before it is shown.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

# beside the picture of a figure, what the site needs to lay it out anew: title, alt, numbers
FIGURE = "application/vnd.pretune.figure+json"
PIXELS = 4 / 3  # of a point
HEADING = "font: bold 13px 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #262626"


def figure(
    title: str, panels: Sequence[str], legend: str, alt: str, numbers: pd.DataFrame | None = None
) -> None:
    """Display SVG `panels` as one figure, with a title, a `legend` that is SVG too, `alt` for
    readers who cannot see them, and the `numbers` that are drawn.

    JupyterLab and others show one picture; the site lays its panels out as there is room.
    """
    about = {"title": title, "alt": alt, "numbers": ""}
    if numbers is not None:
        about["numbers"] = folded("The numbers", numbers)
    picture = sheet(title, panels, legend)
    display({"image/svg+xml": picture, FIGURE: about, "text/plain": alt}, raw=True)


def sheet(title: str, panels: Sequence[str], legend: str = "") -> str:
    """One SVG with the title, `panels` in rows of at most three, and the legend, on white."""
    columns, parts, down = min(len(panels), 3), [], 6.0
    for line in textwrap.wrap(title, 42 * columns):
        down += 16
        parts.append(f'<text x="8" y="{down}" style="{HEADING}">{html.escape(line)}</text>')
    down, widest = down + 8, 0.0
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    for kind, row in [*(("panel", row) for row in rows), ("legend", [legend] if legend else [])]:
        left, highest = 0.0, 0.0
        for one in row:
            wide, high = (PIXELS * float(size) for size in re.findall(SIZE, one)[:2])
            place = f'<svg class="{kind}" x="{left:.1f}" y="{down:.1f}" '
            parts.append(one.replace("<svg ", place, 1))
            left, highest = left + wide, max(highest, high)
        down, widest = down + highest, max(widest, left)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{widest:.1f}" height="{down:.1f}" viewBox="0 0 {widest:.1f} {down:.1f}">'
        f'<rect width="100%" height="100%" style="fill: #ffffff"/>{"".join(parts)}</svg>'
    )


SIZE = r'(?:width|height)="([\d.]+)pt"'


def parts_of(picture: str, kind: str) -> list[str]:
    """The `panel`s of a sheet, or its `legend`, each an SVG of its own."""
    found = re.findall(rf'<svg class="{kind}" x="[\d.]+" y="[\d.]+" (.*?</svg>)', picture, re.S)
    return [f"<svg {rest}" for rest in found]


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


Coloured = tuple[list[str], list[str], list[str]]  # what stands there, what else might, its class


def coloured(parts: Sequence[tuple[str, Sequence[Coloured]]], colours: Mapping[str, str]) -> None:
    """Display texts with a name for each group, each piece underlined in the colour of its class;
    below a piece of another class than the first stands what might have stood there.
    """
    plain, said = next(iter(colours)), []
    for name, lines in parts:
        said.append(f"<dt><strong>{html.escape(name)}</strong></dt>")
        for line in lines:
            pieces = [_piece(*one, colours, plain) for one in zip(*line, strict=True)]
            said.append(f'<dd style="{LINE}">{"".join(pieces)}</dd>')
    key = " ".join(
        f'<span style="border-bottom: 3px solid {ink}">{name}</span>'
        for name, ink in colours.items()
    )
    display(HTML(f'<div class="answers-shown"><p>{key}</p><dl>{"".join(said)}</dl></div>'))


LINE = "line-height: 2.6; margin: .3em 0 .3em 1em"


def _piece(text: str, other: str, kind: str, colours: Mapping[str, str], plain: str) -> str:
    style = f"border-bottom: 3px solid {colours[kind]}"
    shown = f'<span style="{style}" title="{kind}">{_visible(text)}</span>'
    if kind == plain:
        return shown
    below = f'<rt style="font-size: .75em">{_visible(other)}</rt>'
    return f'<ruby style="ruby-position: under">{shown}{below}</ruby>'


def _visible(text: str) -> str:
    """A piece of a text, escaped, its white space to be seen where it is nothing else; where there
    is none, the text ends.
    """
    printable = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", "\ufffd", text)
    escaped = html.escape(printable).replace("\n", "↵")
    return escaped if escaped.strip() else escaped.replace(" ", "␣") or "[end]"


def say(text: str) -> None:
    """Display a computed sentence as prose. Text from datasets and models must come through
    `quote`.
    """
    display(Markdown(text))


def sentence(title: str) -> str:
    """A title as a sentence, safe to show in `say`: with a full stop unless it ends by itself."""
    return html.escape(title) + ("" if title.endswith(("?", "!", ".")) else ".")


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
