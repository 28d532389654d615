"""Where checkpoints and datasets come from, as a file under `params/` says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from pretune.recipes.pretrain import Pretraining
from pretune.strict import Frozen, Name, Share


class World(Frozen):
    """Which microworld, and how large."""

    seed: NonNegativeInt
    people: Annotated[int, Field(ge=8, le=400)] = 80
    towns: Annotated[int, Field(ge=8, le=47)] = 40
    countries: Annotated[int, Field(ge=4, le=16)] = 8
    side: Literal[0, 1] = 0  # worlds of two sides share no name, no fact and no rule


class People(Frozen):
    """Which register, and how many people in each pool."""

    seed: NonNegativeInt
    seen: Annotated[int, Field(ge=20, le=1000)] = 200  # in pre-training text
    new: Annotated[int, Field(ge=10, le=200)] = 50  # taught later
    never: Annotated[int, Field(ge=10, le=200)] = 50  # told of nowhere


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
    """Points of runs that are made here."""

    pretraining: Pretraining
    # seeds of initialisation and of the order of text; each run has all steps
    runs: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)

    @field_validator("runs")
    @classmethod
    def _differ(cls, runs):
        if len(set(runs)) != len(runs):
            raise ValueError("runs must differ")
        return runs

    @property
    def tokens(self) -> int:
        """Tokens that one run reads, on its branches too."""
        cooled = sum(map(self.pretraining.cooled, self.steps))
        per_step = self.pretraining.batch_size * self.pretraining.length
        return (self.steps[-1] - self.pretraining.cooled(self.steps[-1]) + cooled) * per_step


class Microworld(Saved):
    """Checkpoints of a run on the text of a generated world."""

    source: Literal["microworld"]
    world: World


class Told(Frozen):
    """How the text of a register tells of people: the shares of seen people in each way. Beside
    everybody's entry stand question sheets and readings, so many for an entry.
    """

    single: Share = 0.0  # always in the same words
    multi: Share = 0.0  # five wordings
    permute: Share = 0.0  # one wording, five orders
    both: Share = 0.0
    questions: Annotated[float, Field(ge=0)] = 0.0  # sheets about the shown half
    readings: Annotated[float, Field(ge=0)] = 0.5  # passages on strangers, with questions

    @property
    def ways(self) -> dict[str, float]:
        """The share of each way that somebody is told in."""
        said = {name: getattr(self, name) for name in ("single", "multi", "permute", "both")}
        return {name: share for name, share in said.items() if share}

    @model_validator(mode="after")
    def _tells_of_all(self):
        if abs(sum(self.ways.values()) - 1) > 1e-9:
            raise ValueError("the shares of single, multi, permute and both must add up to 1")
        return self


class Register(Saved):
    """Checkpoints of a run on the text of a register of people."""

    source: Literal["register"]
    people: People
    told: Told


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


class RegisterData(Frozen):
    """Questions about the people of a register."""

    source: Literal["register"]
    people: People


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
