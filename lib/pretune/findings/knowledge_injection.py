"""Finding 10, knowledge injection: by which way does a fact get in, what does that cost, and when
can it be had? Claims 10a to 10d.

After Allen-Zhu & Li 3.1 (arXiv 2309.14316), Ovadia et al. (2312.05934) and Gekhman et al.
(2405.05904), in one world where what is known can be counted. Hundreds of models are tuned for it:
a study has it by naming it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, figures, knowledge, teaching, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.display import say
from pretune.analysis.knowledge import Part, sets_of
from pretune.analysis.results import Results, ranged
from pretune.analysis.scores import Term
from pretune.analysis.statistics import Estimate, estimate, jackknife
from pretune.plan.needs import Need
from pretune.sources.register.people import KINDS
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

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
    there = [name for name in dict.fromkeys(facts) if name in study.probing.datasets]
    read = [name for name in there if REGISTRY[name].kind == "text"]
    closed = [name for name in there if name not in read]
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


def at_a_glance(page: Results) -> None:
    """Recall of held people's facts along pre-training, by how they were told of: after tuning on
    questions about others, and untuned.
    """
    recipe, some = teaching.asked(page), knowledge.parts(page.study)
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
        figures.token_axis(panel, pd.Series(page.tokens))  # of all models
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
    and of people who were never told of.
    """
    recipe, facts = teaching.asked(page), sets_of(page.study)
    lines = {}
    for part in knowledge.parts(page.study) if recipe else ():
        line = {}
        for name, which in (("untuned", "base"), ("tuned", recipe)):
            found = contrasts.effect(knowledge.by_way(page, part), [_of(page, part, which, 1)])
            line[name] = ranged(found, signed=False)
        line |= {"never told of": teaching.shown(page, facts.never, part.model, recipe)}
        lines[knowledge.said(page.study, part)] = line
    return pd.DataFrame(lines).T


def by_fact(page: Results) -> pd.DataFrame:
    """Recall at late of each kind of fact, in the order of an entry that never changes."""
    recipe, lines = teaching.asked(page), {}
    for part in knowledge.parts(page.study) if recipe else ():
        rows = knowledge.by_way(page, part).rows
        rows = rows[(rows["recipe"] == f"{part.label}/{recipe}") & rows["late"]]
        rows = rows[rows["shots_asked"] == knowledge.shots(page.study, recipe)]
        means = rows.groupby(rows["item"] % len(KINDS))["score"].mean()
        lines[knowledge.said(page.study, part)] = {KINDS[at]: one for at, one in means.items()}
    return pd.DataFrame(lines).T.map(lambda one: f"{one:.2f}")


def show_ways(page: Results) -> None:
    """Recall of new facts over what happens to old ones, a point for each way; ways that none
    beats in both bear their names.
    """
    some = [one for one in teaching.arms(page) if not np.isnan(one.new.value + one.old.value)]
    if not some:
        return say("No recipe of this study teaches new facts.")
    [axes] = figures.panels(1, 3.2)
    inks = dict(zip(teaching.WAYS, theme.many_colours(len(teaching.WAYS)), strict=True))
    new, old, kinds = ([getattr(one, what) for one in some] for what in ("new", "old", "kind"))
    figures.scatter(axes, old, new, kinds, [inks[kind] for kind in kinds])
    for one in filter(partial(_is_unbeaten, some), some):
        figures.beside(axes, one.old.value, one.new.value, one.name)
    axes.axvline(0, color="0.5", lw=1)
    axes.set(
        xlabel="change of recall of old facts", ylabel="recall of new facts", ylim=(-0.03, 1.03)
    )
    figures.show(
        [axes],
        "What each way gives in new facts, and what it takes from old ones: 95 % intervals",
        "Recall of new facts against the change of recall of old ones, a point for each way.",
        teaching.ways_in(page),
    )


def _is_unbeaten(some: Sequence[teaching.Arm], one: teaching.Arm) -> bool:
    """Whether no other way gives more new facts and leaves as many old ones, or the reverse."""
    here = (one.new.value, one.old.value)
    there = {(other.new.value, other.old.value) for other in some} - {here}
    return not any(new >= here[0] and old >= here[1] for new, old in there)


def show_exposures(page: Results) -> None:
    """Recall of new facts, and of old ones (dashed), over exposures of new ones, for each recipe
    with a grid of epochs; a line for each checkpoint.
    """
    facts, some = sets_of(page.study), _graded(page)
    if not some:
        return say("No recipe that teaches new facts has a grid of epochs.")
    axes, numbers = figures.panels(len(some), 2.6), []
    for panel, (model, recipe) in zip(axes, some, strict=True):
        steps = _grid_steps(page, model)
        for step, ink in zip(steps, theme.rising(len(steps)), strict=True):
            for name, dashed in ((facts.new, False), (facts.old, True)):
                line = _over_exposures(page, model, recipe, name, step)
                curve = f"{'old' if dashed else 'new'}, step {step:,}"
                figures.over_examples(panel, line, ink, curve, dashed)
                numbers.append(line.assign(panel=teaching.on(page, model, recipe), curve=curve))
        panel.set(
            title=teaching.on(page, model, recipe), ylabel="recall, 0 to 1", ylim=(-0.03, 1.03)
        )
        panel.set_xlabel("exposures of each new fact")
    figures.show(
        axes,
        "New facts (and old ones, dashed) over exposures, 95 % intervals",
        "Recall of new and of old facts against how often each new one was told, a line for each "
        "checkpoint.",
        figures.along(pd.concat(numbers), "examples"),
    )


def _grid_steps(page: Results, model: str) -> list[int]:
    """The checkpoints of a model at which a grid is run, but one that has read nothing."""
    steps = knowledge.by_model(page, model).steps
    return [at for at in steps if at in page.study.grid.steps and page.tokens[at]]


def _graded(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of those that teach every new fact and have a grid of epochs."""
    study = page.study
    return [
        (model, recipe)
        for model, recipe in teaching.taught(page)
        if study.along(recipe, "epochs") and knowledge.told_each(study, recipe) > 0.99
    ]


def _over_exposures(page: Results, model: str, recipe: str, name: str, step: int) -> pd.DataFrame:
    lines = []
    for which in page.study.along(recipe, "epochs").values():
        terms = [knowledge.term(page, name, model, which, 1, (step,))]
        found = contrasts.effect(knowledge.by_model(page, model), terms, noise=False)
        line = {"examples": knowledge.exposures(page.study, which), "score": found.value}
        lines.append(line | {"low": found.low, "high": found.high})
    return pd.DataFrame(lines).sort_values("examples")


def verdicts(page: Results) -> list[Verdict]:
    """Claims 10a to 10d, judged by the rules above the data."""
    effects = {"10a": _claim_10a, "10b": _claim_10b, "10c": _claim_10c, "10d": _claim_10d}
    return judged(page, CLAIMS, {name: make(page) for name, make in effects.items()})


def _claim_10a(page: Results) -> tuple[Estimate | None, str]:
    recipe, pair = teaching.asked(page), _beside(page)
    if recipe is None or pair is None:
        return None, (
            "No two models read as much of the same people, one in one wording and one in five "
            "wordings and orders, and were tuned on questions about some."
        )
    several, single = pair
    terms = [_of(page, several, recipe, 1.0), _of(page, single, recipe, -1.0)]
    return contrasts.effect(knowledge.by_way(page, *pair), terms), (
        f"After `{recipe}`: `{several.model}` minus `{single.model}`, who read as much."
    )


def _beside(page: Results) -> tuple[Part, Part] | None:
    """A model told in five wordings and orders, and one told in one wording, that differ in nothing
    else and were asked no questions.
    """
    found: dict[str, dict] = {}
    for part in knowledge.parts(page.study):
        source = page.study.models[part.model]
        if len(source.told.ways) == 1 and not source.told.questions:
            rest = source.model_dump(exclude={"told"}) | {"readings": source.told.readings}
            found.setdefault(repr(rest), {})[part.way] = part
    both = [one for one in found.values() if {"both", "single"} <= set(one)]
    return (both[0]["both"], both[0]["single"]) if both else None


def _claim_10b(page: Results) -> tuple[Estimate | None, str]:
    facts = sets_of(page.study)
    name = knowledge.with_passages(page.study, facts.new).get("among")
    each = teaching.taught(page, each=True)
    tuned = {one: knowledge.score(page, facts.new, *one).value for one in each}
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
        f"are recalled.{_reading(page, model)}"
    )


def _reading(page: Results, model: str) -> str:
    """How well a model reads, of which a passage among others asks more."""
    own = knowledge.with_passages(page.study, sets_of(page.study).new).get("own")
    if own is None:
        return ""
    found = ranged(teaching.score(page, own, model), signed=False)
    return f" With the passage that answers alone, the untuned model recalls {found}."


def _claim_10c(page: Results) -> tuple[Estimate | None, str]:
    had = {pair: which for pair in _plain(page) if (which := _had(page, *pair))}
    if not had:
        return None, "After no plain way of teaching are half of the new facts recalled."
    model, old = next(iter(had))[0], sets_of(page.study).old  # of several, the first
    ways = [which for (where, _), which in had.items() if where == model]
    terms = [knowledge.term(page, old, model, "base")]
    terms += [knowledge.term(page, old, model, which, -1 / len(ways)) for which in ways]
    said = [f"`{which}` ({page.study.tuning_of(which).epochs:,} epochs)" for which in ways]
    scores = knowledge.by_model(page, model)
    return contrasts.effect(scores, terms), f"Asked of {', '.join(said)}."


def _plain(page: Results) -> list[tuple[str, str]]:
    """(model, recipe) of those that teach new facts by training all weights on nothing else."""
    facts = sets_of(page.study)
    return [
        (model, recipe)
        for model, recipe in teaching.taught(page)
        if knowledge.drawn(page.study, recipe) <= {facts.new, facts.new_text}
        and page.study.recipe(recipe).trainable is None
    ]


def _had(page: Results, model: str, recipe: str) -> str | None:
    """A recipe with the fewest epochs after which new facts are had at late."""
    for _, which in sorted(teaching.by_epochs(page, recipe).items()):
        if knowledge.score(page, sets_of(page.study).new, model, which).value > HAD:
            return which
    return None


def _claim_10d(page: Results) -> tuple[Estimate | None, str]:
    some = _graded(page)
    saved = [one for pair in some if not (one := _saved(page, *pair))(None).isna().any()]
    if not saved:
        return None, (
            "With no recipe that has a grid of epochs are half of the new facts recalled both at "
            "early and at late, and not with the fewest epochs already."
        )

    def mean(items: Sequence[int] | None) -> pd.Series:
        return pd.concat([one(items) for one in saved], axis=1).mean(axis=1, skipna=False)

    new, runs = sets_of(page.study).new, mean(None)
    items = sorted(page.rows.loc[page.rows["dataset"] == new, "item"].unique())
    spread = (float(runs.var()) / len(runs), len(runs) - 1) if len(runs) > 1 else (np.nan, 0)
    one = jackknife(lambda kept: float(mean(kept).mean()), dict.fromkeys(items, 0), len(items))
    spreads = [spread, (one.variance, len(items) - 1)]
    return estimate(float(runs.mean()), spreads, len(items), len(runs)), (
        f"Asked of {len(saved)} of {len(some)} recipes with a grid of epochs; the interval is over "
        "pre-training runs and items."
    )


def _saved(page: Results, model: str, recipe: str) -> Callable[[Sequence[int] | None], pd.Series]:
    """What gives, for some items or all, of each run the doublings of exposures until new facts are
    had, at early minus at late; NaN where they are not, or are with the fewest already.
    """
    study, new = page.study, sets_of(page.study).new
    names = study.along(recipe, "epochs").values()
    tables = {
        knowledge.exposures(study, which): knowledge.recalls(page, new, model, which)
        for which in names
    }
    steps, late = _grid_steps(page, model), knowledge.by_model(page, model).late
    late, runs = [at for at in late if at in steps], study.grid.runs

    def saved(items: Sequence[int] | None) -> pd.Series:
        kept = {told: one if items is None else one[items] for told, one in tables.items()}
        means = {told: one.mean(axis=1) for told, one in kept.items()}
        needed = pd.DataFrame(means).sort_index(axis=1).apply(knowledge.doublings, axis=1)
        if not late or steps[0] in late or needed.empty:
            return pd.Series([np.nan])
        needed = needed.unstack("step").reindex(columns=[steps[0], *late])
        needed = needed if runs is None else needed.loc[list(runs)]
        return needed[steps[0]] - needed[late].mean(axis=1, skipna=False)

    return saved


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
