"""What the models of a study take of memory, and what of it fits a GPU.

Bytes of tensors, counted for OLMo's blocks, at the moment when most are held: weights and AdamW's
moments with what a batch keeps for its gradient, or, when they are moved, with all gradients. They
are held against measured peaks in `tests/test_plan_memory.py`. Of the processor's memory a process
takes more: what it is without a model, and what the C library keeps of what was freed, which was
.2 to .8 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from pretune.plan import costs, devices, lengths
from pretune.plan.cells import Plan
from pretune.plan.devices import Gpu
from pretune.recipes.pretrain import Architecture
from pretune.study.sources import Saved

# tokens of one scoring batch, each with keys and values held two to three times
SCORED_TOKENS = 16_384
PRETRAINING = "pre-training"
PROCESS_GB = 0.6  # of a process before it holds a model
CONTEXT_GB = 1.5  # of a GPU: what CUDA takes, and what is lost between tensors
LOGITS = {"cpu": 2**23, "cuda": 2**28}  # held at a time (`gradients.HEAD_ENTRIES`)


class Training(NamedTuple):
    """Something that is trained of a model."""

    what: str
    shape: Architecture
    weights: int  # that are trained
    batch: int  # rows
    length: int  # tokens of the longest

    def bytes(self, rows: int, precision: str, device: str, twice: bool = False) -> float:
        """Of tensors, with so many `rows` at a time, activations kept or computed `twice`."""
        # gradients of earlier rows are there while others are read
        held = 12 if rows >= self.batch else 16
        at_work = held * self.weights + self._read(rows, precision, device, twice)
        return 4 * self._frozen + max(16 * self.weights, at_work)

    def share(self, size: int, precision: str) -> float:
        """Of tensors on each of `size` GPUs that share all weights, one row at a time, activations
        computed twice: beside a share of weights, gradients and moments, one block and the
        embedding are whole, with their gradients.
        """
        shape = self.shape
        whole = shape.vocabulary * shape.width + shape.weights // shape.layers
        shared = (4 * self._frozen + 16 * self.weights) / size
        return shared + 8 * whole + self._read(1, precision, "cuda", True)

    @property
    def _frozen(self) -> int:
        return max(0, self.shape.weights - self.weights)

    def _read(self, rows: int, precision: str, device: str, twice: bool) -> float:
        """What a batch of so many rows keeps for its gradient, and its logits."""
        tokens = rows * self.length
        logits = min(LOGITS[device], tokens * self.shape.vocabulary)
        return self._kept(tokens, precision, twice) + 3 * 4 * logits

    def _kept(self, tokens: int, precision: str, twice: bool) -> float:
        width, inner, layers = self.shape.width, self.shape.intermediate, self.shape.layers
        if precision == "float32":
            token, copies = 36 * width + 16 * inner, 0
        else:  # residuals and rotated keys stay float32; of each weight there is a copy
            token, copies = 32 * width + 8 * inner, 2 * self.shape.weights
        if twice:
            return tokens * (layers * 4 * width + token) + copies / layers
        return tokens * layers * token + copies


def memory_gb(plan: Plan, rows: int | None = None) -> float:
    """Peak of one process without a GPU, but for what the C library keeps: training or scoring
    (weights, keys and values).

    With `rows`, what it comes down to when memory runs out: so many rows of a batch, or items
    with their shots, at a time.
    """
    return PROCESS_GB + max(_bytes(plan, model, rows) for model in plan.study.models) / 1e9


def _bytes(plan: Plan, model: str, rows: int | None) -> float:
    training = [
        one.bytes(min(one.batch, rows or one.batch), _precision(plan, "float32"), "cpu")
        for one in _trainings(plan, model)
    ]
    return max([*training, _scoring(plan, model, rows)])


def _scoring(plan: Plan, model: str, rows: int | None) -> float:
    study, shape = plan.study, costs.architecture(plan, model)
    item = max(lengths.item(study, name) for name in study.probing.datasets)
    one = min(shape.context, (study.probing.shots + 1) * item)
    read = SCORED_TOKENS if rows is None else min(SCORED_TOKENS, rows * one)
    probes = chain.from_iterable(cell.probes for cell in plan.cells)
    beside = any(probe.measured_by.holds_base for probe in probes)
    models = 1 + (beside or any(cell.model.teacher for cell in plan.cells))
    return scoring_bytes(shape, models, read)


def scoring_bytes(shape: Architecture, models: int, tokens: int = SCORED_TOKENS) -> float:
    """Of tensors, when one of so many models that are held reads a batch of so many tokens."""
    return models * 4 * shape.weights + 40 * tokens * shape.layers * shape.width


def _precision(plan: Plan, automatic: str) -> str:
    said = plan.study.tuning.precision
    return automatic if said == "auto" else said


def longest_batch(plan: Plan) -> tuple[int, int]:
    """Rows and tokens a row of the largest batch that is trained on; (0, 0) where nothing is."""
    trainings = chain.from_iterable(_trainings(plan, model) for model in plan.study.models)
    batches = [(one.batch, one.length) for one in trainings]
    return max(batches, key=lambda one: one[0] * one[1], default=(0, 0))


def _trainings(plan: Plan, model: str) -> Iterator[Training]:
    study, shape = plan.study, costs.architecture(plan, model)
    for name, recipe in study.recipes.items():
        if recipe.method != "none":
            longest, rows = lengths.longest(study, name, shape.context), study.tuning_of(name)
            weights, batch = costs.trained(recipe, shape), rows.batch_size * recipe.sequences
            yield Training(name, shape, weights, batch, longest)
    if isinstance(saved := study.models[model], Saved):
        given = saved.pretraining
        yield Training(PRETRAINING, shape, shape.weights, given.batch_size, given.length)


def fits(plan: Plan, gpus: list[Gpu]) -> dict[str, list[str]]:
    """How what is trained fits the smallest of these GPUs, in words, and the names of what fits
    so.
    """
    found: dict[str, list[str]] = {}
    for model in plan.study.models:
        for one in _trainings(plan, model):
            found.setdefault(_fit(one, plan, gpus), []).append(f"{model} {one.what}".strip())
    return found


def is_shared(plan: Plan, gpus: list[Gpu]) -> bool:
    """Whether all GPUs are to train one model: that is asked for, or one row does not fit one."""
    if len(gpus) < 2 or plan.study.tuning.sharding != "auto":
        return len(gpus) > 1 and plan.study.tuning.sharding == "fsdp"
    return any(words.startswith("shared") for words in fits(plan, gpus))


def default_jobs(plan: Plan) -> int:
    """One process for each GPU, or for all that train one model; where there is none, for each
    core.
    """
    return 1 if is_shared(plan, devices.gpus()) else devices.default_jobs()


def _room(gpus: list[Gpu]) -> float:
    return (min(gpu.gb for gpu in gpus) - CONTEXT_GB) * 1e9


def _fit(one: Training, plan: Plan, gpus: list[Gpu]) -> str:
    room, precision, rows = _room(gpus), _precision(plan, "bfloat16"), one.batch
    while rows > 1 and one.bytes(rows, precision, "cuda") > room:
        rows //= 2
    if one.bytes(rows, precision, "cuda") <= room:
        return "whole batches" if rows == one.batch else f"{rows} of {one.batch} rows at a time"
    if one.bytes(1, precision, "cuda", True) <= room:
        return "one row at a time, activations computed twice"
    if one.what == PRETRAINING:
        return "not at all"
    if plan.study.tuning.sharding != "none" and one.share(len(gpus), precision) <= room:
        return f"shared by {len(gpus)} GPUs"
    enough = (size for size in range(2, 65) if one.share(size, precision) <= room)
    many = next(enough, 0)
    return f"not at all: {f'{many} such GPUs could share it; or ' if many else ''}train adapters"
