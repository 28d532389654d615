"""The shape of a study: what a file under `params/` may say, checked, frozen, and printed as
resolved.

- A file is YAML, read strictly (module `strict`): whatever is not a study is refused, each
  fault in a line that names the file, the key, the value and what is allowed.
- This module knows no dataset and no checkpoint; `plan.check` holds a study against those.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from pretune.errors import StudyError
from pretune.recipes import AnyRecipe, Recipe
from pretune.recipes.base import Grid
from pretune.recipes.optimisation import Tuning
from pretune.strict import Frozen, Name
from pretune.study.sources import (
    Corpus,
    FolderData,
    Hub,
    HubData,
    Local,
    Microworld,
    MicroworldData,
    Register,
    RegisterData,
    Released,
    ReleasedData,
)
from pretune.tasks import registry
from pretune.tasks.own import OwnTask


class StudyGrid(Grid):
    """The grid of all recipes, or where those are run that recipes have of their own. `pretune run
    STUDY --sweep` runs its rates and shows the table.
    """

    # at these checkpoints: early, middle, late
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    # of these pre-training runs; left out: of all
    runs: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] | None = None

    def is_at(self, step: int, run: int) -> bool:
        """Whether it is run at a checkpoint."""
        return step in self.steps and (self.runs is None or run in self.runs)


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

    datasets: Annotated[tuple[Name, ...], Field(min_length=1)]  # left out: all of the source
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
    # how claims ask a tuned model about what it was tuned on, and its in-domain partner: without
    # examples, as it was tuned; or with those of the study
    own_sets: Literal["as tuned", "with shots"] = "as tuned"
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
        own_sets="with shots",
        normalisation="sum",
        reporting="bootstrap",
    ),
}


class Cache(Frozen):
    max_gb: PositiveFloat = 4.0  # tuned weights kept, so that a new probe need not train again


def _how_many(value: object) -> str:
    """Whether what stands at `checkpoints` is one source, or one for each of several models."""
    inside = value.values() if isinstance(value, dict) and "source" not in value else ()
    return "several" if any(isinstance(one, dict | Frozen) for one in inside) else "one"


Source = Microworld | Register | Corpus | Hub | Local | Released


AnyCheckpoints = Annotated[
    Annotated[Annotated[Source, Field(discriminator="source")], Tag("one")]
    | Annotated[
        Annotated[
            dict[Name, Annotated[Source, Field(discriminator="source")]], Field(min_length=2)
        ],
        Tag("several"),
    ],
    Discriminator(_how_many),
]


class Study(Frozen):
    """One file under `params/`, resolved."""

    title: str
    # one source, or several by the names of their models: {small: {...}, large: {...}}
    checkpoints: AnyCheckpoints
    # or: as checkpoints
    datasets: Annotated[
        MicroworldData | RegisterData | FolderData | HubData | ReleasedData,
        Field(discriminator="source"),
    ]
    # datasets of your own, by name, in the words of lm-evaluation-harness
    tasks: dict[Name, OwnTask] = {}
    tables: str | None = None  # folder or address of released score tables, for `source: tables`
    recipes: Annotated[dict[Name, AnyRecipe], Field(min_length=1)]
    tuning: Tuning
    grid: StudyGrid | None = None
    probing: Probing
    protocol: Protocol = Protocol()  # or one word: corrected, published
    # notebooks, in the order of the report; left out: all that have something to look at
    findings: tuple[Name, ...] = ()
    cache: Cache = Cache()
    name: str = Field(default="", exclude=True)  # the file's name without ending
    file: str = Field(default="", exclude=True)
    model: str = Field(default="", exclude=True)  # which of several it was narrowed to

    @model_validator(mode="after")
    def _has_base(self):
        if [name for name, one in self.recipes.items() if one.method == "none"] != ["base"]:
            raise ValueError(
                "recipes must hold `base: {}`, and something to train for every other recipe"
            )
        return self

    @model_validator(mode="after")
    def _knows_the_models_of_recipes(self):
        for name, one in self.recipes.items():
            if unknown := sorted(set(one.models or ()) - set(self.models)):
                there = ", ".join(filter(None, self.models)) or "no names: the study has one model"
                raise ValueError(f"recipes.{name}.models: {unknown[0]!r} is none of {there}")
        return self

    @model_validator(mode="after")
    def _has_tables_where_it_needs_them(self):
        sources = {one.source for one in (*self.models.values(), self.datasets)}
        if ("tables" in sources) != (self.tables is not None) or {"tables"} < sources:
            raise ValueError(
                "checkpoints and datasets with `source: tables` and `tables: FOLDER or address` "
                "go together"
            )
        return self

    @model_validator(mode="after")
    def _has_values_in_its_grid(self):
        grids = [one.grid for one in (self, *self.recipes.values()) if one.grid]
        said = [getattr(one, axis) for one in grids for axis in Grid.model_fields]
        if grids and not any(said):
            raise ValueError(f"a grid needs values of {' or '.join(Grid.model_fields)}")
        return self

    @model_validator(mode="after")
    def _knows_its_tasks(self):
        if taken := sorted(set(self.tasks) & set(registry.BUILT_IN)):
            raise ValueError(f"tasks.{taken[0]}: a dataset of that name is known; take another")
        registry.add(task.dataset(name) for name, task in self.tasks.items())
        return self

    def __setstate__(self, state: dict) -> None:
        """As a process that is handed the study has it: its tasks are known there too."""
        super().__setstate__(state)
        registry.add(task.dataset(name) for name, task in self.tasks.items())

    @property
    def replicates(self) -> int:
        """Pre-training runs where there are several, else seeds of tuning: what a verdict needs
        three of.
        """
        return self.runs if self.runs > 1 else self.tuning.seeds

    @property
    def runs(self) -> int:
        """Pre-training runs of a model."""
        return max(len(getattr(one, "runs", ("",))) for one in self.models.values())

    def seeds(self, run: int) -> range:
        """The seeds of tuning on checkpoints of a pre-training run. No two runs share one: where
        runs stand in the place of seeds, they differ in training rows, order and shots as well.
        """
        return range(run * self.tuning.seeds, (run + 1) * self.tuning.seeds)

    @property
    def models(self) -> dict[str, Source]:
        """Where the checkpoints of each model come from; one that is alone has no name."""
        if isinstance(self.checkpoints, dict):
            return self.checkpoints
        return {self.model: self.checkpoints}

    def model_copy(self, **given) -> Study:
        """As pydantic's, but what was found out of the fields is found out anew."""
        made = super().model_copy(**given)
        made.__dict__.pop("variants", None)
        return made

    def of(self, model: str) -> Study:
        """The same with the checkpoints of one model only."""
        return self.model_copy(update={"checkpoints": self.models[model], "model": model})

    def recipe(self, name: str) -> Recipe:
        """The recipe `name`, or the one that `name` is a variant of."""
        return self.recipes[name if name in self.recipes else self.variants[name].recipe]

    def is_beside(self, name: str) -> bool:
        """Whether a recipe trains some weights or adapters beside another that trains all on the
        same dataset, to be compared with it.
        """
        own = self.recipe(name)
        return own.trainable is not None and any(
            one.dataset == own.dataset and one.trainable is None for one in self.recipes.values()
        )

    def tuning_of(self, name: str) -> Tuning:
        """The hyper-parameters of a recipe or variant: its own where it says them, else those of
        `tuning`.
        """
        one = Variant(name) if name in self.recipes else self.variants[name]
        return self._tuning(one.recipe, {one.axis: one.value} if one.axis else {})

    def grid_of(self, recipe: str, axis: str) -> tuple[float, ...]:
        """The values along `axis` that a recipe is tuned with; none for base and without a grid."""
        if self.grid is None or self.recipes[recipe].method == "none":
            return ()
        return getattr(self.recipes[recipe].grid or self.grid, axis) or ()

    @cached_property  # asked for by every cell of a plan
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
        own = self.recipes[recipe].model_dump(exclude_none=True, include=set(Tuning.model_fields))
        return self.tuning.model_copy(update={**own, **changed})

    def refuse(self, key: str, value: object, allowed: str) -> StudyError:
        """The error to raise for a value that is well-formed but impossible."""
        return StudyError(f"{self.file}: {key}: {value!r} is refused; {allowed}")
