"""How new facts were put in: by passages before a question, as text, as questions, and what each
way costs; which old ones are known, and to whom that is known.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import knowledge
from pretune.analysis.knowledge import CLASSES, sets_of
from pretune.analysis.results import Results, ranged
from pretune.recipes.continued import Continued
from pretune.sources import datasets
from pretune.tasks import retrieval
from pretune.tasks.registry import REGISTRY, TAKEN


def asked(page: Results) -> str | None:
    """The recipe that asks about old facts, where the study has one."""
    return next(iter(knowledge.asking(page.study)), None)


def taught(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of every recipe that teaches new facts."""
    study, found = page.study, []
    for recipe in knowledge.teaching(study):
        found += [(model, recipe) for model in knowledge.at_models(study, recipe)]
    return found


def ways_in(page: Results) -> pd.DataFrame:
    """Every way by which new facts were put in, at late: their recall, what it changes in old facts
    and in people never told of, and the seconds it took.
    """
    facts, lines = sets_of(page.study), {}
    spent = knowledge.seconds(page)
    for model in injected(page):
        for take, name in knowledge.with_passages(page.study, facts.new).items():
            found = knowledge.score(page, name, model, "base")
            never = f"{facts.never}_{take}"
            lines[on(model, TAKEN[take])] = {
                "new": ranged(found, signed=False),
                "old, change": "none",
                "never told of": shown(page, never, model, "base"),
                "seconds": "0",
            }
    for model, recipe in taught(page):
        lines[on(model, f"`{recipe}`: {way(page, recipe)}")] = {
            "new": shown(page, facts.new, model, recipe),
            "old, change": ranged(knowledge.change(page, facts.old, model, recipe)),
            "never told of": shown(page, facts.never, model, recipe),
            "seconds": f"{spent.get(recipe, np.nan):.0f}",
        }
    return pd.DataFrame(lines).T


def shown(page: Results, name: str, model: str, recipe: str) -> str:
    if name not in page.titles:
        return "–"
    return ranged(knowledge.score(page, name, model, recipe), signed=False)


def on(model: str, what: str) -> str:
    """A line of a table: the model where there are several, and what it is about."""
    return f"{model}: {what}" if model else what


def injected(page: Results) -> list[str]:
    """The models that new facts are put into."""
    return list(dict.fromkeys(model for model, _ in taught(page)))


def way(page: Results, recipe: str) -> str:
    """What a recipe does, in words."""
    study, how = page.study, page.study.recipe(recipe)
    facts, words = sets_of(study), []
    if isinstance(how, Continued):
        words.append(f"text, {how.wordings or 'all'} wordings")
    elif how.dataset == facts.new:
        words.append("questions")
    beside = {facts.new: "new questions", facts.old: "old questions", facts.old_text: "old text"}
    own = [] if how.dataset == facts.new else [how.dataset] * (how.dataset == facts.old)
    words += [beside[name] for name in (*own, *how.beside) if name in beside]
    words.append(f"{study.tuning_of(recipe).epochs} epochs")
    return ", ".join(words + ["LoRA"] * (how.trainable is not None))


def unknown_rows(page: Results) -> pd.DataFrame:
    """Tuned on questions of which some are about facts that the model cannot know: recall of known
    facts at late, over the share of those and over epochs; and with the answer that they are not
    known in their place, with how often a model then says so of people it was never told of.
    """
    facts, lines = sets_of(page.study), {}
    for recipe in _mixtures(page):
        for model, (epochs, which) in product(
            knowledge.at_models(page.study, recipe), by_epochs(page, recipe).items()
        ):
            how = page.study.recipe(recipe)
            rows = how.drawn(page.study.tuning_of(recipe).examples)
            share = 1 - rows.get(facts.old, 0) / sum(rows.values())
            says = ", said to be unknown" if facts.unknown in rows else ""
            line = {"known": shown(page, facts.old, model, which)}
            line |= {"taught": shown(page, facts.new, model, which)}
            if facts.unknown:
                line |= {"says “unknown” of never told": shown(page, facts.unknown, model, which)}
            lines[on(model, f"{share:.0%} not known{says}, {epochs:,} epochs")] = line
    return pd.DataFrame(lines).T


def _mixtures(page: Results) -> list[str]:
    """The recipes that tune on questions about old facts, alone or with others about new ones, or
    on the latter alone, by the share of these.
    """
    facts, found = sets_of(page.study), {}
    for recipe, how in page.study.recipes.items():
        rows = how.drawn(page.study.tuning_of(recipe).examples) if recipe != "base" else {}
        if rows and set(rows) <= {facts.old, facts.new, facts.unknown}:
            found[recipe] = (facts.unknown in rows, 1 - rows.get(facts.old, 0) / sum(rows.values()))
    return sorted(found, key=found.get)


def by_epochs(page: Results, recipe: str) -> dict[int, str]:
    """Every number of epochs that a recipe is run with, and what that is called."""
    return page.study.along(recipe, "epochs") or {page.study.tuning_of(recipe).epochs: recipe}


def known(page: Results) -> pd.DataFrame:
    """The class of facts by the answers of the untuned model, beside how often they were told: a
    line for each set and checkpoint.
    """
    table, facts, lines = knowledge.classes(page), sets_of(page.study), {}
    for model, name in product(injected(page), facts[:3]):
        part = table[(table["model"] == model) & (table["dataset"] == name)]
        for step, some in part.groupby("step"):
            shares = some["known"].value_counts(normalize=True)
            told = _times_told(page, model, name, step)
            line = {"times told": "–" if np.isnan(told) else f"{told:,.0f}"}
            line |= {one: f"{shares.get(one, 0):.0%}" for one in CLASSES}
            lines[on(model, f"{REGISTRY[name].title}, step {step:,}")] = line
    return pd.DataFrame(lines).T


def by_class(page: Results) -> pd.DataFrame:
    """Old facts of every class at late: how many, and how often they are recalled after tuning on
    questions about others.
    """
    recipe, old, lines = asked(page), sets_of(page.study).old, {}
    table, rows = knowledge.classes(page), page.rows
    rows = rows[(rows["recipe"] == recipe) & (rows["dataset"] == old) & rows["late"]]
    both = table.merge(rows[[*SAME, "score"]], on=SAME)
    for (model, name), some in both.groupby(["model", "known"]):
        if model in injected(page):
            line = {"share of facts": f"{len(some) / (both['model'] == model).sum():.0%}"}
            line |= {"recalled once tuned": f"{some['score'].mean():.2f}"}
            lines[on(model, name)] = line
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
    """What to do, by what is asked of the facts: the ways that are there, best first."""
    facts, spent, found = sets_of(page.study), knowledge.seconds(page), []
    for model in injected(page):
        for take, name in knowledge.with_passages(page.study, facts.new).items():
            found.append((model, take, knowledge.score(page, name, model, "base").value, 0.0, 0.0))
    for model, recipe in taught(page):
        new = knowledge.score(page, facts.new, model, recipe).value
        cost = -knowledge.change(page, facts.old, model, recipe).value
        found.append((model, recipe, new, cost, spent.get(recipe, np.nan)))
    table = pd.DataFrame(found, columns=["model", "way", "new", "old lost", "seconds"])
    lines = {}
    for case, ways in CASES.items():
        some = table[table["way"].isin(ways)] if ways else table[~table["way"].isin([*TAKEN])]
        if some["new"].notna().any():
            best = some.loc[some["new"].idxmax()]
            lines[case] = {
                "best way": TAKEN.get(best["way"], f"`{best['way']}`"),
                "new facts recalled": f"{best['new']:.2f}",
                "old facts lost": f"{best['old lost']:+.2f}",
                "seconds of training": f"{best['seconds']:.0f}",
            }
    return pd.DataFrame(lines).T


# which ways are there for facts that are so many, or change so often
CASES = {
    "few facts, that are known to be asked for: their passage in the prompt": ("own",),
    "many facts, or facts that change: passages that are retrieved": ("found",),
    "many facts that stay, and no room in the prompt: training": (),
}
