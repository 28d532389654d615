"""What a page is of: the study, who measured it and with what, whether everything is there, the
datasets and the table of scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain

import pandas as pd

from pretune import records
from pretune.analysis.display import quote, say, sentence, table
from pretune.analysis.results import Results
from pretune.models.checkpoint import Checkpoint
from pretune.sources import released
from pretune.study import config
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY


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
    seeds, saved = study.tuning.seeds, defaultdict(list)
    for model in study.models:
        saved[_saved(point for point in there if point.model == model)].append(f"`{model}`")
    of_models = [f", of {', '.join(some)}" * (len(study.models) > 1) for some in saved.values()]
    places = [f"{how}{of}" for how, of in zip(saved, of_models, strict=True)]
    return (
        f"**{sentence(study.title)}** {len(there)} checkpoints, saved at optimizer steps "
        f"{'; '.join(places)}. Recipes: {recipes}. {study.probing.shots} shots are asked for, at "
        f"most {study.probing.items} items a dataset, {seeds} seed{'s' * (seeds > 1)}. Datasets "
        "whose prompts do not fit the context get fewer shots." + _remarks(study, study.runs)
    )


def _saved(points: Iterable[Checkpoint]) -> str:
    """At which steps the checkpoints of a model were saved, and how many are neighbours."""
    late = {point.step: point.late for point in points}
    return f"{', '.join(map(str, late))}, the last {sum(late.values())} of them neighbours"


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
        f"**{sentence(study.title)}** Nothing was measured here: these are the mean scores "
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
