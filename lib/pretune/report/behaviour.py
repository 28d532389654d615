"""What models do, for the pages of all findings: before and after tuning, while they are tuned,
what they predict, prompts and what they answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pretune import records
from pretune.analysis import figures, labels, statistics, theme
from pretune.analysis.display import quote, say, table
from pretune.analysis.results import NO_ITEMS, Results, classifications, of_first_seeds
from pretune.plan.needs import shots_of
from pretune.tasks.registry import REGISTRY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def show_checkpoint(page: Results) -> None:
    """One checkpoint: every probe before and after tuning, how the tuning went, what is
    predicted.
    """
    show_before_after(page)
    if page.has_items:
        show_tuning(page)
        show_label_shares(page)


def show_label_shares(page: Results) -> None:
    """What models predict on datasets with fixed labels: base at every checkpoint, or at one
    checkpoint every model.
    """
    names, by = classifications(page), "step" if page.is_whole else "recipe"
    if not names:
        return say("No dataset here has fixed labels.")
    rows = page.base if page.is_whole else page.rows[page.rows["recipe"].isin(page.study.recipes)]
    rows = rows[(rows["format"] == "default") & rows["as_asked"]]
    shares = labels.predicted_shares(rows[rows["dataset"].isin(names)], by)
    if not page.is_whole:
        shares = shares.reindex(list(page.study.recipes), level=by)
    axes = figures.panels(len(names), 3.0)
    for panel, name in zip(axes, names, strict=True):
        figures.label_shares(panel, shares.loc[name], REGISTRY[name].labels)
        panel.set(
            title=REGISTRY[name].title,
            ylabel="share",
            xlabel="pre-training step" if page.is_whole else "recipe",
        )
    of = "the untuned model predicts" if page.is_whole else f"models predict at {page.checkpoint}"
    figures.show(
        axes,
        f"Which label {of}{page.world}",
        f"Stacked shares of the labels that {of}, for {', '.join(map(page.title, names))}.",
        _named_shares(shares, names),
    )


def _named_shares(shares: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The shares of labels by their names, a line for each bar."""
    lines = {}
    for name in names:
        for at, line in shares.loc[name].iterrows():
            said = enumerate(REGISTRY[name].labels)
            lines[f"{REGISTRY[name].title}: {at}"] = {
                label: f"{line.get(number, 0.0):.0%}" for number, label in said
            }
    return pd.DataFrame(lines).T.fillna("–")


def show_before_after(page: Results) -> None:
    """Base against every recipe on every probe the finding looks at, for one checkpoint; text,
    which has no score, apart.
    """
    probes = {recipe: _probes(page, recipe) for recipe in page.study.recipes if recipe != "base"}
    probes = {recipe: some for recipe, some in probes.items() if some}
    if not probes:
        return say("No tuned model was measured here that could be set beside the untuned one.")
    axes = [_before_after(page, recipe, some) for recipe, some in probes.items()]
    figures.show(
        axes,
        f"Before and after tuning at {page.checkpoint}{page.world}, 95 % interval over items",
        f"Score before and after every recipe at {page.checkpoint}, one line a dataset, format "
        "and shots.",
    )


def _before_after(page: Results, recipe: str, probes: list[tuple[str, str, int | None]]) -> Axes:
    """The panel of one recipe."""
    base = [page.of(name, "base", form, shots) for name, form, shots in probes]
    tuned = [page.of(name, recipe, form, shots) for name, form, shots in probes]
    before, after = (list(map(statistics.over_items, some)) for some in (base, tuned))
    levels = [rows["baseline"].mean() for rows in base]
    panel = figures.before_after([_probe_name(*one) for one in probes], before, after, levels)
    panel.set(title=f"recipe {recipe}", xlabel="score, 0 to 1")
    return panel


def _probes(page: Results, recipe: str) -> list[tuple[str, str, int | None]]:
    """(dataset, format, shots) that both base and `recipe` were looked at with, in the order of
    the study: first as claims ask each (None), and where that differs, with equally many.
    """
    tuned, base = (_looked_at(page, which) for which in (recipe, "base"))
    order, both = list(page.titles), tuned & base
    for name, form, _ in [one for one in both if one[2] is None]:
        asked = {shots_of(page.study, name, which) for which in (recipe, "base")}
        both -= {(name, form, shots) for shots in asked} if len(asked) == 1 else set()
    return sorted(
        (one for one in both if REGISTRY[one[0]].metric != "nats"),
        key=lambda one: (order.index(one[0]), one[1] != "default", one[1], one[2] is not None),
    )


def _looked_at(page: Results, recipe: str) -> set[tuple[str, str, int | None]]:
    """Dataset, format and shots of what was asked of a recipe; None for as many as claims ask."""
    rows = page.rows[page.rows["recipe"] == recipe]
    found = set(rows[["dataset", "format", "shots_asked"]].itertuples(index=False, name=None))
    asked = rows.loc[rows["as_asked"], ["dataset", "format"]].drop_duplicates()
    return found | {(*one, None) for one in asked.itertuples(index=False, name=None)}


def _probe_name(name: str, form: str, shots: int | None) -> str:
    said = {None: "", 0: ", both without examples"}
    return (
        REGISTRY[name].title
        + (f", {form}" if form != "default" else "")
        + said.get(shots, f", both with {shots} examples")
    )


def show_tuning(page: Results) -> None:
    """Loss of every recipe at the page's checkpoint, or at the last one."""
    [axes] = figures.panels(1, 3.0)
    models = [one.model for one in page.plan.of(only=(page.shown,)).cells]
    models = [
        model
        for model in models
        if model.recipe in page.study.recipes
        and model.seed == page.study.seeds(model.checkpoint.run)[0]
        and model.recipe != "base"
        and model.name not in page.missing
    ]
    for model, colour in zip(models, theme.many_colours(len(models)), strict=True):
        log = records.training_log(page.study, model)
        smooth = log["loss"].rolling(5, min_periods=1).mean()
        axes.plot(log["step"], smooth, color=colour, lw=1.2, label=model.recipe)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per counted token)")
    figures.show(
        [axes],
        f"Tuning at {page.shown}: loss, mean of 5 steps",
        f"Training loss of each recipe at {page.shown}.",
    )


def show_prompts(page: Results, names: list[str]) -> None:
    """The first item of each of `names` in the study's fixed order: prompt, answer before and
    after each recipe, gold.
    """
    if not page.has_items:
        return say(NO_ITEMS)
    texts = records.load_texts(page.plan, {"checkpoint": page.shown})
    texts = texts.set_index(["probe", "recipe", "item"])
    there = of_first_seeds(page.study, page.rows[page.rows["checkpoint"] == page.shown])
    lines = {}
    # of text nothing is asked
    for name in (one for one in names if REGISTRY[one].metric != "nats"):
        rows = there[
            (there["dataset"] == name) & (there["format"] == "default") & there["as_asked"]
        ]
        said = {
            row.recipe: (row, texts.loc[(row.probe, row.recipe, row.item)])
            for row in rows[rows["item"] == rows["item"].iloc[0]].itertuples()
        }
        [first, text] = said["base"]
        lines[page.title(name), "prompt"] = quote(text["prompt"], 500)
        lines[page.title(name), "gold"] = quote(text["choices"][first.gold].strip())
        for recipe in (one for one in page.study.recipes if one in said):
            row, text = said[recipe]
            answer = text["output"] if row.prediction < 0 else text["choices"][row.prediction]
            lines[page.title(name), recipe] = quote(answer.strip(), 200) or "(nothing)"
    prompts = pd.DataFrame({"text": lines})
    table(prompts, fold=f"Prompts and answers at {page.shown}, of {len(names)} datasets")
