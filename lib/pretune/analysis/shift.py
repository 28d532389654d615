"""How far tuning moved models, from rows of the measure `divergence`: answers, models, methods.

- An *answer* is the tuned model's own, by greedy generation, on what its recipe tunes on, or after
  a mixture of conversations on sets that ask for text, in chat markup.
- A position is *unshifted* where the untuned model finds the token likeliest too, *marginal* where
  it ranks it second or third, else *shifted* (Lin et al., arXiv 2312.01552).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import contrasts
from pretune.analysis.matching import MODEL, losses
from pretune.analysis.results import Results, marked
from pretune.analysis.scores import Term
from pretune.plan.needs import Need, asked_sets, is_single, own_sets
from pretune.recipes.trainable import Added, Lora
from pretune.sources import datasets
from pretune.study.config import Study
from pretune.tasks import rows as data
from pretune.tasks.registry import REGISTRY

MARGINAL = 3  # the lowest rank that is not shifted
FULL = "all weights"
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
    if isinstance(how, Added):
        return how.title
    return f"only {how}".replace("\\", "") if how else FULL


def by_set(page: Results) -> dict[str, dict[str, str]]:
    """Of every set that is tuned on the recipes that answer something here, by their method; by
    their names too where two have one.
    """
    found: dict[str, dict[str, str]] = {}
    for name, how in page.study.recipes.items():
        if how.dataset and asked(page, name):
            some = found.setdefault(how.dataset, {})
            label = method(page.study, name)
            some[f"{label} ({name})" if label in some else label] = name
    return found


def pairs(page: Results) -> dict[tuple[str, str], tuple[str, str]]:
    """All weights and LoRA on one set: the two recipes, by the set and the method."""
    found = {}
    for own, some in by_set(page).items():
        for how, recipe in some.items():
            if FULL in some and isinstance(page.study.recipe(recipe).trainable, Lora):
                found[own, how] = some[FULL], recipe
    return found


def asked(page: Results, recipe: str) -> list[Need]:
    """What a recipe answers, of the sets that the page looks at."""
    return [one for one in answered(page.study, recipe) if one.dataset not in page.without]


def answers(page: Results) -> pd.DataFrame:
    """A row for every answer: `shifted` and `marginal`, shares of its positions; `moved`, the mean
    of KL(base, tuned) over them, nats, and `on_gold`, the same over the right answer.
    """
    return page.once("answers", partial(_answers, page))


def _answers(page: Results) -> pd.DataFrame:
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
    return contrasts.mean_of(asked(page, recipe), recipe, weight, steps)


def models(page: Results) -> pd.DataFrame:
    """A line for every tuned model: `moved` (nats a position), `weights` (norm of the change over
    that of the weights), `loss` of its tuning, `forgot` (knowledge, untuned minus tuned; NaN at
    checkpoints that do not know all that is known at late) and `text` (rise of the loss on held-out
    text, nats a token); `whole` is the recipe it is a variant of, `own` what that tunes on.
    """
    return page.once("models", partial(_models, page))


def _models(page: Results) -> pd.DataFrame:
    table = answers(page).groupby(MODEL)[["moved", "weight_change"]].mean()
    table = table.rename(columns={"weight_change": "weights"})
    table = table.assign(loss=losses(page).map(np.mean).astype(float), **_lost(page))
    names = table.index.get_level_values("recipe")
    return table.assign(
        whole=[page.study.variants[name].recipe for name in names],
        own=[page.study.recipe(name).dataset for name in names],
        method=[method(page.study, name) for name in names],
    )


def _lost(page: Results) -> dict[str, pd.Series]:
    """`forgot` and `text` of every tuned model, paired with base on the same examples."""
    rows = page.rows[page.rows["as_asked"] & (page.rows["format"] == "default")]
    base, tuned = rows[rows["recipe"] == "base"], rows[rows["recipe"] != "base"]
    place = ["dataset", "step", "run"]
    drawn = base.groupby([*place, "draw"])["score"].mean()
    means = tuned.groupby(["dataset", *MODEL])["score"].mean().reset_index()
    before = drawn.reindex(pd.MultiIndex.from_frame(means[[*place, "seed"]])).to_numpy()
    every = drawn.groupby(level=place).mean()  # without examples, all draws are one
    every = every.reindex(pd.MultiIndex.from_frame(means[place])).to_numpy()
    means["lost"] = np.where(np.isnan(before), every, before) - means["score"]
    text = means[[REGISTRY[name].kind == "text" for name in means["dataset"]]]
    known, steps = _known(page)
    some = means[means["dataset"].isin(known) & means["step"].isin(steps)]
    owns = [page.study.recipe(name).dataset for name in some["recipe"]]
    some = some[some["dataset"].to_numpy() != np.array(owns, dtype=object)]
    forgot = some.groupby(MODEL)["lost"].mean()
    return {"forgot": forgot, "text": -text.groupby(MODEL)["lost"].mean()}


def _known(page: Results) -> tuple[list[str], list[int]]:
    """The knowledge sets that base answers at late, and the checkpoints where it answers all."""
    sets = [name for name in page.titles if REGISTRY[name].knowledge]
    known = page.distinct(page.has_something_to_lose(sets)[0])
    steps = page.scores.steps
    every = [
        step for step in steps if all(page.beats_no_skill(name, steps=(step,)) for name in known)
    ]
    return known, every


def predicted(
    points: pd.DataFrame, across: str, up: str = "forgot", left_out: str = "whole"
) -> float:
    """R2 of `up` on recipes that were left out, by a quadratic law of `across` (RL's Razor, arXiv
    2509.04259): one less squares of what each recipe is away from the law of all others, over those
    from their mean. Beyond what the others reach the law stays as it is at their end. NaN with a
    single one; `left_out` may be `own`, for all recipes of a set.
    """
    points, away, whole = points.dropna(subset=[across, up]), 0.0, 0.0
    at, there, names = (points[one].to_numpy() for one in (across, up, left_out))
    several = pd.unique(names)
    if len(several) < 2:
        return np.nan
    for name in several:
        out = names == name
        rest = at[~out]
        law = np.polyfit(rest, there[~out], 2)
        seen = at[out].clip(rest.min(), rest.max())
        away += ((there[out] - np.polyval(law, seen)) ** 2).sum()
        whole += ((there[out] - there[~out].mean()) ** 2).sum()
    return float(1 - away / whole) if whole else np.nan


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def tuning_words(page: Results, recipe: str, seed: int) -> frozenset[str]:
    """The words of the answers in the rows that a recipe tunes on, by its seed."""
    study = page.study
    models = (cell.model for cell in page.plan.cells)
    model = next(one for one in models if (one.recipe, one.seed) == (recipe, seed))
    count, long = study.tuning_of(recipe).examples, tuple(records.passed_over(study, model))
    folder = datasets.data_folder(study)
    return _tuning_words(folder, study.recipe(recipe).dataset, count, seed, long)


@cache
def _tuning_words(
    folder: Path, name: str, count: int, seed: int, long: tuple[int, ...]
) -> frozenset[str]:
    dataset, found = REGISTRY[name], set()
    chosen = data.chosen(folder, dataset, dataset.train, count + len(long), seed)
    chosen = [row for row in chosen if row not in long][:count]
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
    return page.once("copied", partial(_copied, page))


def _copied(page: Results) -> pd.DataFrame:
    rows = answers(page)
    rows = rows[rows["format"] == "chat"]
    shares = []
    for row, prompt in zip(rows.itertuples(), prompts(page.study, rows), strict=True):
        said, gold = (
            words("".join(some)) for some in (row.pieces[: row.own], row.pieces[row.own :])
        )
        known = set(words(prompt)) | set(gold)
        seen = tuning_words(page, row.recipe, row.seed)
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
        pieces, seen = list(row.pieces[: row.own]), tuning_words(page, row.recipe, row.seed)
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
