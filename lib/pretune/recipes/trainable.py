"""Which weights a recipe trains, as YAML may say it: all, those whose names match, or some that are
added to the model.

What is added is called by peft's own names, and `BOTTLENECK`, which peft does not have. How it is
put into a model: `models.adapters`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag

from pretune.recipes.pretrain import Architecture
from pretune.strict import Frozen


class Added(Frozen, ABC):
    """Weights beside those of the model, which stay as they are."""

    # whether it is merged into the model's weights after tuning, or stays beside them
    merges: ClassVar[bool]

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called."""

    @abstractmethod
    def weights(self, shape: Architecture) -> int:
        """Trained weights in a model of that shape."""

    def determining(self) -> dict[str, object]:
        """What determines what is trained, for keys."""
        return self.model_dump()


class Lora(Added):
    """Low-rank adapters on every linear layer (Hu et al., arXiv 2106.09685), merged into the
    weights after tuning.
    """

    merges = True
    peft_type: Literal["LORA"] = "LORA"
    r: PositiveInt = 8  # rank
    lora_alpha: PositiveFloat = 16.0  # what is added is scaled by lora_alpha / r
    use_rslora: bool = False  # by lora_alpha / sqrt(r) (Kalajdzievski, arXiv 2312.03732)
    use_dora: bool = False  # size and direction apart (Liu et al., arXiv 2402.09353)

    @property
    def title(self) -> str:
        kind = "DoRA" if self.use_dora else "rsLoRA" if self.use_rslora else "LoRA"
        return f"{kind}, rank {self.r}"

    def weights(self, shape: Architecture) -> int:
        attention, inner = 4 * 2 * shape.width, 3 * (shape.width + shape.intermediate)
        sizes = self.use_dora * (4 * shape.width + 2 * shape.intermediate + shape.width)
        return shape.layers * (self.r * (attention + inner) + sizes)

    def determining(self) -> dict[str, object]:
        """A choice that was not there once counts where it is taken."""
        usual = {name for name in ("use_rslora", "use_dora") if not getattr(self, name)}
        return self.model_dump(exclude=usual)


class Ia3(Added):
    """A factor for every key, value and inner activation (Liu et al., arXiv 2205.05638), merged
    into the weights after tuning.
    """

    merges = True
    peft_type: Literal["IA3"]
    # names of linear layers whose output is scaled, or input where they are also among the second
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "k_proj",
        "v_proj",
        "down_proj",
    )
    feedforward_modules: tuple[str, ...] = ("down_proj",)

    @property
    def title(self) -> str:
        return "(IA)3"

    def weights(self, shape: Architecture) -> int:
        return shape.layers * (2 * shape.width + shape.intermediate)


class Bottleneck(Added):
    """Two small linear layers after attention and after the layer's inner part (Houlsby et al.,
    arXiv 1902.00751), which stay in the model.
    """

    merges = False
    peft_type: Literal["BOTTLENECK"]
    size: PositiveInt = 16  # between the two

    @property
    def title(self) -> str:
        return f"bottlenecks of {self.size}"

    def weights(self, shape: Architecture) -> int:
        return shape.layers * 2 * (2 * shape.width * self.size + shape.width + self.size)


class Virtual(Added):
    """Tokens that are none, before all others, and stay there."""

    merges = False
    num_virtual_tokens: PositiveInt = 20


class Prefix(Virtual):
    """Keys and values of tokens that are none, before all others in every layer (Li & Liang, arXiv
    2101.00190), without the network that computes them there.
    """

    peft_type: Literal["PREFIX_TUNING"]

    @property
    def title(self) -> str:
        return f"prefix of {self.num_virtual_tokens}"

    def weights(self, shape: Architecture) -> int:
        return self.num_virtual_tokens * shape.layers * 2 * shape.width


class Prompt(Virtual):
    """Embeddings of tokens that are none, before all others (Lester et al., arXiv 2104.08691)."""

    peft_type: Literal["PROMPT_TUNING"]

    @property
    def title(self) -> str:
        return f"prompt of {self.num_virtual_tokens}"

    def weights(self, shape: Architecture) -> int:
        return self.num_virtual_tokens * shape.width


NAMES = ("LORA", "IA3", "BOTTLENECK", "PREFIX_TUNING", "PROMPT_TUNING")


def _said(value: object) -> str:
    """The tag of what stands at `trainable`."""
    if isinstance(value, dict):
        return str(value.get("peft_type"))
    return getattr(value, "peft_type", "names")


Trainable = (
    Annotated[
        Annotated[str, Field(min_length=1), Tag("names")]  # a pattern that names of weights match
        | Annotated[Lora, Tag("LORA")]
        | Annotated[Ia3, Tag("IA3")]
        | Annotated[Bottleneck, Tag("BOTTLENECK")]
        | Annotated[Prefix, Tag("PREFIX_TUNING")]
        | Annotated[Prompt, Tag("PROMPT_TUNING")],
        Discriminator(
            _said,
            custom_error_type="trainable",
            custom_error_message="a pattern of names of weights, or {peft_type: NAME, ...} with "
            f"one of {', '.join(NAMES)}",
        ),
    ]
    | None
)
