"""How far tuning moved models, from rows of the measure `divergence`: answers, models, methods.

- An *answer* is the tuned model's own, by greedy generation, on what its recipe tunes on, or after
  a mixture of conversations on sets that ask for text, in chat markup.
- A position is *unshifted* where the untuned model finds the token likeliest too, *marginal* where
  it ranks it second or third, else *shifted* (Lin et al., arXiv 2312.01552).
- Two methods are compared where both fit their training rows as well: along each method's rates,
  from the lowest to the one of lowest loss, in a straight line between two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis.results import Results, marked
from pretune.analysis.scores import Term
from pretune.plan.needs import Need, asked_sets, is_single, own_sets
from pretune.recipes.trainable import Lora
from pretune.sources import datasets
from pretune.study.config import Study
from pretune.tasks import rows as data
from pretune.tasks.registry import REGISTRY

MARGINAL = 3  # the lowest rank that is not shifted
MODEL = ["recipe", "step", "run", "seed"]
FULL = "all weights"
LAST = 0.25  # share of the steps of a tuning whose mean loss is its loss
KINDS = ("in the prompt", "in tuning rows", "neither", "no word")


def answered(study: Study, recipe: str) -> list[Need]:
    """What a recipe, or a variant of one, is asked to answer."""
    if is_single(study, recipe):
        return [Need(name, 0, measure="divergence") for name in own_sets(study, recipe)[:1]]
    written = [name for name in asked_sets(study) if REGISTRY[name].kind == "generation"]
    return [Need(name, 0, "chat", measure="divergence") for name in written]


def method(study: Study, recipe: str) -> str:
    """How a recipe, or a variant of one, is trained."""
    how = study.recipe(recipe).trainable
    if how is None:
        return FULL
    return f"LoRA, rank {how.r}" if isinstance(how, Lora) else "some weights"


def methods(study: Study) -> dict[str, dict[str, str]]:
    """Of every set that is tuned on by several methods, the recipe of each, all weights first."""
    found: dict[str, dict[str, str]] = {}
    for name, how in study.recipes.items():
        if how.dataset:
            found.setdefault(how.dataset, {})[method(study, name)] = name
    return {
        own: {FULL: some[FULL], **some}
        for own, some in found.items()
        if FULL in some and len(some) > 1
    }


def answers(page: Results) -> pd.DataFrame:
    """A row for every answer: `shifted` and `marginal`, shares of its positions; `moved`, the mean
    of KL(base, tuned) over them, nats; `on_gold`, the same over the gold answer.
    """
    rows = page.measured("divergence")
    rows = marked(page.study, rows[rows["own"] > 0])
    own = rows["own"].to_numpy()
    ranks = [np.asarray(some[:end]) for some, end in zip(rows["base_rank"], own, strict=True)]
    nats = list(zip(rows["kl_base_tuned"], own, strict=True))
    return rows.assign(
        shifted=[float(np.mean(some > MARGINAL)) for some in ranks],
        marginal=[float(np.mean((some > 1) & (some <= MARGINAL))) for some in ranks],
        moved=[float(np.mean(some[:end])) for some, end in nats],
        on_gold=[float(np.mean(some[end:])) for some, end in nats],
    )


def terms(
    page: Results, recipe: str, weight: float = 1.0, steps: tuple[int, ...] = ()
) -> list[Term]:
    """The mean over what a recipe answers, of `answers` with some column as their score."""
    asked = [one for one in answered(page.study, recipe) if one.dataset in page.titles]
    return [
        Term(weight / len(asked), one.dataset, recipe, steps, one.format, one.shots)
        for one in asked
    ]


def losses(page: Results) -> pd.Series:
    """The tuning loss of every tuned model, nats a counted token: the mean over its last steps."""
    return page.once("losses", lambda _: _losses(page))


def _losses(page: Results) -> pd.Series:
    found = {}
    for model in (cell.model for cell in page.plan.cells):
        if model.recipe != "base" and model.name not in page.missing:
            log = records.training_log(page.study, model)["loss"]
            key = (model.recipe, model.checkpoint.step, model.checkpoint.run, model.seed)
            found[key] = log.iloc[-max(1, int(LAST * len(log))) :].mean()
    return pd.Series(found, pd.MultiIndex.from_tuples(list(found), names=MODEL), dtype=float)


class Match(NamedTuple):
    """The tuning loss that two methods share, and with which weights their variants have it."""

    loss: float
    one: dict[str, float]
    other: dict[str, float]


def matched(losses: pd.Series, one: Sequence[str], other: Sequence[str]) -> Match | None:
    """Where two methods fit equally well, each given as names of its variants by rising rate:
    `losses` by name. None where the range of one lies below that of the other.
    """
    paths = [_to_the_best(losses, some) for some in (one, other)]
    loss = max(path.iloc[-1] for path in paths)
    if any(path.iloc[0] < loss for path in paths):
        return None
    return Match(float(loss), *(_between(path, loss) for path in paths))


def _to_the_best(losses: pd.Series, names: Sequence[str]) -> pd.Series:
    """Losses of the variants from the lowest rate to the one that fits best, those that fit worse
    than one of a lower rate left out.
    """
    path = losses[list(names)]
    path = path.iloc[: int(path.argmin()) + 1]
    return path[path == path.cummin()]


def _between(path: pd.Series, loss: float) -> dict[str, float]:
    """The point of a falling path at `loss`, or the two neighbours whose weighted mean it is."""
    after = int(np.argmax(path.to_numpy() <= loss))
    if path.iloc[after] == loss:
        return {path.index[after]: 1.0}
    high, low = path.iloc[after - 1], path.iloc[after]
    share = float((high - loss) / (high - low))
    return {path.index[after - 1]: 1 - share, path.index[after]: share}


def at_last(page: Results, all_losses: pd.Series) -> pd.Series:
    """The mean tuning loss of every variant over runs, at the last checkpoint of the grid."""
    step = page.study.grid.steps[-1]
    return all_losses.xs(step, level="step").groupby(level="recipe").mean()


def models(page: Results) -> pd.DataFrame:
    """A line for every tuned model: `moved` (nats a position), `weights` (norm of the change over
    that of the weights), `loss` of its tuning, `forgot` (knowledge, untuned minus tuned, mean over
    sets that the untuned model answers at that checkpoint) and `text` (rise of the loss on held-out
    text, nats a token); `whole` is the recipe it is a variant of.
    """
    return page.once("models", lambda _: _models(page))


def _models(page: Results) -> pd.DataFrame:
    table = answers(page).groupby(MODEL)[["moved", "weight_change"]].mean()
    table = table.rename(columns={"weight_change": "weights"})
    lost = _lost(page)
    table = table.assign(loss=losses(page), forgot=lost["forgot"], text=lost["text"])
    recipes = table.index.get_level_values("recipe")
    return table.assign(
        whole=[page.study.variants[name].recipe for name in recipes],
        method=[method(page.study, name) for name in recipes],
    )


def _lost(page: Results) -> pd.DataFrame:
    rows = page.rows[page.rows["as_asked"] & (page.rows["format"] == "default")]
    means = rows.groupby(["dataset", *MODEL])["score"].mean().reset_index()
    base = means[means["recipe"] == "base"].groupby(["dataset", "step", "run"])["score"].mean()
    means = means[means["recipe"] != "base"]
    before = base.reindex(pd.MultiIndex.from_frame(means[["dataset", "step", "run"]])).to_numpy()
    means = means.assign(lost=before - means["score"].to_numpy())
    kept = {step: _known(page, step) for step in page.scores.steps}
    owns = {name: page.study.recipe(name).dataset for name in means["recipe"].unique()}
    counts = [
        name in kept[step] and name != owns[recipe]
        for name, step, recipe in means[["dataset", "step", "recipe"]].itertuples(index=False)
    ]
    text = [REGISTRY[name].kind == "text" for name in means["dataset"]]
    forgot = means[counts].groupby(MODEL)["lost"].mean()
    return pd.DataFrame({"forgot": forgot, "text": -means[text].groupby(MODEL)["lost"].mean()})


def _known(page: Results, step: int) -> list[str]:
    """Knowledge sets that base answers at a checkpoint; what share their items count once."""
    sets = page.distinct(name for name in page.titles if REGISTRY[name].knowledge)
    return [name for name in sets if page.beats_no_skill(name, steps=(step,))]


def predicted(points: pd.DataFrame, across: str, up: str = "forgot") -> float:
    """R2 of `up` on recipes that were left out, by a quadratic law of `across` (RL's Razor, arXiv
    2509.04259): one less squares of what each recipe is away from the law of all others, over those
    from their mean.
    """
    points, away, whole = points.dropna(subset=[across, up]), 0.0, 0.0
    for recipe in points["whole"].unique():
        out = points["whole"] == recipe
        rest, some = points[~out], points[out]
        law = np.polyfit(rest[across], rest[up], 2)
        away += ((some[up] - np.polyval(law, some[across])) ** 2).sum()
        whole += ((some[up] - rest[up].mean()) ** 2).sum()
    return float(1 - away / whole) if whole else np.nan


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def tuning_words(study: Study, recipe: str, seed: int) -> frozenset[str]:
    """The words of the answers in the rows that a recipe tunes on, by its seed."""
    count = study.tuning_of(recipe).examples
    return _tuning_words(datasets.data_folder(study), study.recipe(recipe).dataset, count, seed)


@cache
def _tuning_words(folder: Path, name: str, count: int, seed: int) -> frozenset[str]:
    dataset, found = REGISTRY[name], set()
    chosen = data.chosen(folder, dataset, dataset.train, count, seed)
    if dataset.turns:
        turns = data.conversations(folder, dataset, chosen)
        texts = [answer for some in turns for _, answer in some]
    else:
        made = data.examples(folder, dataset, dataset.train, "default", chosen)
        texts = [one.completion for one in made]
    for text in texts:
        found.update(words(text))
    return frozenset(found)


def prompts(study: Study, rows: pd.DataFrame) -> list[str]:
    """The question of every row, without the examples before it."""
    folder, found = datasets.data_folder(study), {}
    for (name, split, form), part in rows.groupby(["dataset", "split", "format"]):
        items = sorted(part["item"].unique().tolist())
        made = data.examples(folder, REGISTRY[name], split, form, items)
        found |= {
            (name, split, form, item): one.prompt for item, one in zip(items, made, strict=True)
        }
    keys = rows[["dataset", "split", "format", "item"]].itertuples(index=False, name=None)
    return [found[key] for key in keys]


def copied(page: Results) -> pd.DataFrame:
    """`answers` in chat markup with `copied`: the share of their words that stand in answers of
    tuning rows, and neither in the prompt nor in the gold answer; 0 of an answer without words.
    """
    return page.once("copied", lambda _: _copied(page))


def _copied(page: Results) -> pd.DataFrame:
    rows = answers(page)
    rows = rows[rows["format"] == "chat"]
    shares = []
    for row, prompt in zip(rows.itertuples(), prompts(page.study, rows), strict=True):
        said, gold = (
            words("".join(some)) for some in (row.pieces[: row.own], row.pieces[row.own :])
        )
        known = set(words(prompt)) | set(gold)
        seen = tuning_words(page.study, row.recipe, row.seed)
        taken = [word for word in said if word in seen and word not in known]
        shares.append(len(taken) / len(said) if said else 0.0)
    return rows.assign(copied=shares)


def kinds(pieces: Sequence[str], prompt: str, seen: frozenset[str]) -> list[str]:
    """Of every piece of an answer what word it is of: of the prompt, else of tuning rows, else of
    neither; or of none, as a stop is.
    """
    text, asked, found, start = "".join(pieces), set(words(prompt)), [], 0
    spans = [(one.start(), one.end(), one[0].lower()) for one in re.finditer(r"\w+", text)]
    for piece in pieces:
        end = start + len(piece)
        word = next((said for low, high, said in spans if low < end and high > start), None)
        found.append(_kind(word, asked, seen))
        start = end
    return found


def _kind(word: str | None, asked: Iterable[str], seen: Iterable[str]) -> str:
    if word is None:
        return KINDS[3]
    return KINDS[0] if word in asked else KINDS[1] if word in seen else KINDS[2]


def positions(page: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """A line for every position of some `answers`: `piece`, `kind`, `rank` of base, `place` from 0
    to 1 along the answer, `kl` (tuned, base; nats).
    """
    parts = []
    for row, prompt in zip(rows.itertuples(), prompts(page.study, rows), strict=True):
        pieces, seen = list(row.pieces[: row.own]), tuning_words(page.study, row.recipe, row.seed)
        lines = {
            "piece": pieces,
            "kind": kinds(pieces, prompt, seen),
            "rank": row.base_rank[: row.own],
            "place": (np.arange(row.own) + 0.5) / row.own,
            "kl": row.kl_tuned_base[: row.own],
        }
        named = {"recipe": row.recipe, "dataset": row.dataset, "step": row.step, "item": row.item}
        parts.append(pd.DataFrame(lines).assign(**named))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
