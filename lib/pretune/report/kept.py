"""What is kept of finished studies, under `outputs/reference`: which there are, and what each says
of the claims it asked.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pretune import paths
from pretune.analysis.statistics import Estimate
from pretune.study.config import Study
from pretune.study.load import load_study

# the order in which they are told; then by name
FIRST = (
    "microworld",
    "quick",
    "control",
    "published",
    "gpu",
    "dynamics",
    "shift",
    "data",
    "knowledge",
    "methods",
)
CONTROL = "control"  # whose model was pre-trained on another world than the datasets are of


def studies() -> list[Study]:
    """The studies that are kept, the main ones first."""
    there = sorted(path.name for path in paths.REFERENCE.glob("*/"))
    order = {name: place for place, name in enumerate(FIRST)}
    return [
        load_study(name) for name in sorted(there, key=lambda name: order.get(name, len(order)))
    ]


def verdicts(study: str, *folders: Path) -> dict[str, dict]:
    """Claim to what `findings.json` says of it, in the first of `folders` that has one; by
    default those of this machine's run of the study and of the reference.
    """
    for folder in folders or (paths.study_folder(study), paths.REFERENCE / study):
        if (folder / "findings.json").is_file():
            return {
                line["claim"]: line for line in json.loads((folder / "findings.json").read_text())
            }
    return {}


def best() -> dict[str, dict]:
    """Claim to what the kept study says of it that can say most, with its name as `study` and its
    `replicates`: one that asked it, that not provisionally, that is told first. The control never
    can.
    """
    found: dict[str, dict] = {}
    for study in (one for one in studies() if one.name != CONTROL):
        for claim, line in verdicts(study.name, paths.REFERENCE / study.name).items():
            if claim not in found or _weight(line) > _weight(found[claim]):
                found[claim] = line | {"study": study.name, "replicates": study.replicates}
    return dict(sorted(found.items(), key=lambda one: (one[1]["finding"], one[0])))


def _weight(line: dict) -> tuple[bool, bool]:
    return line["verdict"] != "not asked", not line["provisional"]


def effect(line: dict) -> Estimate | None:
    """The effect of a line of `findings.json`; None where the claim was not asked."""
    if line["effect"] is None:
        return None
    low, high = (np.nan if line[end] is None else line[end] for end in ("low", "high"))
    return Estimate(line["effect"], low, high, np.nan, np.nan, line["n"], line["seeds"])
