"""Scores of several models of one page along pre-training. A *model* is a run of a size.

What is known of each at a checkpoint, what tuning makes of it in the end, and what it moves by for
no reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pretune.analysis.dynamics import sets
from pretune.analysis.results import Results, gold_likelihood, recipes
from pretune.tasks.registry import REGISTRY

MODEL = ["model", "run"]


def levels(page: Results) -> pd.DataFrame:
    """Mean scores of the untuned models: a line for every model and checkpoint, a column for every
    set, and `loss`, nats per character of text, of which models with other tokenizers have other
    tokens; NaN where no text was read.
    """
    rows = page.base[page.base["as_asked"] & (page.base["format"] == "default")]
    by = [*MODEL, "step", "tokens"]
    table = rows.groupby([*by, "dataset"])["score"].mean().unstack("dataset")
    names = [name for name in page.titles if REGISTRY[name].kind != "text"]
    table = table[names].assign(loss=_loss(rows, by))
    return table.reindex(list(page.study.models), level="model")


def _loss(rows: pd.DataFrame, by: list[str]) -> pd.Series:
    text = rows[[REGISTRY[name].kind == "text" for name in rows["dataset"]]]
    columns = ("log_likelihood", "choice_characters")
    read = pd.DataFrame({name: [parts[0] for parts in text[name]] for name in columns})
    sums = read.set_index(pd.MultiIndex.from_frame(text[by])).groupby(level=by).sum()
    return -sums["log_likelihood"] / sums["choice_characters"]


def apart_from(page: Results) -> pd.DataFrame:
    """`levels` of the sets of which no two share their items."""
    table = levels(page)
    return table[[*page.distinct(sets(table)), "loss"]]


def of_models(table: pd.DataFrame) -> dict[tuple, pd.DataFrame]:
    """The lines of each model, in the order of checkpoints; its first word is its size."""
    return {key: part.droplevel(MODEL) for key, part in table.groupby(level=MODEL, sort=False)}


def final(page: Results) -> dict[str, pd.Series]:
    """Of every set that is tuned on, the tuned score of each model at late."""
    found = {}
    for recipe, own in recipes(page).items():
        rows = page.of(own, recipe)
        if len(rows := rows[rows["late"]]):
            found[own] = rows.groupby(MODEL)["score"].mean()
    return found


def gold(page: Results, name: str) -> pd.Series:
    """Log-likelihood of the gold answer per token, a value for every model and checkpoint."""
    rows = page.of(name)
    rows = rows.assign(gold_likelihood=gold_likelihood(rows))
    return rows.groupby([*MODEL, "step"])["gold_likelihood"].mean()


def predictors(page: Results) -> dict[str, Callable[[str, int], pd.Series]]:
    """What is known of each model at a checkpoint, that might say how well it will be tuned on a
    set: the larger, the better.
    """
    table = levels(page)
    at, models = table.droplevel("tokens").xs, of_models(table)
    known = {name: gold(page, name) for name in final(page)}
    return {
        "base score": lambda name, step: at(step, level="step")[name],
        "gold likelihood": lambda name, step: known[name].xs(step, level="step"),
        "held-out loss": lambda name, step: -at(step, level="step")["loss"],
        "loss, extrapolated": lambda name, step: -extrapolated(models, step),
    }


def extrapolated(models: dict[tuple, pd.DataFrame], step: int) -> pd.Series:
    """The final loss of each model by a power law of tokens through its checkpoints up to `step`:
    the first of two steps from an early loss to a score, of which the second changes no order.
    """
    found = {}
    for key, lines in models.items():
        tokens = lines.index.get_level_values("tokens").to_numpy(float)
        seen = (lines.index.get_level_values("step") <= step) & (tokens > 0)
        if seen.sum() > 1:
            loss = np.log(lines["loss"].to_numpy()[seen])
            rate, start = np.polyfit(np.log(tokens[seen]), loss, 1)
            found[key] = np.exp(start + rate * np.log(tokens[-1]))
    index = pd.MultiIndex.from_tuples(list(found), names=MODEL)
    return pd.Series(list(found.values()), index, dtype=float)


def signal_and_noise(page: Results) -> pd.DataFrame:
    """Of every set at late: how far the models are apart (largest minus smallest), the standard
    deviation of a model from one late checkpoint to the next, and their ratio.

    The spread is taken within a run. Pooled over runs, as the code released with "Signal and
    Noise" (arXiv 2508.13144) does for its small sizes, it holds what the models differ by.
    """
    rows = page.base[page.base["late"] & page.base["as_asked"]]
    means = rows.groupby(["dataset", *MODEL, "step"])["score"].mean()
    each = means.groupby(["dataset", *MODEL])
    late = each.mean().groupby("dataset")
    table = pd.DataFrame({"signal": late.max() - late.min()})
    table["noise"] = each.std().groupby("dataset").mean()
    table["signal over noise"] = table["signal"] / table["noise"].replace(0, np.nan)
    table = table.loc[[REGISTRY[name].kind != "text" for name in table.index]]
    return table.sort_values("signal over noise", ascending=False).rename(index=page.title)


def by_size(keys: Iterable[tuple]) -> list[list[tuple]]:
    found: dict[str, list[tuple]] = {}
    for key in keys:
        found.setdefault(key[0], []).append(key)
    return list(found.values())
