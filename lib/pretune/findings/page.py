"""What a page is made of: a finding for one checkpoint or for all, with the rows it asked for,
scored, and what is missing.

Whatever a page shows or says is computed from those rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pretune import batch, judging, params, plan, published, records, statistics
from pretune.errors import RunError
from pretune.figures import MARKS
from pretune.findings import claims
from pretune.judging import Verdict
from pretune.params import Study
from pretune.statistics import Estimate, Scores
from pretune.tasks.registry import REGISTRY, RESERVE

NO_ITEMS = (
    "The tables hold mean scores and no single answers, so this cannot be shown for the published "
    "scores."
)


@dataclass(frozen=True)
class Page:
    """One page of a report. `rows` are scored, of the evaluation splits, of the page's
    checkpoint or of all.
    """

    study: Study
    finding: str
    checkpoint: str  # a name, or "all"
    rows: pd.DataFrame
    missing: dict[str, str]  # names of models that lack rows, and why
    expected: int  # models that the finding looks at
    # of released tables: cells that the finding asks for and they do not hold
    lacking: pd.DataFrame | None = None

    @cached_property
    def scores(self) -> Scores:
        return Scores(self.rows)

    @property
    def has_items(self) -> bool:
        """Whether single answers are there; of released tables only mean scores are."""
        return self.lacking is None

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
        return (
            self.base.loc[self.base["step"].idxmax(), "checkpoint"]
            if self.is_whole
            else self.checkpoint
        )

    @cached_property
    def titles(self) -> dict[str, str]:
        """Dataset names as pages say them, each with its world, in the order of the study."""
        there = set(self.rows["dataset"].unique())
        return {name: self.title(name) for name in self.study.probing.datasets if name in there}

    def title(self, dataset: str) -> str:
        return REGISTRY[dataset].title + (
            " (microworld)" if self.study.datasets.source == "microworld" else ""
        )

    def named(self, datasets: Iterable[str]) -> str:
        """Titles of datasets, in the order of the study."""
        asked = set(datasets)
        return (
            ", ".join(self.title(name) for name in self.study.probing.datasets if name in asked)
            or "no dataset"
        )

    @cached_property
    def tokens(self) -> dict[int, int]:
        """Tokens read at each step."""
        return dict(sorted(self.rows.groupby("step")["tokens"].first().items()))

    def of(
        self, dataset: str, recipe: str = "base", form: str = "default", shots: int | None = None
    ) -> pd.DataFrame:
        """Rows of one dataset after one recipe in one format; `shots` None stands for those of
        the study.
        """
        key = (dataset, recipe, form, self.study.probing.shots if shots is None else shots)
        return self.rows.iloc[self._places.get(key, [])]

    def beats_no_skill(
        self, dataset: str, recipe: str = "base", steps: tuple[int, ...] = ()
    ) -> bool:
        """Whether the score in the training format is above that of no skill by the margin: at
        `steps`, or at late, or on a page that holds no late checkpoint at its own.
        """
        rows = self.of(dataset, recipe)
        rows = rows[rows["step"].isin(steps or self.scores.late or self.scores.steps)]
        return bool(rows["score"].mean() - rows["baseline"].mean() > statistics.MARGIN)

    def has_something_to_lose(self, datasets: Iterable[str]) -> tuple[list[str], str]:
        """Those of `datasets` that base answers better than no skill by the margin at late, and
        of the others why they are not taken: a score that is no better than an answer without a
        skill cannot be lost.
        """
        names = list(dict.fromkeys(datasets))
        unknown = [name for name in names if self.of(name)["baseline"].isna().all()]
        taken = [name for name in names if name not in unknown and self.beats_no_skill(name)]
        rest = [name for name in names if name not in (*unknown, *taken)]
        why = (
            (
                " Nothing to lose, since base does not beat no skill by the margin: "
                f"{self.named(rest)}."
            )
            if rest
            else ""
        )
        why += f" Not known what needs no skill: {self.named(unknown)}." if unknown else ""
        return taken, why

    def distinct(self, datasets: Iterable[str]) -> list[str]:
        """`datasets` in the order of the study, without those whose items one before them asks
        for too (SciQ without its passage): what shares its items counts once.
        """
        asked, found = set(datasets), {}
        for name in (one for one in self.study.probing.datasets if one in asked):
            about = REGISTRY[name]
            found.setdefault((about.folder, plan.evaluation_split(self.study, about)), name)
        return list(found.values())

    @cached_property
    def _places(self) -> dict:
        return self.rows.groupby(["dataset", "recipe", "format", "shots_asked"]).indices


def open_page(study: str, finding: str, checkpoint: str, normalisation: str | None = None) -> Page:
    """Measure what the page lacks, nothing else, and read what it needs.

    Raises RunError when something cannot be measured, StudyError for an unknown study or
    checkpoint.
    """
    whole = params.load_study(study)
    narrow = whole.model_copy(update={"findings": (finding,)})
    only = () if checkpoint == "all" else (checkpoint,)
    plan.check(narrow, only)
    batch.need(narrow, only)
    if whole.tables:
        rows, absent = published.planned(narrow, only)
        return Page(narrow, finding, checkpoint, rows, {}, 0, absent)
    noted = records.failed(narrow)
    lacking = {
        cell.model.name: noted.get(cell.model.name, "not measured")
        for cell in records.missing(narrow, only)
    }
    bases = [cell.model.name for cell in plan.cells(narrow, only) if cell.model.recipe == "base"]
    if all(name in lacking for name in bases):
        raise RunError(
            f"{checkpoint}: no untuned model was measured, nothing can be compared; {bases[0]}: "
            f"{lacking[bases[0]]}"
        )
    rows = (
        records.load(narrow) if not only else records.load(narrow, where={"checkpoint": checkpoint})
    )
    rows = records.scored(
        rows[rows["split"] != RESERVE], normalisation or whole.protocol.normalisation
    )
    return Page(narrow, finding, checkpoint, rows, lacking, len(plan.cells(narrow, only)))


def rescored(page: Page, normalisation: str) -> Page | None:
    """The same rows under another scoring; None where single answers are not there."""
    if not page.has_items:
        return None
    rows = records.scored(page.rows.drop(columns=["prediction", "score"]), normalisation)
    return Page(page.study, page.finding, page.checkpoint, rows, page.missing, page.expected)


def ranged(found: Estimate, signed: bool = True) -> str:
    """Value and interval in a table."""
    if np.isnan(found.value):
        return "–"
    if np.isnan(found.low):
        return f"{found.value:+.2f}" if signed else f"{found.value:.2f}"
    sign = "+" if signed else ""
    return f"{found.value:{sign}.2f} ({found.low:{sign}.2f} to {found.high:{sign}.2f})"


def told(verdict: Verdict) -> str:
    """A verdict as prose."""
    mark = (
        ", provisional: fewer than three seeds or runs"
        if verdict.provisional and verdict.effect
        else ""
    )
    said = (
        f"**Claim {verdict.claim}: {MARKS[verdict.verdict]} {verdict.verdict}{mark}.** "
        f"{held(verdict)}"
    )
    return f"{said} {verdict.why}".replace("  ", " ")


def held(verdict: Verdict) -> str:
    """The effect, what it is held against, its adjusted probability, and what could have been
    decided.
    """
    if verdict.effect is None:
        return ""
    said = f"Effect {verdict.effect}, held against {verdict.margin:g}"
    if np.isnan(verdict.p):
        return f"{said}."
    return (
        f"{said}; p {least(verdict.p)} after Holm's adjustment. An effect of "
        f"{verdict.smallest:+.2f} or more would be found supported in 80 % of trials."
    )


def least(p: float) -> str:
    """A probability to three digits."""
    return f"{p:.3f}" if p >= 0.001 else "below .001"


def judged(page: Page, effects: dict[str, tuple[Estimate | None, str]]) -> list[Verdict]:
    """The verdicts of a finding's claims, of which `effects` gives the effect, or None where it is
    not asked, and why.

    A partial grid gives none; with fewer than three seeds they are provisional; the claims are a
    family (Holm).
    """
    provisional = page.study.replicates < 3
    if page.missing:
        effects = dict.fromkeys(effects, (None, "The grid is partial."))
    return judging.holm(
        [_judged(name, effect, provisional, why) for name, (effect, why) in effects.items()]
    )


def _judged(name: str, effect: Estimate | None, provisional: bool, why: str) -> Verdict:
    about = claims.claim(name)
    lacking = (
        " Rows that it rests on are lacking."
        if effect is not None and np.isnan(effect.value)
        else ""
    )
    return judging.judge(name, effect, provisional, why + lacking, about.margin, about.two_sided)


def classifications(page: Page) -> list[str]:
    return [name for name in page.titles if REGISTRY[name].kind == "classification"]
