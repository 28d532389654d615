"""What a study is expected to cost: tokens, floating-point operations, seconds, memory, disk.

Operations are 6 per parameter and token of training and 2 of scoring, plus attention. Seconds
follow from rates that were measured on two cores of an AMD EPYC with AVX512-BF16 (`RATES`), one
thread a process, one process a core: they are a first guess elsewhere, and the progress bar
corrects itself. How long rows are: module `lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pretune import lengths
from pretune.plan import Cell, cells
from pretune.sources import checkpoints
from pretune.study.config import Architecture, Found, Hub, Lora, Saved, Study
from pretune.tasks.registry import REGISTRY

# bfloat16 operations per second, dense, as their maker states
PEAK = {"H200": 989e12, "A100": 312e12}
# share of the peak: an assumption, not measured (the reference study's own tuning ran at about .02
# of an A100)
REACHED = 0.15
RATES = {"train": 52e9, "score": 37e9}  # floating-point operations per second and process
NETWORK = 50e6  # bytes a second from the Hub: a guess
CELL_SECONDS = 0.3  # loading, writing
# tokens of one scoring batch, each with keys and values held two to three times
SCORED_TOKENS = 16_384
PROCESS_GB = 0.6  # memory of a process before it holds a model
LOGITS = 2**28  # held at a time in training (`training.HEAD_ENTRIES`)
NAMES = {  # how configurations on the Hub call the parts of an architecture
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner"),
    "context": ("max_position_embeddings", "n_positions"),
    "vocabulary": ("vocab_size",),
}


@dataclass(frozen=True)
class Cost:
    """Expected cost of one part. `seconds` are of one process."""

    trained_tokens: int
    scored_tokens: int
    flops: float
    seconds: float


def architecture(study: Study) -> Architecture:
    """Layers and widths of the study's model: as given, or as the configuration on the Hub has
    them.
    """
    if not isinstance(study.checkpoints, Found):
        return study.checkpoints.pretraining.architecture
    from pretune.sources import found  # the client of the Hub takes a while to load

    config = found.pinned(study)["config"]
    shape = {
        part: next((config[name] for name in names if config.get(name)), None)
        for part, names in NAMES.items()
    }
    # where it is left out
    shape["intermediate"] = shape["intermediate"] or 4 * (shape["width"] or 0)
    if lacking := [part for part, value in shape.items() if not value]:
        raise study.refuse(
            "checkpoints",
            study.checkpoints.source,
            f"the configuration of its models says nothing of {', '.join(lacking)} by a name that "
            f"is known: {', '.join(NAMES[lacking[0]])}",
        )
    return Architecture(**shape)


def parameters(study: Study) -> int:
    """Weights of the model, embeddings counted once."""
    return _size(architecture(study))


def _size(shape: Architecture) -> int:
    block = 4 * shape.width**2 + 3 * shape.width * shape.intermediate
    return shape.vocabulary * shape.width + shape.layers * block


def preparation(study: Study) -> Cost:
    """Pre-training, or fetching, of what is missing of the checkpoints."""
    saved = study.checkpoints
    if all(point.exists() for point in checkpoints.checkpoints(study)):
        return Cost(0, 0, 0.0, 0.0)
    if isinstance(saved, Found):
        return Cost(
            0,
            0,
            0.0,
            download_gb(study) * 1e9 / NETWORK + len(checkpoints.checkpoints(study)) * CELL_SECONDS,
        )
    tokens = saved.steps[-1] * saved.pretraining.batch_size * saved.pretraining.length
    return _cost(architecture(study), tokens, 0, saved.pretraining.length)


def cell_cost(study: Study, cell: Cell) -> Cost:
    """Tuning and scoring of one cell. An item is read once for itself and once for each
    completion.
    """
    tuning, shape, parts = (
        study.tuning_of(cell.model.recipe),
        architecture(study),
        [Cost(0, 0, 0.0, CELL_SECONDS)],
    )
    if study.recipe(cell.model.recipe).dataset:
        one = lengths.row(study, cell.model.recipe, shape.context)
        parts.append(_cost(shape, tuning.examples * tuning.epochs * one, 0, one))
    for probe in cell.probes:
        one = lengths.item(study, probe.dataset)
        extra = probe.new_tokens if REGISTRY[probe.dataset].kind == "generation" else one // 2
        parts.append(_cost(shape, 0, probe.shots * one + probe.items * (one + extra), one))
    return _sum(parts)


def gpu_hours(cost: Cost, gpu: str) -> float:
    """Hours of one GPU, if it reaches the share of its peak that is assumed."""
    return cost.flops / (PEAK[gpu] * REACHED) / 3600


def download_gb(study: Study) -> float:
    """Checkpoints that are still to be fetched from the Hub."""
    if not isinstance(study.checkpoints, Hub):
        return 0.0
    from pretune.sources import found

    here = {point.revision for point in checkpoints.checkpoints(study) if point.exists()}
    return (
        sum(one["bytes"] for one in found.pinned(study)["checkpoints"] if one["commit"] not in here)
        / 1e9
    )


def total(study: Study, work: list[Cell]) -> Cost:
    """Preparation and all of `work`."""
    return _sum([preparation(study), *(cell_cost(study, cell) for cell in work)])


def memory_gb(study: Study, rows: int | None = None) -> float:
    """Peak of one process: training (weights, gradients, moments, activations of a batch) or
    scoring (weights, keys and values).

    With `rows`, what it comes down to when memory runs out: so many rows of a batch, or items
    with their shots, at a time.
    """
    shape, size = architecture(study), parameters(study)
    training = [
        each * size + 4 * _activations(shape, min(batch, rows or batch) * length)
        for each, batch, length in _trainings(study)
    ]
    one = min(
        shape.context,
        (study.probing.shots + 1)
        * max(lengths.item(study, name) for name in study.probing.datasets),
    )
    read = SCORED_TOKENS if rows is None else min(SCORED_TOKENS, rows * one)
    return PROCESS_GB + max([*training, 4 * size + 40 * read * shape.layers * shape.width]) / 1e9


def longest_batch(study: Study) -> tuple[int, int]:
    """Rows and tokens a row of the largest batch that is trained on; (0, 0) where nothing is."""
    return max(
        ((batch, length) for _, batch, length in _trainings(study)),
        key=lambda one: one[0] * one[1],
        default=(0, 0),
    )


def checkpoints_gb(study: Study) -> float:
    """Checkpoints in float32; those of the Hub come and go within the cache."""
    size, here = 4e-9 * parameters(study), len(checkpoints.checkpoints(study))
    made = {"hub": min(here * size, max(size, study.cache.max_gb)), "folder": 0.0}
    return made.get(study.checkpoints.source, here * size)


def tuned_gb(study: Study) -> tuple[float, float]:
    """Tuned weights in float32: what is written of them in all, and what the cache keeps."""
    written = (
        4e-9
        * parameters(study)
        * len({cell.model.key for cell in cells(study) if cell.model.recipe != "base"})
    )
    return written, min(written, study.cache.max_gb)


def states_gb(study: Study, jobs: int = 1) -> float:
    """States of running trainings, one a process: 12 bytes a trained weight, and as much while
    one takes the last one's place.
    """
    trained = [
        _adapters(study, one.lora) if one.lora else parameters(study)
        for one in study.recipes.values()
        if one.dataset
    ]
    trained += [parameters(study)] * isinstance(study.checkpoints, Saved)
    return 2 * 12e-9 * max(trained, default=0) * jobs


def disk_gb(study: Study, jobs: int = 1) -> float:
    """All that lies on the disk at a time, without datasets and records, which are small beside
    it.
    """
    return checkpoints_gb(study) + tuned_gb(study)[1] + states_gb(study, jobs)


def _trainings(study: Study) -> list[tuple[int, int, int]]:
    """Of everything that is trained: bytes a weight, rows of a batch, tokens of the longest row."""
    context = architecture(study).context
    found = [
        (
            4 if recipe.lora else 16,
            study.tuning_of(name).batch_size,
            lengths.longest(study, name, context),
        )
        for name, recipe in study.recipes.items()
        if recipe.dataset
    ]
    if isinstance(study.checkpoints, Saved):
        found.append(
            (16, study.checkpoints.pretraining.batch_size, study.checkpoints.pretraining.length)
        )
    return found


def _activations(shape: Architecture, tokens: int) -> int:
    """Numbers that are kept of a batch for its gradient: 24 times the width a layer, as counted
    for OLMo, and logits.
    """
    return tokens * shape.layers * 24 * shape.width + 3 * min(tokens * shape.vocabulary, LOGITS)


def _adapters(study: Study, lora: Lora) -> int:
    """Weights of adapters on every linear layer of the blocks."""
    shape = architecture(study)
    return lora.rank * shape.layers * (4 * 2 * shape.width + 3 * (shape.width + shape.intermediate))


def _sum(parts: list[Cost]) -> Cost:
    return Cost(*(sum(getattr(part, name) for part in parts) for name in Cost.__dataclass_fields__))


def _cost(shape: Architecture, trained: int, scored: int, length: int) -> Cost:
    """Cost of so many tokens in rows of `length`."""
    forward = 2 * _size(shape) + 2 * shape.layers * shape.width * length
    train, score = 3 * forward * trained, forward * scored
    return Cost(trained, scored, train + score, train / RATES["train"] + score / RATES["score"])
