"""What a finding wants to see of a model: the words that findings say their needs in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY


class Need(NamedTuple):
    """A dataset in a format with so many examples before the question."""

    dataset: str
    shots: int
    format: str = "default"
    reserve: bool = False  # on the reserved training rows in place of the evaluation split
    measure: str = ""  # one beside the dataset's own, which gives its score
    draws: int = 1  # of examples, for each seed


Needs = Callable[[Study, str], list[Need]]  # what a finding needs of a recipe, or of a variant


def own_sets(study: Study, recipe: str) -> list[str]:
    """The set a recipe tunes on and its in-domain companions; for base those of all recipes that
    tune on one set.
    """
    recipes = study.recipes if recipe == "base" else [recipe]
    tuned = dict.fromkeys(study.recipe(name).dataset for name in recipes if name != "base")
    sets = [name for name in tuned if REGISTRY[name].kind not in ("chat", "text")]
    companions = [name for name in study.probing.datasets if REGISTRY[name].domain == "in"]
    return sets + [name for name in companions if REGISTRY[name].partner in sets]


def is_single(study: Study, recipe: str) -> bool:
    """Whether a recipe tunes on one task: what is right in it, and not what is preferred."""
    if study.recipe(recipe).method != "sft":
        return False
    return REGISTRY[study.recipe(recipe).dataset].kind not in ("chat", "text")


def has_mixture(study: Study) -> bool:
    """Whether some recipe tunes on conversations."""
    tuned = [one.dataset for one in study.recipes.values() if one.dataset]
    return any(REGISTRY[name].kind == "chat" for name in tuned)


def asked_sets(study: Study) -> list[str]:
    """The datasets of the study that ask something; text is only read."""
    return [name for name in study.probing.datasets if REGISTRY[name].kind != "text"]


def shots_of(study: Study, name: str, recipe: str = "base") -> int:
    """Examples before an item of a dataset, as claims ask it of a recipe: none before text, and
    none of a tuned model on its own sets, which it was tuned on without any (by the corrected
    protocol).
    """
    as_tuned = study.protocol.own_sets == "as tuned" and recipe != "base"
    if REGISTRY[name].metric == "nats" or (as_tuned and name in own_sets(study, recipe)):
        return 0
    return study.probing.shots
