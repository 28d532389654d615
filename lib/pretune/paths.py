"""The only place that knows folders. All are absolute.

In a checkout of the repository they lie in it, wherever one is. As an installed package, params and
notebooks are its own, outputs and studies of a user's lie in the folder where one is when it is
first imported. `PRETUNE_OUTPUTS` moves everything that is written; nothing is written anywhere
else.
"""

import os
from pathlib import Path

# in a package these are copies; in a checkout links to what lies at its top
_DATA = Path(__file__).resolve().parent / "_data"
IS_CHECKOUT = (_DATA / "params").is_symlink()
ROOT = _DATA.parents[2] if IS_CHECKOUT else Path.cwd()
PARAMS = ROOT / "params"  # where a user's studies are
PACKAGED = (_DATA / "params").resolve()  # and ours
NOTEBOOKS = (_DATA / "notebooks").resolve()
OUTPUTS = Path(os.environ.get("PRETUNE_OUTPUTS", ROOT / "outputs")).resolve()
REFERENCE = (_DATA / "reference").resolve()  # what was executed for others to read
# pre-trained checkpoints, microworld datasets, tuned weights: shared by all studies
CACHE = OUTPUTS / "cache"
# studies whose verdicts stand beside those of any other
BESIDE = ("microworld", "published", "control")


def study_folder(name: str) -> Path:
    """Where everything measured and shown of one study lies."""
    return OUTPUTS / name
