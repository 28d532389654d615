"""Results: the scored rows that a finding asked for, of one checkpoint or of all, and what lacks.

Whatever a page shows or says is computed from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from pretune import measures, records
from pretune.analysis import statistics
from pretune.analysis.scores import Scores
from pretune.analysis.statistics import Estimate
from pretune.plan.cells import Plan
from pretune.plan.needs import is_single, shots_of
from pretune.sources.datasets import evaluation_split
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

NO_ITEMS = (
    "The tables hold mean scores and no single answers, so this cannot be shown for the published "
    "scores."
)


@dataclass(frozen=True)
class Results:
    """One page of a report. `rows` are scored, of the evaluation splits, of the page's
    checkpoint or of all.
    """

    plan: Plan  # of what the finding looks at
    finding: str
    checkpoint: str  # a name, or "all"
    rows: pd.DataFrame
    missing: dict[str, str]  # names of models that lack rows, and why
    # of released tables: cells that the finding asks for and they do not hold
    lacking: pd.DataFrame | None = None
    margin: float = statistics.MARGIN  # the smallest change that counts
    without: tuple[str, ...] = ()  # datasets that it was asked not to look at

    @property
    def study(self) -> Study:
        return self.plan.study

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.rows)

    @property
    def has_items(self) -> bool:
        """Whether single answers are there; of released tables only mean scores are."""
        return self.lacking is None

    def frame(self) -> pd.DataFrame:
        """The scores that the page is made of, for an analysis of your own: a row for every item
        (of released tables, every mean) and model.

        model, run, checkpoint, step, tokens: which checkpoint, and what it had read; late: whether
        it is one of the last, neighbouring ones. recipe, seed: what was done to it (base:
        nothing). dataset, format, shots, item: what was asked, with how many examples; as_asked:
        whether with as many as claims ask with. prediction, gold: numbers of choices, -1 where
        text is written. score: 0 to 1, or nats per token of text. no_skill: what the best answer
        without a skill scores.
        """
        columns = (
            *("model", "run", "checkpoint", "step", "tokens", "late", "recipe", "seed"),
            *("dataset", "format", "shots", "as_asked", "item", "prediction", "gold", "score"),
            "baseline",
        )
        there = [name for name in columns if name in self.rows]
        return self.rows[there].rename(columns={"baseline": "no_skill"})

    def otherwise(self, margin: float | None = None, sets: Sequence[str] = ()) -> Results:
        """The page as it would be with another margin, or had it only looked at some datasets.

        Raises KeyError for a dataset that the page does not have.
        """
        if unknown := sorted(set(sets) - set(self.titles)):
            there = ", ".join(self.titles)
            raise KeyError(f"sets: not on this page: {', '.join(unknown)}; it has {there}")
        margin = self.margin if margin is None else margin
        if not sets:
            return replace(self, margin=margin)
        rows = self.rows[self.rows["dataset"].isin(sets)]
        asked = {probe.dataset for cell in self.plan.cells for probe in cell.probes}
        left = asked - set(sets) - set(self.without)
        return replace(self, rows=rows, margin=margin, without=(*self.without, *sorted(left)))

    @property
    def explored(self) -> str:
        """How the page differs from what was laid down before the data; empty where it does not."""
        moved = f"a margin of {self.margin:g} in place of {statistics.MARGIN:g}"
        said = [moved] if self.margin != statistics.MARGIN else []
        return ", ".join([*said, *(f"without {self.title(name)}" for name in self.without)])

    def measured(self, measure: str) -> pd.DataFrame:
        """Scored rows of a measure beside those that give datasets their scores."""
        return self.once(measure, partial(self._scored, measure))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, under a name, made when it is first asked for."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @cached_property
    def _made(self) -> dict[str, Any]:
        return {}

    def _scored(self, measure: str) -> pd.DataFrame:
        rows = records.load(self.plan, measure=measure)
        rows = rows[~rows["dataset"].isin(self.without)].reset_index(drop=True)
        made = measures.find(measure).score(rows, self.study.protocol.normalisation)
        return rows.assign(**{name: made[name] for name in made})

    @cached_property
    def base(self) -> pd.DataFrame:
        return self.rows[self.rows["recipe"] == "base"]

    @property
    def is_whole(self) -> bool:
        """Whether the page is on all checkpoints."""
        return self.checkpoint == "all"

    @property
    def shown(self) -> str:
        """The checkpoint that examples are taken from: the page's, or the last of which the
        untuned model was measured.
        """
        if not self.is_whole:
            return self.checkpoint
        return self.base.loc[self.base["step"].idxmax(), "checkpoint"]

    @cached_property
    def titles(self) -> dict[str, str]:
        """Dataset names as pages say them, each with its world, in the order of the study."""
        there = set(self.rows["dataset"].unique())
        return {name: self.title(name) for name in self.study.probing.datasets if name in there}

    def title(self, dataset: str) -> str:
        return REGISTRY[dataset].title + ("" if dataset in self.study.tasks else self.world)

    @property
    def world(self) -> str:
        """What names of datasets end with; in figures it stands once, in their title."""
        return " (microworld)" if self.study.datasets.source == "microworld" else ""

    def named(self, datasets: Iterable[str]) -> str:
        """Titles of datasets, in the order of the study."""
        asked = set(datasets)
        titles = [self.title(name) for name in self.study.probing.datasets if name in asked]
        return ", ".join(titles) or "no dataset"

    @cached_property
    def tokens(self) -> dict[int, int]:
        """Tokens read at each step."""
        return dict(sorted(self.rows.groupby("step")["tokens"].first().items()))

    def of(
        self, dataset: str, recipe: str = "base", form: str = "default", shots: int | None = None
    ) -> pd.DataFrame:
        """Rows of one dataset after one recipe in one format; `shots` None stands for as many as
        claims ask with.
        """
        shots = shots_of(self.study, dataset, recipe) if shots is None else shots
        key = (dataset, recipe, form, shots)
        return self.rows.iloc[self._places.get(key, [])]

    def mean(self, dataset: str, recipe: str, step: int) -> float:
        """The mean score at a checkpoint, in the training format and asked as claims do; NaN where
        it was not scored.
        """
        shots = shots_of(self.study, dataset, recipe)
        return self._means.get((dataset, recipe, "default", shots, step), np.nan)

    @cached_property
    def _means(self) -> dict[tuple, float]:
        by = ["dataset", "recipe", "format", "shots_asked", "step"]
        return self.rows.groupby(by)["score"].mean().to_dict()

    def beats_no_skill(
        self, dataset: str, recipe: str = "base", steps: tuple[int, ...] = ()
    ) -> bool:
        """Whether the score in the training format is above that of no skill by the margin: at
        `steps`, or at late, or on a page that holds no late checkpoint at its own.
        """
        rows = self.of(dataset, recipe)
        rows = rows[rows["step"].isin(steps or self.scores.late or self.scores.steps)]
        return bool(rows["score"].mean() - rows["baseline"].mean() > self.margin)

    def has_something_to_lose(self, datasets: Iterable[str]) -> tuple[list[str], str]:
        """Those of `datasets` that base answers better than no skill by the margin at late, and
        of the others why they are not taken: a score that is no better than an answer without a
        skill cannot be lost.
        """
        names = list(dict.fromkeys(datasets))
        unknown = [name for name in names if self._is_skilled.get(name) is None]
        taken = [name for name in names if self._is_skilled.get(name)]
        rest = [name for name in names if name not in (*unknown, *taken)]
        why = ""
        if rest:
            why += (
                " Nothing to lose, since base does not beat no skill by the margin: "
                f"{self.named(rest)}."
            )
        if unknown:
            why += f" Not known what needs no skill: {self.named(unknown)}."
        return taken, why

    @cached_property
    def _is_skilled(self) -> dict[str, bool | None]:
        """Of each dataset whether base beats no skill; None where what needs none is not known."""
        return {
            name: None if self.of(name)["baseline"].isna().all() else self.beats_no_skill(name)
            for name in self.titles
        }

    def distinct(self, datasets: Iterable[str]) -> list[str]:
        """`datasets` in the order of the study, without those whose items one before them asks
        for too (SciQ without its passage): what shares its items counts once.
        """
        asked, found = set(datasets), {}
        for name in (one for one in self.study.probing.datasets if one in asked):
            about = REGISTRY[name]
            found.setdefault((about.folder, evaluation_split(self.study, about)), name)
        return list(found.values())

    @cached_property
    def _places(self) -> dict:
        return self.rows.groupby(["dataset", "recipe", "format", "shots_asked"]).indices


def rescored(page: Results, normalisation: str) -> Results | None:
    """The same rows under another scoring; None where single answers are not there."""
    if not page.has_items:
        return None
    rows = measures.scored(page.rows.drop(columns=["prediction", "score"]), normalisation)
    return replace(page, rows=rows)


def marked(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with `as_asked`: whether a row has as many examples as claims ask with."""
    asked = {
        (recipe, name): shots_of(study, name, recipe)
        for recipe, name in rows[["recipe", "dataset"]].drop_duplicates().itertuples(index=False)
    }
    wanted = [asked[one] for one in zip(rows["recipe"], rows["dataset"], strict=True)]
    return rows.assign(as_asked=rows["shots_asked"].to_numpy() == wanted)


def of_first_seeds(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed of every pre-training run."""
    first = (rows["seed"] % study.tuning.seeds == 0) & (rows["draw"] % study.tuning.seeds == 0)
    return rows[first]


def of_grid(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the runs and seeds with which the grid is run: of each run the first seed."""
    rows = of_first_seeds(study, rows)
    return rows if study.grid.runs is None else rows[rows["run"].isin(study.grid.runs)]


def ranged(found: Estimate, signed: bool = True) -> str:
    """Value and interval in a table."""
    if np.isnan(found.value):
        return "–"
    if np.isnan(found.low):
        return f"{found.value:+.2f}" if signed else f"{found.value:.2f}"
    sign = "+" if signed else ""
    return f"{found.value:{sign}.2f} ({found.low:{sign}.2f} to {found.high:{sign}.2f})"


def classifications(page: Results) -> list[str]:
    return [name for name in page.titles if REGISTRY[name].kind == "classification"]


def recipes(page: Results) -> dict[str, str]:
    """Recipes that tune on one task, each with its dataset; not those with adapters beside one of
    all weights.
    """
    return {
        name: how.dataset
        for name, how in page.study.recipes.items()
        if is_single(page.study, name)
        and not page.study.is_beside(name)
        and not how.after
        and how.dataset in page.titles
    }


def instruction_recipe(page: Results) -> str | None:
    """The recipe that tunes on a mixture of instructions, if the study has one."""
    for name, how in page.study.recipes.items():
        if how.dataset and REGISTRY[how.dataset].kind == "chat":
            return name
    return None


def is_generation(name: str) -> bool:
    return REGISTRY[name].kind == "generation"


def pairs(page: Results, to_generation: bool) -> list[tuple[str, str]]:
    """(recipe, dataset) across the two kinds: trained on one, tested on the other."""
    sets = recipes(page)
    trained = [recipe for recipe, own in sets.items() if is_generation(own) is not to_generation]
    tested = [name for name in page.titles if is_generation(name) is to_generation]
    return list(product(trained, tested))


def partners(page: Results, own: str, domain: str) -> list[str]:
    """The datasets of the page that ask for the same task in (`in`) or out of (`out`) the domain
    of `own`.
    """
    return [
        name
        for name in page.titles
        if REGISTRY[name].partner == own and REGISTRY[name].domain == domain
    ]


def gold_likelihood(rows: pd.DataFrame) -> list[float]:
    """Log-likelihood of the gold answer per token: content, apart from stopping and from
    competition with other answers.
    """
    columns = (rows["log_likelihood"], rows["choice_tokens"], rows["gold"])
    return [
        likelihood[gold] / tokens[gold] for likelihood, tokens, gold in zip(*columns, strict=True)
    ]
