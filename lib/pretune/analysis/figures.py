"""What a notebook shows: figures in one theme, tables, and sentences with computed numbers.

Every drawing function takes an `Axes` and returns it. A figure is shown as SVG: sharp at any
zoom, text selectable, and its alternative text inside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from pretune.analysis.display import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# seaborn's "colorblind". Drawing libraries take seconds to load: they are when something is drawn
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
COLOURS = {
    "learned": PALETTE[2],
    "not learned": PALETTE[3],
    "learned before": PALETTE[0],
    "undecided": PALETTE[7],
    "base": PALETTE[7],
    "tuned": PALETTE[0],
    "baseline": "black",
    "supported": PALETTE[2],
    "no effect": PALETTE[0],
    "opposite": PALETTE[4],
    "not supported": PALETTE[3],
    "not asked": PALETTE[7],
}
MARKS = {
    "supported": "▲",
    "no effect": "■",
    "opposite": "▼",
    "not supported": "✖",
    "undecided": "◇",
    "not asked": "○",
}
# the same, drawn
MARKERS = {
    "supported": "^",
    "no effect": "s",
    "opposite": "v",
    "not supported": "X",
    "undecided": "D",
}
LABEL_COLOURS = [PALETTE[0], PALETTE[1], PALETTE[4], PALETTE[5], PALETTE[8], PALETTE[9]]


def many_colours(count: int) -> list:
    """Colours for `count` lines that stand for different things."""
    if count > 8:
        import seaborn as sns

        return sns.color_palette("husl", count)
    return [PALETTE[i] for i in (0, 1, 2, 4, 5, 3, 8, 9)][:count]


def use_theme() -> None:
    """One look for all pages."""
    import seaborn as sns

    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=list(PALETTE),
        rc={
            "svg.fonttype": "none",
            "svg.hashsalt": "pretune",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
        },
    )


def subplots(*shape: int, **options: object) -> tuple:
    """A figure and its axes: `matplotlib.pyplot.subplots`."""
    import matplotlib.pyplot as plt

    return plt.subplots(*shape, **options)


def legend(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
    """One legend below all `panels`, with what is drawn in any of them, each once."""
    shown = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    place = {"loc": "outside lower center", "ncols": columns, "fontsize": "small"}
    figure.legend(shown.values(), shown.keys(), **place)


def panels(
    count: int, columns: int = 3, height: float = 2.6, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels side by side, and its axes in reading order."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure, grid = subplots(
        lines,
        columns,
        figsize=(max(3.3 * columns, 7.5), height * lines),
        sharey=share_y,
        squeeze=False,
    )
    axes = list(grid.flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


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
    figure, axes = panels(len(shown))
    for panel, (name, lines) in zip(axes, shown.items(), strict=True):
        for line in lines:
            plain_curve(panel, *line)
        panel.plot(
            "tokens",
            "baseline",
            data=lines[0].scores,
            color=COLOURS["baseline"],
            lw=1,
            ls=":",
            label="no skill",
        )
        if floors is not None and not np.isnan(floors[name]) and len(lines[0].scores):
            last = lines[0].scores["score"].iloc[-1]
            panel.axhspan(
                last - floors[name],
                last + floors[name],
                color=PALETTE[8],
                alpha=0.35,
                lw=0,
                label="noise floor",
            )
        panel.set_title(name, fontsize="small")
        panel.set_ylim(-0.03, 1.03)
    for panel in axes[:: min(3, len(axes))]:
        panel.set_ylabel("score, 0 to 1")
    legend(figure, axes[:1], 4)
    figure.suptitle(title, x=0.01, ha="left")
    show(figure, alt)


def plain_curve(axes: Axes, line: pd.DataFrame, colour, label: str, dashed: bool = False) -> Axes:
    """One of several curves of a panel: score against tokens with interval. `colour` is a name
    of `COLOURS` or a colour.
    """
    ink = COLOURS.get(colour, colour) if isinstance(colour, str) else colour
    if line.empty:  # nothing was measured: its name stands in the legend without a line
        axes.plot(
            [], [], color=ink, marker="o", ms=3.5, lw=1.4, ls="--" if dashed else "-", label=label
        )
        return axes
    axes.fill_between(line["tokens"], line["low"], line["high"], color=ink, alpha=0.15, lw=0)
    axes.plot(
        line["tokens"],
        line["score"],
        color=ink,
        marker="o",
        ms=3.5,
        lw=1.4,
        ls="--" if dashed else "-",
        label=label,
    )
    return token_axis(axes, line["tokens"])


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
    axes.set_xticks(ticks, [_short(tick) for tick in ticks], fontsize="small")
    axes.minorticks_off()
    axes.set_xlabel("pre-training tokens")
    return axes


def intervals(
    axes: Axes, names: list[str], estimates: list, groups: list[str], margin: float
) -> Axes:
    """One horizontal interval per name, coloured by group, with the band of changes too small to
    count.
    """
    axes.axvspan(-margin, margin, color="0.9", lw=0, zorder=0)
    axes.axvline(0, color="0.5", lw=1)
    for place, (found, group) in enumerate(zip(estimates, groups, strict=True)):
        axes.plot([found.low, found.high], [place, place], color=COLOURS[group], lw=2)
        axes.plot(found.value, place, "o", color=COLOURS[group])
    for group in dict.fromkeys(groups):
        axes.plot([], [], "o-", color=COLOURS[group], label=group)
    return _rows(axes, names)


def verdicts(
    axes: Axes, names: list[str], estimates: list, margins: list[float], decided: list[str]
) -> Axes:
    """One interval per claim, with the mark and the colour of its verdict, and the margin it is
    held against.
    """
    axes.axvline(0, color="0.5", lw=1)
    for place, (found, margin, verdict) in enumerate(zip(estimates, margins, decided, strict=True)):
        axes.plot(
            [margin] * 2, [place - 0.35, place + 0.35], color="black", lw=1, ls="--", label="margin"
        )
        axes.plot([found.low, found.high], [place] * 2, color=COLOURS[verdict], lw=2)
        axes.plot(found.value, place, MARKERS[verdict], color=COLOURS[verdict], label=verdict)
    return _rows(axes, names)


def label_shares(axes: Axes, shares: pd.DataFrame, labels: tuple[str, ...]) -> Axes:
    """Stacked shares of predicted labels, one bar per line of `shares`."""
    places, bottom = np.arange(len(shares)), np.zeros(len(shares))
    for number, label in enumerate(labels):
        part = shares[number].to_numpy() if number in shares else np.zeros(len(shares))
        axes.bar(
            places, part, bottom=bottom, color=LABEL_COLOURS[number], label=label, width=0.85, lw=0
        )
        bottom += part
    axes.set_xticks(places, [str(name) for name in shares.index], rotation=90, fontsize="small")
    axes.set_ylim(0, 1)
    axes.grid(False, axis="x")
    return axes


def before_after(
    axes: Axes, names: list[str], before: list, after: list, baseline: list[float]
) -> Axes:
    """Score before and after tuning with intervals, one line per name, and the score without a
    skill.
    """
    for place, (one, two, level) in enumerate(zip(before, after, baseline, strict=True)):
        for found, key, shift in ((one, "base", -0.12), (two, "tuned", 0.12)):
            axes.plot([found.low, found.high], [place + shift] * 2, color=COLOURS[key], lw=2)
            axes.plot(
                found.value,
                place + shift,
                "o",
                color=COLOURS[key],
                label=key if place == 0 else None,
            )
        axes.plot(
            [level] * 2,
            [place - 0.35, place + 0.35],
            color=COLOURS["baseline"],
            lw=1,
            ls="--",
            label="no skill" if place == 0 else None,
        )
    axes.set_xlim(-0.02, 1.02)
    return _rows(axes, names)


def _rows(axes: Axes, names: list[str]) -> Axes:
    """An axis of names, the first on top, also where panels share the axis."""
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    return axes


def _short(number: float) -> str:
    """1200000 as 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


def heat_map(axes: Axes, table: pd.DataFrame, label: str) -> Axes:
    """Signed values as colours, pale enough for the black numbers on them, one line per index;
    blank where one is missing.
    """
    bound = max(0.1, float(np.nanmax(np.abs(table.to_numpy(dtype=float)))))
    import seaborn as sns

    pale = sns.diverging_palette(250, 15, s=80, l=65, as_cmap=True)
    sns.heatmap(
        table.astype(float),
        ax=axes,
        annot=True,
        fmt="+.2f",
        cmap=pale,
        vmin=-bound,
        vmax=bound,
        linewidths=1,
        cbar_kws={"label": label},
        annot_kws={"fontsize": "small", "color": "black"},
    )
    axes.tick_params(axis="x", rotation=40)
    for text in axes.get_xticklabels():
        text.set_ha("right")
    return axes


def scatter(axes: Axes, across: list, up: list, names: list[str], colours: list) -> Axes:
    """Named points with intervals in both directions; `across` and `up` are estimates."""
    for one, two, name, ink in zip(across, up, names, colours, strict=True):
        axes.plot([one.low, one.high], [two.value] * 2, color=ink, lw=1)
        axes.plot([one.value] * 2, [two.low, two.high], color=ink, lw=1)
        axes.plot(one.value, two.value, "o", color=ink, label=name)
    return axes
