"""Cells of a model of OLMo's size on a GPU: `python -m benchmarks.gpu`, minutes; words name a shape
(`1B`, `7B`; left out: 1B) and measures (left out: all).

Weights are untrained, which time does not depend on; rows and tokenizer are the real ones. `cell`
is a whole one, from its files to its record. `mnli`, `xsum` and `lora_mnli` are optimizer steps
alone, on short rows, on long ones and of adapters, beside the bare loop of transformers on the same
batches, in turn, and with sums in any order in place of a fixed one. `divergence` compares two
models on two answers to each question, on XSum without examples and on MNLI with four, beside the
loop of two forward passes. Said are tokens a second, the share of what the device multiplies at
most (measured first, a large product of matrices in bfloat16), and the most memory that tensors
took, beside what a plan expects. It leaves `outputs/reference/gpu/olmo_SHAPE.json`, in which what
was measured before stays where only some measures are named.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("PRETUNE_OUTPUTS", tempfile.mkdtemp(prefix="pretune-gpu-"))

import torch  # noqa: E402
import transformers  # noqa: E402
import yaml  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from benchmarks import divergence, setting  # noqa: E402
from pretune import measures, paths  # noqa: E402
from pretune.measures.base import Asked, Subject  # noqa: E402
from pretune.models import adapters, comparing, device, training  # noqa: E402
from pretune.plan import costs, memory  # noqa: E402
from pretune.plan.cells import Cell, Plan  # noqa: E402
from pretune.recipes.pretrain import Architecture  # noqa: E402
from pretune.report.open import open_plan  # noqa: E402
from pretune.run import cell, prepare  # noqa: E402
from pretune.study.load import load_study  # noqa: E402
from pretune.tasks.prompts import Row  # noqa: E402
from pretune.tasks.registry import REGISTRY  # noqa: E402

FOLDER = setting.ROOT / "outputs" / "reference" / "gpu"
# layers, width, heads, inner width, whether the head is the embedding
SHAPES = {"1B": (16, 2048, 16, 8192, True), "7B": (32, 4096, 32, 11008, False)}
STEPS = ["mnli", "xsum", "lora_mnli"]
MEASURES = ["cell", "divergence", *STEPS]
TURNS = 2  # beside one that does not count
EXACT = 10  # items on which two ways are compared in float32 too
STUDY = {
    "title": "A model of OLMo's size",
    "checkpoints": {"source": "folder", "steps": "all", "late": 1, "tokens_per_step": 4_194_304},
    "datasets": {
        "source": "folder",
        "folder": str(setting.ROWS),
        "stand_ins": {
            "xsum/train": "xsum/extra_from_test",
            "hellaswag/train": "hellaswag/validation[250:]",
            "hellaswag/validation": "hellaswag/validation[:250]",
            "boolq/train": "boolq/validation[250:]",
            "boolq/validation": "boolq/validation[:250]",
        },
    },
    "recipes": {
        "base": {},
        "mnli": {"dataset": "mnli"},
        "xsum": {"dataset": "xsum"},
        "lora_mnli": {"dataset": "mnli", "trainable": {"peft_type": "LORA"}},
    },
    "tuning": {"examples": 160, "epochs": 1, "batch_size": 8, "learning_rate": 2.0e-6},
    "probing": {
        "datasets": ["xsum", "mnli", "hellaswag", "boolq"],
        "shots": 2,
        "items": 100,
        "new_tokens": 60,
        "precision": "bfloat16",
    },
    "findings": ["01_dataset_dichotomy"],
    "cache": {"max_gb": 5.0},
}


def main(words: list[str]) -> None:
    shape = next((word for word in words if word in SHAPES), "1B")
    named = [word for word in words if word in MEASURES] or MEASURES
    told = begun(shape, named)
    folder = Path(tempfile.mkdtemp(prefix="olmo-size-"))
    # but for a whole cell the study's own checkpoints are not used
    plan = planned(folder, shape, 0 if "cell" in named else 1)
    prepare.prepare_data(plan.study)
    last = plan.checkpoints[-1]
    cells = {one.model.recipe: one for one in plan.cells if one.model.checkpoint == last}
    if "cell" in named:
        prepare.prepare_checkpoint(plan.study, last)
        kept(shape, told, "cell (XSum)", run(plan, cells["xsum"], told))
    if "divergence" in named:
        distances(plan, shape, told)
    model = untrained(shape)
    told["parameters"] = sum(weight.numel() for weight in model.parameters())
    for name in filter(STEPS.__contains__, named):
        kept(shape, told, f"steps ({name})", steps(plan, cells[name], model, told))


def begun(shape: str, named: list[str]) -> dict:
    """What a record begins with: what runs it; where not all measures are named, all that the one
    that is there holds of the same, since shares are of the ceiling that was measured then.
    """
    told: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    told["transformers"] = transformers.__version__
    if len(named) < len(MEASURES) and record(shape).exists():
        there = json.loads(record(shape).read_text())
        if told.items() <= there.items():
            return there
    return told | {"ceiling": ceilings()}


def record(shape: str) -> Path:
    return FOLDER / f"olmo_{shape.lower()}.json"


def kept(shape: str, told: dict, name: str, found: dict) -> None:
    """Add what was found, and write all that was so far."""
    told[name] = found
    print(name, found, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    record(shape).write_text(json.dumps(told, indent=1) + "\n")


def ceilings() -> dict[str, float]:
    """Operations a second of a large product, bytes a second of a large copy."""
    found = {}
    for kind in (torch.bfloat16, torch.float32):
        one, two = (torch.randn(8192, 8192, device="cuda", dtype=kind) for _ in range(2))
        seconds = timed(lambda one=one, two=two: one @ two, 10)
        found[f"{str(kind).removeprefix('torch.')} TFLOP/s"] = round(2 * 8192**3 / seconds / 1e12)
    source = torch.empty(2**30, device="cuda")
    seconds = timed(lambda: source.clone(), 5)
    return found | {"copy TB/s, read and written": round(2 * 4 * 2**30 / seconds / 1e12, 2)}


def timed(work: Callable, times: int) -> float:
    """Median seconds of `work` after one run that does not count."""
    return median([timed_once(work)[1] for _ in range(times + 1)][1:])


def untrained(shape: str, layers: int = 0, seed: int = 0) -> torch.nn.Module:
    """A model of a shape, or of so many of its layers."""
    torch.manual_seed(seed)
    all_layers, *others = SHAPES[shape]
    with torch.device(device.pick_device()):
        return setting.untrained(layers or all_layers, *others)


def planned(folder: Path, shape: str, layers: int) -> Plan:
    """A study of two checkpoints, the last with so many layers (0: all)."""
    tokenizer = AutoTokenizer.from_pretrained(setting.OLMO)
    for step, some in ((1, 2), (2, layers)):
        point = folder / "checkpoints" / f"step-{step}"
        untrained(shape, some).save_pretrained(point)
        tokenizer.save_pretrained(point)
    study = STUDY | {"checkpoints": STUDY["checkpoints"] | {"folder": str(point.parent)}}
    file = folder / "olmo-size.yaml"
    file.write_text(yaml.safe_dump(study))
    return open_plan(load_study(str(file)))


def run(plan: Plan, one: Cell, told: dict) -> dict:
    """What one cell took, with the wall seconds of all of it."""
    start = time.perf_counter()
    seconds, tokens = cell.run_cell(plan.study, one)
    wall = round(time.perf_counter() - start, 2)
    where = (paths.study_folder(plan.study.name) / "records").glob(f"{one.model.name}.*/*/*.json")
    about = json.loads(next(iter(where)).read_text())
    return {
        "seconds": seconds | {"all": wall},
        "tokens": tokens,
        "share_of_ceiling": share(costs.cell_cost(plan, one).flops / wall, told),
        "passed_over": len(about["passed_over"]),
        "peak_gpu_memory_gb": about["peak_gpu_memory_gb"],
        "peak_memory_gb": about["peak_memory_gb"],
    }


def distances(plan: Plan, shape: str, told: dict) -> None:
    """Of two models that are both held, all cases."""
    pair = [untrained(shape, seed=seed).eval() for seed in (1, 0)]
    for dataset, shots in divergence.CASES:
        found = compared(plan, dataset, shots, *pair)
        kept(shape, told, f"divergence ({dataset}, {shots}-shot)", found)


def compared(plan: Plan, dataset: str, shots: int, tuned, base) -> dict:
    """Seconds of two models compared on two answers to each question, ours beside the loop of two
    forward passes; with answers that are written before, as a cell does it, seconds and memory.
    """
    tokenizer = AutoTokenizer.from_pretrained(setting.OLMO)
    prefix, items = setting.items(dataset, STUDY["probing"]["items"], shots)
    pairs, both = divergence.answers(tokenizer, prefix, items), (tuned, base)
    # what either gives is on the processor: nothing is left to wait for
    ours_s, peer_s, mine, other = setting.in_turn(
        setting.timed(lambda: probed(comparing.compared, *both, pairs)),
        setting.timed(lambda: probed(divergence.plain, *both, pairs)),
        TURNS,
    )
    device.peak_memory_gb()
    given = (plan, dataset, prefix, items, tokenizer, *both)
    whole = timed(lambda: probed(measured, *given), 1)
    peak, some = device.peak_memory_gb(), pairs[:EXACT]
    exact = divergence.farthest(comparing.compared(*both, some), divergence.plain(*both, some))
    took = {"ours": median(ours_s), "two forward passes": median(peer_s), "with answers": whole}
    tokens = sum(len(one.ids) for one in itertools.chain.from_iterable(pairs))
    return {
        "items": len(pairs),
        "tokens": tokens,
        "seconds": {which: round(each, 3) for which, each in took.items()},
        "tokens_per_s": round(tokens / took["ours"]),
        "two forward passes over ours": round(took["two forward passes"] / took["ours"], 2),
        "ceiling of fewer tokens": round(divergence.ceiling(pairs), 2),
        "nats apart": round(divergence.farthest(mine, other), 5),
        "nats apart, float32": round(exact, 7),
        "peak_gpu_memory_gb": round(peak, 1),
        "planned_gpu_memory_gb": round(memory.scoring_bytes(shape_of(plan, base), 2) / 1e9, 1),
    }


def probed(work: Callable, *given: object) -> object:
    """What `work` gives in the precision in which the study looks at models."""
    with device.autocast(STUDY["probing"]["precision"], device.pick_device()):
        return work(*given)


def measured(plan: Plan, dataset: str, prefix: str, items: list, tokenizer, tuned, base) -> list:
    """The rows of the measure, which has the tuned model write its answers first."""
    subject = Subject(tuned, tokenizer, plan.checkpoints[-1], True)
    subject._base = base  # as if it were loaded
    new_tokens = STUDY["probing"]["new_tokens"]
    asked = Asked(REGISTRY[dataset], prefix, items, new_tokens, plan.study.protocol)
    return list(measures.find("divergence").rows(subject, asked))


def steps(plan: Plan, one: Cell, model: torch.nn.Module, told: dict) -> dict:
    """Seconds of the same optimizer steps: ours, ours with sums in any order, the bare loop."""
    tokenizer = AutoTokenizer.from_pretrained(setting.OLMO)
    settings, recipe = plan.study.tuning_of(one.model.recipe), plan.study.recipe(one.model.recipe)
    made = cell._training_rows(plan.study, one.model, 2048, tokenizer).rows
    kept = {name: weight.cpu() for name, weight in model.state_dict().items()}
    ways = {"ours": ours, "sums in any order": ours, "bare loop": setting.bare}
    seconds, losses = {which: [] for which in ways}, {}
    for turn, which in itertools.product(range(TURNS + 1), ways):
        torch.use_deterministic_algorithms(which != "sums in any order")
        with adapters.part(model, recipe.trainable, 0) as part:
            losses[which], took = timed_once(ways[which], part.model, made, settings)
        model.load_state_dict(kept)
        seconds[which] += [took] * (turn > 0)
        if which == "ours" and not turn:
            peak = device.peak_memory_gb()
        device.peak_memory_gb()
    torch.use_deterministic_algorithms(True)
    took = {which: round(median(each), 3) for which, each in seconds.items()}
    tokens = settings.epochs * sum(len(row.ids) for row in made)
    # weights that stay as they are need no gradient
    passes = recipe.passes if recipe.trainable is None else 2
    used = 2 * passes * told["parameters"] * tokens / took["ours"]
    return {
        "steps": len(losses["ours"]),
        "tokens": tokens,
        "seconds": took,
        "tokens_per_s": round(tokens / took["ours"]),
        "share_of_ceiling": share(used, told),
        "peak_gpu_memory_gb": round(peak, 1),
        "planned_gpu_memory_gb": round(planned_gb(plan, one, model, made), 1),
        "bare over ours": round(took["bare loop"] / took["ours"], 2),
        "any order over ours": round(took["sums in any order"] / took["ours"], 2),
        "losses apart": round(setting.farthest([losses["ours"]], [losses["bare loop"]]), 5),
    }


def share(operations: float, told: dict) -> float:
    """Of what was measured for a large product, what so many operations a second are."""
    return round(operations / told["ceiling"]["bfloat16 TFLOP/s"] / 1e12, 3)


def planned_gb(plan: Plan, one: Cell, model: torch.nn.Module, rows: list[Row]) -> float:
    """What a plan expects tensors to take, of rows as long as these."""
    recipe, shape = plan.study.recipe(one.model.recipe), shape_of(plan, model)
    batch = plan.study.tuning_of(one.model.recipe).batch_size
    longest = max(len(row.ids) for row in rows)
    expected = memory.Training("", shape, costs.trained(recipe, shape), batch, longest)
    return expected.bytes(batch, "bfloat16", "cuda") / 1e9


def shape_of(plan: Plan, model: torch.nn.Module) -> Architecture:
    """The plan's, with as many layers as the model has."""
    layers = model.config.num_hidden_layers
    return costs.architecture(plan).model_copy(update={"layers": layers})


def timed_once(work: Callable, *given: object) -> tuple[object, float]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    found = work(*given)
    torch.cuda.synchronize()
    return found, time.perf_counter() - start


def ours(model, rows, settings) -> list[float]:
    return [step.loss for step in training.train(model, rows, settings, 0)]


if __name__ == "__main__":
    main(sys.argv[1:])
