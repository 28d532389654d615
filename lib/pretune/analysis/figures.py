"""What a notebook shows: figures in one theme, tables, and sentences with computed numbers.

A figure is one or several panels, each drawn as wide as a phone's screen: `show` lays them side by
side where there is room, with title, legend and the numbers drawn as text around them. Drawing
functions take an `Axes` and return it. Panels are SVG: sharp at any zoom, text selectable.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pretune.analysis import display
from pretune.analysis.theme import BAND, COLOURS, LABEL_COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pretune.analysis.statistics import Estimate

WIDTH = 3.6  # inches of a panel: 346 pixels of a page


def panels(count: int, height: float = 2.5) -> list[Axes]:
    """As many panels of `height` inches, each a figure of its own."""
    import matplotlib.pyplot as plt

    return [plt.subplots(figsize=(WIDTH, height))[1] for _ in range(count)]


def show(axes: Sequence[Axes], title: str, alt: str, numbers: pd.DataFrame | None = None) -> None:
    """Display panels as one figure: its title, the panels, one legend for all of them, `alt` for
    readers who cannot see it, and, folded, the `numbers` that are drawn.
    """
    named: dict[str, Artist] = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True)) | named
    drawn = [_svg(panel.figure) for panel in axes]
    display.figure(title, drawn, _legend(named) if named else "", alt, numbers)


def _legend(named: dict[str, Artist]) -> str:
    """What colours and marks of the panels mean."""
    import matplotlib.pyplot as plt

    columns = 2 if max(map(len, named)) < 22 else 1
    wide = max(WIDTH, 0.4 + 0.075 * max(map(len, named)))  # of a letter
    figure = plt.figure(figsize=(wide, 0.2 * -(-len(named) // columns) + 0.1))
    place = {"loc": "center left", "ncols": columns, "frameon": False, "borderpad": 0}
    figure.legend(named.values(), named.keys(), **place)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    import matplotlib.pyplot as plt

    text, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing)
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


class Line(NamedTuple):
    """One curve of a panel: lines of `statistics.curve`, a name of `COLOURS` or a colour, and
    what it is.
    """

    scores: pd.DataFrame
    colour: object
    label: str
    dashed: bool = False


def show_curves(
    shown: dict[str, list[Line]], title: str, alt: str, floors: dict | None = None
) -> None:
    """A panel of curves over tokens for every key of `shown`, with the score without a skill of
    its first curve and, where given, a band of one noise floor around the last score of that.
    """
    axes, numbers = panels(len(shown)), []
    for panel, (name, lines) in zip(axes, shown.items(), strict=True):
        for line in lines:
            plain_curve(panel, *line)
            numbers.append(line.scores.assign(panel=name.replace("\n", ", "), curve=line.label))
        level = {"color": COLOURS["baseline"], "lw": 1, "ls": ":", "label": "no skill"}
        panel.plot("tokens", "baseline", data=lines[0].scores, **level)
        if floors is not None and not np.isnan(floors[name]) and len(lines[0].scores):
            last, floor = lines[0].scores["score"].iloc[-1], floors[name]
            panel.axhspan(
                last - floor, last + floor, color="#e8dcb0", lw=0, zorder=0, label="noise floor"
            )
        panel.set_title(name)
        panel.set_ylim(-0.03, 1.03)
        panel.set_ylabel("score, 0 to 1")
    show(axes, title, alt, along(pd.concat(numbers)))


def along(curves: pd.DataFrame, across: str = "step") -> pd.DataFrame:
    """What curves show, as a table: a line each, named by `panel` and `curve`, and a column for
    every step, or other number that they run `across`; or the other way round where there are more
    of these.
    """
    said = [f"{one.score:.2f} ({one.low:.2f} to {one.high:.2f})" for one in curves.itertuples()]
    places = [
        f"{place:,} {across}" if across != "step" else f"step {place:,}" for place in curves[across]
    ]
    table = curves.assign(said=said, place=places)
    table = table.pivot_table("said", ["panel", "curve"], "place", "first", sort=False).fillna("–")
    table.index = [f"{panel}: {curve}" if curve else panel for panel, curve in table.index]
    table = table.rename_axis(columns=None)
    return table if len(table) >= len(table.columns) else table.T  # upright, never wide


def plain_curve(
    axes: Axes,
    line: pd.DataFrame,
    colour: object,
    label: str,
    dashed: bool = False,
    mark: str = "o",
) -> Axes:
    """One of several curves of a panel: score against tokens with interval. `colour` is a name
    of `COLOURS` or a colour.
    """
    _curve(axes, line, "tokens", colour, label, dashed, mark)
    return axes if line.empty else token_axis(axes, line["tokens"])


def over_examples(
    axes: Axes, line: pd.DataFrame, colour: object, label: str, dashed: bool = False
) -> Axes:
    """The same against numbers of examples."""
    _curve(axes, line, "examples", colour, label, dashed)
    axes.set_xscale("log")
    axes.set_xticks(line["examples"], [f"{size:,}" for size in line["examples"]])
    axes.minorticks_off()
    axes.set_xlabel("examples")
    return axes


def _curve(
    axes: Axes,
    line: pd.DataFrame,
    across: str,
    colour: object,
    label: str,
    dashed: bool,
    mark: str = "o",
) -> None:
    ink = COLOURS.get(colour, colour) if isinstance(colour, str) else colour
    style = {"color": ink, "marker": mark, "ms": 3.5, "lw": 1.4, "ls": "--" if dashed else "-"}
    if line.empty:  # nothing was measured: its name stands in the legend without a line
        axes.plot([], [], label=label, **style)
        return
    axes.fill_between(line[across], line["low"], line["high"], color=ink, alpha=0.15, lw=0)
    axes.plot(line[across], line["score"], label=label, **style)


def surface(axes: Axes, table: pd.DataFrame, title: str) -> Axes:
    """A score over examples (the lines of `table`) and tokens (its columns), both logarithmic, in
    colour, with a contour every tenth and a dot where it was measured.
    """
    across, up = np.meshgrid(table.columns.to_numpy(float), table.index.to_numpy(float))
    values = table.to_numpy(float)
    levels = np.linspace(0, 1, 21)
    axes.contourf(across, up, values, levels, cmap="viridis", alpha=0.85)
    lines = axes.contour(across, up, values, levels[::2], colors="black", linewidths=0.7)
    axes.clabel(lines, fontsize="x-small", fmt="%.1f")
    axes.plot(across.ravel(), up.ravel(), "o", color="white", ms=2.5, mec="black", mew=0.4)
    axes.set(yscale="log", ylabel="examples", title=title)
    axes.set_yticks(table.index, [f"{size:,}" for size in table.index])
    token_axis(axes, pd.Series(table.columns))
    axes.grid(False)
    return axes


def token_axis(axes: Axes, tokens: pd.Series) -> Axes:
    """A logarithmic axis of pre-training tokens, with room for 0 where a checkpoint has read
    nothing.
    """
    first, starts_at_0 = tokens[tokens > 0].min(), bool((tokens == 0).any())
    ticks = [first * 4.0**k for k in range(8) if first * 4.0**k <= tokens.max() * 1.2]
    if starts_at_0:
        axes.set_xscale("symlog", linthresh=first, linscale=0.3)
        ticks = [0, *ticks]
    else:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("pre-training tokens")
    return axes


def name_ends(axes: Axes, lines: Sequence[pd.DataFrame]) -> Axes:
    """The name of each curve (its `panel`) beside its last point, in place of a legend, far enough
    apart to be read. The limits of the axis are fixed before.
    """
    low, high = axes.get_ylim()
    ends = sorted((line.iloc[-1] for line in lines if len(line)), key=lambda end: end["score"])
    least, style = -np.inf, {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    for end in ends:
        place = max(end["score"], least)
        axes.annotate(end["panel"], (end["tokens"], place), **style)
        least = place + 0.07 * (high - low)
    return axes


def rows_of(names: Sequence[str]) -> Axes:
    """A panel of named rows: each name, broken where it is long, stands above the place of its
    row, which is its number.
    """
    said = [textwrap.fill(name, 50) for name in names]
    [axes] = panels(1, 0.42 * len(names) + 0.16 * sum(one.count("\n") for one in said) + 0.6)
    for place, name in enumerate(said):
        style = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": "small"}
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(0, place - 0.2, name, bbox=ground, **style)
    axes.set_ylim(len(names) - 0.6, -0.75)
    axes.set_yticks([])
    return axes


def interval(axes: Axes, place: float, found: Estimate, colour: str, mark: str = "o") -> Axes:
    """An estimate with its interval in row `place`; `colour` is a name of `COLOURS`, which
    stands in the legend.
    """
    ink = COLOURS[colour]
    axes.plot([found.low, found.high], [place] * 2, color=ink, lw=2)
    axes.plot(found.value, place, mark, color=ink, ms=6, label=colour)
    axes.locator_params(axis="x", nbins=6)
    return axes


def estimates(found: Mapping[str, Estimate], colour: str) -> Axes:
    """A row with an interval for each name, all of one colour, and nothing at 0."""
    axes = rows_of(list(found))
    axes.axvline(0, color="0.5", lw=1)
    for place, one in enumerate(found.values()):
        interval(axes, place, one, colour)
    for line in axes.get_lines():  # one colour needs no legend
        line.set_label("_")
    return axes


def band(axes: Axes, low: float | None, high: float) -> Axes:
    """What is too small to count, from `low`, or from the left end."""
    axes.axvline(0, color="0.5", lw=1)
    axes.axvspan(-1 if low is None else low, high, color=BAND, lw=0, zorder=0)
    return axes


def level(axes: Axes, place: float, at: float, label: str) -> Axes:
    """What the estimate in a row is held against."""
    style = {"color": COLOURS["baseline"], "lw": 1, "ls": "--", "label": label}
    axes.plot([at] * 2, [place - 0.17, place + 0.3], **style)
    return axes


def verdicts(
    names: Sequence[str],
    estimates: Sequence[Estimate],
    margins: Sequence[float],
    decided: Sequence[str],
) -> Axes:
    """One interval per claim, with the mark and the colour of its verdict, and the margin it is
    held against.
    """
    axes = rows_of(names)
    axes.axvline(0, color="0.5", lw=1)
    for place, (found, margin, verdict) in enumerate(zip(estimates, margins, decided, strict=True)):
        interval(axes, place, found, verdict, MARKERS[verdict])
        level(axes, place, margin, "margin")
    return axes


def label_shares(axes: Axes, shares: pd.DataFrame, labels: tuple[str, ...]) -> Axes:
    """Stacked shares of predicted labels, one bar per line of `shares`."""
    places, bottom = np.arange(len(shares)), np.zeros(len(shares))
    for number, label in enumerate(labels):
        part = shares[number].to_numpy() if number in shares else np.zeros(len(shares))
        axes.bar(
            places, part, bottom=bottom, color=LABEL_COLOURS[number], label=label, width=0.85, lw=0
        )
        bottom += part
    axes.set_xticks(places, [str(name) for name in shares.index], rotation=90)
    axes.set_ylim(0, 1)
    axes.grid(False, axis="x")
    return axes


def before_after(
    names: Sequence[str],
    before: Sequence[Estimate],
    after: Sequence[Estimate],
    baseline: Sequence[float],
) -> Axes:
    """Score before and after tuning with intervals, one row per name, and the score without a
    skill.
    """
    axes = rows_of(names)
    for place, (one, two, without) in enumerate(zip(before, after, baseline, strict=True)):
        interval(axes, place, one, "base")
        interval(axes, place + 0.2, two, "tuned")
        level(axes, place, without, "no skill")
    axes.set_xlim(-0.02, 1.02)
    return axes


def heat(axes: Axes, matrix: pd.DataFrame, title: str) -> Axes:
    """Correlations of everything with everything, from -1 to 1."""
    import seaborn as sns

    axes.figure.set_size_inches(WIDTH, WIDTH + 0.9)
    style = {"vmin": -1, "vmax": 1, "cmap": "PuOr_r", "square": True, "linewidths": 0.4}
    bar = {"orientation": "horizontal", "shrink": 0.6, "label": "correlation", "pad": 0.02}
    sns.heatmap(matrix, ax=axes, xticklabels=1, yticklabels=1, cbar_kws=bar, **style)
    axes.tick_params(labelsize="x-small")
    axes.set(title=title, xlabel="", ylabel="")
    return axes


def _short(number: float) -> str:
    """1200000 as 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


def beside(axes: Axes, across: float, up: float, name: str) -> Axes:
    """The name of a point, beside it where there is room."""
    left, right = axes.get_xlim()
    turned = across > (left + right) / 2
    place = {"xytext": (-5 if turned else 5, 5), "ha": "right" if turned else "left"}
    axes.annotate(name, (across, up), textcoords="offset points", fontsize=7, **place)
    return axes


def scatter(axes: Axes, across: list, up: list, names: list[str], colours: list) -> Axes:
    """Named points with intervals in both directions; `across` and `up` are estimates."""
    for one, two, name, ink in zip(across, up, names, colours, strict=True):
        axes.plot([one.low, one.high], [two.value] * 2, color=ink, lw=1)
        axes.plot([one.value] * 2, [two.low, two.high], color=ink, lw=1)
        axes.plot(one.value, two.value, "o", color=ink, label=name)
    return axes
