"""Wall time and peak memory of scoring against items, shots, choices and size of the model, and of
a study against checkpoints.

Each point is a process of its own. The slope of the logarithms says how a cost grows: 1 is
linear. What does not grow (loading the library, the model) is taken off the time by measuring
the work alone, and off the memory by the smallest point. `python -m benchmarks.scaling` writes
`outputs/reference/scaling.json` and `scaling.svg`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks import setting
from pretune.analysis import theme
from pretune.models import scoring

POINTS = {
    "items": (8, 16, 32, 64),
    "shots": (1, 2, 4, 8),
    "choices": (1, 2, 4, 8),
    "layers": (4, 8, 16, 32),
    "checkpoints": (1, 2, 4),
}
USUAL = {"items": 16, "shots": 4, "choices": 4, "layers": 4}
STEPS = ("step-20", "step-36", "step-38", "step-40")
FILE = setting.ROOT / "outputs" / "reference" / "scaling"


def point(axis: str, size: int) -> tuple[float, float]:
    """Seconds of the work and the largest memory in GB, of a process that does nothing else."""
    if axis == "checkpoints":
        return study(size)
    command = [sys.executable, "-m", "benchmarks.scaling", axis, str(size)]
    seconds, memory = subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()[-2:]
    return float(seconds), float(memory)


def score(**changes: int) -> None:
    """Score HellaSwag rows with the sizes of `USUAL` but `changes`, and print seconds and
    memory.
    """
    torch.set_num_threads(1)
    size = USUAL | changes
    setting.SHAPES["this"] = (size["layers"], 128, 4, 384)
    tokenizer, model = setting.tokenizer(), setting.model("this")
    prefix, items = setting.items("hellaswag", size["items"], size["shots"])
    asked = [(one * 2)[: size["choices"]] for one in setting.requests(tokenizer, prefix, items)]
    work = setting.timed(lambda: scoring.log_likelihoods(model, asked))
    seconds = np.median([work()[0] for _ in range(7)][1:])
    print(
        seconds, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6
    )


def study(checkpoints: int) -> tuple[float, float]:
    """The cells of some checkpoints of the smoke study, one process, their pre-training done
    before.
    """
    with tempfile.TemporaryDirectory() as outputs:
        run = [sys.executable, "-m", "pretune.cli", "run", "smoke", "--no-notebooks", "--jobs", "1"]
        environment = os.environ | {"PRETUNE_OUTPUTS": outputs}
        subprocess.run([*run, "--only", "step-0"], check=True, env=environment, capture_output=True)
        subprocess.run(
            [*run, "--only", *STEPS[:checkpoints]], check=True, env=environment, capture_output=True
        )
        about = json.loads((Path(outputs) / "smoke" / "run.json").read_text())
    return sum(about["process_seconds"].values()), max(about["peak_memory_gb"])


def slope(sizes, costs) -> float:
    """Of log cost against log size: 1 where the cost is in proportion."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main() -> None:
    found = {}
    for axis, sizes in POINTS.items():
        seconds, memory = zip(*(point(axis, size) for size in sizes), strict=True)
        found[axis] = {
            "sizes": sizes,
            "seconds": np.round(seconds, 3).tolist(),
            "memory_gb": np.round(memory, 3).tolist(),
            "slope_of_time": round(slope(sizes, seconds), 2),
            "slope_of_memory": round(slope(sizes, memory), 2),
        }
        print(axis, found[axis], flush=True)
        assert found[axis]["slope_of_time"] < 1.1 and found[axis]["slope_of_memory"] < 1.1, (
            f"{axis}: more than linear"
        )
    FILE.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found)


def draw(found: dict) -> None:
    theme.use_theme()
    figure, axes = plt.subplots(2, len(found), figsize=(11, 4.6), sharex="col")
    for column, (axis, line) in enumerate(found.items()):
        for row, (cost, label) in enumerate(
            (("seconds", "seconds"), ("memory_gb", "peak memory, GB"))
        ):
            panel, costs, sizes = axes[row, column], np.array(line[cost]), np.array(line["sizes"])
            panel.plot(sizes, costs, "o-", color=theme.PALETTE[0], label="measured")
            panel.plot(sizes, costs[0] * sizes / sizes[0], "--", color="0.5", label="in proportion")
            panel.set(xscale="log", yscale="log")
            panel.set_xticks(line["sizes"], [str(size) for size in line["sizes"]])
            panel.minorticks_off()
            panel.set_title(
                f"slope {line['slope_of_time' if cost == 'seconds' else 'slope_of_memory']:.2f}",
                fontsize="small",
            )
            if not column:
                panel.set_ylabel(label)
        axes[1, column].set_xlabel(axis)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize="small",
    )
    figure.suptitle("Time and memory grow no faster than what is asked for", x=0.01, ha="left")
    figure.savefig(FILE.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    score(**{sys.argv[1]: int(sys.argv[2])}) if len(sys.argv) > 2 else main()
