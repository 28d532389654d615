"""Pre-training from scratch: the shape of the model, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from pretune.recipes.optimisation import Optimisation
from pretune.strict import Frozen, Share


class Architecture(Frozen):
    """An OLMo transformer (weightless layer norms, SwiGLU, rotary positions, tied embeddings)."""

    layers: PositiveInt = 4
    width: PositiveInt = 128
    heads: PositiveInt = 4
    intermediate: PositiveInt = 384  # inner width of the feed-forward blocks
    context: PositiveInt = 512  # tokens
    vocabulary: Annotated[int, Field(ge=300)] = 1024  # entries of the byte-level BPE

    @model_validator(mode="after")
    def _divides(self):
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} must be a multiple of twice the heads ({2 * self.heads})"
            )
        return self

    @property
    def weights(self) -> int:
        """Of a model of that shape, embeddings counted once."""
        block = 4 * self.width**2 + 3 * self.width * self.intermediate
        return self.vocabulary * self.width + self.layers * block


class Pretraining(Optimisation):
    """A run from scratch. Batches are `batch_size` rows of `length` tokens; `epochs` stays 1,
    the text is endless.
    """

    length: PositiveInt = 256  # tokens per row
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    # constant: the share of a checkpoint's steps in which the rate falls to 0, on a branch that
    # ends there while the trunk goes on at its rate
    cooldown: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    epochs: Literal[1] = 1
    max_steps: None = None  # `steps` of the checkpoints say
    architecture: Architecture = Architecture()

    @model_validator(mode="after")
    def _cools_a_trunk(self):
        if self.cooldown and self.schedule != "constant":
            raise ValueError(f"cooldown ({self.cooldown:g}) is of schedule: constant")
        return self

    def cooled(self, step: int) -> int:
        """How many of the steps of a checkpoint are those of its branch: at least one."""
        return max(1, round(self.cooldown * step)) if self.cooldown and step else 0
