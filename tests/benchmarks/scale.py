"""What the caller of a large study costs: thousands of cells of made-up work (10 ms, and a record
of a row a probe) over eight worker processes.

Said for each number of cells: overhead a cell (seconds on the clock over cells, less the work
itself), seconds of `pretune status` afterwards in a process of its own, and the caller's largest
memory. Each is a process of its own, in outputs of its own. `python -m benchmarks.scale` writes
`outputs/reference/scale.json`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pretune import records
from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Cell
from pretune.report.open import open_plan
from pretune.run import queue, work
from pretune.sources import datasets
from pretune.study.config import Study
from pretune.study.load import load_study

SEEDS = (50, 250, 1000)  # of four recipes at five checkpoints
WORKERS, WORK = 8, 0.01  # seconds of a cell
FILE = Path(__file__).resolve().parents[2] / "outputs" / "reference" / "scale.json"
RECIPES = "recipes={base: {}, xsum: {dataset: xsum}, mnli: {dataset: mnli}, "
RECIPES += "paws: {dataset: paws}, arc_easy: {dataset: arc_easy}}"


def made_up(study: Study, cell: Cell) -> dict:
    """In the place of `work.run_cell`."""
    time.sleep(WORK)
    tables: dict[str, list] = {}
    for probe in cell.probes:
        tables.setdefault(probe.measured_by.name, []).append({"probe": probe.key})
    records.write_record(records.record_folder(study, cell.model), tables, [], {"key": ""})
    return {"seconds": {}, "tokens": {}, "process": os.getpid(), "memory_gb": 0.0}


def run(seeds: int) -> None:
    """Measure all cells of a study of so many seeds, and print what that took."""
    words = (f"tuning.seeds={seeds}", RECIPES, "findings=[02_latent_benefits]")
    start = time.perf_counter()
    plan = open_plan(load_study("smoke", words))
    planned = time.perf_counter() - start
    work.run_cell, datasets.are_ready = made_up, lambda _: True
    Checkpoint.exists = lambda point: True
    start = time.perf_counter()
    outcome = queue.measure(plan, WORKERS)
    took = time.perf_counter() - start
    assert not outcome.failed
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    print(json.dumps({"cells": len(plan.cells), "plan": planned, "run": took, "kb": int(peak)}))


def point(seeds: int) -> dict:
    """Of a study of so many seeds."""
    with tempfile.TemporaryDirectory() as outputs:
        environment = os.environ | {"PRETUNE_OUTPUTS": outputs}
        python = {"check": True, "env": environment, "capture_output": True, "text": True}
        told = subprocess.run([sys.executable, "-m", "benchmarks.scale", str(seeds)], **python)
        found = json.loads(told.stdout.splitlines()[-1])
        words = [sys.executable, "-m", "pretune.cli", "status", "smoke", "--json"]
        for change in (f"tuning.seeds={seeds}", RECIPES, "findings=[02_latent_benefits]"):
            words += ["--set", change]
        start = time.perf_counter()
        state = json.loads(subprocess.run(words, **python).stdout)
        status = time.perf_counter() - start
    assert state["cells"]["done"] == found["cells"], state["cells"]
    return {
        "cells": found["cells"],
        "overhead_ms_a_cell": round(1000 * (found["run"] / found["cells"] - WORK / WORKERS), 2),
        "plan_s": round(found["plan"], 2),
        "status_s": round(status, 2),
        "peak_memory_mb": round(found["kb"] / 1e3),
    }


def main() -> None:
    found = []
    for seeds in SEEDS:
        found.append(point(seeds))
        print(found[-1], flush=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    run(int(sys.argv[1])) if len(sys.argv) > 1 else main()
