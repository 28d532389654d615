"""How new facts were put in: by passages before a question, as text, as questions, and what each
way costs; and which facts an untuned model says that it knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from pretune.analysis import knowledge
from pretune.analysis.knowledge import CLASSES, sets_of
from pretune.analysis.results import Results, ranged
from pretune.analysis.statistics import UNKNOWN, Estimate
from pretune.recipes.continued import Continued
from pretune.sources import datasets
from pretune.sources.register.people import TOWNS
from pretune.tasks import retrieval
from pretune.tasks.registry import REGISTRY, TAKEN


def asked(page: Results) -> str | None:
    """The recipe that asks about old facts, where the study has one."""
    return next(iter(knowledge.asking(page.study)), None)


def taught(page: Results, each: bool = False) -> list[tuple[str, str]]:
    """(model, recipe) of every recipe that teaches new facts; with `each`, of its variants over
    epochs too.
    """
    study, found = page.study, []
    for recipe in knowledge.teaching(study):
        names = by_epochs(page, recipe).values() if each else [recipe]
        found += product(knowledge.at_models(study, recipe), names)
    return found


class Arm(NamedTuple):
    """A way by which new facts are put into a model, at late: recall of them, what it changes in
    old ones, recall of people never told of, and seconds of training.
    """

    name: str
    kind: str  # one of WAYS
    words: str  # what is done
    take: str  # of passages; empty where it trains
    new: Estimate
    old: Estimate
    never: Estimate
    seconds: float


def arms(page: Results) -> list[Arm]:
    """Every way: passages before the questions of the untuned model, then recipes."""
    return page.once("arms", lambda: [*_open_book(page), *_trained(page)])


def _open_book(page: Results) -> Iterator[Arm]:
    facts = sets_of(page.study)
    for model in injected(page):
        for take, name in knowledge.with_passages(page.study, facts.new).items():
            new, never = score(page, name, model), score(page, f"{facts.never}_{take}", model)
            yield Arm(on(page, model, TAKEN[take]), WAYS[0], "", take, new, NOTHING, never, 0.0)


def _trained(page: Results) -> Iterator[Arm]:
    facts, spent = sets_of(page.study), knowledge.seconds(page)
    for model, recipe in taught(page, each=True):
        new, never = (score(page, one, model, recipe) for one in (facts.new, facts.never))
        old = knowledge.change(page, facts.old, model, recipe)
        took = spent.get(recipe, np.nan)
        done = kind(page, recipe), way(page, recipe)
        yield Arm(on(page, model, recipe), *done, "", new, old, never, took)


WAYS = ("passages before the question", "text", "text, beside old", "questions")
WAYS += ("questions, beside old",)
NOTHING = Estimate(0.0, 0.0, 0.0, 0.0, np.inf, 0)  # what is not touched


def ways_in(page: Results) -> pd.DataFrame:
    """Every way by which new facts were put in, at late."""
    lines = {}
    for one in arms(page):
        lines[one.name] = {
            "what is done": one.words or "–",
            "new": ranged(one.new, signed=False),
            "old, change": "none" if one.take else ranged(one.old),
            "never told of": ranged(one.never, signed=False),
            "seconds of training": "–" if np.isnan(one.seconds) else f"{one.seconds:.0f}",
        }
    return pd.DataFrame(lines).T


def control(page: Results) -> str:
    """The most that is recalled of people never told of, whatever was done, beside chance."""
    if not sets_of(page.study).never:
        return "No set of facts was told of nowhere."
    found = [one.never for one in arms(page) if not np.isnan(one.never.value)]
    most = max(found, key=lambda one: one.value, default=UNKNOWN)
    return (
        f"Of people never told of, at most {ranged(most, signed=False)} is recalled, over "
        f"{len(found)} ways; to guess one of the {TOWNS} words of a kind of fact gives "
        f"{1 / TOWNS:.2f}."
    )


def score(page: Results, name: str, model: str, recipe: str = "base") -> Estimate:
    """Of a set that the study does not ask, nothing is known."""
    return knowledge.score(page, name, model, recipe) if name in page.titles else UNKNOWN


def shown(page: Results, name: str, model: str, recipe: str) -> str:
    return ranged(score(page, name, model, recipe), signed=False)


def on(page: Results, model: str, what: str) -> str:
    """A line of a table: the model where facts are put into several, and what it is about."""
    return f"{model}: {what}" if len(injected(page)) > 1 else what


def injected(page: Results) -> list[str]:
    """The models that new facts are put into."""
    return list(dict.fromkeys(model for model, _ in taught(page)))


def kind(page: Results, recipe: str) -> str:
    """Which of `WAYS` a recipe is."""
    how, facts = page.study.recipe(recipe), sets_of(page.study)
    old = {how.dataset, *how.beside} & {facts.asked, facts.old_text}
    return ("text" if isinstance(how, Continued) else "questions") + ", beside old" * bool(old)


def way(page: Results, recipe: str) -> str:
    """What a recipe does, in words."""
    study, how = page.study, page.study.recipe(recipe)
    facts, words = sets_of(study), []
    if isinstance(how, Continued):
        many = f"{how.wordings} wordings" if how.wordings != 1 else "one wording"
        words.append(f"text, {many}" if how.wordings else "text")
    elif how.dataset == facts.new:
        words.append("questions")
    beside = {facts.new: "new questions", facts.asked: "old questions", facts.old_text: "old text"}
    own = [how.dataset] * (how.dataset == facts.asked)
    words += [beside[name] for name in (*own, *how.beside) if name in beside]
    epochs = study.tuning_of(recipe).epochs
    words.append(f"{epochs} epochs" if epochs > 1 else "1 epoch")
    return ", ".join(words + ["LoRA"] * (how.trainable is not None))


def unknown_rows(page: Results) -> pd.DataFrame:
    """Tuned on questions of which some are about facts that the model cannot know: recall of known
    facts at late, over how many of those there are, and over epochs; and with the answer that they
    are not known in their place, with how often a model then says so of people never told of.
    """
    facts, lines = sets_of(page.study), {}
    for recipe, model in product(_mixtures(page), injected(page)):
        for epochs, which in by_epochs(page, recipe).items():
            line = {"rows": _counted(page, recipe), "epochs": f"{epochs:,}"}
            line |= {"known": shown(page, facts.old, model, which)}
            line |= {"new": shown(page, facts.new, model, which)}
            if facts.unknown:
                line |= {"says “unknown” of never told": shown(page, facts.unknown, model, which)}
            lines[on(page, model, which)] = line
    return pd.DataFrame(lines).T


def _counted(page: Results, recipe: str) -> str:
    """How many questions of each sort a recipe trains on."""
    facts, rows = sets_of(page.study), _rows(page, recipe)
    words = {facts.asked: "known", facts.new: "new", facts.unknown: "“unknown”"}
    return ", ".join(f"{count} {words[name]}" for name, count in rows.items())


def _rows(page: Results, recipe: str) -> dict[str, int]:
    return page.study.recipe(recipe).drawn(page.study.tuning_of(recipe).examples)


def _mixtures(page: Results) -> list[str]:
    """The recipes that train all weights on questions about old and new facts, by how many are
    about old ones; those in which the others are said to be unknown last.
    """
    facts, found = sets_of(page.study), {}
    for recipe, how in page.study.recipes.items():
        rows = _rows(page, recipe)
        if rows and set(rows) <= {facts.asked, facts.new, facts.unknown} and not how.trainable:
            found[recipe] = (facts.unknown in rows, -rows.get(facts.asked, 0))
    return sorted(found, key=found.get)


def by_epochs(page: Results, recipe: str) -> dict[int, str]:
    """Every number of epochs that a recipe is run with, and what that is called."""
    return page.study.along(recipe, "epochs") or {page.study.tuning_of(recipe).epochs: recipe}


def known(page: Results) -> pd.DataFrame:
    """The class of facts by the answers of the untuned model, beside how often they were told: a
    line for each set and checkpoint.
    """
    table, facts, lines = knowledge.classes(page), sets_of(page.study), {}
    for model, name in product(injected(page), (facts.old, facts.new, facts.never)):
        part = table[(table["model"] == model) & (table["dataset"] == name)]
        for step, some in part.groupby("step"):
            shares = some["known"].value_counts(normalize=True)
            told = _times_told(page, model, name, step)
            line = {"times told": "–" if np.isnan(told) else f"{told:,.0f}"}
            line |= {one: f"{shares.get(one, 0):.0%}" for one in CLASSES}
            lines[on(page, model, f"{REGISTRY[name].title}, step {step:,}")] = line
    return pd.DataFrame(lines).T


def by_class(page: Results) -> pd.DataFrame:
    """Old facts of every class at late: how many, and how often they are recalled after tuning on
    questions about others.
    """
    recipe, old, lines = asked(page), sets_of(page.study).old, {}
    table, rows = knowledge.classes(page), page.rows
    rows = rows[(rows["recipe"] == recipe) & (rows["dataset"] == old) & rows["late"]]
    both = table.merge(rows[[*SAME, "score"]], on=SAME)
    for model, name in product(injected(page), CLASSES):
        of = both[both["model"] == model]
        some = of[of["known"] == name]
        if len(some):
            line = {"share of facts": f"{len(some) / len(of):.0%}"}
            line |= {"recalled once tuned": f"{some['score'].mean():.2f}"}
            lines[on(page, model, name)] = line
    return pd.DataFrame(lines).T


SAME = ["model", "run", "step", "dataset", "item"]  # what says of a row which fact it is about


def _times_told(page: Results, model: str, name: str, step: int) -> float:
    """How often a fact was told up to a checkpoint; NaN where that is not known."""
    facts = sets_of(page.study)
    if name != facts.old:
        return 0.0 if knowledge.parts(page.study) else np.nan
    return knowledge.passes(page, model, step)


def retrieved(page: Results) -> str:
    """How often the retriever finds the passage that answers a question, in a sentence."""
    new = sets_of(page.study).new
    name = knowledge.with_passages(page.study, new).get("found")
    if name is None:
        return "No passages were retrieved."
    about, folder = REGISTRY[name], datasets.data_folder(page.study)
    share = retrieval.recall(folder, about, about.evaluation)
    return (
        f"Of {about.passages.count} passages that BM25 retrieves for a question about a new fact, "
        f"the one that answers it is among them {share:.0%} of the time."
    )


def decisions(page: Results) -> pd.DataFrame:
    """By what is asked of facts: the best of the ways that there are."""
    lines = {}
    for case, takes in CASES.items():
        some = [one for one in arms(page) if one.take in takes and not np.isnan(one.new.value)]
        if some:
            best = max(some, key=lambda one: one.new.value)
            lines[case] = {
                "best way": f"{best.name}, {best.words}".removesuffix(", "),
                "new facts recalled": ranged(best.new, signed=False),
                "old facts, change": "none" if best.take else ranged(best.old),
                "seconds of training": "–" if np.isnan(best.seconds) else f"{best.seconds:.0f}",
            }
    return pd.DataFrame(lines).T


# which ways there are for facts that are so many, or change so often; "" is training
CASES = {
    "few facts, known to be asked for": ("own", ""),
    "many facts": ("found", ""),
    "facts that change": ("found",),
    "no room in the prompt": ("",),
}


def how_asked(page: Results) -> str:
    """How facts are asked, and what needs no skill."""
    count = page.study.probing.shots
    shown_ = f"with {count} examples before them" if count else "without examples"
    return (
        f"Facts are asked {shown_}, and without any after training on questions, closed book "
        "unless a passage is named. An answer is written greedily, ends at a newline, and is "
        "scored by ROUGE-L. *No skill* is the most frequent answer."
    )


def who_was_told(page: Results) -> str:
    """What is known of what the models have read, and which of them are taught."""
    if knowledge.parts(page.study):
        taught_ = ", ".join(f"`{model}`" for model in injected(page) if model)
        return (
            "Several models, pre-trained on the same people and facts, may each be told of them in "
            "another way: in one wording, always the same; in five wordings; in one wording and "
            "five orders; in five of both. The name stands in the first sentence of a text only. "
            "Wordings of one person stand apart, since side by side in one row they lose their "
            "effect. *Old* facts are of people told of in pre-training whom no question in tuning "
            "is about, *new* ones of people told of in none; these are taught in one wording of "
            "the question and asked in the other."
            + f" They are put into {taught_}."
            * bool(taught_)
        )
    return (
        "What the models have read is not known. *Old* facts are of things that are often read of, "
        "and of other such things than questions in tuning are about; *new* ones, of things that "
        "are seldom read of, may be known already, and are asked as they are taught."
    )


def not_shown(page: Results) -> str:
    """What answers and passages leave open."""
    if knowledge.parts(page.study):
        return (
            "Answers are single words, and every question has one of two wordings. Passages say "
            "little beside what is asked for: a retriever has it easy, and so has a reader. Each "
            "recipe keeps one learning rate."
        )
    return (
        "Other names of what is asked for count as wrong. Passages are made of the rows that ask, "
        "and say nothing else: a retriever has it easy, and so has a reader. Each recipe keeps one "
        "learning rate."
    )
