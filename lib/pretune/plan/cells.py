"""Which models a study trains and how it looks at them: cells. Loads no model.

A finding declares the pairs of recipe and view that it needs; a plan takes the union, and no more.
It is made once from what was listed before, and handed down to whoever measures, reads or shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property

from pretune import measures
from pretune.measures import Measure
from pretune.models.checkpoint import Checkpoint
from pretune.plan.needs import Need, Needs, shots_of
from pretune.sources.datasets import evaluation_split, key_of
from pretune.storage import short_hash
from pretune.study.config import Study
from pretune.tasks.dataset import RESERVE
from pretune.tasks.registry import REGISTRY

# raise by hand when what is asked changes its meaning: all probes are then scored anew; of what
# one measure makes of it, the measure has a version
SCORING_VERSION = 2
# raise by hand when the meaning of training changes: tuned models are then made anew
TRAINING_VERSION = 3
OTHERS = 1000  # draws of examples beyond one for each seed are these and their multiples, and more
# what the protocol says of rows that are there, and not of how they come about
READING = {"own_sets", "normalisation", "reporting"}


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
    measure: str = ""  # one beside the dataset's own

    @cached_property
    def key(self) -> str:
        """Of what determines its rows; the first version of a dataset's own measure goes without
        saying.
        """
        return _key_of(self, self.measured_by.version)

    @property
    def measured_by(self) -> Measure:
        return measures.find(self.measure) if self.measure else measures.own(self.dataset)

    @cached_property
    def need(self) -> Need:
        """What was asked for by it, as one of perhaps several draws."""
        reserve = self.split == RESERVE
        return Need(self.dataset, self.shots, self.format, reserve, self.measure)


@cache  # thousands of models are asked the same
def _key_of(probe: Probe, version: int) -> str:
    said = {one.name: getattr(probe, one.name) for one in fields(probe)}
    if not probe.measure and version == 1:
        del said["measure"]
        return short_hash(SCORING_VERSION, said)
    return short_hash(SCORING_VERSION, said, version)


@dataclass(frozen=True)
class Model:
    """A checkpoint after a recipe, with the seed of its training subset, order, adapters and shot
    draw.
    """

    checkpoint: Checkpoint
    recipe: str  # of the study, or a variant of one
    seed: int
    key: str
    teacher: Model | None = None  # whose answers it is tuned on
    before: Model | None = None  # what it is tuned from, in place of the checkpoint

    @property
    def points(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that it is made from: its own first, then its teacher's."""
        taught = self.teacher.points if self.teacher else ()
        taught += self.before.points if self.before else ()
        return tuple(dict.fromkeys((self.checkpoint, *taught)))

    @property
    def name(self) -> str:
        return f"{self.checkpoint.name}.{self.recipe}.{self.seed}"


@dataclass(frozen=True)
class Cell:
    """A model and the probes it is to be looked at with: the unit of work and of resuming."""

    model: Model
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Plan:
    """All cells of `study`, in the order of its checkpoints, or those that were asked for."""

    study: Study
    checkpoints: tuple[Checkpoint, ...]
    cells: tuple[Cell, ...]
    needs: Mapping[str, Needs]  # of each finding of the study
    # of models that were not made here
    configs: Mapping[str, Mapping] = field(default_factory=dict)

    def of(self, finding: str | None = None, only: tuple[str, ...] = ()) -> Plan:
        """What one finding looks at, or what the checkpoints named in `only` are for.

        Raises StudyError for an unknown checkpoint.
        """
        names = [point.name for point in self.checkpoints]
        for name in only:
            if name not in names:
                raise self.study.refuse("checkpoint", name, f"allowed: {', '.join(names)}")
        kept = [one for one in self.cells if not only or one.model.checkpoint.name in only]
        if finding is None:
            return replace(self, cells=tuple(kept))
        narrow = self.study.model_copy(update={"findings": (finding,)})
        needs = {finding: self.needs[finding]}
        return replace(self, study=narrow, needs=needs, cells=_narrowed(kept, narrow, needs))

    def sweep(self) -> Plan:
        """What the choice of learning rates rests on: every rate of every grid, the first seed of
        each run, on reserved rows.
        """
        swept = []
        for cell in self.cells:
            probes = tuple(probe for probe in cell.probes if probe.split == RESERVE)
            if probes:
                swept.append(Cell(cell.model, probes))
        return replace(self, cells=tuple(swept))


def make(
    study: Study,
    checkpoints: tuple[Checkpoint, ...],
    data: str,
    needs: Mapping[str, Needs],
    configs: Mapping[str, Mapping],
) -> Plan:
    """The plan of `study` over `checkpoints`, on datasets that `data` pins.

    A recipe at another value of its grid is a model of its own (`mnli@0.001`), at the checkpoints
    of the grid. A model that no finding looks at is left out.
    """
    wanted, found = {name: _wanted(study, name, needs) for name in study.variants}, []
    for point in checkpoints:
        for recipe in _recipes(study, point):
            for model in _models(study, checkpoints, point, recipe, data):
                probes = tuple(_probes(study, model, data, wanted[recipe]))
                if probes:
                    found.append(Cell(model, probes))
    return Plan(study, checkpoints, tuple(found), needs, configs)


def _narrowed(kept: list[Cell], study: Study, needs: Mapping[str, Needs]) -> tuple[Cell, ...]:
    """Of every cell the probes that `needs` ask for, and those on reserved rows."""
    wanted = {recipe: _wanted(study, recipe, needs) for recipe in study.variants}
    found = []
    for cell in kept:
        asked = {need._replace(draws=1) for need in wanted[cell.model.recipe]}
        probes = tuple(one for one in cell.probes if one.need in asked or one.need.reserve)
        if probes:
            found.append(Cell(cell.model, probes))
    return tuple(found)


def _wanted(study: Study, recipe: str, needs: Mapping[str, Needs]) -> dict[Need, None]:
    """What all findings need of a recipe, each once, in their order."""
    found: dict[Need, None] = {}
    for need in needs.values():
        found |= dict.fromkeys(need(study, recipe))
    return found


def _recipes(study: Study, point: Checkpoint) -> list[str]:
    """The recipes of the study, each with its variants where the grid is run; of a checkpoint that
    is not tuned, base alone.
    """
    if study.tuning.steps is not None and point.step not in study.tuning.steps:
        return ["base"]
    swept = study.grid is not None and study.grid.is_at(point.step, point.run)
    named = [name for name, one in study.variants.items() if swept or not one.axis]
    return [name for name in named if study.recipe(name).is_for(point.model)]


def _models(
    study: Study, points: Sequence[Checkpoint], point: Checkpoint, recipe: str, data: str
) -> Iterator[Model]:
    """One model for base and for a recipe at another rate, one a seed of the run for every other
    recipe.
    """
    if recipe == "base":
        yield Model(point, recipe, 0, short_hash(point.revision, "base"))
        return
    tuning, how = study.tuning_of(recipe).determining(), study.recipe(recipe)
    made = [TRAINING_VERSION, point.revision, *how.determining()]
    rows, *beside = (key_of(study, name, data) for name in how.drawn(1))
    seeds = study.seeds(point.run)
    for seed in seeds[:1] if study.variants[recipe].axis == "learning_rate" else seeds:
        teacher = _teacher(study, points, point, recipe, seed, data)
        before = _of_seed(study, points, point, how.after, seed, data) if how.after else None
        more = [*beside, *([teacher.key, study.probing.new_tokens] if teacher else [])]
        more += [before.key] if before else []
        key = short_hash(*made, tuning, seed, rows, study.protocol.too_long, *more)
        yield Model(point, recipe, seed, key, teacher, before)


def _teacher(
    study: Study,
    points: Sequence[Checkpoint],
    point: Checkpoint,
    recipe: str,
    seed: int,
    data: str,
) -> Model | None:
    """The model of the same run and seed that answers the rows of a recipe, where one does."""
    asked = study.recipe(recipe).teacher
    if asked is None:
        return None
    place = (point.model, point.run, asked.step)
    [there] = [one for one in points if (one.model, one.run, one.step) == place]
    return _of_seed(study, points, there, asked.recipe, seed, data)


def _of_seed(
    study: Study,
    points: Sequence[Checkpoint],
    point: Checkpoint,
    recipe: str,
    seed: int,
    data: str,
) -> Model:
    """The model of a recipe on a checkpoint with that seed."""
    models = _models(study, points, point, recipe, data)
    return next(one for one in models if one.seed == seed)


def _probes(study: Study, model: Model, data: str, needs: dict[Need, None]) -> Iterator[Probe]:
    """What the findings need of this model. A tuned model takes the shot draw of its seed, base
    those of all seeds of its run.
    """
    seeds = study.seeds(model.checkpoint.run)
    draws = seeds if model.recipe == "base" else (model.seed,)
    wanted = dict(needs)
    if model.seed == seeds[0] and model.recipe != "base" and _is_swept(study, model):
        name = study.recipe(model.recipe).dataset
        wanted[Need(name, shots_of(study, name, model.recipe), reserve=True)] = None
    precision = [study.probing.precision] if study.probing.precision != "float32" else []
    protocol = study.protocol.model_dump(exclude=READING)
    asked, how = (study.probing.items, study.probing.new_tokens), short_hash(protocol, *precision)
    for need in wanted:
        dataset = REGISTRY[need.dataset]
        split = RESERVE if need.reserve else evaluation_split(study, dataset)
        for draw in _drawn(draws, need):
            where = (need.dataset, split, need.format, need.shots, draw)
            yield Probe(*where, *asked, key_of(study, need.dataset, data), how, need.measure)


def _drawn(draws: Sequence[int], need: Need) -> list[int]:
    """Which draws of examples stand before a question: without any, one; of several for each seed,
    the others count up from far beyond the seeds.
    """
    if not need.shots:
        return list(draws[:1])
    more = range(1, need.draws)
    return [*draws, *(OTHERS * time + draw for draw in draws for time in more)]


def _is_swept(study: Study, model: Model) -> bool:
    """Whether the learning rate of a model's recipe is chosen at its checkpoint."""
    point = model.checkpoint
    at = study.grid is not None and study.grid.is_at(point.step, point.run)
    variant = study.variants[model.recipe]
    swept = study.grid_of(variant.recipe, "learning_rate") and variant.axis in ("", "learning_rate")
    return bool(at and swept)
