"""Recipes by what was done to their rows: some answers made wrong, a part chosen, one kind of
request, rows of other sets mixed in, answers of another model. What each gives, beside the one that
differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import contrasts, written
from pretune.analysis.results import Results, ranged
from pretune.plan.needs import is_single
from pretune.recipes.sft import Sft
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

NOISE = 0.4  # share of wrong answers that 9c is about


def kind_of(study: Study, recipe: str) -> str:
    """What a recipe is there for: `plain`, or what was done to its rows."""
    how = study.recipe(recipe)
    if not isinstance(how, Sft) or how.method != "sft":
        return "other"
    said = {
        "imitation": how.answers_of,
        "filtered": how.filtered,
        "noisy": how.wrong,
        "mixture": how.beside,
        "narrow": how.opening,
    }
    return next((name for name, what in said.items() if what), "plain")


def of_kind(study: Study, *kinds: str) -> list[str]:
    """The recipes of some kinds, in the order of the study; not base."""
    return [name for name in study.recipes if name != "base" and kind_of(study, name) in kinds]


def wrong_rows(page: Results) -> pd.Series:
    """Of every recipe the share of rows that were made wrong on purpose, mean over its models."""
    about = records.provenance(page.plan).reindex(columns=["model", "wrong_rows"]).dropna()
    names = [name.partition(".")[2].rpartition(".")[0] for name in about["model"]]
    rows = [page.study.recipe(name).count(page.study.tuning_of(name).examples) for name in names]
    shares = about["wrong_rows"].to_numpy(float) / rows
    return pd.Series(shares, names, dtype=float).groupby(level=0).mean()


def noisy(page: Results) -> list[tuple[str, str]]:
    """Of every set the recipe with two fifths of its answers wrong and the most examples, beside
    one that differs in nothing but an eighth of the examples, all right: (clean, noisy). Both take
    equally many steps.
    """
    study, most = page.study, {}
    for name in of_kind(study, "noisy"):
        own, how = study.recipes[name].dataset, study.tuning_of(name)
        if study.recipes[name].wrong == NOISE and how.max_steps and own not in page.without:
            known = study.tuning_of(most[own]).examples if own in most else 0
            most[own] = name if how.examples > known else most[own]
    found = [(_plain(page, name, 8), name) for name in most.values()]
    return [(clean, name) for clean, name in found if clean]


def _plain(page: Results, recipe: str, times: int = 1) -> str | None:
    """A plain recipe or variant that differs from `recipe` in nothing but what was done to its rows
    and, so many `times`, in their number.
    """
    wanted = _but_rows(page, recipe)
    wanted["examples"] /= times
    for other in page.study.variants:
        plain = other != "base" and kind_of(page.study, other) == "plain"
        if plain and _but_rows(page, other) == wanted:
            return other
    return None


def _but_rows(page: Results, recipe: str) -> dict[str, object]:
    """All that determines a recipe but what may be done to its rows."""
    how, done = page.study.recipe(recipe), {"wrong", "opening", "filtered", "grid"}
    return how.model_dump(exclude=done) | page.study.tuning_of(recipe).model_dump()


def quality(page: Results) -> pd.DataFrame:
    """What wrong answers cost and what filters give: score at early and at late of every recipe
    whose rows were made wrong, filtered or both, and of plain ones with as many rows; and the
    share of rows that are wrong.
    """
    return _listed(page, ("noisy", "filtered"))


def variety(page: Results) -> pd.DataFrame:
    """One kind of request against all kinds, at as many examples."""
    return _listed(page, ("narrow",))


def _listed(page: Results, kinds: Sequence[str]) -> pd.DataFrame:
    lines, wrong = {}, wrong_rows(page)
    clean = {name: one for one, name in noisy(page)} if "noisy" in kinds else {}
    for name in of_kind(page.study, *kinds):
        for one in (_plain(page, name), clean.get(name), name):
            if one and written.targets(page, one):
                share = {"rows wrong": f"{wrong.get(one, np.nan):.0%}"} if "noisy" in kinds else {}
                lines[_said(page, one)] = share | _scored(page, one)
    return pd.DataFrame(lines).T


def _said(page: Results, recipe: str) -> str:
    study, how = page.study, page.study.recipe(recipe)
    words = [page.title(how.dataset), f"{study.tuning_of(recipe).examples:,} examples"]
    if how.wrong:
        words.append(f"{how.wrong:.0%} wrong")
    if how.filtered:
        words.append(f"{how.filtered.keep} {how.filtered.by} of {how.filtered.of} times as many")
    if how.opening:
        words.append(f"all begin with “{how.opening}”")
    return ", ".join(words)


def _scored(page: Results, recipe: str) -> dict[str, str]:
    """Score at early and at late; after conversations, of each set that is asked."""
    line, scores = {}, page.scores
    for when, steps in written.whens(page):
        found = contrasts.effect(scores, written.terms(page, recipe, 1.0, steps), when == "late")
        line[when] = ranged(found, signed=False)
    if not is_single(page.study, recipe):
        for one in written.targets(page, recipe):
            found = contrasts.effect(scores, contrasts.mean_of([one], recipe))
            line[f"{REGISTRY[one.dataset].title}, late"] = ranged(found, signed=False)
    return line


def mixtures(page: Results) -> pd.DataFrame:
    """Every skill of a mixture at late, as the rows of one grow and those of the others stay."""
    lines, study = {}, page.study
    for name in of_kind(study, "mixture"):
        own = study.recipes[name].dataset
        for size, which in study.along(name, "examples").items():
            line = lines[f"{name}: {size:,.0f} examples of {page.title(own)}"] = {}
            for one in written.targets(page, which):
                beside = study.recipes[name].beside.get(one.dataset)
                said = f"{REGISTRY[one.dataset].title} ({beside or 'grown'})"
                found = contrasts.effect(page.scores, contrasts.mean_of([one], which))
                line[said] = ranged(found, signed=False)
    return pd.DataFrame(lines).T


def imitation(page: Results) -> pd.DataFrame:
    """Form and right answers of students on what they are asked, along their pre-training."""
    lines, parts = [], {"form": lambda rows: rows["form"], "right": lambda rows: rows["score"]}
    scores = {name: written.scores_of(page, make) for name, make in parts.items()}
    for student in of_kind(page.study, "imitation"):
        asked = written.targets(page, student)
        for name, (curve, (recipe, at)) in product(parts, _shown(page, student).items()):
            line = contrasts.along(
                scores[name],
                page.tokens,
                lambda steps, asked=asked, recipe=recipe, at=at: contrasts.mean_of(
                    asked, recipe, 1.0, at or steps
                ),
            )
            lines.append(line.assign(panel=name, curve=curve))
    return pd.concat(lines) if lines else pd.DataFrame()


def _shown(page: Results, student: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What is drawn beside a student: recipe and checkpoints, its own where none are named."""
    study, found = page.study, {}
    teacher, sizes = study.recipes[student].teacher, study.along(student, "examples")
    several = len(of_kind(study, "imitation")) > 1
    whose = f" ({student})" if several else ""
    for size, name in (sizes or {study.tuning_of(student).examples: student}).items():
        found[f"{size:,.0f} answers{whose}"] = name, ()
    found[f"untuned{whose}"] = "base", ()
    return found | {f"teacher{whose}": (teacher.recipe, (teacher.step,))}
