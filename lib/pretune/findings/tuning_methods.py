"""Finding 11, tuning methods: which weights to train, what to replay, and what preferences cost, as
pre-training goes on? Claims 11a to 11c.

Every method is tuned at several rates, with two models in memory for some measures: a study has it
by naming it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import numpy as np
import pandas as pd

from pretune.analysis import (
    contrasts,
    figures,
    matching,
    methods,
    preferences,
    shift,
    theme,
)
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.display import say
from pretune.analysis.forgetting import mean_loss, texts
from pretune.analysis.methods import FULL
from pretune.analysis.preferences import Pair
from pretune.analysis.results import Results, of_grid, ranged
from pretune.analysis.scores import Scores, Term
from pretune.analysis.statistics import UNKNOWN, Estimate
from pretune.plan.needs import Need, asked_sets, is_single, own_sets, shots_of
from pretune.recipes.dpo import Dpo
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

ASKED, CHECKPOINTS = "by name", "all"
CLAIMS = {
    "11a": Claim(
        "At equal own score, fewer trained weights forget less",
        "slope of the loss of knowledge over log10 trained weights, at an own score that all "
        "methods reach",
        "At equal own score, ten times as many trained weights forget {} more.",
        "score per decade of weights",
        margin=0.02,
        reference="adapters learn less and forget less (arXiv 2405.09673)",
    ),
    "11b": Claim(
        "A hundredth of pre-training text mixed in halves forgetting",
        "share of what all weights lose of knowledge that is not lost with text mixed in, at late",
        "Mixing text in keeps {} of what is lost without.",
        "share of what is lost",
        margin=0.5,
        two_sided=False,
        reference="1 % stops it (arXiv 2502.06042)",
    ),
    "11c": Claim(
        "Preference tuning raises what it is for",
        "share of pairs whose better answer is likelier, after minus before, at late",
        "After it the better of two answers is the likelier one {} more often.",
    ),
    "11c (task)": Claim(
        "Preference tuning keeps the task",
        "score of what was tuned on first, after minus before, at late",
        "The score of what was tuned on before changes by {}.",
        margin=-0.05,
        two_sided=False,
    ),
}
CLAIMS["11b (5%)"] = replace(
    CLAIMS["11b"], text="A twentieth of pre-training text mixed in halves forgetting"
)
NOTHING = "No two methods tune on the same set here, or nothing that base knows is asked."
NO_GRID = "The study has no grid of learning rates, along which methods could be compared."
NO_KNOWLEDGE = "Nothing is asked here that base knows, and so nothing can be lost."


def needs(study: Study, recipe: str) -> list[Need]:
    """Own set, knowledge and text of everything; of recipes at their rates other tasks as well, and
    how far their own answers are from base; which of two answers is preferred.
    """
    known = [
        name
        for name in study.probing.datasets
        if REGISTRY[name].knowledge or REGISTRY[name].kind == "text"
    ]
    own = _own(study, recipe)
    found = own + [Need(name, shots_of(study, name, recipe)) for name in known]
    if recipe not in study.recipes:
        return list(dict.fromkeys(found))
    if is_single(study, recipe) or recipe == "base":
        others = [name for name in asked_sets(study) if name not in _preferred(study)]
        found += [Need(name, shots_of(study, name, recipe)) for name in others]
    if is_single(study, recipe):
        found += shift.answered(study, recipe)
    if recipe in ("base", *(name for pair in preferences.pairs(study) for name in pair)):
        found += preferences.asked(study)
    return list(dict.fromkeys(found))


def _preferred(study: Study) -> list[str]:
    return [how.dataset for how in study.recipes.values() if isinstance(how, Dpo)]


def _own(study: Study, recipe: str) -> list[Need]:
    """What a recipe was tuned on, or what it begins with; of base all of that."""
    if recipe == "base" or is_single(study, recipe):
        sets = [name for name in own_sets(study, recipe) if name not in _preferred(study)]
        return [Need(name, shots_of(study, name, recipe)) for name in sets]
    return preferences.tasks(study, recipe)


def scores_at_rates(page: Results) -> Scores:
    """The rows of the runs with which the grid is run."""
    return page.once("at rates", lambda: Scores(of_grid(page.study, page.rows)))


def at_a_glance(page: Results) -> None:
    """Loss of knowledge against own score at the last checkpoint of the grid: a panel for each set,
    a line for each method along its rates.
    """
    sets = methods.by_set(page)
    if not sets or page.study.grid is None or not methods.known(page):
        return say(NOTHING)
    axes, numbers, looks = figures.panels(len(sets), 3.0), {}, _looks(page)
    for panel, (own, some) in zip(axes, sets.items(), strict=True):
        for how, recipe in some.items():
            line = _along_rates(page, own, recipe)
            ink, mark = looks[how]
            panel.plot(line["own"], line["lost"], mark + "-", color=ink, ms=3.5, lw=1.2, label=how)
            for _, one in line.iterrows():
                panel.plot([one["own"]] * 2, [one["low"], one["high"]], color=ink, lw=0.6)
                said = {"own score": one["own"], "loss of knowledge": one["said"]}
                numbers[f"{_named(own)}, {how}, rate {one['rate']:g}"] = said
        panel.axhline(0, color="0.5", lw=1)
        panel.set(title=_named(own), xlabel="own score", ylabel="loss of knowledge, of score")
    figures.show(
        axes,
        f"What each method forgets for what it learns{page.world}: each point a learning rate, "
        "95 % intervals",
        "Loss of knowledge against the score on the set that was tuned on, a line for each method.",
        pd.DataFrame(numbers).T,
    )


def _along_rates(page: Results, own: str, recipe: str) -> pd.DataFrame:
    """Own score and loss of knowledge at every rate of a method."""
    scores, step, lines = scores_at_rates(page), (matching.last_of_grid(page),), []
    rates = page.study.along(recipe, "learning_rate")
    for rate, name in (rates or {page.study.tuning_of(recipe).learning_rate: recipe}).items():
        score = contrasts.effect(scores, [Term(1, own, name, step)], noise=False)
        lost = contrasts.effect(scores, mean_loss(page, methods.known(page), name, step), False)
        line = {"rate": rate, "own": score.value, "lost": lost.value, "said": ranged(lost)}
        lines.append(line | {"low": lost.low, "high": lost.high})
    return pd.DataFrame(lines)


def _named(own: str) -> str:
    return REGISTRY[own].title


def _looks(page: Results) -> dict[str, tuple[object, str]]:
    """A colour for every kind of method, all weights first, and a mark for each of a kind."""
    names = [how for some in methods.by_set(page).values() for how in some]
    kinds: dict[str, list[str]] = {}
    for how in sorted(dict.fromkeys(names), key=lambda how: how != FULL):
        kinds.setdefault(re.split(r", | of ", how)[0], []).append(how)
    looks, inks = {}, theme.many_colours(len(kinds))
    for ink, some in zip(inks, kinds.values(), strict=True):
        looks |= {how: (ink, mark) for how, mark in zip(some, cycle(theme.SHAPES), strict=False)}
    return looks


def trained(page: Results) -> pd.DataFrame:
    """What each method trains, keeps on the disk and takes, means over the study."""
    lines, costs = {}, methods.costs(page)
    for own, some in methods.by_set(page).items():
        for how, recipe in some.items():
            cost = costs.loc[recipe]
            lines[f"{_named(own)}: {how}"] = {
                "weights trained": _count(cost["weights"]),
                "kept, kB": _count(cost["bytes"] / 1e3),
                "weights, gradients, moments: MB": _count(cost["held"] / 1e6, 1),
                "seconds of training": _count(cost["seconds"], 1),
                "rate": f"{page.study.tuning_of(recipe).learning_rate:g}",
            }
    return pd.DataFrame(lines).T


def _count(number: float, digits: int = 0) -> str:
    return "–" if np.isnan(number) else f"{number:,.{digits}f}"


def given(page: Results) -> pd.DataFrame:
    """What each method gives and takes at late, at the rate that the study uses: own score, what is
    lost of knowledge, text and other tasks, and how far own answers are from base.
    """
    lines = {}
    moved = Scores(shift.answers(page).assign(score=shift.answers(page)["moved"]))
    for own, some in methods.by_set(page).items():
        for how, recipe in some.items():
            parts = {
                "own score": [Term(1, own, recipe)],
                "loss of knowledge": mean_loss(page, methods.known(page), recipe),
                "text, nats a token": mean_loss(page, texts(page), recipe) if texts(page) else [],
                "loss of other tasks": _others(page, own, recipe),
            }
            line = {
                said: ranged(contrasts.effect(page.scores, terms), signed=said != "own score")
                for said, terms in parts.items()
            }
            apart = contrasts.effect(moved, shift.terms(page, recipe))
            line["KL from base, nats"] = ranged(apart, signed=False)
            lines[f"{_named(own)}: {how}"] = line
    return pd.DataFrame(lines).T


def _others(page: Results, own: str, recipe: str) -> list[Term]:
    """The mean loss over other tasks that base answers better than no skill."""
    tuned = {how.dataset for how in page.study.recipes.values()}
    there = [
        name
        for name in page.titles
        if name != own
        and REGISTRY[name].kind != "text"
        and not REGISTRY[name].knowledge
        and (name in tuned or REGISTRY[name].partner)
        and name not in _preferred(page.study)
    ]
    names = page.distinct(page.has_something_to_lose(there)[0])
    return mean_loss(page, names, recipe) if names else []


def show_along(page: Results) -> None:
    """Own score and loss of knowledge along pre-training, a line for each method."""
    sets, looks = methods.by_set(page), _looks(page)
    if not sets or not methods.known(page):
        return say(NOTHING)
    axes, numbers = figures.panels(2 * len(sets), 2.5), []
    for place, (own, some) in enumerate(sets.items()):
        for how, recipe in some.items():
            makes = {
                "own score": lambda at, name=recipe, own=own: [Term(1, own, name, at)],
                "loss of knowledge": lambda at, name=recipe, own=own: mean_loss(
                    page, methods.known(page), name, at
                ),
            }
            for panel, (said, make) in zip(axes[2 * place :], makes.items(), strict=False):
                line = contrasts.along(page.scores, page.tokens, make)
                ink, mark = looks[how]
                figures.plain_curve(panel, line, ink, how, dashed=how != FULL, mark=mark)
                numbers.append(line.assign(panel=f"{_named(own)}: {said}", curve=how))
                panel.set(title=_named(own), ylabel=said)
    figures.show(
        axes,
        f"What each method gives and takes along pre-training{page.world}, 95 % intervals",
        "Own score and loss of knowledge along pre-training, a line for each method.",
        figures.along(pd.concat(numbers)),
    )


def show_equal(page: Results) -> None:
    """Loss of knowledge at equal own score over trained weights, a panel for each set."""
    found = {own: methods.at_equal_score(page, own) for own in _comparable(page)}
    if not found:
        return say(f"At most {methods.LEAST - 1} methods reach an own score in common.")
    axes, looks, numbers = figures.panels(len(found), 2.7), _looks(page), {}
    over = "runs" if page.study.runs > 1 else "seeds"
    for panel, (own, lines) in zip(axes, found.items(), strict=True):
        for how, one in lines.iterrows():
            ink, mark = looks[how]
            panel.plot(one["weights"], one["forgot"], mark, color=ink, ms=5, label=how)
            panel.plot([one["weights"]] * 2, [one["low"], one["high"]], color=ink, lw=0.8)
            said = {"weights": f"{one['weights']:,.0f}", "forgot": one["said"]}
            numbers[f"{_named(own)}: {how}"] = said | {"rates": one["rates"]}
        sizes = np.log10(lines["weights"].astype(float))
        line = np.polyfit(sizes, lines["forgot"].astype(float), 1)
        ends = np.array([sizes.min(), sizes.max()])
        panel.plot(10**ends, np.polyval(line, ends), color="black", lw=1)
        panel.axhline(0, color="0.5", lw=1)
        panel.set(xscale="log", title=_named(own), xlabel="weights trained")
        panel.set(ylabel="loss of knowledge, of score")
    figures.show(
        axes,
        f"What is forgotten at equal own score, by how many weights are trained{page.world}"
        f"{f': 95 % intervals over {over}' * (page.study.replicates > 1)}",
        "Loss of knowledge over the number of trained weights, a dot for each method, and the "
        "line through them.",
        pd.DataFrame(numbers).T,
    )


def _comparable(page: Results) -> list[str]:
    """The sets whose methods can be compared at equal own score."""
    if page.study.grid is None or page.missing or not methods.known(page):
        return []
    return [own for own in methods.by_set(page) if methods.comparable(page, own)]


def replaying(page: Results) -> pd.DataFrame:
    """All weights with text mixed in: own score, what is lost, and the share that is kept."""
    lines, shares = {}, methods.replays(page)
    for own, some in methods.by_set(page).items():
        mixed = [one for pairs in shares.values() for where, one in pairs if where == own]
        for recipe in (some[FULL], *mixed) if mixed and methods.known(page) else ():
            own_score = contrasts.effect(page.scores, [Term(1, own, recipe)])
            lost = contrasts.effect(page.scores, mean_loss(page, methods.known(page), recipe))
            kept = _kept(page, [(own, recipe)])[0] if recipe in mixed else None
            line = {"rows that are text": f"{methods.replayed(page.study, recipe):.1%}"}
            line |= {"own score": ranged(own_score, signed=False), "loss": ranged(lost)}
            line["share kept"] = ranged(kept, signed=False) if kept else "–"
            lines[f"{_named(own)}: {recipe}"] = line
    return pd.DataFrame(lines).T


def _kept(page: Results, mixed: list[tuple[str, str]]) -> tuple[Estimate | None, float]:
    """The share of what all weights lose that is not lost with text mixed in, over (set, recipe),
    at late, by linear forms of the ratio (Taylor); and what is lost. None where nothing is.
    """
    sets, scores = methods.by_set(page), page.scores

    def lost(recipes: list[str], weight: float = 1.0) -> list[Term]:
        parts = joined(mean_loss(page, methods.known(page), one) for one in recipes)
        return _times(parts, weight / len(recipes))

    plain, others = [sets[own][FULL] for own, _ in mixed], [one for _, one in mixed]
    whole = contrasts.effect(scores, lost(plain)).value
    if not whole > 0:
        return None, whole
    share = 1 - contrasts.effect(scores, lost(others)).value / whole
    terms = lost(plain, (1 - share) / whole) + lost(others, -1 / whole)
    return contrasts.effect(scores, terms).plus(share), whole


def _times(terms: list[Term], factor: float) -> list[Term]:
    return [replace(one, weight=one.weight * factor) for one in terms]


def verdicts(page: Results) -> list[Verdict]:
    """Claims 11a to 11c, judged by the rules above the data."""
    if page.missing:  # what follows needs every model of the grid
        return judged(page, CLAIMS, dict.fromkeys(CLAIMS, (None, "")))
    effects = {"11a": _claim_11a(page)}
    effects |= _claims_11b(page)
    return judged(page, CLAIMS, effects | _claims_11c(page))


def _claim_11a(page: Results) -> tuple[Estimate | None, str]:
    if page.study.grid is None or not methods.known(page):
        return None, NO_GRID if page.study.grid is None else NO_KNOWLEDGE
    sets = _comparable(page)
    if not sets:
        return None, (
            f"On no set do {methods.LEAST} methods of different sizes have {methods.REACH:.0%} of "
            "the best own score of all weights, and less at their lowest rate, in every run."
        )
    found = methods.forgetting_by_size(page, sets)
    said = [f"{_named(own)} ({'; '.join(methods.comparable(page, own))})" for own in sets]
    return found, f"At step {matching.last_of_grid(page):,}: {', '.join(said)}."


def _claims_11b(page: Results) -> dict[str, tuple[Estimate | None, str]]:
    found = {}
    for share, mixed in methods.replays(page).items() if methods.known(page) else ():
        kept, lost = _kept(page, mixed)
        why = f"Over {page.named(own for own, _ in mixed)}; without text {lost:+.2f} is lost."
        asked = lost > page.margin or np.isnan(lost)
        more = "" if asked else " Asked where more than the margin is lost."
        found[f"11b ({share})"] = (kept or UNKNOWN if asked else None), why + more
    if found:
        return found
    why = "No recipe that trains all weights has text mixed in."
    return {"11b": (None, why if methods.known(page) else NO_KNOWLEDGE)}


def _claims_11c(page: Results) -> dict[str, tuple[Estimate | None, str]]:
    names, pairs = ("11c", "11c (task)"), preferences.on(page)
    if not pairs:
        why = "No recipe of this study goes on with preferences that are asked here after tuning."
        return dict.fromkeys(names, (None, why))
    learnt = contrasts.effect(page.scores, _mean_over(pairs, page, preferences.preferred, "after"))
    if learnt.value <= 0.5:
        return dict.fromkeys(names, (None, f"Preferences are not learnt: {learnt}."))
    gained = contrasts.effect(page.scores, _apart(pairs, page, preferences.preferred))
    kept = [pair for pair in pairs if preferences.has_a_task(page, pair)]
    task = contrasts.effect(page.scores, _apart(kept, page, preferences.kept)) if kept else None
    left = "" if len(kept) == len(pairs) else " Asked where it beats no skill before."
    return {
        "11c": (gained, f"{_said(pairs)}; after it {learnt.value:.2f}."),
        "11c (task)": (task, (f"{_said(kept)}." * bool(kept) + left).strip()),
    }


def _said(pairs: list[Pair]) -> str:
    return ", ".join(f"`{pair.after}` after `{pair.before}`" for pair in pairs)


def _mean_over(pairs: list[Pair], page: Results, make: Callable, which: str) -> list[Term]:
    return joined(_times(make(page, pair, which), 1 / len(pairs)) for pair in pairs)


def _apart(pairs: list[Pair], page: Results, make: Callable) -> list[Term]:
    """After minus before."""
    before = _mean_over(pairs, page, make, "before")
    return _mean_over(pairs, page, make, "after") + _times(before, -1.0)


def take_home(page: Results) -> pd.DataFrame:
    """Of each set the method that is first by what a user may want, at late, at its rate."""
    lines, costs = {}, methods.costs(page)
    for own, some in methods.by_set(page).items() if methods.known(page) else ():
        table = costs.loc[list(some.values()), ["bytes", "seconds"]].set_axis(list(some))
        for how, recipe in some.items():
            parts = {
                "own": [Term(1, own, recipe)],
                "lost": mean_loss(page, methods.known(page), recipe),
            }
            for name, terms in parts.items():
                table.loc[how, name] = contrasts.effect(page.scores, terms).value
        near = table[table["own"] >= table["own"].max() - page.margin]
        lines[_named(own)] = {
            "best own score": _first(-table["own"]),
            "within the margin of it, forgets least": _first(near["lost"]),
            "within it, keeps the fewest bytes": _first(near["bytes"]),
            "within it, is tuned fastest": _first(near["seconds"]),
        }
    return pd.DataFrame(lines).T


def _first(values: pd.Series) -> str:
    """The name of the lowest; none where nothing is known."""
    return str(values.idxmin()) if values.notna().any() else "–"


def differences(page: Results) -> list[str]:
    """What differs from the studies that this redoes."""
    return [
        "Biderman et al. compare LoRA with all weights at one checkpoint; here methods start from "
        "several checkpoints, and are compared where they reach the same score.",
        "Bethune et al. mix text in by tokens of packed rows; here by rows, of which a text has "
        "more tokens that count than an answer.",
    ]
