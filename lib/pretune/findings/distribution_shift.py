"""Finding 8, distribution shift: how far does tuning move a model, does adapting less weights move
it less, and does how far it moved say what it forgot? Claims 8a to 8d.

Two models are in memory for it and answers are written: a study has it by naming it.
"""

from __future__ import annotations

from itertools import chain, product

import numpy as np
import pandas as pd

from pretune.analysis import contrasts, display, figures, matching, shift, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.results import Results, of_grid, ranged, recipes
from pretune.analysis.scores import Scores
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
NOTHING = "No recipe answers anything on this page."
APART = {"KL(base, tuned), nats, on own answers": "moved", "on right answers": "on_gold"}
FIFTHS = ("first", "second", "third", "fourth", "last")
UP = {"forgot": "knowledge", "text": "text"}
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


def rows_of(page: Results, column: str) -> pd.DataFrame:
    return shift.copied(page) if column == "copied" else shift.answers(page)


def scores_of(page: Results, column: str) -> Scores:
    """Answers with one of their columns in the place of the score."""
    rows = rows_of(page, column)
    return Scores(rows.assign(score=rows[column]))


def _asked(page: Results) -> dict[str, str]:
    """Recipes of one task, of all weights, whose tuned score beats no skill at late."""
    full = [
        name for some in shift.by_set(page).values() for how, name in some.items() if how == FULL
    ]
    return {
        name: own
        for name, own in recipes(page).items()
        if name in full and page.beats_no_skill(own, name)
    }


def _answering(page: Results) -> list[str]:
    """The recipes that answer something here, in the order of the study."""
    return list(chain.from_iterable(some.values() for some in shift.by_set(page).values()))


def shares(page: Results) -> pd.DataFrame:
    """The shares of unshifted, marginal and shifted positions of an answer, means over answers, and
    the distance on them, on right answers and on held-out text, a line for each recipe at early and
    at late.
    """
    scores, lines = {name: scores_of(page, name) for name in ("marginal", "shifted")}, {}
    distances = {name: scores_of(page, column) for name, column in APART.items()}
    text = page.measured("divergence").query("own == 0")
    for recipe in _answering(page):
        for when, steps in (("early", (page.scores.early,)), ("late", ())):
            some = shift.terms(page, recipe, 1.0, steps)
            found = {name: contrasts.effect(one, some, False) for name, one in scores.items()}
            line = {name: f"{one.value:.1%}" for name, one in found.items()}
            rest = 1 - sum(one.value for one in found.values())
            read = text[(text["recipe"] == recipe) & text["step"].isin(steps or page.scores.late)]
            for name, one in distances.items():
                line[name] = contrasts.effect(one, some, False).value
            line |= {"on text": float(read["kl_base_tuned"].map(np.mean).mean())}
            lines[f"{recipe}, {when}"] = {"unshifted": f"{rest:.1%}", **line}
    return pd.DataFrame(lines).T


def at_a_glance(page: Results) -> None:
    """The share of shifted positions along pre-training, a panel for each set, a line for each
    method.
    """
    sets = shift.by_set(page)
    if not sets:
        return display.say(NOTHING)
    scores, inks = scores_of(page, "shifted"), _inks(page)
    axes, numbers = figures.panels(len(sets), 2.7), []
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


def _inks(page: Results) -> dict[str, object]:
    """A colour for every method, all weights first."""
    names = chain.from_iterable(shift.by_set(page).values())
    some = sorted(dict.fromkeys(names), key=lambda how: how != FULL)
    return dict(zip(some, theme.many_colours(len(some)), strict=True))


def show_positions(page: Results) -> None:
    """Along the answer, at late: shares of the classes after the first method of each set, and the
    distance by method.
    """
    sets = shift.by_set(page)
    if not sets:
        return display.say(NOTHING)
    lines = _positions(page, _answering(page))
    bins = np.minimum((lines["place"] * len(FIFTHS)).astype(int), len(FIFTHS) - 1)
    axes, inks, numbers = figures.panels(2 * len(sets), 2.5), _inks(page), {}
    for panel, (own, some) in zip(axes[::2], sets.items(), strict=True):
        how = next(iter(some))
        table = _classes(lines, bins, some[how])
        numbers |= {f"{_named(own)}, {FIFTHS[k]} fifth": line for k, line in table.iterrows()}
        bottom = np.zeros(len(table))
        for name, ink in CLASSES.items():
            panel.bar(table.index, table[name], bottom=bottom, color=ink, label=name, width=0.9)
            bottom += table[name]
        panel.set(title=f"{_named(own)}: {how}", ylabel="share of positions")
    for panel, (own, some) in zip(axes[1::2], sets.items(), strict=True):
        for how, recipe in some.items():
            kl = lines["kl"].where(lines["recipe"] == recipe).groupby(bins).mean()
            panel.plot(kl.index, kl, "o-", color=inks[how], ms=3.5, lw=1.4, label=how)
            for k, value in kl.items():
                numbers.setdefault(f"{_named(own)}, {FIFTHS[k]} fifth", {})[f"KL, {how}"] = value
        panel.set(title=_named(own), ylabel="KL(tuned, base), nats")
        panel.set_ylim(0, None)
    for panel in axes:
        panel.set_xticks(range(len(FIFTHS)), FIFTHS)
        panel.set_xlabel("fifth of the answer")
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
    """Of every kind of word, at late, after the first method of each set: its share of all
    positions, the share of its positions that is shifted, and what is shifted most often.
    """
    lines = {}
    for recipe in (next(iter(some.values())) for some in shift.by_set(page).values()):
        there = _positions(page, [recipe])
        for kind in KINDS if len(there) else ():
            some = there[there["kind"] == kind]
            moved = some[some["rank"] > MARGINAL]
            often = moved["piece"].map(_said).value_counts().head(4)
            lines[recipe, kind] = {
                "share of positions": len(some) / len(there),
                "shifted": len(moved) / len(some) if len(some) else np.nan,
                "most often": display.quote(", ".join(often.index)) or "–",
            }
    return pd.DataFrame(lines).T


def _said(piece: str) -> str:
    """A piece in a table: the end, and white space alone, by name."""
    return piece.strip() or ("[end]" if not piece else "[newline]" if "\n" in piece else "[space]")


def show_answers(page: Results, count: int = 3) -> None:
    """The first items of every set in the study's fixed order, at late, as the tuned model answers
    them, in colours: what the untuned one finds likelier stands below.
    """
    rows = shift.answers(page)
    rows = rows[(rows["step"] == page.scores.late[-1]) & (rows["run"] == rows["run"].min())]
    parts = []
    for own, some in shift.by_set(page).items():
        for how, recipe in some.items():
            there = rows[rows["recipe"] == recipe]
            there = there[there["seed"] == there["seed"].min()]
            # of a mixture, as many of each set that it is asked
            each = -(-count // max(1, there["dataset"].nunique()))
            there = there.groupby("dataset", sort=False).head(each)
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
    sets = shift.by_set(page)
    if page.study.grid is None or not sets:
        return display.say(NO_GRID)
    fits, step = _fits(page), matching.last_of_grid(page)
    scores = Scores(of_grid(page.study, scores_of(page, "moved").rows))
    axes, numbers, inks = figures.panels(len(sets), 2.7), {}, _inks(page)
    for panel, (own, some) in zip(axes, sets.items(), strict=True):
        for how, recipe in some.items():
            rates = page.study.along(recipe, "learning_rate")
            lines = [fits.get(name, np.nan) for name in rates.values()]
            moved = [
                contrasts.effect(scores, shift.terms(page, name, 1.0, (step,)), noise=False)
                for name in rates.values()
            ]
            values = [one.value for one in moved]
            panel.plot(lines, values, "o-", color=inks[how], ms=3.5, lw=1.2, label=how)
            for rate, loss, one in zip(rates, lines, moved, strict=True):
                panel.plot([loss] * 2, [one.low, one.high], color=inks[how], lw=0.8)
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


def _fits(page: Results) -> pd.Series:
    """The tuning loss of every variant at the last checkpoint of the grid, over its runs."""
    losses = matching.losses(page).map(np.mean).astype(float)
    losses = losses.xs(matching.last_of_grid(page), level="step")
    return losses.groupby(level="recipe").mean()


def show_law(page: Results) -> None:
    """Forgetting against distance, and against the change of the weights: one dot a model."""
    points = shift.models(page).dropna(subset=["forgot"])
    if len(points) < 3:
        return display.say("The untuned model knows nothing here that could be forgotten.")
    axes, inks = figures.panels(2, 3.0), _inks(page)
    for panel, across in zip(axes, ("moved", "weights"), strict=True):
        for how, ink in inks.items():
            some = points[points["method"] == how.partition(" (")[0]]
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
    """R2 of lost knowledge and of the rise of the loss on text, by what is known of a model: on
    recipes that were left out, and on sets that were left out with all recipes that tune on them.
    """
    points, lines = shift.models(page), {}
    known = {"moved": "KL(base, tuned)", "weights": "change of weights", "loss": "tuning loss"}
    for (name, said), (up, what) in product(known.items(), UP.items()):
        line = lines.setdefault(said, {})
        for left_out, of in (("whole", "recipes"), ("own", "sets")):
            line[f"{what}, {of} left out"] = shift.predicted(points, name, up, left_out)
    return pd.DataFrame(lines).T


def compared(page: Results) -> pd.DataFrame:
    """All weights beside LoRA: at equal tuning loss, and each at the rate that the study uses."""
    if page.study.grid is None or page.missing:
        return pd.DataFrame()
    rows, step, lines = rows_of(page, "moved"), (matching.last_of_grid(page),), {}
    scores = Scores(of_grid(page.study, scores_of(page, "moved").rows))
    for (own, how), (one, other) in shift.pairs(page).items():
        best = shift.terms(page, one, 1.0, step) + shift.terms(page, other, -1.0, step)
        found = matching.at_equal_loss(page, rows, "moved", [(one, other)])
        off = [matching.off_the_line(page, rows, "moved", name) for name in (one, other)]
        lines[f"{page.title(own)}: {how}"] = {
            "each at its rate": ranged(contrasts.effect(scores, best, noise=False)),
            "at equal loss": ranged(found) if found else "not reached by both",
            "a straight line is off by": float(np.nanmax([*off, 0.0])),
        }
    return pd.DataFrame(lines).T


def copying(page: Results) -> pd.DataFrame:
    """The share of copied words of recipes of conversations, early and late, by method."""
    scores, lines = scores_of(page, "copied"), {}
    for recipe in _answering(page):
        if not is_single(page.study, recipe):
            lines[recipe] = {
                when: ranged(contrasts.effect(scores, shift.terms(page, recipe, 1.0, at), False))
                for when, at in (("early", (page.scores.early,)), ("late", ()))
            }
    return pd.DataFrame(lines).T


def verdicts(page: Results) -> list[Verdict]:
    """Claims 8a to 8d, judged by the rules above the data."""
    if page.missing:  # what follows needs every model of the grid
        return judged(page, CLAIMS, dict.fromkeys(CLAIMS, (None, "")))
    effects = {
        "8a": _claim_8a(page),
        "8b": _at_equal_loss(page, "moved", single=True),
        "8c": _claim_8c(page),
        "8d": _at_equal_loss(page, "copied", single=False),
    }
    return judged(page, CLAIMS, effects)


def _claim_8a(page: Results) -> tuple[Estimate | None, str]:
    asked = _asked(page)
    if not asked:
        return None, "No recipe of one task, of all weights, beats no skill by the margin at late."
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
    rows, pairs = rows_of(page, column), shift.pairs(page)
    there = {key: some for key, some in pairs.items() if is_single(page.study, some[0]) is single}
    reached = {
        key: some for key, some in there.items()
        if matching.at_equal_loss(page, rows, column, [some])
    }  # fmt: skip
    if not reached:
        of = "one task" if single else "conversations"
        return None, f"No recipe of {of} and no LoRA beside it reach the same tuning loss."
    found = matching.at_equal_loss(page, rows, column, list(reached.values()))
    off = max(
        np.nanmax([matching.off_the_line(page, rows, column, name) for name in some] + [0.0])
        for some in reached.values()
    )
    told = ", ".join(f"{REGISTRY[own].title} ({how})" for own, how in reached)
    how = "within each run" if found.seeds > 1 else "with their doubt, by resampling last steps"
    return found, (
        f"At step {matching.last_of_grid(page):,}, {len(reached)} of {len(there)} comparisons: "
        f"{told}. Losses are matched {how}. Between rates twice as far apart a straight line would "
        f"be off by up to {off:.2f}."
    )


def _claim_8c(page: Results) -> tuple[Estimate | None, str]:
    """Left out once more is each recipe, and of several runs each run."""
    points = shift.models(page).dropna(subset=["forgot", "moved"])
    variants, whole = points.index.get_level_values("recipe").nunique(), points["whole"].unique()
    if variants < LEAST or len(whole) < 3:
        return None, (
            f"Asked of at least {LEAST} recipes and rates, of 3 recipes; here {variants} of "
            f"{len(whole)}, at checkpoints that know what is known at late."
        )
    runs = points.index.get_level_values("run")
    strata = {("recipe", name): "recipe" for name in whole}
    strata |= {("run", run): "run" for run in set(runs)} if runs.nunique() > 1 else {}

    def effect(kept: list[tuple]) -> float:
        some = points["whole"].isin([name for kind, name in kept if kind == "recipe"])
        if "run" in strata.values():
            some &= runs.isin([run for kind, run in kept if kind == "run"])
        return shift.predicted(points[some], "moved")

    found = jackknife(effect, strata, len(points))
    by = {name: shift.predicted(points, name) for name in ("weights", "loss")}
    of_sets = shift.predicted(points, "moved", left_out="own")
    return found, (
        f"{len(points)} models of {len(whole)} recipes, {variants} with their rates. The change of "
        f"the weights says {by['weights']:.2f}, the tuning loss {by['loss']:.2f}; with all recipes "
        f"of a set left out together, the distance says {of_sets:.2f}. Intervals over recipes"
        + (" and runs." if runs.nunique() > 1 else ".")
    )


def differences(page: Results) -> list[str]:
    """What differs from the studies that this redoes."""
    said = [
        "The released code of Lin et al. takes distances over the likeliest fifty tokens of each "
        "model, made to sum to one; here over the whole vocabulary.",
        "Both look at one checkpoint of a model; here tuning starts from several.",
    ]
    if shift.pairs(page) and page.study.grid is not None:
        said.insert(
            0,
            "Ghosh et al. tune with LoRA at 5e-5, a fraction of its best rate, and compare it with "
            "all weights there; here each method has its own grid, and both are held against each "
            "other where they fit equally well.",
        )
    return said
