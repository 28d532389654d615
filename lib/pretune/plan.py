"""Which models a study trains and how it looks at them: cells. Loads no model.

A finding declares the pairs of recipe and view that it needs (`NEEDS`); the study takes the
union, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pretune.errors import StudyError
from pretune.models.checkpoint import Checkpoint
from pretune.sources import checkpoints, datasets
from pretune.sources.datasets import evaluation_split
from pretune.storage import short_hash
from pretune.study.config import Corpus, Saved, Study
from pretune.tasks.example import FORMATS
from pretune.tasks.registry import REGISTRY, RESERVE

# raise by hand when the meaning of a score changes: all probes are then scored anew
SCORING_VERSION = 2
# raise by hand when the meaning of training changes: tuned models are then made anew
TRAINING_VERSION = 2


class View(NamedTuple):
    """What a finding wants to see of a model: a dataset in a format with so many examples before
    the question.
    """

    dataset: str
    shots: int
    format: str = "default"
    reserve: bool = False  # on the reserved training rows in place of the evaluation split


@dataclass(frozen=True)
class Probe:
    """One way of looking at a model. `shots` is what is asked for; a dataset that does not fit
    gets fewer.
    """

    dataset: str
    split: str
    format: str
    shots: int
    draw: int  # which shots
    items: int
    new_tokens: int
    data: str  # what pins the datasets
    protocol: str  # what pins the protocol and, where it is not float32, the precision

    @cached_property
    def key(self) -> str:
        return short_hash(SCORING_VERSION, asdict(self))


@dataclass(frozen=True)
class Model:
    """A checkpoint after a recipe, with the seed of its training subset, order, adapters and
    shot draw.
    """

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
    """All cells of `study`, or those of the checkpoints named in `only`, in the order of
    checkpoints.

    Where the study has a grid of rates, a recipe at another rate of its grid is a model of its
    own (`mnli@0.001`), at the checkpoints of the grid. A model that no finding looks at is left
    out. Raises StudyError for an unknown dataset, finding or checkpoint.
    """
    check(study, only)
    wanted = [point for point in checkpoints.checkpoints(study) if not only or point.name in only]
    models = (
        model
        for point in wanted
        for recipe in _recipes(study, point)
        for model in _models(study, point, recipe)
    )
    return [Cell(model, probes) for model in models if (probes := tuple(_probes(study, model)))]


def sweep(study: Study) -> list[Cell]:
    """The cells that the choice of learning rates rests on: every rate of every grid, seed 0, on
    reserved rows.
    """
    swept = [
        cell
        for cell in cells(study)
        if cell.model.seed == 0
        and cell.model.recipe != "base"
        and study.rates
        and cell.model.checkpoint.step in study.rates.steps
    ]
    return [
        Cell(cell.model, tuple(probe for probe in cell.probes if probe.split == RESERVE))
        for cell in swept
    ]


def check(study: Study, only: tuple[str, ...] = ()) -> None:
    """Hold a study against what exists: datasets and their files, findings, checkpoints, rates, the
    folder of a corpus.

    Raises StudyError, with a line for each dataset that lacks rows.
    """
    check_names(study)
    if lines := datasets.refused(study):
        raise StudyError("\n".join(lines))
    if isinstance(study.checkpoints, Saved):
        length = study.checkpoints.pretraining.length
        if length > study.checkpoints.pretraining.architecture.context:
            raise study.refuse(
                "checkpoints.pretraining.length",
                length,
                "it must not exceed checkpoints.pretraining.architecture.context",
            )
    _check_rates(study)
    names = [point.name for point in checkpoints.checkpoints(study)]
    for name in only:
        if name not in names:
            raise study.refuse("checkpoint", name, f"allowed: {', '.join(names)}")


def check_names(study: Study) -> None:
    """Hold the names of datasets, findings and folders against what exists. Raises StudyError."""
    asked = {f"recipes.{name}.dataset": r.dataset for name, r in study.recipes.items() if r.dataset}
    asked |= {f"probing.datasets.{i}": name for i, name in enumerate(study.probing.datasets)}
    for key, name in asked.items():
        allowed = [
            one
            for one, dataset in REGISTRY.items()
            if (dataset.kind == "chat") <= key.startswith("recipes")
            and (
                dataset.microworld
                if study.datasets.source == "microworld"
                else dataset.hub[0] or study.datasets.source != "hub"
            )
        ]
        if name not in allowed:
            raise study.refuse(key, name, f"allowed datasets: {', '.join(allowed)}")
    if "06_published_tables" in study.findings and not study.tables:
        raise study.refuse(
            "findings", "06_published_tables", "it is about released tables: a study with `tables`"
        )
    for i, name in enumerate(study.findings):
        if name not in NEEDS:
            raise study.refuse(f"findings.{i}", name, f"allowed findings: {', '.join(NEEDS)}")
    for key, part in (
        ("checkpoints.folder", study.checkpoints),
        ("datasets.folder", study.datasets),
    ):
        folder = getattr(part, "folder", None)
        if folder is not None and not Path(folder).is_dir():
            raise study.refuse(key, folder, "it must be an existing folder")
    if isinstance(study.checkpoints, Corpus) and not checkpoints.texts(
        Path(study.checkpoints.folder)
    ):
        raise study.refuse(
            "checkpoints.folder",
            study.checkpoints.folder,
            f"it must hold {', '.join(checkpoints.TEXTS)}",
        )


def _check_rates(study: Study) -> None:
    """A rate that was chosen from a grid stands in it, and the grid is run at checkpoints that
    exist.
    """
    steps = [point.step for point in checkpoints.checkpoints(study)]
    for step in study.rates.steps if study.rates else ():
        if step not in steps:
            raise study.refuse("rates.steps", step, f"allowed: {', '.join(map(str, steps))}")
    for name in study.recipes:
        grid, used = study.grid_of(name), study.tuning_of(name).learning_rate
        if grid and used not in grid:
            raise study.refuse(
                f"recipes.{name}.learning_rate",
                used,
                f"its grid has {', '.join(f'{rate:g}' for rate in grid)}",
            )


def _recipes(study: Study, point: Checkpoint) -> Iterator[str]:
    swept = study.rates is not None and point.step in study.rates.steps
    for recipe in study.recipes:
        yield recipe
        yield from study.variants(recipe) if swept else ()


def _models(study: Study, point: Checkpoint, recipe: str) -> Iterator[Model]:
    """One model for base and for a variant of the rates, one a seed for every other recipe."""
    if recipe == "base":
        yield Model(point, recipe, 0, short_hash(point.revision, "base"))
        return
    tuning, how = study.tuning_of(recipe).determining(), study.recipe(recipe)
    adapters = how.lora and how.lora.model_dump()
    for seed in range(study.tuning.seeds if "@" not in recipe else 1):
        key = short_hash(
            TRAINING_VERSION,
            point.revision,
            how.dataset,
            adapters,
            tuning,
            seed,
            datasets.data_key(study),
            study.protocol.too_long,
        )
        yield Model(point, recipe, seed, key)


def _probes(study: Study, model: Model) -> Iterator[Probe]:
    """The union of what the findings need of this model. A tuned model takes the shot draw of
    its seed, base all.
    """
    draws = range(study.tuning.seeds) if model.recipe == "base" else (model.seed,)
    views = {
        view: None for finding in study.findings for view in NEEDS[finding](study, model.recipe)
    }
    if model.seed == 0 and study.rates and model.checkpoint.step in study.rates.steps:
        tuned_on = [study.recipe(model.recipe).dataset] if model.recipe != "base" else []
        views |= {View(name, _shots(study, name), reserve=True): None for name in tuned_on}
    precision = [study.probing.precision] if study.probing.precision != "float32" else []
    pins = (
        datasets.data_key(study),
        short_hash(study.protocol.model_dump(exclude={"normalisation", "reporting"}), *precision),
    )
    for view in views:
        for draw in draws if view.shots else draws[:1]:
            yield Probe(
                view.dataset,
                RESERVE if view.reserve else evaluation_split(study, REGISTRY[view.dataset]),
                view.format,
                view.shots,
                draw,
                study.probing.items,
                study.probing.new_tokens,
                *pins,
            )


def _own(study: Study, recipe: str) -> list[str]:
    """The set a recipe tunes on and its in-domain companions; for base those of all recipes that
    tune on one set.
    """
    recipes = study.recipes if recipe == "base" else [recipe]
    sets = {study.recipe(name).dataset: None for name in recipes if name != "base"}
    sets = [name for name in sets if REGISTRY[name].kind != "chat"]
    return sets + [
        name
        for name in study.probing.datasets
        for one in sets
        if REGISTRY[name].partner == one and REGISTRY[name].domain == "in"
    ]


def _is_single(study: Study, recipe: str) -> bool:
    """Whether a recipe tunes on one task."""
    return recipe != "base" and REGISTRY[study.recipe(recipe).dataset].kind != "chat"


def _dichotomy(study: Study, recipe: str) -> list[View]:
    """Base: every dataset in the training format. Tuned: its own, for what changed at one
    checkpoint.
    """
    if "@" in recipe:
        return []
    names = study.probing.datasets if recipe == "base" else _own(study, recipe)
    return [View(name, study.probing.shots) for name in names if REGISTRY[name].kind != "text"]


def _latent(study: Study, recipe: str) -> list[View]:
    """Own sets with and without shots; base and instruction tuning on every set, also in chat
    markup.
    """
    if "@" in recipe:
        return [View(name, study.probing.shots) for name in _own(study, recipe)[:1]]
    views = [
        View(name, shots) for name in _own(study, recipe) for shots in (study.probing.shots, 0)
    ]
    if not _is_single(study, recipe) and any(
        _is_single(study, name) is False for name in study.recipes if name != "base"
    ):
        asked = [name for name in study.probing.datasets if REGISTRY[name].kind != "text"]
        views += [
            View(name, study.probing.shots, form) for name in asked for form in ("default", "chat")
        ]
    return views


def _format(study: Study, recipe: str) -> list[View]:
    """Own sets in every format, with and without shots."""
    if (
        "@" in recipe
        or not (recipe == "base" or _is_single(study, recipe))
        or study.is_beside(recipe)
    ):
        return []
    return [
        View(name, shots, form)
        for name in _own(study, recipe)
        for form in FORMATS[:3]
        for shots in (study.probing.shots, 0)
    ]


def _transfer(study: Study, recipe: str) -> list[View]:
    """Every set that some recipe tunes on."""
    if "@" in recipe or study.is_beside(recipe):
        return []
    return [
        View(name, study.probing.shots) for name in _own(study, "base") if not REGISTRY[name].domain
    ]


def _forgetting(study: Study, recipe: str) -> list[View]:
    """Own sets, partners in and out of the domain, what pre-training teaches, and held-out text."""
    if "@" in recipe:
        return []
    own = _own(study, recipe)
    seen = [
        name
        for name in study.probing.datasets
        if name in own
        or REGISTRY[name].partner in own
        or REGISTRY[name].knowledge
        or REGISTRY[name].kind == "text"
    ]
    return [View(name, _shots(study, name)) for name in seen]


def _published(study: Study, recipe: str) -> list[View]:
    """All that the other findings ask for, to be held against what the reference study printed."""
    asked = [need(study, recipe) for name, need in NEEDS.items() if need is not _published]
    return list(dict.fromkeys(view for views in asked for view in views))


def _shots(study: Study, name: str) -> int:
    return 0 if REGISTRY[name].metric == "nats" else study.probing.shots


NEEDS: dict[str, Callable[[Study, str], list[View]]] = {
    "01_dataset_dichotomy": _dichotomy,
    "02_latent_benefits": _latent,
    "03_task_format": _format,
    "04_task_transfer": _transfer,
    "05_domain_forgetting": _forgetting,
    "06_published_tables": _published,
}
