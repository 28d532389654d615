"""How weights are moved: optimizer, batches, schedule; and what every recipe takes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from pretune.strict import Decay, Frozen, Rate, Share


class Optimisation(Frozen):
    """Steps on batches of rows."""

    # muon: for the matrices inside, and AdamW for embedding, head and vectors
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate  # peak
    epochs: PositiveInt = 1
    # optimizer steps in all, in as many epochs as that takes; null: `epochs` decide
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt  # rows per optimizer step
    schedule: Literal["linear", "cosine"] = "linear"  # to 0, or to a tenth of the peak
    warmup: Share = 0.03  # share of all steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    # Of the means of gradients and of their squares. The usual .999 of the second is a memory of a
    # thousand steps, which is more than most recipes here take and longer than any warm-up; .95 (of
    # twenty) is what pre-training of such models uses.
    betas: tuple[Decay, Decay] = (0.9, 0.95)
    clip: PositiveFloat | None = 1.0  # largest gradient norm; null for none
    # auto: bfloat16 autocast where the hardware has it
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def steps_on(self, rows: int) -> int:
        """Optimizer steps of a training on so many rows."""
        return self.max_steps or self.epochs * -(-rows // self.batch_size)

    def determining(self) -> dict[str, object]:
        """What determines the weights that come out, for keys. A setting that was fixed once
        counts where it is changed, so that what was made before it was a setting keeps its key.
        """
        fixed = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if name in ("optimizer", "betas", "max_length", "cooldown", "max_steps")
        }
        return {
            name: value
            for name, value in self.model_dump(exclude={"seeds", "steps", "sharding"}).items()
            if name not in fixed or value != fixed[name]
        }


class Tuning(Optimisation):
    """What every recipe does unless it says otherwise."""

    seeds: PositiveInt = 1  # each with its own training subset, order and shot draw
    # of checkpoints that are tuned; null: all
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None
    examples: PositiveInt  # training rows drawn from the train split
    # tokens of the longest row that is tuned on; null: what the context holds
    max_length: PositiveInt | None = None
    warmup: Share = 0.03
    # fsdp: all GPUs that a worker is given train one model, each holding a part of every weight;
    # auto: so, where it is given several, as on one machine where a row of some model fits none
    sharding: Literal["auto", "none", "fsdp"] = "auto"
