"""Every benchmark in turn, one table, and `outputs/reference/bench.json`: `make bench`, about an
hour on two cores.

Torch computes with one thread, as each process of a study does.
"""

from __future__ import annotations

import json
import logging
import platform
import sys
from importlib.metadata import version
from statistics import median

import torch

from benchmarks import (
    divergence,
    executors,
    generation,
    learned,
    preferences,
    retrieval,
    scoring,
    setting,
    tasks,
    tuning,
)
from benchmarks.setting import Result

FILE = setting.ROOT / "outputs" / "reference" / "bench.json"
PACKAGES = ("torch", "transformers", "lm_eval", "trl", "peft", "bm25s", "rank_bm25", "joblib")
MEASURES = {
    "scoring": scoring.run,
    "tasks": tasks.run,
    "generation": generation.run,
    "divergence": divergence.run,
    "tuning": tuning.run,
    "preferences": preferences.run,
    "prefix": learned.run,
    "retrieval": retrieval.run,
    "executors": executors.run,
    "pretraining": tuning.pretraining,
    "memory": tuning.memory,
}


def main(words: list[str]) -> None:
    """The models (`1 M`, `30 M`) and measures named, or all. Each result is written down as soon
    as it is there.
    """
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    results: list[Result] = []
    for name in [word for word in words if word in setting.SHAPES] or list(setting.SHAPES):
        for measure in [word for word in words if word in MEASURES] or list(MEASURES):
            found = MEASURES[measure](name)
            write(found)
            results += found
            print(table(found), flush=True)
    print(table(results))


def write(results: list[Result]) -> None:
    """Put results in the place of earlier ones of the same thing."""
    kept = json.loads(FILE.read_text()) if FILE.is_file() else {}
    lines = {(one["what"], one["model"], one["peer"]): one for one in kept.get("results", [])}
    lines |= {
        (one.what, one.model, one.peer): {
            "what": one.what,
            "model": one.model,
            "peer": one.peer,
            "ratio": round(one.ratio, 2),
            "to_reach": round(one.to_reach, 2),
            "ours_median": round(median(one.ours_s), 3),
            "peer_median": round(median(one.peer_s), 3),
            "runs": len(one.ours_s),
            "same": one.same,
            **one.notes,
        }
        for one in results
    }
    about = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    FILE.write_text(
        json.dumps(
            kept | {"versions": about, "threads": 1, "results": list(lines.values())}, indent=1
        )
        + "\n"
    )


def table(results: list[Result]) -> str:
    lines = [
        f"{'what':<28} {'model':<6} {'peer':<24} {'ratio':>6} {'reach':>6} {'ours':>8} "
        f"{'peer':>8}  same"
    ]
    lines += [
        f"{one.what:<28} {one.model:<6} {one.peer:<24} {one.ratio:>6.2f} {one.to_reach:>6.2f} "
        f"{median(one.ours_s):>8.2f} {median(one.peer_s):>8.2f}  {one.same}"
        for one in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
