"""What a study is expected to cost: tokens, floating-point operations, seconds, memory, disk.

Operations are 6 per parameter and token of training and 2 of scoring, plus attention. Seconds follow from rates that
were measured on two cores of an AMD EPYC with AVX512-BF16 (`RATES`), one thread a process, one process a core:
they are a first guess elsewhere, and the progress bar corrects itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from pretune import checkpoints as points
from pretune.params import Architecture, Found, Hub, Saved, Study
from pretune.plan import Cell, cells
from pretune.tasks.registry import REGISTRY

ROW_TOKENS = 60  # tokens of a typical example of the microworld, prompt and completion
REAL_TOKENS = {  # the same of real rows: medians with OLMo's tokenizer (`pretune data`); guesses: XLSum, PopQA, the last three
    "xsum": 400, "xlsum": 600, "cnn_dailymail": 850, "social_i_qa": 65, "sciq_question": 130, "tweet_qa": 80, "mnli": 54,
    "mnli_mismatched": 53, "rte": 71, "gpt3_nli": 51, "paws": 73, "qqp": 45, "stsb": 45, "arc_easy": 30, "arc_challenge": 35,
    "openbookqa": 19, "hellaswag": 45, "boolq": 131, "sciq": 99, "sciq_closed": 22, "wikitext": 168, "popqa": 20,
    "tulu_v2": 500, "alpaca": 100, "dolly": 150,
}
PEAK = {"H200": 989e12, "A100": 312e12}  # bfloat16 operations per second, dense, as their maker states
REACHED = 0.15  # share of the peak: an assumption, not measured (the reference study's own tuning ran at about .02 of an A100)
RATES = {"train": 52e9, "score": 37e9}  # floating-point operations per second and process
NETWORK = 50e6  # bytes a second from the Hub: a guess
CELL_SECONDS = 0.3  # loading, writing
SCORED_TOKENS = 16_384  # tokens of one scoring batch, each with keys and values held two to three times
PROCESS_GB = 0.6  # memory of a process before it holds a model


@dataclass(frozen=True)
class Cost:
    """Expected cost of one part. `seconds` are of one process."""

    trained_tokens: int
    scored_tokens: int
    flops: float
    seconds: float


def architecture(study: Study) -> Architecture:
    """Layers and widths of the study's model: as given, or as the configuration on the Hub has them."""
    if not isinstance(study.checkpoints, Found):
        return study.checkpoints.pretraining.architecture
    from pretune import pins  # noqa: PLC0415  the client of the Hub takes a while to load

    config = pins.pinned(study)["config"]
    return Architecture(layers=config["num_hidden_layers"], width=config["hidden_size"], heads=config["num_attention_heads"],
                        intermediate=config["intermediate_size"], context=config["max_position_embeddings"],
                        vocabulary=config["vocab_size"])


def parameters(study: Study) -> int:
    """Weights of the model, embeddings counted once."""
    shape = architecture(study)
    block = 4 * shape.width**2 + 3 * shape.width * shape.intermediate
    return shape.vocabulary * shape.width + shape.layers * block


def preparation(study: Study) -> Cost:
    """Pre-training, or fetching, of what is missing of the checkpoints."""
    saved = study.checkpoints
    if all(point.exists() for point in points.checkpoints(study)):
        return Cost(0, 0, 0.0, 0.0)
    if isinstance(saved, Found):
        return Cost(0, 0, 0.0, download_gb(study) * 1e9 / NETWORK + len(points.checkpoints(study)) * CELL_SECONDS)
    tokens = saved.steps[-1] * saved.pretraining.batch_size * saved.pretraining.length
    return _cost(study, tokens, 0, saved.pretraining.length)


def cell_cost(study: Study, cell: Cell) -> Cost:
    """Tuning and scoring of one cell. An item is read once for itself and once for each completion."""
    tuning, own = study.tuning_of(cell.model.recipe), study.recipe(cell.model.recipe).dataset
    trained = tuning.examples * tuning.epochs * row_tokens(study, own) if own else 0
    scored = 0
    for probe in cell.probes:
        one = row_tokens(study, probe.dataset)
        extra = probe.new_tokens if REGISTRY[probe.dataset].kind == "generation" else one // 2
        scored += probe.shots * one + probe.items * (one + extra)
    cost = _cost(study, trained, scored, ROW_TOKENS)
    return Cost(cost.trained_tokens, cost.scored_tokens, cost.flops, cost.seconds + CELL_SECONDS)


def row_tokens(study: Study, dataset: str) -> int:
    """Tokens of a typical example of a dataset, prompt and completion."""
    return ROW_TOKENS if study.datasets.source == "microworld" else REAL_TOKENS.get(dataset, ROW_TOKENS)


def gpu_hours(cost: Cost, gpu: str) -> float:
    """Hours of one GPU, if it reaches the share of its peak that is assumed."""
    return cost.flops / (PEAK[gpu] * REACHED) / 3600


def download_gb(study: Study) -> float:
    """Checkpoints that are still to be fetched from the Hub."""
    if not isinstance(study.checkpoints, Hub):
        return 0.0
    from pretune import pins  # noqa: PLC0415

    here = {point.revision for point in points.checkpoints(study) if point.exists()}
    return sum(one["bytes"] for one in pins.pinned(study)["checkpoints"] if one["commit"] not in here) / 1e9


def total(study: Study, work: list[Cell]) -> Cost:
    """Preparation and all of `work`."""
    parts = [preparation(study), *(cell_cost(study, cell) for cell in work)]
    return Cost(*(sum(getattr(part, name) for part in parts) for name in Cost.__dataclass_fields__))


def memory_gb(study: Study) -> float:
    """Peak of one process: tuning (weights, gradients, moments, activations of a batch) or scoring (keys and values)."""
    shape, rows, length = architecture(study), study.tuning.batch_size, ROW_TOKENS
    if isinstance(study.checkpoints, Saved):
        rows, length = study.checkpoints.pretraining.batch_size, study.checkpoints.pretraining.length
    activations = rows * length * (shape.layers * 24 * shape.width + 3 * shape.vocabulary) * 4
    whole = any(recipe.dataset and recipe.lora is None for recipe in study.recipes.values())  # else adapters alone are trained
    tuning, scoring = (16 if whole else 4) * parameters(study) + activations, 40 * SCORED_TOKENS * shape.layers * shape.width
    return PROCESS_GB + max(tuning, scoring) / 1e9


def disk_gb(study: Study) -> float:
    """Checkpoints and tuned weights in float32; the latter, and checkpoints of the Hub, are capped by the cache."""
    size, here = 4e-9 * parameters(study), len(points.checkpoints(study))
    tuned = len({cell.model.key for cell in cells(study) if cell.model.recipe != "base"})
    made = {"hub": min(here * size, max(size, study.cache.max_gb)), "folder": 0.0}
    return made.get(study.checkpoints.source, here * size) + min(tuned * size, study.cache.max_gb)


def _cost(study: Study, trained: int, scored: int, length: int) -> Cost:
    shape = architecture(study)
    forward = 2 * parameters(study) + 2 * shape.layers * shape.width * length
    train, score = 3 * forward * trained, forward * scored
    return Cost(trained, scored, train + score, train / RATES["train"] + score / RATES["score"])
