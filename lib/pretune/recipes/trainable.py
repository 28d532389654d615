"""Which weights a recipe trains, as YAML may say it: all, those whose names match, or adapters.

Adapters are called by peft's own names. How they are put into a model: `models.adapters`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from pretune.recipes.pretrain import Architecture
from pretune.strict import Frozen


class Lora(Frozen):
    """Low-rank adapters on every linear layer (Hu et al., arXiv 2106.09685), merged into the
    weights after tuning.
    """

    peft_type: Literal["LORA"] = "LORA"
    r: PositiveInt = 8  # rank
    lora_alpha: PositiveFloat = 16.0  # what is added is scaled by lora_alpha / r

    def weights(self, shape: Architecture) -> int:
        """Trained weights in a model of that shape."""
        attention, inner = 4 * 2 * shape.width, 3 * (shape.width + shape.intermediate)
        return self.r * shape.layers * (attention + inner)


def _said(value: object) -> str:
    """The tag of what stands at `trainable`."""
    if isinstance(value, dict):
        return str(value.get("peft_type"))
    return getattr(value, "peft_type", "names")


Trainable = (
    Annotated[
        Annotated[str, Field(min_length=1), Tag("names")]  # a pattern that names of weights match
        | Annotated[Lora, Tag("LORA")],
        Discriminator(
            _said,
            custom_error_type="trainable",
            custom_error_message="a pattern of names of weights or {peft_type: LORA, ...}",
        ),
    ]
    | None
)
