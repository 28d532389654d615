"""What a study is expected to cost: tokens, floating-point operations, seconds, disk.

Operations are 6 per parameter and token of training and 2 of scoring, plus attention. Seconds
follow from rates that were measured on two cores of an AMD EPYC with AVX512-BF16 (`RATES`), one
thread a process, one process a core: they are a first guess elsewhere, and the progress bar
corrects itself. How long rows are: module `lengths`; memory: `memory`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pretune.models.checkpoint import Checkpoint
from pretune.plan import lengths
from pretune.plan.cells import Cell, Plan
from pretune.recipes.base import Recipe
from pretune.recipes.pretrain import Architecture
from pretune.recipes.trainable import Added
from pretune.study.sources import Found, Hub, Saved

# bfloat16 operations per second, dense, as their maker states
PEAK = {"H200": 989e12, "A100": 312e12}
# share of an H200's peak when 1.2 B weights are tuned on MNLI's short rows; on XSum's it is .14, of
# 6.9 B on short ones .10, of generation .015 (`outputs/reference/gpu/olmo_1b.json`, `olmo_7b.json`)
REACHED = 0.05
RATES = {"train": 52e9, "score": 37e9}  # floating-point operations per second and process
NETWORK = 50e6  # bytes a second from the Hub: a guess
CELL_SECONDS = 0.3  # loading, writing
NAMES = {  # how configurations on the Hub call the parts of an architecture
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner"),
    "context": ("max_position_embeddings", "n_positions"),
    "vocabulary": ("vocab_size",),
}


class Cost(NamedTuple):
    """Expected cost of one part. `seconds` are of one process."""

    trained_tokens: int
    scored_tokens: int
    flops: float
    seconds: float


def architecture(plan: Plan, model: str = "") -> Architecture:
    """Layers and widths of a model of the study: as given, or as its configuration has them."""
    study, source = plan.study, plan.study.models[model]
    if not isinstance(source, Found):
        return source.pretraining.architecture
    shape = {part: _first(plan.configs[model], names) for part, names in NAMES.items()}
    # where it is left out
    shape["intermediate"] = shape["intermediate"] or 4 * (shape["width"] or 0)
    if lacking := [part for part, value in shape.items() if not value]:
        raise study.refuse(
            "checkpoints",
            source.source,
            f"the configuration of its models says nothing of {', '.join(lacking)} by a name that "
            f"is known: {', '.join(NAMES[lacking[0]])}",
        )
    return Architecture(**shape)


def _first(config: Mapping, names: Iterable[str]) -> int | None:
    """What a configuration says under the first of `names` that it has a value of."""
    return next((config[name] for name in names if config.get(name)), None)


def parameters(plan: Plan) -> int:
    """Weights of the (largest) model, embeddings counted once."""
    return max(architecture(plan, model).weights for model in plan.study.models)


def preparation(plan: Plan, model: str = "") -> Cost:
    """Pre-training, or fetching, of what is missing of a model's checkpoints."""
    saved, points = plan.study.models[model], _points(plan, model)
    missing = {point.run for point in points if not point.exists()}
    if not missing:
        return Cost(0, 0, 0.0, 0.0)
    if isinstance(saved, Found):
        seconds = _download_gb(plan, model) * 1e9 / NETWORK + len(points) * CELL_SECONDS
        return Cost(0, 0, 0.0, seconds)
    tokens = saved.tokens * len(missing)
    return _cost(architecture(plan, model), tokens, 0, saved.pretraining.length)


def _points(plan: Plan, model: str) -> list[Checkpoint]:
    return [point for point in plan.checkpoints if point.model == model]


def cell_cost(plan: Plan, cell: Cell) -> Cost:
    """Tuning and scoring of one cell. An item is read once for itself and once for each
    completion.
    """
    study, parts = plan.study, [Cost(0, 0, 0.0, CELL_SECONDS)]
    shape = architecture(plan, cell.model.checkpoint.model)
    tuning, recipe = study.tuning_of(cell.model.recipe), study.recipe(cell.model.recipe)
    if recipe.method != "none":
        one = lengths.row(study, cell.model.recipe, shape.context)
        each = one * recipe.sequences
        rows = recipe.count(tuning.examples)
        most = tuning.steps_on(rows) * tuning.batch_size
        tokens = each * (most if tuning.max_steps else tuning.epochs * rows)
        parts.append(_cost(shape, tokens, 0, one, recipe.passes))
        drawn = recipe.drawn(tuning.examples)[recipe.dataset]
        asked = drawn * each * recipe.is_read_before
        asked += drawn * (one + study.probing.new_tokens) * (recipe.teacher is not None)
        parts.append(_cost(shape, 0, asked, one))
    for probe in cell.probes:
        one, how = lengths.item(study, probe.dataset), probe.measured_by
        extra = probe.new_tokens if how.generates else one // 2
        read = how.reads * probe.items * (one + extra)
        parts.append(_cost(shape, 0, probe.shots * one + int(read), one))
    return _sum(parts)


def gpu_hours(cost: Cost, gpu: str) -> float:
    """Hours of one GPU, if it reaches the share of its peak that is assumed."""
    return cost.flops / (PEAK[gpu] * REACHED) / 3600


def download_gb(plan: Plan) -> float:
    """Checkpoints that are still to be fetched from the Hub."""
    return sum(_download_gb(plan, model) for model in plan.study.models)


def _download_gb(plan: Plan, model: str) -> float:
    if not isinstance(plan.study.models[model], Hub):
        return 0.0
    from pretune.sources import found

    lacking = {point.revision for point in _points(plan, model) if not point.exists()}
    there = found.pinned(plan.study.of(model))["checkpoints"]
    return sum(one["bytes"] for one in there if one["commit"] in lacking) / 1e9


def total(plan: Plan, work: list[Cell]) -> Cost:
    """Preparation and all of `work`."""
    made = [preparation(plan, model) for model in plan.study.models]
    return _sum([*made, *(cell_cost(plan, cell) for cell in work)])


def wall_seconds(plan: Plan, work: list[Cell], jobs: int) -> float:
    """Seconds on the clock that so many processes need at least: preparation is one job after
    another, and a cell waits for its checkpoint. After each moment at which one is there, the
    processes still have what is left of the preparation and the cells of it and of later ones.
    """
    made, needed = _made_at(plan), defaultdict(float)
    for cell in work:
        needed[made.get(cell.model.checkpoint, 0.0)] += cell_cost(plan, cell).seconds
    end = max(made.values(), default=0.0)
    spans = (
        at + (end - at + sum(some for other, some in needed.items() if other >= at)) / jobs
        for at in {0.0, *made.values()}
    )
    return max(spans)


def _made_at(plan: Plan) -> dict[Checkpoint, float]:
    """Seconds after the start at which each missing checkpoint is there: a run's by their steps,
    what is fetched in equal times.
    """
    found, start = {}, 0.0
    for model, saved in plan.study.models.items():
        lacking = [point for point in _points(plan, model) if not point.exists()]
        runs = list(dict.fromkeys(point.run for point in lacking))
        each = preparation(plan, model).seconds / max(1, len(runs))
        for run in runs:
            some = [point for point in lacking if point.run == run]
            fetched = range(1, len(some) + 1)
            done = fetched if isinstance(saved, Found) else [point.step for point in some]
            found |= {
                point: start + each * part / max(1, done[-1])
                for point, part in zip(some, done, strict=True)
            }
            start += each
    return found


def checkpoints_gb(plan: Plan) -> float:
    """Checkpoints in float32; those of the Hub come and go within the cache."""
    made, fetched = 0.0, 0.0
    for model, source in plan.study.models.items():
        there = 4e-9 * architecture(plan, model).weights * len(_points(plan, model))
        made += there * isinstance(source, Saved)
        fetched += there * isinstance(source, Hub)
    largest = 4e-9 * parameters(plan)
    return made + min(fetched, max(largest, plan.study.cache.max_gb))


def tuned_gb(plan: Plan) -> tuple[float, float]:
    """What is trained of tuned models, in float32: what is written in all, and what the cache
    keeps.
    """
    written, models = 0.0, {cell.model.key: cell.model for cell in plan.cells}
    for one in models.values():
        shape = architecture(plan, one.checkpoint.model)
        written += 4e-9 * trained(plan.study.recipe(one.recipe), shape) * (one.recipe != "base")
    return written, min(written, plan.study.cache.max_gb)


def states_gb(plan: Plan, jobs: int = 1) -> float:
    """States of running trainings, one a process: 12 bytes a trained weight, and as much while
    one takes the last one's place.
    """
    largest = [0]
    for model, source in plan.study.models.items():
        shape, recipes = architecture(plan, model), plan.study.recipes.values()
        largest += [trained(one, shape) for one in recipes if one.method != "none"]
        largest += [shape.weights] * isinstance(source, Saved)
    return 2 * 12e-9 * max(largest) * jobs


def disk_gb(plan: Plan, jobs: int = 1) -> float:
    """All that lies on the disk at a time, without datasets and records, which are small beside
    it.
    """
    return checkpoints_gb(plan) + tuned_gb(plan)[1] + states_gb(plan, jobs)


def trained(recipe: Recipe, shape: Architecture) -> int:
    """Weights that a recipe trains, at most: how many have a name is not known beforehand."""
    part = recipe.trainable
    return part.weights(shape) if isinstance(part, Added) else shape.weights


def _sum(parts: list[Cost]) -> Cost:
    return Cost(*map(sum, zip(Cost(0, 0, 0.0, 0.0), *parts, strict=True)))


def _cost(
    shape: Architecture, trained: int, scored: int, length: int, passes: float = Recipe.passes
) -> Cost:
    """Cost of so many tokens in rows of `length`; one that is trained takes so many forward
    `passes`.
    """
    forward = 2 * shape.weights + 2 * shape.layers * shape.width * length
    train, score = passes * forward * trained, forward * scored
    return Cost(trained, scored, train + score, train / RATES["train"] + score / RATES["score"])
