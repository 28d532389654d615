"""Finding 5, domain forgetting: what happens to other domains of a task, and to knowledge it does
not need? Claims 5a to 5c.

A loss is what a score falls by, or what the loss on held-out text rises by, from base to tuned:
positive is forgetting.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain

import pandas as pd

from pretune.analysis import contrasts, curves, display, figures, theme
from pretune.analysis.claims import Claim, Verdict, judged
from pretune.analysis.contrasts import joined
from pretune.analysis.figures import Line
from pretune.analysis.forgetting import knowledge, loss, mean_loss, texts
from pretune.analysis.results import Results, partners, ranged, recipes
from pretune.analysis.scores import Term
from pretune.analysis.statistics import Estimate
from pretune.plan.needs import Need, own_sets, shots_of
from pretune.sources import released
from pretune.study.config import Study
from pretune.tasks.registry import REGISTRY

CLAIMS = {
    "5a": Claim(
        "Tuning on one domain hurts other domains of the task",
        "mean loss at late, base - tuned, on the out-of-domain sets that base answers "
        "better than no skill by the margin",
        "Tuned on one domain, models lose {} of score on other domains of the same task.",
    ),
    "5b": Claim(
        "Tuning hurts knowledge the task does not need",
        "mean loss over recipes and the knowledge sets that base answers, base - tuned at late",
        "Tuning costs {} of score on knowledge that the task does not need.",
    ),
    "5b (text)": Claim(
        "Tuning hurts knowledge the task does not need",
        "rise of the loss on held-out text, mean over recipes at late",
        "Text of the kind that was pre-trained on becomes harder to predict by {} nats per token.",
        "nats per token",
    ),
    "5c": Claim(
        "LoRA forgets less at equal gain",
        "loss of knowledge after full tuning minus that after LoRA, where the interval of "
        "the difference of their own scores lies within the margin",
        "At equal gain, tuning all weights costs {} more of knowledge than tuning adapters (LoRA).",
    ),
}
# Changes of Sun & Dredze for every task are gains where positive; losses have the other sign.
CHANGES = {
    "MNLI": "-.246 (a gain)",
    "SocialIQa": "-.021",
    "XSum": "+.003",
    "PAWS": "void (hidden labels)",
}
CLAIMS |= {f"5a ({task})": replace(CLAIMS["5a"], reference=one) for task, one in CHANGES.items()}
FACTS = ("fact_recall", "popqa")


def needs(study: Study, recipe: str) -> list[Need]:
    """Own sets, partners in and out of the domain, what pre-training teaches, and held-out text."""
    if recipe not in study.recipes:
        return []
    sets, found = own_sets(study, recipe), []
    for name in study.probing.datasets:
        about = REGISTRY[name]
        if name in sets or about.partner in sets or about.knowledge or about.kind == "text":
            found.append(Need(name, shots_of(study, name, recipe)))
    return found


def all_recipes(page: Results) -> dict[str, str]:
    """Recipes that tune on one dataset, LoRA included, each with that dataset."""
    return {
        name: how.dataset
        for name, how in page.study.recipes.items()
        if how.dataset and REGISTRY[how.dataset].kind != "chat"
    }


def show_domains(page: Results) -> None:
    """Base and tuned score of the partners of every tuned dataset along pre-training."""
    shown = {}
    for recipe, own in recipes(page).items():
        for domain, label in (("in", "in the domain of"), ("out", "out of the domain of")):
            for name in partners(page, own, domain):
                title = f"{REGISTRY[name].title}\n{label} {REGISTRY[own].title}"
                shown[title] = [
                    Line(curves.curve(page.of(name)), "base", "base"),
                    Line(curves.curve(page.of(name, recipe)), "tuned", "tuned on the other"),
                ]
    figures.show_curves(
        shown,
        f"Other domains of the task, before and after tuning{page.world}, 95 % interval over items",
        f"Base and tuned curves of {', '.join(shown)}.".replace("\n", ", "),
    )


def _asked(page: Results, own: str) -> dict[str, list[str]]:
    """What a recipe is held against: other domains of its task, knowledge sets, recalled facts,
    held-out text.
    """
    found = {
        "in domain": partners(page, own, "in"),
        "out of domain": partners(page, own, "out"),
        "knowledge sets": [name for name in knowledge(page, own) if name not in FACTS],
        "fact recall": [name for name in FACTS if name in page.titles],
        "held-out text": texts(page),
    }
    return {label: names for label, names in found.items() if names}


def changes(page: Results) -> pd.DataFrame:
    """Per recipe, at late or at the page's checkpoint: gain on its own dataset, and every loss."""
    lines, steps = {}, () if page.is_whole else page.scores.steps
    for recipe, own in all_recipes(page).items():
        terms = {"own dataset: gain": loss(page, own, recipe, steps, -1)}
        for label, names in _asked(page, own).items():
            unit = "nats per token" if label == "held-out text" else "loss"
            terms[f"{label}: {unit}"] = mean_loss(page, names, recipe, steps)
        lines[recipe] = {
            label: ranged(contrasts.effect(page.scores, some, noise=page.is_whole))
            for label, some in terms.items()
        }
    return pd.DataFrame(lines).T.fillna("–")


def at_a_glance(page: Results) -> None:
    """Per recipe, at late: what other domains of its task lose, and knowledge that it does not
    need; of sets that have something to lose.
    """
    found = {}
    for recipe, own in recipes(page).items():
        far = page.has_something_to_lose(partners(page, own, "out"))[0]
        for names, label in ((far, "other domains"), (knowledge(page, own), "knowledge")):
            if names:
                terms = mean_loss(page, names, recipe)
                said = f"{label}, after tuning on {REGISTRY[own].title}"
                found[said] = contrasts.effect(page.scores, terms)
    if not found:
        return display.say("No other domain and no knowledge has something to lose here.")
    axes = figures.estimates(found, "tuned")
    figures.band(axes, -page.margin, page.margin)
    axes.set(xlabel="loss of score, untuned minus tuned")
    figures.show(
        [axes],
        f"What tuning costs{page.world}: losses at late, 95 % intervals; grey: too small to count",
        "Loss of score of other domains and of knowledge, a row for each recipe: "
        + "; ".join(f"{name} {estimate.value:+.2f}" for name, estimate in found.items()),
        pd.DataFrame({"loss": {name: ranged(estimate) for name, estimate in found.items()}}),
    )


def show_losses(page: Results) -> None:
    """Every loss after every recipe along pre-training, one panel a kind."""
    asked = {recipe: _asked(page, own) for recipe, own in all_recipes(page).items()}
    kinds = list(dict.fromkeys(chain.from_iterable(asked.values())))
    axes, numbers = figures.panels(len(kinds)), []
    colours = dict(zip(asked, theme.many_colours(len(asked)), strict=True))
    for panel, kind in zip(axes, kinds, strict=True):
        for recipe, some in asked.items():
            if kind in some:
                line = _loss_curve(page, some[kind], recipe)
                figures.plain_curve(panel, line, colours[recipe], recipe)
                numbers.append(line.assign(panel=kind, curve=recipe))
        panel.axhline(0, color="0.5", lw=1)
        panel.set_title(kind)
        panel.set_ylabel("rise, nats per token" if kind == "held-out text" else "loss of score")
    figures.show(
        axes,
        f"What every recipe loses along pre-training{page.world}, base minus tuned, 95 % interval",
        f"Losses along pre-training, one line a recipe: {', '.join(kinds)}.",
        figures.along(pd.concat(numbers)),
    )


def _loss_curve(page: Results, names: list[str], recipe: str) -> pd.DataFrame:
    make = partial(mean_loss, page, names, recipe)
    return contrasts.along(page.scores, page.tokens, make)


def show_plane(page: Results) -> None:
    """Loss of knowledge against gain on the own dataset, one point a recipe: LoRA beside full
    tuning.
    """
    chosen, steps = all_recipes(page), () if page.is_whole else page.scores.steps
    chosen = {recipe: own for recipe, own in chosen.items() if knowledge(page, own)}
    gains = [
        contrasts.effect(page.scores, loss(page, own, recipe, steps, -1), noise=page.is_whole)
        for recipe, own in chosen.items()
    ]
    losses = [
        contrasts.effect(
            page.scores, mean_loss(page, knowledge(page, own), recipe, steps), noise=page.is_whole
        )
        for recipe, own in chosen.items()
    ]
    [axes] = figures.panels(1, 3.2)
    figures.scatter(axes, gains, losses, list(chosen), theme.many_colours(len(chosen)))
    axes.axhline(0, color="0.5", lw=1)
    when = "late" if page.is_whole else page.checkpoint
    axes.set(xlabel="gain on the dataset tuned on", ylabel="loss of knowledge sets")
    both = zip(gains, losses, strict=True)
    table = [{"gain": ranged(gain), "loss of knowledge": ranged(lost)} for gain, lost in both]
    figures.show(
        [axes],
        f"Forgetting against gain at {when}{page.world}, 95 % intervals",
        "One point a recipe: gain on its own dataset across, loss of knowledge sets up.",
        pd.DataFrame(table, index=list(chosen)),
    )


def verdicts(page: Results) -> list[Verdict]:
    """Claims 5a, for each task, 5b and 5c, judged by the rules above the data."""
    claims = {
        f"5a ({REGISTRY[own].title})": _claim_5a(page, recipe, own)
        for recipe, own in recipes(page).items()
        if partners(page, own, "out") or _void(page, own)
    }
    return judged(
        page,
        CLAIMS,
        claims | {"5b": _claim_5b(page), "5b (text)": _claim_text(page), "5c": _claim_5c(page)},
    )


def _void(page: Results, own: str) -> list[str]:
    """Of released tables: partners that were scored on splits whose labels are hidden."""
    if not page.study.tables:
        return []
    return [name for name in released.HIDDEN if REGISTRY[name].partner == own]


def _claim_5a(page: Results, recipe: str, own: str) -> tuple[Estimate | None, str]:
    if void := _void(page, own):
        return None, f"{page.named(void)}: scored on splits whose labels are hidden."
    taken, left = page.has_something_to_lose(partners(page, own, "out"))
    if not taken:
        return None, f"No other domain to ask it of.{left}"
    found = contrasts.effect(page.scores, mean_loss(page, taken, recipe))
    return found, f"Mean loss on {page.named(taken)}.{left}"


def _claim_5b(page: Results) -> tuple[Estimate | None, str]:
    parts = []
    for recipe, own in recipes(page).items():
        parts += [(recipe, name) for name in knowledge(page, own) if len(page.of(name, recipe))]
    if not parts:
        return None, (
            "There is no knowledge set that base answers better than no skill and that was scored "
            "after tuning."
        )
    terms = joined(loss(page, name, recipe, (), 1 / len(parts)) for recipe, name in parts)
    sets = page.named(name for _, name in parts)
    why = f"Mean loss over {len(recipes(page))} recipes on {sets}."
    return contrasts.effect(page.scores, terms), why


def _claim_text(page: Results) -> tuple[Estimate | None, str]:
    read, sets = texts(page), recipes(page)
    if not read:
        return None, "The study has no held-out text."
    terms = joined(mean_loss(page, read, recipe, (), 1 / len(sets)) for recipe in sets)
    found = contrasts.effect(page.scores, terms)
    return found, "Rise of the loss on held-out text, nats per token, mean over recipes."


def _claim_5c(page: Results) -> tuple[Estimate | None, str]:
    """Loss of knowledge after full tuning minus that after LoRA on the same dataset, where both
    reach the same own score.
    """
    full = {own: recipe for recipe, own in recipes(page).items()}
    asked, said = {}, []
    for recipe, own in all_recipes(page).items():
        if page.study.is_beside(recipe) and own in full:
            apart = contrasts.effect(page.scores, [Term(1, own, full[own]), Term(-1, own, recipe)])
            said.append(f"{page.title(own)}: own score of full tuning minus LoRA {apart}")
            if max(-apart.low, apart.high) < page.margin and knowledge(page, own):
                asked[own] = recipe
    why = "; ".join(said) or "The study has no LoRA recipe beside a full one"
    if not asked:
        return None, f"{why}. Asked only where that interval lies within ±{page.margin:g}."
    terms, share = [], 1 / len(asked)
    for own, recipe in asked.items():
        kept = knowledge(page, own)
        terms += mean_loss(page, kept, full[own], (), share)
        terms += mean_loss(page, kept, recipe, (), -share)
    why += ". The effect is what LoRA keeps of knowledge beyond full tuning."
    return contrasts.effect(page.scores, terms), why


def differences(page: Results) -> list[str]:
    """What differs from the reference study, beside its protocol."""
    said = ["A set counts only where the untuned model has something to lose."]
    if not page.study.tables:
        said.append(
            "Knowledge sets are measured beside the domains, with what needs no skill beside "
            "every score."
        )
    if any(page.study.is_beside(name) for name in page.study.recipes):
        said.append("LoRA and full tuning are compared at equal gain.")
    return said


def checkpoint_answer(page: Results) -> str:
    """At one checkpoint: which recipe loses most knowledge, and which least."""
    asked = {recipe: knowledge(page, own) for recipe, own in all_recipes(page).items()}
    terms = {
        recipe: mean_loss(page, names, recipe, page.scores.steps)
        for recipe, names in asked.items()
        if names
    }
    found = {
        recipe: contrasts.effect(page.scores, some, noise=False).value
        for recipe, some in terms.items()
    }
    table = pd.Series(found, dtype=float).dropna()
    if table.empty:
        return (
            f"At {page.checkpoint}, no knowledge set that base answers better than no skill was "
            "scored after tuning."
        )
    return (
        f"At {page.checkpoint}, `{table.idxmax()}` loses most of the knowledge sets "
        f"({table.max():+.2f}) and `{table.idxmin()}` least ({table.min():+.2f})."
    )
