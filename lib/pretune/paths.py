"""The only place that knows folders. All are absolute.

In a checkout of the repository they lie in it, wherever one is. As an installed package, params and
notebooks are its own, outputs and studies of a user's lie in the folder where one is when it is
first imported. `PRETUNE_OUTPUTS` moves everything that is written; nothing is written anywhere
else.
"""

import os
from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent
IS_CHECKOUT = _LIBRARY.parent.name == "lib" and (_LIBRARY.parents[1] / "notebooks").is_dir()
ROOT = _LIBRARY.parents[1] if IS_CHECKOUT else Path.cwd()
_TOP = {"params": "params", "notebooks": "notebooks", "reference": "outputs/reference"}


def _of_ours(name: str) -> Path:
    """Where it lies at the top of a checkout, to which `_data` links; of a package its copy."""
    return ROOT / _TOP[name] if IS_CHECKOUT else _LIBRARY / "_data" / name


PARAMS = ROOT / "params"  # where a user's studies are
PACKAGED = _of_ours("params")  # and ours
NOTEBOOKS = _of_ours("notebooks")
OUTPUTS = Path(os.environ.get("PRETUNE_OUTPUTS", ROOT / "outputs")).resolve()
REFERENCE = _of_ours("reference")  # what was executed for others to read
# pre-trained checkpoints, microworld datasets, tuned weights: shared by all studies
CACHE = OUTPUTS / "cache"
# studies whose verdicts stand beside those of any other
BESIDE = ("microworld", "published", "control")


def write_to(outputs: Path) -> None:
    """Write there from now on, as the process that began this one does."""
    global OUTPUTS, CACHE
    OUTPUTS, CACHE = outputs, outputs / "cache"


def study_folder(name: str) -> Path:
    """Where everything measured and shown of one study lies."""
    return OUTPUTS / name
