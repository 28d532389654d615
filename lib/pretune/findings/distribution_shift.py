"""Finding 8, distribution shift: how far does tuning move a model, does adapting less weights move
it less, and does how far it moved say what it forgot? Claims 8a to 8d.

Two models are in memory for it and answers are written: a study has it by naming it.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, display, figures, shift, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.results import Results, ranged, recipes
from pretune.analysis.scores import Scores, Term
from pretune.analysis.shift import FULL, KINDS, MARGINAL
from pretune.analysis.statistics import Estimate, jackknife
from pretune.plan.needs import Need, is_single, own_sets, shots_of
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

ASKED, CHECKPOINTS = "by name", "all"
CLAIMS = {
    "8a": Claim(
        "The better pre-trained, the less tuning moves",
        "share of positions of the tuned model's own greedy answers whose token the untuned model "
        "ranks below third, early minus late",
        "Of what a tuned model says, the untuned one would not have said {} more at the first "
        "checkpoint than at late ones.",
        "share of positions",
        margin=0.02,
        reference="7.8 % shifted, Llama-2-7B to chat (Lin et al.); one checkpoint",
    ),
    "8b": Claim(
        "At equal gain, adapters move the distribution less than all weights",
        "KL(base, tuned) on own answers, all weights minus LoRA, at a tuning loss both reach",
        "Where both fit their rows equally well, tuning all weights moves the model by {} more "
        "than adapters (LoRA).",
        "nats per position",
        margin=0.02,
        reference="LoRA near 0 after 5 % of positions, all weights high throughout, at one rate "
        "(Ghosh et al.)",
    ),
    "8c": Claim(
        "How far a model moved says how much it forgot",
        "R2, on recipes that were left out, of lost knowledge by KL(base, tuned) on own answers",
        "Of the differences between recipes in what is forgotten, how far the model moved says {}.",
        "R2",
        margin=0.5,
        two_sided=False,
        reference="a quadratic law over methods and rates (RL's Razor, arXiv 2509.04259)",
    ),
    "8d": Claim(
        "Tuning all weights copies words of the tuning rows",
        "share of words of answers to other requests that stand in tuning rows and neither in the "
        "prompt nor in the gold answer, all weights minus LoRA, at a tuning loss both reach",
        "Tuned in all weights, models take {} more of the words of other answers from the rows "
        "they were tuned on than with adapters (LoRA).",
        "share of words",
        margin=0.02,
        reference="81 % of shifted tokens stand in tuning rows (Ghosh et al., all weights)",
    ),
}
NO_GRID = "The study has no grid of learning rates, along which methods could be compared."
LEAST = 8  # recipes or rates that 8c is asked of
CLASSES = {"unshifted": "#3d4f6b", "marginal": "#e0a030", "shifted": "#b5382a"}


def needs(study: Study, recipe: str) -> list[Need]:
    """What a recipe answers, its own set, knowledge and text; of base the same sets; what text
    becomes after recipes.
    """
    known = [
        name
        for name in study.probing.datasets
        if REGISTRY[name].knowledge or REGISTRY[name].kind == "text"
    ]
    own = own_sets(study, recipe) if recipe == "base" else own_sets(study, recipe)[:1]
    found = [Need(name, shots_of(study, name, recipe)) for name in dict.fromkeys((*own, *known))]
    if recipe == "base":
        return found
    found += shift.answered(study, recipe)
    if recipe in study.recipes:
        texts = [name for name in known if REGISTRY[name].kind == "text"]
        found += [Need(name, 0, measure="divergence") for name in texts]
    return found


def scores_of(page: Results, column: str) -> Scores:
    """Answers with one of their columns in the place of the score."""
    rows = shift.copied(page) if column == "copied" else shift.answers(page)
    return Scores(rows.assign(score=rows[column]))


def _asked(page: Results) -> dict[str, str]:
    """Recipes of one task, of all weights, whose tuned score beats no skill at late."""
    return {name: own for name, own in recipes(page).items() if page.beats_no_skill(own, name)}


def shares(page: Results) -> pd.DataFrame:
    """The shares of unshifted, marginal and shifted positions, and the distance on held-out text, a
    line for each recipe at early and at late.
    """
    scores, lines = {name: scores_of(page, name) for name in ("marginal", "shifted")}, {}
    text = page.measured("divergence").query("own == 0")
    for recipe in _tuned(page):
        for when, steps in (("early", (page.scores.early,)), ("late", ())):
            some = shift.terms(page, recipe, 1.0, steps)
            found = {name: contrasts.effect(one, some, False) for name, one in scores.items()}
            line = {name: f"{one.value:.1%}" for name, one in found.items()}
            rest = 1 - sum(one.value for one in found.values())
            read = text[(text["recipe"] == recipe) & text["step"].isin(steps or page.scores.late)]
            moved = read["kl_base_tuned"].map(np.mean).mean()
            line |= {"KL(base, tuned) on text": moved}
            lines[f"{recipe}, {when}"] = {"unshifted": f"{rest:.1%}", **line}
    return pd.DataFrame(lines).T


def _tuned(page: Results) -> list[str]:
    return [name for name in page.study.recipes if name != "base"]


def at_a_glance(page: Results) -> None:
    """The share of shifted positions along pre-training, a panel for each set, a line for each
    method.
    """
    scores, sets = scores_of(page, "shifted"), shift.methods(page.study)
    axes, numbers = figures.panels(len(sets), 2.7), []
    inks = _inks(chain.from_iterable(sets.values()))
    for panel, (own, some) in zip(axes, sets.items(), strict=True):
        for how, recipe in some.items():
            line = contrasts.along(
                scores, page.tokens, lambda at, name=recipe: shift.terms(page, name, 1.0, at)
            )
            figures.plain_curve(panel, line, inks[how], how, dashed=how != FULL)
            numbers.append(line.assign(panel=_named(own), curve=how))
        panel.set(title=_named(own), ylabel="share of positions shifted")
        panel.set_ylim(-0.02, None)
    figures.show(
        axes,
        f"How much of what tuned models say the untuned one would not have said{page.world}: share "
        "of positions that it ranks below third, 95 % intervals",
        "Shares of shifted positions along pre-training, a line for each method.",
        figures.along(pd.concat(numbers)),
    )


def _named(own: str) -> str:
    return REGISTRY[own].title


def _inks(names) -> dict[str, object]:
    """A colour for every method, all weights first."""
    some = list(dict.fromkeys(names))
    return dict(zip(some, theme.many_colours(len(some)), strict=True))


def show_positions(page: Results) -> None:
    """Along the answer, at late: shares of the classes after tuning all weights, and the distance
    by method.
    """
    sets = shift.methods(page.study)
    lines = _positions(page, [name for some in sets.values() for name in some.values()])
    bins = np.minimum((lines["place"] * 5).astype(int), 4)
    axes = figures.panels(2 * len(sets), 2.5)
    inks, numbers = _inks(chain.from_iterable(sets.values())), {}
    for panel, (own, some) in zip(axes[::2], sets.items(), strict=True):
        table = _classes(lines, bins, some[FULL])
        numbers |= {f"{_named(own)}, fifth {k + 1}": line for k, line in table.iterrows()}
        bottom = np.zeros(len(table))
        for name, ink in CLASSES.items():
            panel.bar(table.index, table[name], bottom=bottom, color=ink, label=name, width=0.9)
            bottom += table[name]
        panel.set_xticks(range(5), ["first", "second", "third", "fourth", "last"])
        panel.set(
            title=f"{_named(own)}: {FULL}",
            ylabel="share of positions",
            xlabel="fifth of the answer",
        )
    for panel, (own, some) in zip(axes[1::2], sets.items(), strict=True):
        for how, recipe in some.items():
            kl = lines["kl"].where(lines["recipe"] == recipe).groupby(bins).mean()
            panel.plot(kl.index, kl, "o-", color=inks[how], ms=3.5, lw=1.4, label=how)
            for k, value in kl.items():
                numbers.setdefault(f"{_named(own)}, fifth {k + 1}", {})[f"KL, {how}"] = value
        panel.set_xticks(range(5), ["first", "second", "third", "fourth", "last"])
        panel.set(title=_named(own), ylabel="KL(tuned, base), nats", xlabel="fifth of the answer")
        panel.set_ylim(0, None)
    figures.show(
        axes,
        f"Where in an answer tuning moves the model, at late{page.world}",
        "Left: shares of unshifted, marginal and shifted positions by fifths of the answer; right: "
        "mean distance of tuned from base there, a line for each method.",
        pd.DataFrame({name: dict(line) for name, line in numbers.items()}).T,
    )


def _positions(page: Results, names: list[str]) -> pd.DataFrame:
    rows = shift.answers(page)
    return shift.positions(page, rows[rows["late"] & rows["recipe"].isin(names)])


def _classes(lines: pd.DataFrame, by: pd.Series, recipe: str) -> pd.DataFrame:
    """Shares of the classes of positions within every group."""
    some = lines["recipe"] == recipe
    ranks = lines.loc[some, "rank"].groupby(by[some])
    shifted = ranks.apply(lambda rank: (rank > MARGINAL).mean())
    unshifted = ranks.apply(lambda rank: (rank == 1).mean())
    table = {"unshifted": unshifted, "marginal": 1 - shifted - unshifted, "shifted": shifted}
    return pd.DataFrame(table)


def by_kind(page: Results) -> pd.DataFrame:
    """Of every kind of word, at late: its share of all positions, the share of its positions that
    is shifted, and the words that are shifted most often.
    """
    lines = {}
    for recipe in (some[FULL] for some in shift.methods(page.study).values()):
        there = _positions(page, [recipe])
        for kind in KINDS:
            some = there[there["kind"] == kind]
            moved = some[some["rank"] > MARGINAL]
            often = moved["piece"].str.strip().replace("", "[end]").value_counts().head(4)
            lines[recipe, kind] = {
                "share of positions": len(some) / len(there),
                "shifted": len(moved) / len(some) if len(some) else np.nan,
                "most often": display.quote(", ".join(often.index)) or "–",
            }
    return pd.DataFrame(lines).T


def show_answers(page: Results, count: int = 3) -> None:
    """The first items of every set in the study's fixed order, at late, as the tuned model answers
    them, in colours: what the untuned one finds likelier stands below.
    """
    rows = shift.answers(page)
    rows = rows[(rows["step"] == page.scores.late[-1]) & (rows["run"] == rows["run"].min())]
    parts = []
    for own, some in shift.methods(page.study).items():
        for how, recipe in some.items():
            there = rows[rows["recipe"] == recipe]
            there = there[there["seed"] == there["seed"].min()].head(count)
            lines = [
                (list(row.pieces[: row.own]), list(row.base_pieces[: row.own]), _class(row))
                for row in there.itertuples()
            ]
            parts.append((f"{page.title(own)}: {how}", lines))
    display.coloured(parts, CLASSES)


def _class(row) -> list[str]:
    """The class of every position of an answer."""
    names = list(CLASSES)
    return [names[int(rank > 1) + int(rank > MARGINAL)] for rank in row.base_rank[: row.own]]


def show_methods(page: Results) -> None:
    """Distance against tuning loss at the last checkpoint of the grid: a line for each method along
    its rates, one panel a set.
    """
    if page.study.grid is None:
        return display.say(NO_GRID)
    sets, fits = shift.methods(page.study), shift.at_last(page, shift.losses(page))
    scores, step = scores_of(page, "moved"), page.study.grid.steps[-1]
    axes, numbers = figures.panels(len(sets), 2.7), {}
    inks = _inks(chain.from_iterable(sets.values()))
    for panel, (own, some) in zip(axes, sets.items(), strict=True):
        for how, recipe in some.items():
            rates = page.study.along(recipe, "learning_rate")
            moved = [
                contrasts.effect(scores, shift.terms(page, name, 1.0, (step,)), noise=False)
                for name in rates.values()
            ]
            losses = [fits[name] for name in rates.values()]
            for loss, one in zip(losses, moved, strict=True):
                panel.plot([loss] * 2, [one.low, one.high], color=inks[how], lw=0.8)
            values = [one.value for one in moved]
            panel.plot(losses, values, "o-", color=inks[how], ms=3.5, lw=1.2, label=how)
            for rate, loss, one in zip(rates, losses, moved, strict=True):
                line = {"tuning loss": loss, "KL(base, tuned)": ranged(one, signed=False)}
                numbers[f"{_named(own)}, {how}, rate {rate:g}"] = line
        panel.set(title=_named(own), xlabel="tuning loss, nats a token")
        panel.set(ylabel="KL(base, tuned), nats")
        panel.invert_xaxis()
    figures.show(
        axes,
        f"How far tuning moves the model as it fits better{page.world}: each point a learning rate",
        "Distance from base against tuning loss, a line for each method along its rates.",
        pd.DataFrame(numbers).T,
    )


def show_law(page: Results) -> None:
    """Forgetting against distance, and against the change of the weights: one dot a model."""
    points = shift.models(page).dropna(subset=["forgot"])
    if points.empty:
        return display.say("The untuned model knows nothing here that could be forgotten.")
    axes = figures.panels(2, 3.0)
    inks = _inks([FULL, *points["method"]])
    for panel, across in zip(axes, ("moved", "weights"), strict=True):
        for how, ink in inks.items():
            some = points[points["method"] == how]
            panel.plot(some[across], some["forgot"], "o", color=ink, ms=3, alpha=0.6, label=how)
        along = np.linspace(points[across].min(), points[across].max(), 60)
        law = np.polyfit(points[across], points["forgot"], 2)
        panel.plot(along, np.polyval(law, along), color="black", lw=1)
        panel.axhline(0, color="0.5", lw=1)
        panel.set(ylabel="loss of knowledge, of score")
    axes[0].set_xlabel("KL(base, tuned) on own answers, nats")
    axes[1].set_xlabel("change of the weights, share of their norm")
    figures.show(
        axes,
        f"What a model forgot against how far it moved{page.world}: one dot a model of a recipe, "
        "rate, checkpoint and run, with a law through all",
        "Loss of knowledge against distance from base on the left, against the change of the "
        "weights on the right.",
        laws(page),
    )


def laws(page: Results) -> pd.DataFrame:
    """R2 on recipes that were left out, of lost knowledge and of the rise of the loss on text, by
    what is known of a model.
    """
    points = shift.models(page)
    known = {"moved": "KL(base, tuned)", "weights": "change of weights", "loss": "tuning loss"}
    return pd.DataFrame(
        {
            said: {
                "knowledge": shift.predicted(points, name),
                "text": shift.predicted(points, name, "text"),
            }
            for name, said in known.items()
        }
    ).T


def matches(page: Results) -> dict[tuple[str, str], shift.Match | None]:
    """Where all weights and each other method fit equally well, by set and method; nothing without
    a grid of rates.
    """
    if page.study.grid is None:
        return {}
    fits, found = shift.at_last(page, shift.losses(page)), {}
    for own, some in shift.methods(page.study).items():
        full = list(page.study.along(some[FULL], "learning_rate").values())
        for how, recipe in some.items():
            names = list(page.study.along(recipe, "learning_rate").values())
            if how != FULL and full and names:
                found[own, how] = shift.matched(fits, full, names)
    return found


def _apart(page: Results, match: shift.Match, weight: float) -> list[Term]:
    """All weights minus another method, where both fit equally well."""
    step = (page.study.grid.steps[-1],)
    parts = [(match.one, weight), (match.other, -weight)]
    return joined(
        shift.terms(page, name, sign * share, step)
        for some, sign in parts
        for name, share in some.items()
    )


def compared(page: Results) -> pd.DataFrame:
    """All weights beside LoRA: at equal tuning loss, and each at the rate that the study uses."""
    if page.study.grid is None:
        return pd.DataFrame()
    scores, step, lines = scores_of(page, "moved"), (page.study.grid.steps[-1],), {}
    for (own, how), match in matches(page).items():
        some = shift.methods(page.study)[own]
        best = shift.terms(page, some[FULL], 1.0, step) + shift.terms(page, some[how], -1.0, step)
        line = {"each at its rate": ranged(contrasts.effect(scores, best, noise=False))}
        line |= {"tuning loss": "–", "at equal loss": "not reached by both"}
        if match:
            found = contrasts.effect(scores, _apart(page, match, 1.0), noise=False)
            line |= {"tuning loss": f"{match.loss:.2f}", "at equal loss": ranged(found)}
        lines[f"{page.title(own)}: {how}"] = line
    return pd.DataFrame(lines).T


def copying(page: Results) -> pd.DataFrame:
    """The share of copied words of recipes of conversations, early and late, by method."""
    scores, lines = scores_of(page, "copied"), {}
    for recipe in _tuned(page):
        if not is_single(page.study, recipe):
            lines[recipe] = {
                when: ranged(contrasts.effect(scores, shift.terms(page, recipe, 1.0, at), False))
                for when, at in (("early", (page.scores.early,)), ("late", ()))
            }
    return pd.DataFrame(lines).T


def verdicts(page: Results) -> list[Verdict]:
    """Claims 8a to 8d, judged by the rules above the data."""
    effects = {"8a": _claim_8a(page)}
    for name, column, single in (("8b", "moved", True), ("8d", "copied", False)):
        effects[name] = _at_equal_loss(page, column, single)
    effects["8c"] = _claim_8c(page)
    return judged(page, CLAIMS, {name: effects[name] for name in CLAIMS})


def _claim_8a(page: Results) -> tuple[Estimate | None, str]:
    asked = _asked(page)
    if not asked:
        return None, "No recipe of one task beats no skill by the margin at late."
    share, early = 1 / len(asked), (page.scores.early,)
    some = joined(
        shift.terms(page, name, share, early) + shift.terms(page, name, -share) for name in asked
    )
    found = contrasts.effect(scores_of(page, "shifted"), some)
    return found, f"Over {page.named(asked.values())}, all weights tuned."


def _at_equal_loss(page: Results, column: str, single: bool) -> tuple[Estimate | None, str]:
    """All weights minus LoRA, mean over sets and ranks where both reach the same tuning loss."""
    if page.study.grid is None:
        return None, NO_GRID
    there = {
        key: match
        for key, match in matches(page).items()
        if is_single(page.study, shift.methods(page.study)[key[0]][FULL]) is single
    }
    reached = {key: match for key, match in there.items() if match}
    if not reached:
        of = "one task" if single else "conversations"
        return None, f"No recipe of {of} and no adapters beside it reach the same tuning loss."
    some = joined(_apart(page, match, 1 / len(reached)) for match in reached.values())
    found = contrasts.effect(scores_of(page, column), some, noise=False)
    told = "; ".join(
        f"{REGISTRY[own].title}, {how}: {match.loss:.2f}" for (own, how), match in reached.items()
    )
    return found, (
        f"At step {page.study.grid.steps[-1]:,}, {len(reached)} of {len(there)} comparisons; "
        f"tuning losses, nats a token: {told}. Intervals over items and runs."
    )


def _claim_8c(page: Results) -> tuple[Estimate | None, str]:
    points = shift.models(page).dropna(subset=["forgot", "moved"])
    variants, whole = points.index.get_level_values("recipe").nunique(), points["whole"].unique()
    if variants < LEAST or len(whole) < 3:
        return None, f"Asked of at least {LEAST} recipes and rates, of 3 recipes; here {variants}."

    def effect(kept: list[str]) -> float:
        return shift.predicted(points[points["whole"].isin(kept)], "moved")

    found = jackknife(effect, dict.fromkeys(whole, "recipe"), len(points))
    by = {name: shift.predicted(points, name) for name in ("weights", "loss")}
    return found, (
        f"{len(points)} models of {len(whole)} recipes, {variants} with their rates. The change of "
        f"the weights says {by['weights']:.2f}, the tuning loss {by['loss']:.2f}. Intervals over "
        "recipes, of which each is left out once more."
    )


def differences(page: Results) -> list[str]:
    return [
        "Ghosh et al. tune with LoRA at 5e-5, a fraction of its best rate, and compare it with all "
        "weights there; here each method has its own grid, and both are held against each other "
        "where they fit equally well.",
        "The released code of Lin et al. takes distances over the likeliest fifty tokens of each "
        "model, made to sum to one; here over the whole vocabulary.",
        "Both look at one checkpoint of a model; here tuning starts from several.",
    ]
