"""The shape of a study: what a file under `params/` may say, checked, frozen, and printed as
resolved.

- A file is YAML, read strictly (module `strict`): whatever is not a study is refused in one line
  that names the file, the key, the value and what is allowed.
- This module knows no dataset and no checkpoint; `plan.check` holds a study against those.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pretune.errors import StudyError
from pretune.strict import Frozen

Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Optimisation(Frozen):
    """AdamW on batches of rows."""

    learning_rate: Rate  # peak
    epochs: PositiveInt = 1
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

    def determining(self) -> dict[str, object]:
        """What determines the weights that come out, for keys. A setting that was fixed once
        counts where it is changed, so that what was made before it was a setting keeps its key.
        """
        fixed = {
            name: field.default
            for name, field in type(self).model_fields.items()
            if name in ("betas", "max_length")
        }
        return {
            name: value
            for name, value in self.model_dump(exclude={"seeds"}).items()
            if name not in fixed or value != fixed[name]
        }


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


class World(Frozen):
    """Which microworld, and how large."""

    seed: NonNegativeInt
    people: Annotated[int, Field(ge=8, le=400)] = 80
    towns: Annotated[int, Field(ge=8, le=47)] = 40
    countries: Annotated[int, Field(ge=4, le=16)] = 8
    side: Literal[0, 1] = 0  # worlds of two sides share no name, no fact and no rule


class Pretraining(Optimisation):
    """A run from scratch. Batches are `batch_size` rows of `length` tokens; `epochs` stays 1,
    the text is endless.
    """

    run: NonNegativeInt = 0  # seed of initialisation and of the order of text
    length: PositiveInt = 256  # tokens per row
    schedule: Literal["linear", "cosine"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    epochs: Literal[1] = 1
    architecture: Architecture = Architecture()


class Points(Frozen):
    """Points of a pre-training run."""

    # optimizer steps; the last ends the run
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2)]
    # the last so many are neighbours: "late" is their mean, their spread the noise floor
    late: PositiveInt = 3

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps):
        if list(steps) != sorted(set(steps)):
            raise ValueError("steps must rise")
        return steps

    @model_validator(mode="after")
    def _leaves_an_early_one(self):
        if self.late >= len(self.steps):
            raise ValueError(
                f"late ({self.late}) must leave at least one of the {len(self.steps)} steps "
                "before it"
            )
        return self


class Saved(Points):
    """Points of a run that is made here."""

    pretraining: Pretraining

    @property
    def tokens(self) -> int:
        """Tokens that the whole run reads."""
        return self.steps[-1] * self.pretraining.batch_size * self.pretraining.length


class Microworld(Saved):
    """Checkpoints of a run on the text of a generated world."""

    source: Literal["microworld"]
    world: World


class Corpus(Saved):
    """Checkpoints of a run on a folder of text: *.jsonl, *.jsonl.xz (one object with `text` a
    line) or *.txt.
    """

    source: Literal["corpus"]
    folder: str


class Found(Frozen):
    """Checkpoints that exist, found by the steps in their names."""

    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=2)] | Literal["all"] | None = None
    # in place of steps: so many, both ends and the late ones among them
    count: Annotated[int, Field(ge=2)] | None = None
    # of those before the late ones, over the steps that exist
    spacing: Literal["log", "linear"] = "log"
    stage: str | None = None  # left out: the first, or the only one
    late: PositiveInt = 3
    tokens_per_step: PositiveInt | None = None  # left out: tokens are read from the names

    @model_validator(mode="after")
    def _says_which(self):
        if (self.steps is None) == (self.count is None):
            raise ValueError("either steps (a list, or all) or count must be given")
        return self


class Hub(Found):
    """Checkpoints on the Hugging Face Hub: branches of a repository, or one repository each."""

    source: Literal["hub"]
    # {run} in it stands for each of `runs`
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.{}-]+$")] | None = None
    # in place of repo: one for each checkpoint
    repos: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    # take *.bin where there are no *.safetensors: loaded as weights only, and said
    allow_pickle_weights: bool = False
    # pre-training runs: in the name of the repository, or in those of its branches
    runs: tuple[str, ...] = ("",)

    @model_validator(mode="after")
    def _says_where(self):
        if (self.repo is None) == (self.repos is None):
            raise ValueError("either repo or repos must be given")
        if len(set(self.runs)) != len(self.runs) or not self.runs:
            raise ValueError("runs must differ")
        return self


class Local(Found):
    """Checkpoints in a folder of this machine: FOLDER/<name of a branch>, each as `transformers`
    saves a model.
    """

    source: Literal["folder"]
    folder: str


class Released(Points):
    """No checkpoints but released scores of some: the tables of the reference study (module
    `published`).
    """

    source: Literal["tables"]


class MicroworldData(Frozen):
    """Datasets of a generated world under their real names and columns."""

    source: Literal["microworld"]
    world: World


class FolderData(Frozen):
    """Datasets as JSON-Lines with the Hub's columns: FOLDER/<dataset>/<split>.jsonl."""

    source: Literal["folder"]
    folder: str
    # <dataset>/<split> to another file of the folder, or lines a to b of it: mnli/train[a:b]
    stand_ins: dict[str, str] = {}


class HubData(Frozen):
    """Datasets of the Hugging Face Hub, as the Hub's own conversion to parquet holds them."""

    source: Literal["hub"]
    # dataset to commit of its parquet branch; left out: the newest when first asked, then kept
    commits: dict[Name, str] = {}


class ReleasedData(Frozen):
    """No datasets: scores on them were released."""

    source: Literal["tables"]


class Tuning(Optimisation):
    """What every recipe does unless it says otherwise."""

    seeds: PositiveInt = 1  # each with its own training subset, order and shot draw
    examples: PositiveInt  # training rows drawn from the train split
    # tokens of the longest row that is tuned on; null: what the context holds
    max_length: PositiveInt | None = None
    warmup: Share = 0.03


class Lora(Frozen):
    """Low-rank adapters on every linear layer (Hu et al., arXiv 2106.09685), merged into the
    weights after tuning.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0


class Grid(Frozen):
    """Values that a recipe is tuned with, one axis at a time. Along the first, rates are chosen."""

    learning_rate: Annotated[tuple[Rate, ...], Field(min_length=2)] | None = None
    examples: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _has_an_axis(self):
        if not any(getattr(self, axis) for axis in Grid.model_fields):
            raise ValueError(f"a grid needs values of {' or '.join(Grid.model_fields)}")
        return self


class Recipe(Frozen):
    """What is done to a checkpoint: nothing, or tuning on one dataset. What is null is taken
    from `tuning`.
    """

    dataset: Name | None = None
    lora: Lora | None = None  # null: all weights are tuned
    grid: Grid | None = None  # its own, in place of the study's
    examples: PositiveInt | None = None
    learning_rate: Rate | None = None
    epochs: PositiveInt | None = None
    batch_size: PositiveInt | None = None


class StudyGrid(Grid):
    """The grid of all recipes. `pretune run STUDY --sweep` runs its rates and shows the table."""

    # at these checkpoints: early, middle, late
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]


class Variant(NamedTuple):
    """A recipe with another value of its grid along one axis; without an axis, the recipe."""

    recipe: str
    axis: str = ""
    value: float = 0.0

    @property
    def name(self) -> str:
        """What it is called in rows and records: `mnli@0.001`, `mnli@examples=200`."""
        said = f"{self.axis}=" if self.axis != "learning_rate" else ""
        return f"{self.recipe}@{said}{self.value:g}" if self.axis else self.recipe


class Probing(Frozen):
    """How models are looked at."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1)]
    # examples before the question; lowered for a dataset whose prompts do not fit
    shots: NonNegativeInt = 4
    items: PositiveInt = 1000  # evaluation items per dataset, the same for all models
    new_tokens: PositiveInt = 60  # longest generation, tokens
    # bfloat16: faster on a GPU, depends on batches
    precision: Literal["auto", "float32", "bfloat16"] = "float32"


class Protocol(Frozen):
    """How prompts are made, answers read and scores reported: the first value of each is the
    corrected protocol, the second that of the reference study (Sun & Dredze, code at 8b79c39),
    which `protocol: published` sets throughout.

    What is not known of the reference study: the seed of its bootstrap, the examples shown
    before the questions with given answers, which part of Tülu was used, and where its text
    differs from its code (shots: "sampled" against the first ones).
    """

    # from the train split; or the first items scored, which stay scored
    shots: Literal["train", "evaluated"] = "train"
    # likelihood of a label's text; or of its likeliest sub-token alone
    labels: Literal["whole", "sub-tokens"] = "whole"
    # where a prompt ends when the answer is generated or a label read
    prompt_end: Literal["word", "space"] = "word"
    stop: Literal["newline", "length"] = "newline"  # what ends a generation besides the end token
    # published: QQP and STS-B test, RTE and TweetQA train, SciQ validation
    splits: Literal["public", "published"] = "public"
    # flag: -1 is read as the first label, the row is marked
    hidden_labels: Literal["refuse", "flag"] = "refuse"
    # leave items out and lower shots; or score, cut training rows, and mark
    too_long: Literal["refuse", "flag"] = "refuse"
    # what likelihoods of answers are divided by
    normalisation: Literal["dataset", "sum"] = "dataset"
    # bootstrap: midpoint of a 95 % percentile interval, 3,000 resamples
    reporting: Literal["mean", "bootstrap"] = "mean"


PROTOCOLS = {
    "corrected": Protocol(),
    "published": Protocol(
        shots="evaluated",
        labels="sub-tokens",
        prompt_end="space",
        stop="length",
        splits="published",
        hidden_labels="flag",
        too_long="flag",
        normalisation="sum",
        reporting="bootstrap",
    ),
}


class Cache(Frozen):
    max_gb: PositiveFloat = 4.0  # tuned weights kept, so that a new probe need not train again


class Study(Frozen):
    """One file under `params/`, resolved."""

    title: str
    checkpoints: Annotated[
        Microworld | Corpus | Hub | Local | Released, Field(discriminator="source")
    ]
    # or: as checkpoints
    datasets: Annotated[
        MicroworldData | FolderData | HubData | ReleasedData, Field(discriminator="source")
    ]
    tables: str | None = None  # folder or address of released score tables, for `source: tables`
    recipes: Annotated[dict[Name, Recipe], Field(min_length=1)]
    tuning: Tuning
    grid: StudyGrid | None = None
    probing: Probing
    protocol: Protocol = Protocol()  # or one word: corrected, published
    # notebooks, in the order of the report; left out: all that have something to look at
    findings: tuple[Name, ...] = ()
    cache: Cache = Cache()
    name: str = Field(default="", exclude=True)  # the file's name without ending
    file: str = Field(default="", exclude=True)

    @model_validator(mode="after")
    def _has_base(self):
        if [name for name, recipe in self.recipes.items() if recipe.dataset is None] != ["base"]:
            raise ValueError("recipes must hold `base: {}`, and a dataset for every other recipe")
        return self

    @model_validator(mode="after")
    def _has_tables_where_it_needs_them(self):
        if (self.checkpoints.source == "tables", self.datasets.source == "tables") != (
            self.tables is not None,
        ) * 2:
            raise ValueError(
                "checkpoints and datasets with `source: tables` and `tables: FOLDER or address` "
                "go together"
            )
        return self

    @property
    def replicates(self) -> int:
        """Pre-training runs where there are several, else seeds of tuning: what a verdict needs
        three of.
        """
        runs = len(getattr(self.checkpoints, "runs", ("",)))
        return runs if runs > 1 else self.tuning.seeds

    def recipe(self, name: str) -> Recipe:
        """The recipe `name`, or the one that `name` is a variant of."""
        return self.recipes[name if name in self.recipes else self.variants[name].recipe]

    def is_beside(self, name: str) -> bool:
        """Whether a recipe tunes adapters beside another that tunes all weights on the same
        dataset, to be compared with it.
        """
        own = self.recipe(name)
        return own.lora is not None and any(
            one.dataset == own.dataset and one.lora is None for one in self.recipes.values()
        )

    def tuning_of(self, name: str) -> Tuning:
        """The hyper-parameters of a recipe or variant: its own where it says them, else those of
        `tuning`.
        """
        one = Variant(name) if name in self.recipes else self.variants[name]
        return self._tuning(one.recipe, {one.axis: one.value} if one.axis else {})

    def grid_of(self, recipe: str, axis: str) -> tuple[float, ...]:
        """The values along `axis` that a recipe is tuned with; none for base and without a grid."""
        if self.grid is None or self.recipes[recipe].dataset is None:
            return ()
        return getattr(self.recipes[recipe].grid or self.grid, axis) or ()

    @property
    def variants(self) -> dict[str, Variant]:
        """The recipes by name, each followed by itself at the values of its grid that it does not
        use, one axis after the other.
        """
        found = {}
        for recipe in self.recipes:
            found[recipe] = Variant(recipe)
            for axis in Grid.model_fields:
                for value, name in self.along(recipe, axis).items():
                    found[name] = Variant(recipe, axis, value) if name != recipe else found[name]
        return found

    def along(self, recipe: str, axis: str) -> dict[float, str]:
        """Every value of a recipe's grid along `axis`, rising, with the name of what uses it."""
        if not (values := sorted(self.grid_of(recipe, axis))):
            return {}
        used = getattr(self._tuning(recipe), axis)
        return {one: recipe if one == used else Variant(recipe, axis, one).name for one in values}

    def _tuning(self, recipe: str, changed: Mapping[str, float] = MappingProxyType({})) -> Tuning:
        own = self.recipes[recipe].model_dump(
            exclude_none=True, exclude={"dataset", "lora", "grid"}
        )
        return self.tuning.model_copy(update={**own, **changed})

    def refuse(self, key: str, value: object, allowed: str) -> StudyError:
        """The error to raise for a value that is well-formed but impossible."""
        return StudyError(f"{self.file}: {key}: {value!r} is refused; {allowed}")
