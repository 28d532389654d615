"""One look for all pages: what colours and marks mean."""

from __future__ import annotations

# seaborn's "colorblind". Drawing libraries take seconds to load: they are when something is drawn
PALETTE = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
# a colour has one meaning on a page: groups of datasets, models, and verdicts share none
COLOURS = {
    "learned": PALETTE[0],
    "not learned": PALETTE[1],
    "learned before": PALETTE[9],
    "base": PALETTE[7],
    "tuned": "#8c6bd1",
    "baseline": "black",
    "supported": PALETTE[2],
    "no effect": "#8f8a00",
    "opposite": PALETTE[4],
    "not supported": PALETTE[3],
    "undecided": PALETTE[5],
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
SHAPES = "osD^v"  # of things of one kind, whose colour they share
LABEL_COLOURS = ["#3d4f6b", "#8fa3c2", "#cfd8e6"]  # answers, of which none is better
BAND = "#e5e5e5"  # what is too small to count


def many_colours(count: int) -> list:
    """Colours for `count` lines that stand for different things."""
    if count > 8:
        import seaborn as sns

        return sns.color_palette("husl", count)
    return [PALETTE[i] for i in (0, 1, 2, 4, 5, 3, 8, 9)][:count]


def rising(count: int) -> list:
    """Colours for `count` lines in an order, from dark to bright."""
    import seaborn as sns

    return sns.color_palette("viridis", count)


def use_theme() -> None:
    """One look for all pages."""
    import seaborn as sns

    sns.set_theme(
        context="paper",
        style="whitegrid",
        palette=list(PALETTE),
        rc={
            "svg.fonttype": "none",
            "svg.hashsalt": "pretune",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
            "axes.titlelocation": "left",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
        },
    )
