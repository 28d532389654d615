"""The only place that knows folders. All are absolute and do not depend on the working directory.

`PRETUNE_OUTPUTS` moves everything that is written; nothing is written anywhere else.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
OUTPUTS = Path(os.environ.get("PRETUNE_OUTPUTS", ROOT / "outputs")).resolve()
REFERENCE = ROOT / "outputs" / "reference"  # committed: what was executed for others to read
# pre-trained checkpoints, microworld datasets, tuned weights: shared by all studies
CACHE = OUTPUTS / "cache"
# studies whose verdicts stand beside those of any other
BESIDE = ("microworld", "published", "control")


def study_folder(name: str) -> Path:
    """Where everything measured and shown of one study lies."""
    return OUTPUTS / name
