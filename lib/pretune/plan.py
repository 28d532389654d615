"""Which models a study trains and how it looks at them: cells, and what they cost. Loads no model.

A finding declares the pairs of recipe and probe that it needs (`NEEDS`); the study takes the union, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pretune import checkpoints as points
from pretune.checkpoints import Checkpoint, short_hash
from pretune.params import Study
from pretune.tasks.registry import REGISTRY

SCORING_VERSION = 1  # raise by hand when the meaning of a score changes: all probes are then scored anew
TRAINING_VERSION = 1  # raise by hand when the meaning of training changes: tuned models are then made anew


@dataclass(frozen=True)
class Probe:
    """One way of looking at a model. `shots` is what is asked for; a dataset that does not fit gets fewer."""

    dataset: str
    split: str
    format: str
    shots: int
    draw: int  # which shots
    items: int
    new_tokens: int
    data: str  # what pins the datasets

    @property
    def key(self) -> str:
        return short_hash(SCORING_VERSION, asdict(self))


@dataclass(frozen=True)
class Model:
    """A checkpoint after a recipe, with the seed of its training subset and order."""

    checkpoint: Checkpoint
    recipe: str
    seed: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.checkpoint.name}.{self.recipe}.{self.seed}"


@dataclass(frozen=True)
class Cell:
    """A model and the probes it is to be looked at with: the unit of work and of resuming."""

    model: Model
    probes: tuple[Probe, ...]


def cells(study: Study, only: tuple[str, ...] = ()) -> list[Cell]:
    """All cells of `study`, or those of the checkpoints named in `only`, in the order of checkpoints.

    Raises StudyError for an unknown dataset, finding or checkpoint.
    """
    check(study, only)
    wanted = [point for point in points.checkpoints(study) if not only or point.name in only]
    return [
        Cell(model, tuple(_probes(study, model)))
        for point in wanted for recipe in study.recipes for model in _models(study, point, recipe)
    ]


def check(study: Study, only: tuple[str, ...] = ()) -> None:
    """Hold a study against what exists: datasets, findings, checkpoints, the folder of a corpus."""
    asked = {f"recipes.{name}.dataset": r.dataset for name, r in study.recipes.items() if r.dataset}
    asked |= {f"probing.datasets.{i}": name for i, name in enumerate(study.probing.datasets)}
    for key, name in asked.items():
        if name not in REGISTRY:
            raise study.refuse(key, name, f"allowed datasets: {', '.join(REGISTRY)}")
    for i, name in enumerate(study.findings):
        if name not in NEEDS:
            raise study.refuse(f"findings.{i}", name, f"allowed findings: {', '.join(NEEDS)}")
    for key, part in (("checkpoints.folder", study.checkpoints), ("datasets.folder", study.datasets)):
        folder = getattr(part, "folder", None)
        if folder is not None and not Path(folder).is_dir():
            raise study.refuse(key, folder, "it must be an existing folder")
    if study.checkpoints.pretraining.length > study.checkpoints.pretraining.architecture.context:
        raise study.refuse("checkpoints.pretraining.length", study.checkpoints.pretraining.length,
                           "it must not exceed checkpoints.pretraining.architecture.context")
    names = [point.name for point in points.checkpoints(study)]
    for name in only:
        if name not in names:
            raise study.refuse("checkpoint", name, f"allowed: {', '.join(names)}")


def _models(study: Study, point: Checkpoint, recipe: str) -> Iterator[Model]:
    """One model for base, one a seed for every other recipe."""
    if recipe == "base":
        yield Model(point, recipe, 0, short_hash(point.revision, "base"))
        return
    tuning = study.tuning_of(recipe).model_dump(exclude={"seeds"})
    for seed in range(study.tuning.seeds):
        key = short_hash(TRAINING_VERSION, point.revision, study.recipes[recipe].dataset, tuning, seed,
                         points.data_key(study))
        yield Model(point, recipe, seed, key)


def _probes(study: Study, model: Model) -> Iterator[Probe]:
    """The union of what the findings need of this model. A tuned model takes the shot draw of its seed, base all."""
    draws = range(study.tuning.seeds) if model.recipe == "base" else (model.seed,)
    needed = {pair: None for finding in study.findings for pair in NEEDS[finding](study, model.recipe)}
    for name, form in needed:
        for draw in draws:
            yield Probe(name, REGISTRY[name].evaluation, form, study.probing.shots, draw, study.probing.items,
                        study.probing.new_tokens, points.data_key(study))


def _dichotomy(study: Study, recipe: str) -> list[tuple[str, str]]:
    """Every dataset in the training format, before and after every recipe."""
    return [(name, "default") for name in study.probing.datasets]


NEEDS: dict[str, Callable[[Study, str], list[tuple[str, str]]]] = {"01_dataset_dichotomy": _dichotomy}
