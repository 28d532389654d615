"""Cells of a model of OLMo-1B's size on a GPU: `python -m benchmarks.gpu`, about two minutes.

Weights are untrained, which time does not depend on; rows and tokenizer are the real ones. Each cell
runs as in a study, after one that does not count. Said are seconds, tokens a second, the share of
what the device multiplies at most (measured first, one large product of matrices in bfloat16), and
the most memory that tensors took, beside what `pretune plan` expects. Then tuning beside the bare
loop of transformers on the same batches, in turn, and with sums in any order in place of a fixed
one. It prints a table and leaves `outputs/reference/gpu/olmo_1b.json`.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("PRETUNE_OUTPUTS", tempfile.mkdtemp(prefix="pretune-gpu-"))

import torch  # noqa: E402
import transformers  # noqa: E402
import yaml  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from benchmarks import setting  # noqa: E402
from pretune import paths  # noqa: E402
from pretune.models import device, gradients, training  # noqa: E402
from pretune.models.device import autocast  # noqa: E402
from pretune.plan import costs  # noqa: E402
from pretune.plan.cells import Cell, Plan  # noqa: E402
from pretune.report.open import open_plan  # noqa: E402
from pretune.run import cell, prepare  # noqa: E402
from pretune.study.load import load_study  # noqa: E402

FILE = setting.ROOT / "outputs" / "reference" / "gpu" / "olmo_1b.json"
STUDY = {
    "title": "A model of OLMo-1B's size",
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
        "mnli": {"dataset": "mnli", "examples": 480},
        "xsum": {"dataset": "xsum", "examples": 240},
        "lora_mnli": {"dataset": "mnli", "examples": 480, "trainable": {"peft_type": "LORA"}},
    },
    "tuning": {"examples": 480, "epochs": 1, "batch_size": 8, "learning_rate": 2.0e-6},
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


def main() -> None:
    told: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    told |= {"transformers": transformers.__version__, "ceiling": ceilings()}
    folder = Path(tempfile.mkdtemp(prefix="olmo-1b-size-"))
    plan, told["parameters"] = planned(folder)
    told["expected_gb"] = {
        "a batch at once": round(costs.memory_gb(plan), 1),
        "a row at a time": round(costs.memory_gb(plan, 1), 1),
    }
    prepare.prepare_data(plan.study)
    last = plan.checkpoints[-1]
    prepare.prepare_checkpoint(plan.study, last)
    cells = {one.model.recipe: one for one in plan.cells if one.model.checkpoint == last}
    run(plan, cells["base"])  # kernels are made and loaded
    paths.study_folder(plan.study.name).rename(folder / "first")
    for name, one in cells.items():
        told[name] = run(plan, one) | {"examples": plan.study.tuning_of(name).examples}
        told[name] |= shares(plan, name, told)
        print(name, json.dumps(told[name]), flush=True)
    told["tuning on MNLI"] = beside_the_bare_loop(plan, cells["mnli"])
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(told, indent=1) + "\n")
    print(FILE.read_text())


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
    seconds = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def planned(folder: Path) -> tuple[Plan, int]:
    """A study of two checkpoints of OLMo-1B's shape, and how many weights they have."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(setting.OLMO))
    for step in (1, 2):  # two that are the same would be refused
        point = folder / "checkpoints" / f"step-{step}"
        model.to(torch.float32).save_pretrained(point)
        AutoTokenizer.from_pretrained(setting.OLMO).save_pretrained(point)
        model.get_input_embeddings().weight.data[0] += 1
    study = copy.deepcopy(STUDY)
    study["checkpoints"]["folder"] = str(folder / "checkpoints")
    (folder / "olmo-1b-size.yaml").write_text(yaml.safe_dump(study))
    plan = open_plan(load_study(str(folder / "olmo-1b-size.yaml")))
    return plan, sum(weight.numel() for weight in model.parameters())


def run(plan: Plan, one: Cell) -> dict:
    """What one cell took, with the wall seconds of all of it."""
    start = time.perf_counter()
    seconds, tokens = cell.run_cell(plan.study, one)
    wall = round(time.perf_counter() - start, 2)
    where = (paths.study_folder(plan.study.name) / "records").glob(f"{one.model.name}.*/*/*.json")
    about = json.loads(next(iter(where)).read_text())
    return {
        "seconds": seconds | {"all": wall},
        "tokens": tokens,
        "passed_over": len(about["passed_over"]),
        "peak_gpu_memory_gb": about["peak_gpu_memory_gb"],
        "peak_memory_gb": about["peak_memory_gb"],
    }


def shares(plan: Plan, name: str, told: dict) -> dict:
    """Tokens a second, and operations a second over what the device can do."""
    found, top, recipe = told[name], told["ceiling"]["bfloat16 TFLOP/s"], plan.study.recipe(name)
    made = {"scored_tokens_per_s": round(found["tokens"]["score"] / found["seconds"]["score"])}
    if found["tokens"]["tune"]:
        rate = found["tokens"]["tune"] / found["seconds"]["tune"]
        used = 2 * recipe.passes * told["parameters"] * rate / 1e12
        made |= {"tuned_tokens_per_s": round(rate), "share_of_ceiling": round(used / top, 3)}
    return made


def beside_the_bare_loop(plan: Plan, one: Cell) -> dict:
    """Seconds of the same optimizer steps: ours, ours with sums in any order, the bare loop."""
    from pretune.models import loading

    network, tokenizer = loading.load_checkpoint(one.model.checkpoint)
    rows, settings = (
        cell._training_rows(plan.study, one.model, 2048, tokenizer).rows,
        plan.study.tuning_of(one.model.recipe),
    )
    rows, weights = rows[:160], {name: w.clone() for name, w in network.state_dict().items()}
    seconds: dict[str, list[float]] = {"ours": [], "sums in any order": [], "bare loop": []}
    losses = {}
    for turn in range(4):
        for which in seconds:
            network.load_state_dict(weights)
            torch.use_deterministic_algorithms(which != "sums in any order")
            torch.cuda.synchronize()
            start = time.perf_counter()
            losses[which] = (bare if which == "bare loop" else ours)(network, rows, settings)
            torch.cuda.synchronize()
            if turn:
                seconds[which].append(time.perf_counter() - start)
    torch.use_deterministic_algorithms(True)
    took = {which: round(median(each), 2) for which, each in seconds.items()}
    apart = max(abs(a - b) for a, b in zip(losses["ours"], losses["bare loop"], strict=True))
    return {
        "steps": len(losses["ours"]),
        "seconds": took,
        "bare over ours": round(took["bare loop"] / took["ours"], 2),
        "any order over ours": round(took["sums in any order"] / took["ours"], 2),
        "losses apart": round(apart, 4),
    }


def ours(model, rows, settings) -> list[float]:
    return [step.loss for step in training.train(model, rows, settings, 0)]


def bare(model, rows, settings) -> list[float]:
    """The loop that a user would write: padded batches, the model's own loss, autocast."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0, fused=True
    )
    order, losses = training.batch_order(len(rows), settings, 0), []
    model.train()
    for number, batch in enumerate(order):
        ids, counted, attention = gradients.collate([rows[i] for i in batch], "cuda")
        with autocast(settings.precision, torch.device("cuda")):
            labels = torch.where(counted, ids, -100)
            loss = model(ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * training.rate_share(number, len(order), settings)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


if __name__ == "__main__":
    device.pick_device()
    main()
