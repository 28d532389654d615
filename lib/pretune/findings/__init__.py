"""The findings: one module and one notebook each, found because they bear the same name.

The module of `notebooks/NN_name.py` is `pretune.findings.name`. It holds

- `CLAIMS`: name of a claim to `Claim`, fixed before the data;
- `needs(study, recipe)`: what it looks at after a recipe, or after a variant of one;
- `verdicts(results)`, in the order of `CLAIMS`; `differences(results)` from the reference study;
- `checkpoint_answer(results)`, unless `CHECKPOINTS = "all"` says that there is no page of one;
- `MODELS = "several"` where it can compare the models of a study;
- `OF = "tables"` where it is about released tables only;
- `ASKED = "by name"` where it costs so much that a study must name it.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from pretune import paths

NOTEBOOK = re.compile(r"(?!00)\d\d_(?P<name>\w+)")


def names() -> list[str]:
    """The findings, by the names of their notebooks, in the order of the report."""
    return sorted(
        file.stem for file in paths.NOTEBOOKS.glob("*.ipynb") if NOTEBOOK.match(file.stem)
    )


def find(name: str) -> ModuleType:
    """The module of a finding. Raises KeyError, with the names there are, for any other."""
    if name not in names():
        raise KeyError(f"{name!r} is no finding; allowed: {', '.join(names())}")
    return importlib.import_module(f"pretune.findings.{NOTEBOOK.match(name)['name']}")


def is_of_all(finding: ModuleType) -> bool:
    """Whether it has a page for all checkpoints only."""
    return getattr(finding, "CHECKPOINTS", "each") == "all"


def is_of_tables(finding: ModuleType) -> bool:
    """Whether it is about released tables only."""
    return getattr(finding, "OF", "") == "tables"


def compares_models(finding: ModuleType) -> bool:
    """Whether it may look at a study of several models."""
    return getattr(finding, "MODELS", "one") == "several"


def is_asked_by_name(finding: ModuleType) -> bool:
    """Whether it is of a study only where that names it."""
    return getattr(finding, "ASKED", "") == "by name"
