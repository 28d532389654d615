"""Facts that are asked closed book: by how a model was told of people, and by how new ones were put
in.

- *Old* facts stood in pre-training; of half of the people none is asked in tuning. *New* ones are
  taught after it. *Never* told ones are the control.
- A model after a recipe is named `both/questions` here, since models are compared; the people that
  one of several ways was used for, `mixed[single]/questions`. Models may have other checkpoints.
- Tuned on questions a model is asked without examples, as it was tuned; else with those of the
  study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pretune import records
from pretune.analysis import contrasts
from pretune.analysis.results import Results
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import Estimate
from pretune.sources.register.people import KINDS, make_register
from pretune.sources.register.text import characters, way_at
from pretune.study.config import Study
from pretune.study.sources import Register, RegisterData
from pretune.tasks.registry import REGISTRY, TAKEN

IN_WORDS = {
    "single": "one wording",
    "multi": "five wordings",
    "permute": "one wording, five orders",
    "both": "five wordings and orders",
}


class Sets(NamedTuple):
    """The datasets of facts that belong together; an empty name is none."""

    old: str
    asked: str  # old ones that are tuned on: of other people, or of the train split
    new: str
    never: str
    unknown: str  # new facts, with an answer that says that they are not known
    old_text: str
    new_text: str


SETS = (
    Sets(
        "register",
        "register",
        "register_new",
        "register_never",
        "register_unknown",
        "register_text",
        "register_new_text",
    ),
    Sets("popqa_known", "popqa_asked", "popqa_rare", "", "", "", "popqa_rare_text"),
)


def sets_of(study: Study) -> Sets | None:
    """The facts that a study asks for; None where it asks for no such."""
    asked = study.probing.datasets
    return next((one for one in SETS if one.new in asked and one.old in asked), None)


def with_passages(study: Study, name: str) -> dict[str, str]:
    """How passages are taken to the set of `name` with such before its questions, of those that
    the study asks.
    """
    found = {take: f"{name}_{take}" for take in TAKEN}
    return {take: one for take, one in found.items() if one in study.probing.datasets}


def drawn(study: Study, recipe: str) -> set[str]:
    """The datasets that a recipe trains on."""
    return set(study.recipe(recipe).drawn(1))


def shots(study: Study, recipe: str) -> int:
    """Examples before a question, as it is asked after a recipe."""
    asks = any(REGISTRY[name].kind == "generation" for name in drawn(study, recipe))
    return 0 if asks else study.probing.shots


def asking(study: Study) -> list[str]:
    """The recipes that tune on questions about old facts and nothing else."""
    facts = sets_of(study)
    return [name for name in study.recipes if drawn(study, name) == {facts.asked}]


def teaching(study: Study) -> list[str]:
    """The recipes that teach new facts, as text, as questions, or both."""
    facts = sets_of(study)
    return [name for name in study.recipes if drawn(study, name) & {facts.new, facts.new_text}]


def at_models(study: Study, recipe: str) -> list[str]:
    """The models to whose checkpoints a recipe is done."""
    return [model for model in study.models if study.recipe(recipe).is_for(model)]


def told_each(study: Study, recipe: str) -> float:
    """How often each new fact is told in an epoch of a recipe, on average over all of them."""
    facts, rows = sets_of(study), study.recipe(recipe).drawn(study.tuning_of(recipe).examples)
    texts, questions = (rows.get(name, 0) for name in (facts.new_text, facts.new))
    if not isinstance(study.datasets, RegisterData):  # a fact a row, and all that are asked for
        return float(texts > 0) + float(questions > 0)
    people = study.datasets.people.new
    return texts / people + questions / (people * len(KINDS))


def exposures(study: Study, recipe: str) -> int:
    """How often each new fact is told by a recipe, or variant of one."""
    return round(study.tuning_of(recipe).epochs * told_each(study, recipe))


class Part(NamedTuple):
    """Held people of a model that were told of in one way."""

    model: str
    way: str

    @property
    def label(self) -> str:
        return f"{self.model}[{self.way}]"


def parts(study: Study) -> list[Part]:
    """Every model, in parts where it is told in several ways of the people that are asked for;
    none where that is not known.
    """
    found = []
    for model, source in study.models.items():
        if isinstance(source, Register) and source.people == study.datasets.people:
            found += [Part(model, way) for way in source.told.ways]
    return found


def said(study: Study, part: Part) -> str:
    """A model, and how people of a part of it are told of, in words."""
    told = study.models[part.model].told
    words = f"{part.model}: {IN_WORDS[part.way]}" if part.model else IN_WORDS[part.way]
    if rest := [IN_WORDS[way] for way in told.ways if way != part.way]:
        words += f", others in {' or '.join(rest)}"
    return words + (", with questions" if told.questions else "")


def by_way(page: Results, *some: Part) -> Scores:
    """Scores on old facts, by the part of a model that they are of, and recipe."""
    return page.once(f"by way {some}", lambda: _by_way(page, some))


def _by_way(page: Results, some: Sequence[Part]) -> Scores:
    rows = page.rows[page.rows["dataset"] == sets_of(page.study).old]
    found = []
    for part in some:
        source, own = page.study.models[part.model], rows[rows["model"] == part.model]
        held = source.people.seen - source.people.seen // 2
        ways = [way_at(item // len(KINDS), held, source.told.ways) for item in own["item"]]
        own = own[np.array(ways, dtype=object) == part.way]
        found.append(own.assign(recipe=f"{part.label}/" + own["recipe"]))
    return Scores(pd.concat(found))


def by_model(page: Results, *models: str) -> Scores:
    """Scores on the checkpoints of some models, by model and recipe."""
    return page.once(f"by model {models}", lambda: _by_model(page, models))


def _by_model(page: Results, models: Sequence[str]) -> Scores:
    rows = page.rows[page.rows["model"].isin(models)]
    return Scores(rows.assign(recipe=rows["model"] + "/" + rows["recipe"]))


def term(
    page: Results,
    dataset: str,
    model: str,
    recipe: str,
    weight: float = 1.0,
    steps: tuple[int, ...] = (),
) -> Term:
    """The mean of a set after a recipe on checkpoints of a model, asked as it is after that; text
    is read without examples.
    """
    count = 0 if REGISTRY[dataset].kind == "text" else shots(page.study, recipe)
    return Term(weight, dataset, f"{model}/{recipe}", steps, shots=count)


def score(
    page: Results, dataset: str, model: str, recipe: str, steps: tuple[int, ...] = ()
) -> Estimate:
    terms = [term(page, dataset, model, recipe, 1.0, steps)]
    return contrasts.effect(by_model(page, model), terms)


def change(page: Results, dataset: str, model: str, recipe: str) -> Estimate:
    """What a recipe changes at late, from the untuned model."""
    before = term(page, dataset, model, "base", -1.0)
    terms = [term(page, dataset, model, recipe), before]
    return contrasts.effect(by_model(page, model), terms)


def recalls(page: Results, dataset: str, model: str, recipe: str) -> pd.DataFrame:
    """Scores of a set after a recipe: a line for each run and step, a column for each item."""
    rows = page.rows[(page.rows["model"] == model) & (page.rows["recipe"] == recipe)]
    rows = rows[rows["dataset"] == dataset]
    rows = rows[rows["shots_asked"] == shots(page.study, recipe)]
    return rows.pivot_table("score", ["run", "step"], "item")


def seconds(page: Results) -> pd.Series:
    """Of every recipe the median of the seconds that its training took."""
    about = records.provenance(page.plan).reindex(columns=["model", "seconds"]).dropna()
    names = [name.partition(".")[2].rpartition(".")[0] for name in about["model"]]
    spent = [one.get("tune", np.nan) for one in about["seconds"]]
    return pd.Series(spent, names, dtype=float).groupby(level=0).median()


def passes(page: Results, model: str, step: int) -> float:
    """How often a model was told of everybody seen up to a checkpoint, by the length of a pass in
    characters and by how many characters a token has; NaN where no text of it was read.
    """
    source, rows = page.study.models[model], page.rows
    text = rows[(rows["dataset"] == sets_of(page.study).old_text) & (rows["model"] == model)]
    if text.empty:
        return np.nan
    # with the end of each document, which counts as one of either
    sizes = [sum(int(several[0]) + 1 for several in text[f"choice_{unit}"]) for unit in UNITS]
    register = make_register(source.people)
    return page.tokens[step] * sizes[0] / sizes[1] / characters(register, source.told)


UNITS = ("characters", "tokens")


def doublings(recalls: pd.Series, level: float = 0.5) -> float:
    """Doublings of exposures (the rising index) at which recall first reaches `level`, between two
    of them on a line; NaN where it is there at the first, or never.
    """
    over = np.flatnonzero(recalls.to_numpy() >= level)
    if not len(over) or over[0] == 0:
        return np.nan
    (low, high), at = recalls.iloc[over[0] - 1 : over[0] + 1], np.log2(recalls.index)
    start, end = at[over[0] - 1], at[over[0]]
    return float(start + (end - start) * (level - low) / (high - low))


# of a fact, by the answers to several prompts (Gekhman et al., arXiv 2405.05904, table 1)
CLASSES = ("highly known", "maybe known", "weakly known", "unknown")


def classes(page: Results) -> pd.DataFrame:
    """The class of every fact that an untuned model was asked again and again for, a line for each
    model, run, step, dataset and item: *highly known* where every greedy answer is right, *maybe*
    where some is, *weakly* where only answers are that were drawn, *unknown* where none is.
    """
    rows = page.measured("sampling")
    each = rows.groupby(["model", "run", "step", "tokens", "dataset", "item"], as_index=False)
    table = each.agg(greedy=("greedy", "mean"), drawn=("drawn_right", "sum"))
    known = [table["greedy"] == 1, table["greedy"] > 0, table["drawn"] > 0]
    return table.assign(known=np.select(known, CLASSES[:3], CLASSES[3]))
