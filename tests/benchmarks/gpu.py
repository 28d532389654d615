"""Cells of a model of OLMo's size on a GPU: `python -m benchmarks.gpu`, minutes; words name a shape
(`1B`, `7B`; left out: 1B) and measures (left out: all).

Weights are untrained, which time does not depend on; rows and tokenizer are the real ones. `cell`
is a whole one, from its files to its record. `mnli`, `xsum` and `lora_mnli` are optimizer steps
alone, on short rows, on long ones and of adapters, beside the bare loop of transformers on the same
batches, in turn, and with sums in any order in place of a fixed one. Said are tokens a second, the
share of what the device multiplies at most (measured first, a large product of matrices in
bfloat16), and the most memory that tensors took, beside what a plan expects. It leaves
`outputs/reference/gpu/olmo_SHAPE.json`.
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

from benchmarks import setting  # noqa: E402
from pretune import paths  # noqa: E402
from pretune.models import adapters, device, training  # noqa: E402
from pretune.plan import costs, memory  # noqa: E402
from pretune.plan.cells import Cell, Plan  # noqa: E402
from pretune.report.open import open_plan  # noqa: E402
from pretune.run import cell, prepare  # noqa: E402
from pretune.study.load import load_study  # noqa: E402
from pretune.tasks.prompts import Row  # noqa: E402

FOLDER = setting.ROOT / "outputs" / "reference" / "gpu"
# layers, width, heads, inner width, whether the head is the embedding
SHAPES = {"1B": (16, 2048, 16, 8192, True), "7B": (32, 4096, 32, 11008, False)}
MEASURES = ["cell", "mnli", "xsum", "lora_mnli"]
TURNS = 2  # beside one that does not count
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
    told: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    told |= {"transformers": transformers.__version__, "ceiling": ceilings()}
    folder = Path(tempfile.mkdtemp(prefix="olmo-size-"))
    measures = [word for word in words if word in MEASURES] or MEASURES
    # of steps alone the study's own checkpoints are not used
    plan = planned(folder, shape, 0 if "cell" in measures else 1)
    prepare.prepare_data(plan.study)
    last = plan.checkpoints[-1]
    cells = {one.model.recipe: one for one in plan.cells if one.model.checkpoint == last}
    if "cell" in measures:
        prepare.prepare_checkpoint(plan.study, last)
        kept(shape, told, "cell (XSum)", run(plan, cells["xsum"], told))
    model = untrained(shape)
    told["parameters"] = sum(weight.numel() for weight in model.parameters())
    for name in measures:
        if name != "cell":
            kept(shape, told, f"steps ({name})", steps(plan, cells[name], model, told))


def kept(shape: str, told: dict, name: str, found: dict) -> None:
    """Add what was found, and write all that was so far."""
    told[name] = found
    print(name, found, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"olmo_{shape.lower()}.json").write_text(json.dumps(told, indent=1) + "\n")


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


def untrained(shape: str, layers: int = 0) -> torch.nn.Module:
    """A model of a shape, or of so many of its layers."""
    torch.manual_seed(layers)
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
    recipe, layers = plan.study.recipe(one.model.recipe), model.config.num_hidden_layers
    shape = costs.architecture(plan).model_copy(update={"layers": layers})
    batch = plan.study.tuning_of(one.model.recipe).batch_size
    longest = max(len(row.ids) for row in rows)
    expected = memory.Training("", shape, costs.trained(recipe, shape), batch, longest)
    return expected.bytes(batch, "bfloat16", "cuda") / 1e9


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
