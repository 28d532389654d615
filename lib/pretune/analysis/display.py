"""What a cell of a notebook shows: prose, tables, figures with a text for who cannot see them.

Whatever came from a dataset or a model is escaped before it is shown.
"""

from __future__ import annotations

import html
import io
import re
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: Figure, alt: str) -> None:
    """Display `figure` with `alt`, the text for readers who cannot see it."""
    import matplotlib.pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg, described = text.getvalue(), f'<svg role="img" aria-label="{html.escape(alt)}" '
    svg = re.sub(r"<svg ", described, svg[svg.index("<svg") :], count=1)
    display({"image/svg+xml": svg, "text/plain": alt}, raw=True)


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


def table(frame: pd.DataFrame, digits: int = 2) -> None:
    """Display a table, numbers with `digits` decimals. Nothing is escaped here: text from data
    must come through `quote`.
    """
    cells = frame.map(lambda cell: _cell(cell, digits))
    display(HTML(cells.to_html(border=0, escape=False, justify="left")))


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
