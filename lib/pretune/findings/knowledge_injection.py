"""Finding 10, knowledge injection: by which way does a fact get in, what does that cost, and when
can it be had? Claims 10a to 10d.

After Allen-Zhu & Li 3.1 (arXiv 2309.14316), Ovadia et al. (2312.05934) and Gekhman et al.
(2405.05904), in one world where what is known can be counted. Hundreds of models are tuned for it:
a study has it by naming it.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, display, figures, knowledge, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.knowledge import CLASSES, Part, sets_of
from pretune.analysis.results import Results, ranged
from pretune.analysis.scores import Term
from pretune.analysis.statistics import Estimate, estimate
from pretune.plan.needs import Need
from pretune.recipes.continued import Continued
from pretune.sources import datasets
from pretune.sources.register.people import KINDS
from pretune.study.config import Study
from pretune.tasks import retrieval
from pretune.tasks.registry import REGISTRY, TAKEN

ASKED, CHECKPOINTS, MODELS = "by name", "all", "several"
CLAIMS = {
    "10a": Claim(
        "A fact must be said in several ways in pre-training to be had after tuning",
        "recall of facts of people that no question was about, told in five wordings and orders "
        "minus in one, equal exposures, at late",
        "Told in five wordings and orders, facts are recalled {} more often than told in one.",
        reference="97 % against 10 % (arXiv 2309.14316)",
    ),
    "10b": Claim(
        "A passage in the prompt beats tuning on the fact",
        "recall of new facts by the untuned model with the passage among others in its prompt, "
        "minus that of the best tuned one without, at late",
        "With a passage among others in the prompt, new facts are recalled {} more often than "
        "after tuning on them.",
        reference=".88 against .50 to .59, Mistral-7B (arXiv 2312.05934)",
    ),
    "10c": Claim(
        "Teaching new facts costs old ones",
        "recall of old facts before minus after, at the fewest epochs after which new ones are "
        "had, mean over plain ways of teaching, at late",
        "Where new facts are had, old ones are recalled {} less often.",
        reference="corruption of known facts (arXiv 2503.21676)",
    ),
    "10d": Claim(
        "More pre-training makes new facts cheaper",
        "doublings of exposures until half of the new facts are recalled, at early minus at late",
        "At late new facts take {} doublings of exposures less than at early.",
        "doublings of exposures",
        margin=0.25,
    ),
}
HAD = 0.5  # recall at which new facts are had
# examples before a question to how many draws of such, after which an untuned model is asked again
# and again whether it knows a fact
PROMPTS = {0: 1, 4: 3}


def needs(study: Study, recipe: str) -> list[Need]:
    """Facts closed book after every recipe; of base with passages as well, and again and again."""
    facts = sets_of(study)
    if facts is None:
        return []
    closed = [name for name in facts[:4] if name and name in study.probing.datasets]
    read = [name for name in facts[4:] if name and name in study.probing.datasets]
    asked = [Need(name, knowledge.shots(study, recipe)) for name in closed]
    asked += [Need(name, 0) for name in read]
    if recipe == "base":
        names = [name for name in closed if name != facts.unknown]
        for name in names:
            open_book = knowledge.with_passages(study, name).values()
            asked += [Need(one, study.probing.shots) for one in open_book]
        for count, draws in PROMPTS.items():
            asked += [Need(name, count, measure="sampling", draws=draws) for name in names]
    return asked


def _asked(page: Results) -> str | None:
    """The recipe that asks about old facts, where the study has one."""
    return next(iter(knowledge.asking(page.study)), None)


def _taught(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of every recipe that teaches new facts."""
    study, found = page.study, []
    for recipe in knowledge.teaching(study):
        found += [(model, recipe) for model in knowledge.at_models(study, recipe)]
    return found


def at_a_glance(page: Results) -> None:
    """Recall of held people's facts along pre-training, by how they were told of: after tuning on
    questions about others, and untuned (dashed).
    """
    recipe, some = _asked(page), knowledge.parts(page.study)
    if recipe is None or not some:
        return show_exposures(page)  # how people were told of is not known
    axes, numbers = figures.panels(2, 2.8), []
    shown = {"tuned on questions": recipe, "untuned": "base"}
    for panel, (name, which) in zip(axes, shown.items(), strict=True):
        for part, ink in zip(some, theme.many_colours(len(some)), strict=True):
            make = partial(_of, page, part, which, 1.0)
            scores = knowledge.by_way(page, part)
            line = contrasts.along(scores, page.tokens, lambda steps, make=make: [make(steps)])
            said = knowledge.said(page.study, part)
            figures.plain_curve(panel, line, ink, said)
            numbers.append(line.assign(panel=name, curve=said))
        panel.set(title=name, ylabel="recall, 0 to 1", ylim=(-0.03, 1.03))
    figures.show(
        axes,
        "Facts of people that no question was about, by how they were told of: 95 % intervals",
        "Recall against pre-training tokens, a line for each way of telling, after tuning on "
        "questions about others and untuned.",
        figures.along(pd.concat(numbers)),
    )


def _of(page: Results, part: Part, recipe: str, weight: float, steps: tuple = ()) -> Term:
    """The mean of old facts over a part of a model after a recipe."""
    count = knowledge.shots(page.study, recipe)
    return Term(weight, sets_of(page.study).old, f"{part.label}/{recipe}", steps, shots=count)


def by_telling(page: Results) -> pd.DataFrame:
    """Recall at late by how people were told of: untuned, after tuning on questions about others,
    and of people who were never told of; and of each kind of fact.
    """
    recipe, facts = _asked(page), sets_of(page.study)
    lines = {}
    for part in knowledge.parts(page.study) if recipe else ():
        line = {}
        for name, which in (("untuned", "base"), ("tuned", recipe)):
            found = contrasts.effect(knowledge.by_way(page, part), [_of(page, part, which, 1)])
            line[name] = ranged(found, signed=False)
        line |= {"never told of": _shown(page, facts.never, part.model, recipe)}
        lines[knowledge.said(page.study, part)] = line
    return pd.DataFrame(lines).T


def by_fact(page: Results) -> pd.DataFrame:
    """Recall at late of each kind of fact, in the order of an entry that never changes."""
    recipe, lines = _asked(page), {}
    for part in knowledge.parts(page.study) if recipe else ():
        rows = knowledge.by_way(page, part).rows
        rows = rows[(rows["recipe"] == f"{part.label}/{recipe}") & rows["late"]]
        rows = rows[rows["shots_asked"] == knowledge.shots(page.study, recipe)]
        means = rows.groupby(rows["item"] % len(KINDS))["score"].mean()
        lines[knowledge.said(page.study, part)] = {KINDS[at]: one for at, one in means.items()}
    return pd.DataFrame(lines).T.map(lambda one: f"{one:.2f}")


def ways_in(page: Results) -> pd.DataFrame:
    """Every way by which new facts were put in, at late: their recall, what it changes in old facts
    and in people never told of, and the seconds it took.
    """
    facts, lines = sets_of(page.study), {}
    spent = knowledge.seconds(page)
    for model in _injected(page):
        for take, name in knowledge.with_passages(page.study, facts.new).items():
            found = knowledge.score(page, name, model, "base")
            never = f"{facts.never}_{take}"
            lines[_on(model, TAKEN[take])] = {
                "new": ranged(found, signed=False),
                "old, change": "none",
                "never told of": _shown(page, never, model, "base"),
                "seconds": "0",
            }
    for model, recipe in _taught(page):
        lines[_on(model, f"`{recipe}`: {_way(page, recipe)}")] = {
            "new": _shown(page, facts.new, model, recipe),
            "old, change": ranged(knowledge.change(page, facts.old, model, recipe)),
            "never told of": _shown(page, facts.never, model, recipe),
            "seconds": f"{spent.get(recipe, np.nan):.0f}",
        }
    return pd.DataFrame(lines).T


def _shown(page: Results, name: str, model: str, recipe: str) -> str:
    if name not in page.titles:
        return "–"
    return ranged(knowledge.score(page, name, model, recipe), signed=False)


def _on(model: str, what: str) -> str:
    """A line of a table: the model where there are several, and what it is about."""
    return f"{model}: {what}" if model else what


def _injected(page: Results) -> list[str]:
    """The models that new facts are put into."""
    return list(dict.fromkeys(model for model, _ in _taught(page)))


def _way(page: Results, recipe: str) -> str:
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


def show_exposures(page: Results) -> None:
    """Recall of new facts, and of old ones (dashed), over exposures of new ones, for each recipe
    with a grid of epochs; a line for each checkpoint.
    """
    facts, some = sets_of(page.study), _graded(page)
    if not some:
        return display.say("No recipe that teaches new facts has a grid of epochs.")
    axes, numbers = figures.panels(len(some), 2.6), []
    for panel, (model, recipe) in zip(axes, some, strict=True):
        steps = _grid_steps(page, model)
        for step, ink in zip(steps, theme.rising(len(steps)), strict=True):
            for name, dashed in ((facts.new, False), (facts.old, True)):
                line = _over_exposures(page, model, recipe, name, step)
                curve = f"{'old' if dashed else 'new'}, step {step:,}"
                figures.over_examples(panel, line, ink, curve, dashed)
                numbers.append(line.assign(panel=_on(model, recipe), curve=curve))
        panel.set(title=_way_of(page, recipe), ylabel="recall, 0 to 1", ylim=(-0.03, 1.03))
        panel.set_xlabel("exposures of each new fact")
    figures.show(
        axes,
        "New facts (and old ones, dashed) over exposures, 95 % intervals",
        "Recall of new and of old facts against how often each new one was told, a line for each "
        "checkpoint.",
        figures.along(pd.concat(numbers), "examples"),
    )


def _way_of(page: Results, recipe: str) -> str:
    return _way(page, recipe).rpartition(" epochs")[0].rpartition(", ")[0] or recipe


def _grid_steps(page: Results, model: str) -> list[int]:
    """The checkpoints of a model at which a grid is run."""
    return [at for at in knowledge.by_model(page, model).steps if at in page.study.grid.steps]


def _graded(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of those that teach with a grid of epochs."""
    return [one for one in _taught(page) if page.study.along(one[1], "epochs")]


def _over_exposures(page: Results, model: str, recipe: str, name: str, step: int) -> pd.DataFrame:
    lines = []
    for which in page.study.along(recipe, "epochs").values():
        terms = [knowledge.term(page, name, model, which, 1, (step,))]
        found = contrasts.effect(knowledge.by_model(page, model), terms, noise=False)
        line = {"examples": knowledge.exposures(page.study, which), "score": found.value}
        lines.append(line | {"low": found.low, "high": found.high})
    return pd.DataFrame(lines).sort_values("examples")


def unknown_rows(page: Results) -> pd.DataFrame:
    """Tuned on questions of which some are about facts that the model cannot know: recall of known
    facts at late, over the share of those and over epochs; and with the answer that they are not
    known in their place, with how often a model then says so of people it was never told of.
    """
    facts, lines = sets_of(page.study), {}
    for recipe in _mixtures(page):
        for model, (epochs, which) in product(
            knowledge.at_models(page.study, recipe), _epochs(page, recipe).items()
        ):
            how = page.study.recipe(recipe)
            rows = how.drawn(page.study.tuning_of(recipe).examples)
            share = 1 - rows.get(facts.old, 0) / sum(rows.values())
            says = ", said to be unknown" if facts.unknown in rows else ""
            line = {"known": _shown(page, facts.old, model, which)}
            line |= {"taught": _shown(page, facts.new, model, which)}
            if facts.unknown:
                line |= {"says “unknown” of never told": _shown(page, facts.unknown, model, which)}
            lines[_on(model, f"{share:.0%} not known{says}, {epochs:,} epochs")] = line
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


def _epochs(page: Results, recipe: str) -> dict[int, str]:
    """Every number of epochs that a recipe is run with, and what that is called."""
    return page.study.along(recipe, "epochs") or {page.study.tuning_of(recipe).epochs: recipe}


def known(page: Results) -> pd.DataFrame:
    """The class of facts by the answers of the untuned model, beside how often they were told: a
    line for each set and checkpoint.
    """
    table, facts, lines = knowledge.classes(page), sets_of(page.study), {}
    for model, name in product(_injected(page), facts[:3]):
        part = table[(table["model"] == model) & (table["dataset"] == name)]
        for step, some in part.groupby("step"):
            shares = some["known"].value_counts(normalize=True)
            told = _times_told(page, model, name, step)
            line = {"times told": "–" if np.isnan(told) else f"{told:,.0f}"}
            line |= {one: f"{shares.get(one, 0):.0%}" for one in CLASSES}
            lines[_on(model, f"{REGISTRY[name].title}, step {step:,}")] = line
    return pd.DataFrame(lines).T


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
    for model in _injected(page):
        for take, name in knowledge.with_passages(page.study, facts.new).items():
            found.append((model, take, knowledge.score(page, name, model, "base").value, 0.0, 0.0))
    for model, recipe in _taught(page):
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


def verdicts(page: Results) -> list[Verdict]:
    """Claims 10a to 10d, judged by the rules above the data."""
    effects = {"10a": _claim_10a, "10b": _claim_10b, "10c": _claim_10c, "10d": _claim_10d}
    return judged(page, CLAIMS, {name: make(page) for name, make in effects.items()})


def _claim_10a(page: Results) -> tuple[Estimate | None, str]:
    recipe, of = _asked(page), {}
    for part in knowledge.parts(page.study):
        told = page.study.models[part.model].told
        if len(told.ways) == 1 and not told.questions:
            of[part.way] = part
    if recipe is None or not {"single", "both"} <= set(of):
        return None, (
            "No two models were told of people, one in one wording and one in five wordings and "
            "orders, and tuned on questions about some."
        )
    terms = [_of(page, of["both"], recipe, 1.0), _of(page, of["single"], recipe, -1.0)]
    scores = knowledge.by_way(page, of["both"], of["single"])
    return contrasts.effect(scores, terms), (
        f"After `{recipe}`: `{of['both'].model}` minus `{of['single'].model}`, who read as much."
    )


def _claim_10b(page: Results) -> tuple[Estimate | None, str]:
    facts = sets_of(page.study)
    name = knowledge.with_passages(page.study, facts.new).get("among")
    tuned = {one: knowledge.score(page, facts.new, *one).value for one in _taught(page)}
    tuned = {one: value for one, value in tuned.items() if not np.isnan(value)}
    if name is None or not tuned:
        return None, "No passage is asked with among others, or no recipe teaches new facts."
    model, recipe = max(tuned, key=tuned.get)
    terms = [
        knowledge.term(page, name, model, "base"),
        knowledge.term(page, facts.new, model, recipe, -1.0),
    ]
    return contrasts.effect(knowledge.by_model(page, model), terms), (
        f"Untuned, with the passage among others, against `{recipe}`, after which most new facts "
        "are recalled."
    )


def _claim_10c(page: Results) -> tuple[Estimate | None, str]:
    had = {pair: which for pair in _plain(page) if (which := _had(page, *pair))}
    if not had:
        return None, "After no plain way of teaching are half of the new facts recalled."
    terms, old = [], sets_of(page.study).old
    for (model, _), which in had.items():
        terms.append(knowledge.term(page, old, model, "base", 1 / len(had)))
        terms.append(knowledge.term(page, old, model, which, -1 / len(had)))
    said = [f"`{which}` ({page.study.tuning_of(which).epochs:,} epochs)" for which in had.values()]
    scores = knowledge.by_model(page, *dict.fromkeys(model for model, _ in had))
    return contrasts.effect(scores, terms), f"Asked of {', '.join(said)}."


def _plain(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of those that teach new facts by training all weights on nothing else."""
    facts = sets_of(page.study)
    return [
        (model, recipe)
        for model, recipe in _taught(page)
        if len(knowledge.drawn(page.study, recipe) - {facts.new, facts.new_text}) == 0
        and page.study.recipe(recipe).trainable is None
    ]


def _had(page: Results, model: str, recipe: str) -> str | None:
    """A recipe with the fewest epochs after which new facts are had at late."""
    for _, which in sorted(_epochs(page, recipe).items()):
        if knowledge.score(page, sets_of(page.study).new, model, which).value > HAD:
            return which
    return None


def _claim_10d(page: Results) -> tuple[Estimate | None, str]:
    some = _graded(page)
    each = [one for pair in some if (one := _cheaper(page, *pair)) is not None]
    if not each:
        return None, (
            "With no recipe that has a grid of epochs are half of the new facts recalled both at "
            "early and at late, and not at once."
        )
    runs = pd.concat(each, axis=1).mean(axis=1)
    spread = (float(runs.var()) / len(runs), len(runs) - 1) if len(runs) > 1 else (np.nan, 0)
    items = int(page.rows.loc[page.rows["dataset"] == sets_of(page.study).new, "item"].nunique())
    return estimate(float(runs.mean()), [spread], items, len(runs)), (
        f"Asked of {len(each)} of {len(some)} recipes with a grid of epochs; the interval is over "
        "pre-training runs."
    )


def _cheaper(page: Results, model: str, recipe: str) -> pd.Series | None:
    """Of each run the doublings of exposures until new facts are had, at early minus at late; None
    where they are not had somewhere.
    """
    new, table = sets_of(page.study).new, {}
    for which in page.study.along(recipe, "epochs").values():
        table[knowledge.exposures(page.study, which)] = knowledge.recalls(page, new, model, which)
    needed = pd.DataFrame(table).sort_index(axis=1).apply(knowledge.doublings, axis=1)
    steps = _grid_steps(page, model)
    early, late = steps[0], [at for at in knowledge.by_model(page, model).late if at in steps]
    needed = needed.unstack("step")
    if needed.empty or early in late or needed[[early, *late]].isna().any(axis=None):
        return None
    return needed[early] - needed[late].mean(axis=1)


def differences(page: Results) -> list[str]:
    """What differs from the studies that it redoes."""
    return [
        "Allen-Zhu & Li tell of 100,000 people 1,350 times each, in a model of 124 M weights, and "
        "show one run. Here people are few and models small, and intervals are over runs.",
        "Ovadia et al. take one finished model and its benchmark. Here what is known is counted, "
        "and all ways are compared from several checkpoints.",
        "Gekhman et al. cannot tell what a model has read: what they call unknown is what it does "
        "not say. Here both are shown beside each other, and old facts are asked apart from what "
        "is trained on.",
    ]
