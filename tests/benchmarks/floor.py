"""The quick study against its floor: the same work at the speed of the bare transformer, one
process, one thread.

Ours: pre-training, then every cell of the last checkpoint, which stands for all five, from
nothing. The floor: the same rows through the bare training loop; for scoring, the tokens that
differ (a prefix tree over all sequences of a call) at the rate of bare forward passes over full
batches; for generation, besides, one bare step with a cache for each eight tokens that were
written, as if eight prompts always went together. Loading, tokenising, choosing rows, writing
records and keeping weights are in ours only. `PRETUNE_OUTPUTS` must name an empty folder:
`python -m benchmarks.floor`. It prints the table and adds it to `bench.json`.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks import setting
from pretune.models import scoring, training, tuned
from pretune.report.open import open_plan
from pretune.run import cell, prepare
from pretune.sources.checkpoints import checkpoints
from pretune.study.load import load_study

FILE = setting.ROOT / "outputs" / "reference" / "bench.json"
# rows and tokens of a bare forward pass; prompts that are generated from together
WIDTH, LENGTH, TOGETHER = 16, 128, 8


def main() -> None:
    torch.set_num_threads(1)
    study = load_study("quick")
    ours, calls = measured(study)
    bare = at_the_floor(study, calls)
    lines = {
        phase: {"ours": round(ours[phase], 1), "floor": round(bare.get(phase, 0.0), 1)}
        for phase in ours
    }
    times = len(checkpoints(study))
    lines["all checkpoints"] = total = {
        name: whole(lines, name, times) for name in ("ours", "floor")
    }
    total["times the floor"] = round(total["ours"] / total["floor"], 2)
    print(json.dumps(lines, indent=1))
    told = json.loads(FILE.read_text())
    FILE.write_text(json.dumps(told | {"quick_study_seconds": lines}, indent=1) + "\n")


def whole(lines: dict[str, dict], name: str, times: int) -> float:
    """Seconds of the study: its pre-training once, the cells of one checkpoint as many `times`
    as there are checkpoints.
    """
    return round(
        sum(
            line[name] * (1 if phase == "pre-training" else times) for phase, line in lines.items()
        ),
        1,
    )


def measured(study) -> tuple[dict[str, float], dict[str, list]]:
    """Seconds of each phase, and what was asked of training and scoring in them."""
    calls, seconds = defaultdict(list), defaultdict(float)
    for module, name in ((training, "train"), (scoring, "log_likelihoods"), (scoring, "generate")):
        remember(module, name, calls)
    start = time.perf_counter()
    prepare.prepare_data(study)
    prepare.prepare_checkpoint(study, checkpoints(study)[-1])
    seconds["pre-training"] = time.perf_counter() - start
    last = open_plan(study).of(only=(checkpoints(study)[-1].name,))
    for one in last.cells:
        for phase, value in cell.run_cell(study, one)[0].items():
            seconds[phase] += value
    return dict(seconds), calls


def remember(module, name: str, calls: dict[str, list]) -> None:
    real = getattr(module, name)

    def kept(model, *given, **named):
        found = real(model, *given, **named)
        calls[name].append((given, found))
        return found

    setattr(module, name, kept)


def at_the_floor(study, calls: dict[str, list]) -> dict[str, float]:
    def fresh():
        return AutoModelForCausalLM.from_pretrained(
            checkpoints(study)[-1].folder, dtype=torch.float32
        )

    loops = (partial(setting.bare, fresh(), given[0], given[1]) for given, _ in calls["train"])
    first, *others = [setting.timed(loop)()[0] for loop in loops]
    read, step = rates(fresh())
    asked = [
        [one.ids for some in given[0] for one in some] for given, _ in calls["log_likelihoods"]
    ]
    asked += [list(map(np.append, given[1], given[3])) for given, _ in calls["generate"]]
    written = sum(one.length for _, found in calls["generate"] for one in found)
    return {
        "pre-training": first,
        "tune": sum(others),
        "score": sum(map(different, asked)) / read + written / TOGETHER * step,
    }


def different(sequences: list[np.ndarray]) -> int:
    """Tokens that must be read: the nodes of the prefix tree of `sequences` without their last
    tokens.
    """
    ordered = sorted(tuple(one[:-1].tolist()) for one in sequences)
    shared = (
        next(
            (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
            min(len(one), len(two)),
        )
        for one, two in zip(ordered, ordered[1:], strict=False)
    )
    return sum(map(len, ordered)) - sum(shared)


@torch.no_grad()
def rates(model) -> tuple[float, float]:
    """Tokens a second of bare forward passes over full batches, and seconds of one step of
    `TOGETHER` prompts with a cache.
    """
    model.eval()
    ids = torch.randint(10, 1000, (WIDTH, LENGTH))
    passes = [timed(lambda: model.base_model(ids)) for _ in range(12)]
    cache = model(ids[:TOGETHER], use_cache=True).past_key_values
    steps = [timed(lambda: model(ids[:TOGETHER, :1], past_key_values=cache)) for _ in range(20)]
    return WIDTH * LENGTH / float(np.median(passes)), float(np.median(steps))


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    assert not tuned.home().exists(), (
        f"{tuned.home()} exists: PRETUNE_OUTPUTS must name an empty folder"
    )
    main()
