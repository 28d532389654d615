"""What the pages of all findings show: the study, who measured it, what is missing, what models
predict and say.
"""

from __future__ import annotations

import html
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd

from pretune import records
from pretune.analysis import figures, labels, statistics
from pretune.analysis.display import quote, say, table
from pretune.analysis.results import NO_ITEMS, Results, classifications, of_first_seeds
from pretune.plan.needs import shots_of
from pretune.sources import released
from pretune.study import config
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def head(scores: pd.DataFrame) -> None:
    """The first rows of the table that a page is made of, upright."""
    say(f"`scores` has {len(scores):,} rows.")
    shown = scores.head(4).map(lambda cell: quote(cell) if isinstance(cell, str) else cell)
    table(shown.reset_index(drop=True).T, fold="Its first rows, each a column")


def introduce(page: Results) -> None:
    """The study, who measured it and with what, whether everything is there, and the datasets."""
    say(described(page))
    table(provenance(page), fold="Versions, device and time")
    say(completeness(page))
    if not page.has_items and len(page.lacking):
        table(holes(page))
    table(datasets(page), fold="Datasets: how each is asked and scored")


def described(page: Results) -> str:
    """The study in a few sentences."""
    study = page.study
    if not page.has_items:
        return _described_tables(page)
    there, recipes = page.plan.checkpoints, ", ".join(f"`{name}`" for name in study.recipes)
    steps, seeds = list(dict.fromkeys(point.step for point in there)), study.tuning.seeds
    several = ", ".join(f"`{name}`" for name in study.models)
    of_models = f" of the models {several}" * (len(study.models) > 1)
    return (
        f"**{html.escape(study.title)}.** {len(there)} checkpoints{of_models}, saved at "
        "optimizer steps "
        f"{', '.join(map(str, steps))}; the last "
        f"{len({point.step for point in there if point.late})} are neighbours. Recipes: "
        f"{recipes}. {study.probing.shots} shots are asked for, at most {study.probing.items} "
        f"items a dataset, {seeds} seed{'s' * (seeds > 1)}. Datasets whose prompts do not fit the "
        "context get fewer shots." + _remarks(study, study.runs)
    )


def _remarks(study: Study, runs: int) -> str:
    """What is not as usual: several runs, stand-ins for splits, options of the published
    protocol.
    """
    said, options = (
        "",
        [
            f"{key} {value}"
            for key, value in study.protocol
            if value != getattr(config.Protocol(), key)
        ],
    )
    if runs > 1:
        said += (
            f" {runs} pre-training runs stand in the place of seeds: intervals are over runs, "
            "each the mean over its seeds."
        )
    if getattr(study.datasets, "stand_ins", None):
        named = "; ".join(
            f"{quote(one)} is {quote(other)}" for one, other in study.datasets.stand_ins.items()
        )
        said += f" **Some splits are stand-ins:** {named}."
    if options:
        said += f" Of the protocol, these options are the published ones: {', '.join(options)}."
    return said


def _described_tables(page: Results) -> str:
    study = page.study
    return (
        f"**{html.escape(study.title)}.** Nothing was measured here: these are the mean scores "
        "that the authors released, which is what makes this page possible. "
        f"{len(study.checkpoints.steps)} checkpoints at optimizer steps "
        f"{', '.join(f'{step:,}' for step in study.checkpoints.steps)}, the last being the branch "
        "main; the last two, twenty steps apart, serve as replicates. One seed. A score is the "
        "middle of a bootstrap interval over items; its standard error over items is known, so "
        "differences have an interval that takes scores as unpaired. The noise of checkpoints is "
        "what the effect itself moves by from one of the last two to the other, which is one "
        "degree of freedom and makes intervals wide. Nothing is known about seeds, so **every "
        "verdict is provisional**."
    )


def holes(page: Results) -> pd.DataFrame:
    """What the finding asks for and released tables do not hold."""
    lines = {}
    for (recipe, name, form, shots), part in page.lacking.groupby(
        ["recipe", "dataset", "format", "shots_asked"]
    ):
        steps = (
            "all"
            if len(part) == len(page.study.checkpoints.steps)
            else ", ".join(f"{step:,}" for step in part["step"])
        )
        lines.setdefault((recipe, f"{form}, {shots} shots", steps), []).append(page.title(name))
    return pd.DataFrame(
        {
            f"{recipe}: {form}": {"lacking at steps": steps, "datasets": ", ".join(names)}
            for (recipe, form, steps), names in lines.items()
        }
    ).T


def completeness(page: Results) -> str:
    """Whether every row that the page asked for is there."""
    if not page.has_items:
        rest = " What they lack is left blank, never filled in." if len(page.lacking) else ""
        asked = len(page.rows) + len(page.lacking)
        return (
            f"The tables hold {len(page.rows)} of the {asked} scores that this page asks for.{rest}"
        )
    models = len(page.plan.cells)
    if not page.missing:
        return (
            f"The grid is complete: {models} of {models} models have all the rows this page asks "
            "for."
        )
    holes = "\n".join(f"- `{name}`: {quote(why)}" for name, why in page.missing.items())
    return (
        f"**This page is partial and gives no verdict:** {len(page.missing)} of {models} "
        "models lack rows. What rests on them is left blank, never filled in: an effect that "
        "lacks a seed of one of its parts is blank, and a curve is the mean of the seeds that are "
        f"there. `pretune run` tries them again.\n\n{holes}"
    )


def provenance(page: Results) -> pd.DataFrame:
    """Who measured the rows, with what, and for how long."""
    if not page.has_items:
        return pd.DataFrame(
            {
                "": {"commit": released.COMMIT[:10]}
                | {name: f"SHA-256 {digest[:16]}…" for name, digest in released.SHA256.items()}
            }
        )
    about = records.provenance(page.plan)
    seconds = pd.DataFrame(list(about["seconds"])).sum()
    versions = set()
    for one in about["versions"]:
        said = [f"{name} {one[name]}" for name in ("python", "torch", "transformers")]
        versions.add(" ".join(said))
    left_out = sum(len(items) for items in chain.from_iterable(map(dict.values, about["left_out"])))
    precision = set(
        "training " + about["training_precision"] + ", scoring " + about["scoring_precision"]
    )
    return pd.DataFrame(
        {
            "": {
                "records": str(len(about)),
                "versions": " / ".join(sorted(versions)),
                "commit": ", ".join(sorted({(one or "none")[:10] for one in about["commit"]})),
                "device": ", ".join(sorted(set(about["device"]))),
                "precision": ", ".join(sorted(precision)),
                "dropout": ", ".join(
                    sorted(set(about.get("dropout", pd.Series("none", about.index)).fillna("none")))
                ),
                "parameters": ", ".join(
                    f"{number:,}" for number in sorted(set(about["parameters"]))
                ),
                "seconds of process": ", ".join(
                    f"{phase} {value:.0f}" for phase, value in seconds.items()
                ),
                "items left out (too long)": str(left_out),
                "training rows passed over (too long)": str(
                    about.get("passed_over", pd.Series(dtype=object)).dropna().map(len).sum()
                ),
            }
        }
    )


def datasets(page: Results) -> pd.DataFrame:
    """What each dataset asks, how it is scored, how many items and shots there are."""
    lines = {}
    for name, title in page.titles.items():
        part, about = page.rows[page.rows["dataset"] == name], REGISTRY[name]
        by = "" if about.normalisation == "sum" else f" per {about.normalisation.rstrip('s')}"
        score = {"rouge_l": "ROUGE-L", "nats": "loss, nats per token"}.get(
            about.metric, f"accuracy{by}"
        )
        lines[title] = {
            "kind": about.kind,
            "score": score,
            "split": f"<code>{', '.join(part['split'].unique())}</code>",
            "items": part["item"].nunique() if page.has_items else int(part["n"].iloc[0]),
            "shots": ", ".join(map(str, sorted(part["shots"].unique()))),
            "no skill": float(part["baseline"].mean()),
        }
    return pd.DataFrame(lines).T


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
    for model, colour in zip(models, figures.many_colours(len(models)), strict=True):
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
