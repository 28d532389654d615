"""What tuning takes away: losses of score on knowledge that a task does not need, and on text.

A loss is what a score falls by, or what the loss on held-out text rises by, from base to tuned:
positive is forgetting.
"""

from __future__ import annotations

from pretune.analysis.contrasts import joined
from pretune.analysis.results import Results
from pretune.analysis.scores import Term
from pretune.tasks.registry import REGISTRY


def loss(
    page: Results, name: str, recipe: str, steps: tuple[int, ...] = (), weight: float = 1.0
) -> list[Term]:
    """s(base) - s(tuned); of text, whose score is a loss already, tuned minus base."""
    sign = -weight if REGISTRY[name].metric == "nats" else weight
    return [Term(sign, name, "base", steps), Term(-sign, name, recipe, steps)]


def mean_loss(
    page: Results, names: list[str], recipe: str, steps: tuple[int, ...] = (), weight: float = 1.0
) -> list[Term]:
    return joined(loss(page, name, recipe, steps, weight / len(names)) for name in names)


def knowledge(page: Results, own: str = "") -> list[str]:
    """Knowledge sets, fact recall among them, that base answers better than no skill by the
    margin; not the one tuned on. Those that share their items count once.
    """
    sets = [name for name in page.titles if REGISTRY[name].knowledge and name != own]
    return page.distinct(page.has_something_to_lose(sets)[0])


def texts(page: Results) -> list[str]:
    """Texts that are read, of which nothing is asked."""
    return [name for name in page.titles if REGISTRY[name].kind == "text"]
