"""What can be done to a checkpoint: one module a kind of recipe, found by its `KIND`.

This room lies below the study, which is composed of what each kind allows.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import reduce
from operator import or_
from typing import Annotated

from pydantic import Discriminator, Tag

from pretune.recipes.base import Recipe, Untouched


def kinds() -> dict[str, type[Recipe]]:
    """The kinds of recipes by `method`, as their modules define them."""
    found = {}
    for one in pkgutil.iter_modules(__path__):
        kind = getattr(importlib.import_module(f"{__name__}.{one.name}"), "KIND", None)
        if kind is not None:
            found[kind.model_fields["method"].default] = kind
    return {"none": Untouched, **found}


def _method(value: object) -> str:
    """The kind that what stands in a params file is of: tuning, unless it says or holds nothing."""
    if isinstance(value, dict):
        return str(value.get("method", "sft" if value else "none"))
    return getattr(value, "method", "none")


KINDS = kinds()
# any of them, as a type for pydantic
AnyRecipe = Annotated[
    reduce(or_, (Annotated[kind, Tag(method)] for method, kind in KINDS.items())),
    Discriminator(
        _method,
        custom_error_type="method",
        custom_error_message=f"allowed methods: {', '.join(KINDS)}",
    ),
]
__all__ = ["AnyRecipe", "Recipe", "kinds"]
