"""Holding a study against what exists: datasets and their files, findings, folders, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretune.errors import StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.recipes.base import Recipe
from pretune.recipes.continued import Continued
from pretune.recipes.dpo import Dpo
from pretune.recipes.sft import Sft
from pretune.recipes.trainable import Added
from pretune.sources import corpus, datasets
from pretune.sources.register.datasets import TAUGHT
from pretune.sources.register.text import VERSIONS
from pretune.study.config import Study
from pretune.study.sources import Corpus, Saved
from pretune.tasks import retrieval
from pretune.tasks.registry import REGISTRY, has


def check_names(study: Study) -> None:
    """Hold the names of datasets and folders against what exists, and have a retriever where one
    is asked. Raises StudyError.
    """
    asked = {}
    for name, recipe in study.recipes.items():
        own, *beside = recipe.drawn(1) or [None]
        asked |= {f"recipes.{name}.dataset": own} if own else {}
        asked |= {f"recipes.{name}.beside.{one}": one for one in beside}
        _check_rows(study, name)
    asked |= {f"probing.datasets.{i}": name for i, name in enumerate(study.probing.datasets)}
    for key, name in asked.items():
        there = [one for one, dataset in REGISTRY.items() if has(study.datasets.source, dataset)]
        tuned = key.startswith("recipes")
        allowed = [one for one in there if (REGISTRY[one].kind == "chat") <= tuned]
        if name not in allowed:
            raise study.refuse(key, name, f"allowed datasets: {', '.join(allowed)}")
    passages = (REGISTRY[name].passages for name in datasets.used(study))
    if any(one and one.take != "own" for one in passages):
        retrieval.check()
    for model, source in study.models.items():
        _check_folder(study, f"checkpoints.{model}".rstrip("."), source)
        if isinstance(source, Corpus) and not corpus.texts(Path(source.folder)):
            needed = f"it must hold {', '.join(corpus.TEXTS)}"
            raise study.refuse("checkpoints.folder", source.folder, needed)
    _check_folder(study, "datasets", study.datasets)


def _check_rows(study: Study, name: str) -> None:
    """Hold what a recipe says of its rows against what these are. Raises StudyError."""
    recipe, key = study.recipes[name], f"recipes.{name}"
    if recipe.after:
        _check_after(study, name)
    if recipe.dataset not in REGISTRY:
        return
    for other in getattr(recipe, "beside", ()):
        if other in REGISTRY and REGISTRY[other].kind == "chat":
            why = "conversations are a dataset of their own and not mixed in"
            raise study.refuse(f"{key}.beside", other, why)
    if isinstance(recipe, Continued):
        _check_text(study, recipe, key)
    elif isinstance(recipe, Sft):
        _check_answers(study, recipe, key)
    elif isinstance(recipe, Dpo) and not REGISTRY[recipe.dataset].competes:
        there = [one for one, dataset in REGISTRY.items() if dataset.competes]
        why = f"allowed, since their answers compete: {', '.join(there)}"
        raise study.refuse(f"{key}.dataset", recipe.dataset, why)


def _check_after(study: Study, name: str) -> None:
    """Raises StudyError for what cannot come first."""
    recipe, key = study.recipes[name], f"recipes.{name}.after"
    order = list(study.recipes)
    there = [one for one in order[: order.index(name)] if study.recipes[one].dataset]
    if recipe.after not in there:
        allowed = f"allowed recipes, which stand before it: {', '.join(there) or 'none'}"
        raise study.refuse(key, recipe.after, allowed)
    first = study.recipes[recipe.after]
    _check_models(study, recipe, recipe.after, key)
    if isinstance(first.trainable, Added) and not first.trainable.merges:
        why = f"what {first.trainable.peft_type} adds stays beside the weights, untouched"
        raise study.refuse(key, recipe.after, why)


def _check_models(study: Study, recipe: Recipe, other: str, key: str) -> None:
    """Another recipe is done to all models that a recipe is done to. Raises StudyError."""
    mine = [one for one in study.models if recipe.is_for(one)]
    if lacking := [one for one in mine if not study.recipes[other].is_for(one)]:
        why = f"it is not done to the checkpoints of {lacking[0]}"
        raise study.refuse(key, other, why)


def _check_text(study: Study, recipe: Continued, key: str) -> None:
    """Raises StudyError for what is no text, and for versions of what has none."""
    texts = [name for name, one in REGISTRY.items() if one.kind == "text"]
    if recipe.dataset not in texts:
        raise study.refuse(f"{key}.dataset", recipe.dataset, f"allowed texts: {', '.join(texts)}")
    if recipe.wordings and REGISTRY[recipe.dataset].world != "register":
        why = f"{recipe.dataset} does not say which of its documents are about the same"
        raise study.refuse(f"{key}.wordings", recipe.wordings, why)
    most = {"register_new_text": TAUGHT, "register_text": VERSIONS}.get(recipe.dataset)
    if most and (recipe.wordings or 0) > most:
        why = f"{recipe.dataset} tells of everybody in {most} versions"
        raise study.refuse(f"{key}.wordings", recipe.wordings, why)


def _check_answers(study: Study, recipe: Sft, key: str) -> None:
    """Raises StudyError for what rows of its dataset cannot be."""
    chat = REGISTRY[recipe.dataset].kind == "chat"
    if recipe.wrong and chat:
        why = "which answers of conversations would be wrong is not known; take another dataset"
        raise study.refuse(f"{key}.wrong", recipe.wrong, why)
    for field in ("opening", "first_exchange"):
        if getattr(recipe, field) and not chat:
            why = "it is of conversations only"
            raise study.refuse(f"{key}.{field}", getattr(recipe, field), why)
    if recipe.teacher:
        _check_teacher(study, recipe, key)


def _check_teacher(study: Study, recipe: Sft, key: str) -> None:
    """Raises StudyError for one that is none, and for one that answers what it was tuned on."""
    there = [one for one, how in study.recipes.items() if how.dataset and not how.teacher]
    name = recipe.teacher.recipe
    if name not in there:
        allowed = f"allowed recipes: {', '.join(there)}"
        raise study.refuse(f"{key}.answers_of.recipe", name, allowed)
    _check_models(study, recipe, name, f"{key}.answers_of.recipe")
    if recipe.wrong:
        why = "a teacher's answers stay as they are"
        raise study.refuse(f"{key}.wrong", recipe.wrong, why)
    had = study.tuning_of(name).examples
    if study.recipes[name].dataset == recipe.dataset and recipe.skip < had:
        why = f"its teacher was tuned on the first {had} rows: skip as many"
        raise study.refuse(f"{key}.skip", recipe.skip, why)


def _check_folder(study: Study, key: str, source: object) -> None:
    folder = getattr(source, "folder", None)
    if folder is not None and not Path(folder).is_dir():
        raise study.refuse(f"{key}.folder", folder, "it must be an existing folder")


def check_files(study: Study) -> None:
    """Hold a study against the files of its datasets, and rows against the context.

    Raises StudyError, with a line for each dataset that lacks rows.
    """
    if lines := datasets.refused(study):
        raise StudyError("\n".join(lines))
    for source in study.models.values():
        made = source.pretraining if isinstance(source, Saved) else None
        if made and made.length > made.architecture.context:
            key, most = "checkpoints.pretraining.length", "pretraining.architecture.context"
            raise study.refuse(key, made.length, f"it must not exceed checkpoints.{most}")


def _check_steps(study: Study, key: str, step: int, points: list[Checkpoint]) -> None:
    """A checkpoint of every run of every model has that step. Raises StudyError."""
    for place in dict.fromkeys((point.model, point.run) for point in points):
        there = [point.step for point in points if (point.model, point.run) == place]
        if step not in there:
            raise study.refuse(key, step, f"allowed: {', '.join(map(str, there))}")


def check_grid(study: Study, points: Iterable[Checkpoint]) -> None:
    """A rate that was chosen from a grid stands in it, and checkpoints that are tuned, or that the
    grid is run at, exist. Raises StudyError.
    """
    points, named = list(points), [("tuning.steps", study.tuning.steps)]
    for name, recipe in study.recipes.items():
        if recipe.teacher:
            own = [point for point in points if recipe.is_for(point.model)]
            _check_steps(study, f"recipes.{name}.answers_of.step", recipe.teacher.step, own)
    if study.grid:
        named += [("grid.steps", study.grid.steps), ("grid.runs", study.grid.runs)]
    for key, asked in named:
        attribute = key.partition(".")[2].rstrip("s")
        there = list(dict.fromkeys(getattr(point, attribute) for point in points))
        for one in (one for one in asked or () if one not in there):
            raise study.refuse(key, one, f"allowed: {', '.join(map(str, there))}")
    for name in study.recipes:
        if study.grid_of(name, "epochs") and (most := study.tuning_of(name).max_steps):
            why = "a grid of epochs says when it ends, and leaves max_steps null"
            raise study.refuse(f"recipes.{name}.max_steps", most, why)
        grid, used = study.grid_of(name, "learning_rate"), study.tuning_of(name).learning_rate
        if grid and used not in grid:
            allowed = f"its grid has {', '.join(f'{rate:g}' for rate in grid)}"
            raise study.refuse(f"recipes.{name}.learning_rate", used, allowed)
