"""Names of branches that hold checkpoints: what each says, and which of them a study takes.

Families name their branches differently, and some write tokens in units that do not follow from
the step. So a checkpoint is found by its step in the list of branches that exist; the token part
is read, never computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# OLMo 1 and 2, Olmo 3, OLMoE, Pythia, DataDecide, SmolLM 2 and 3, FineWeb ablations; LLM360
FORMS = (
    r"(?:stage(?P<stage>\d+)-)?(?:ingredient(?P<ingredient>\d+)-)?step-?(?P<step>\d+)"
    r"(?:-tokens(?P<tokens>\d+)B|-(?P<billions>\d+)BT)?(?:-seed-(?P<seed>[a-z0-9-]+))?",
    r"ckpt_(?P<step>\d+)",
    r"checkpoint-(?P<step>\d+)",  # the Trainer of transformers
    r"CrystalCoder_phase(?P<stage>\d+)_checkpoint_(?P<step>\d+)",
    # one repository each: TinyLlama
    r".+-step-(?P<thousands>\d+)k(?:-token)?-(?P<amount>[\d.]+)(?P<unit>[bT])",
)
# how folders are named, too; a branch with one number, like `fp32`, is no checkpoint
OWN = (r".*(?:step|checkpoint|ckpt)[-_]?(?P<step>\d+)", r"\D*(?P<step>\d+)\D*")
READ = "step1000, step1000-tokens4B, checkpoint-1000"


class RevisionError(LookupError):
    """A checkpoint that a repository does not have; the message names the nearest that it has."""


@dataclass(frozen=True)
class Revision:
    """One branch. `tokens` is what the name says, in billions; None where it says nothing.
    `stage` is "" where there is but one; `run` tells runs of one repository apart (a seed, an
    ingredient of a later stage).
    """

    name: str
    step: int
    tokens: int | None = None
    stage: str = ""
    run: str = ""


def parse(name: str, forms: Sequence[str] = FORMS) -> Revision | None:
    """What a branch's name says; None for a branch that is no point of a run, such as `main` or
    `fp32`.
    """
    matches = (re.fullmatch(form, name) for form in forms)
    found = next((match for match in matches if match), None)
    if found is None:
        return None
    parts = ("tokens", "billions", "stage", "ingredient", "seed", "thousands", "amount")
    said = dict.fromkeys(parts) | found.groupdict()
    tokens, step = said["tokens"] or said["billions"], said.get("step")
    if said["thousands"]:
        tokens = float(said["amount"]) * (1000 if said["unit"] == "T" else 1)
        step = 1000 * int(said["thousands"])
    stage = f"stage{said['stage']}" if said["stage"] else ""
    ingredient = f"ingredient{said['ingredient']}" if said["ingredient"] else ""
    tokens = int(tokens) if tokens else None
    return Revision(name, int(step), tokens, stage, said["seed"] or ingredient)


def points(
    names: Iterable[str],
    stage: str | None = None,
    run: str = "",
    forms: Sequence[str] = FORMS,
) -> list[Revision]:
    """The branches of one run and stage in the order of steps. Without a stage: the one there is,
    else the first.

    Raises RevisionError where there is none, or where two branches claim one step.
    """
    every = [found for name in names if (found := parse(name, forms)) and found.run == run]
    stages = sorted({found.stage for found in every if found.stage})
    # where there are stages, a branch without one is of the first
    first = stages[0] if stages else ""
    wanted = first if stage is None else stage
    chosen = [one for one in every if (one.stage or first) == wanted]
    chosen.sort(key=lambda one: one.step)
    if not chosen:
        known = ", ".join(stages) or "none"
        raise RevisionError(
            f"no name is read as a checkpoint of stage {wanted!r}, run {run!r}; stages: {known}; "
            f"names that are read: {READ}"
        )
    for one, two in zip(chosen, chosen[1:], strict=False):
        if one.step == two.step:
            raise RevisionError(f"two branches hold step {one.step}: {one.name} and {two.name}")
    return chosen


def by_step(there: list[Revision], steps: Iterable[int]) -> list[Revision]:
    """The branches of these steps. Raises RevisionError naming the nearest ones for a step that
    is not there.
    """
    known, found = {one.step: one for one in there}, []
    for step in steps:
        if step not in known:
            near = sorted(sorted(known, key=lambda other: abs(other - step))[:3])
            raise RevisionError(
                f"no checkpoint at step {step}; the nearest are "
                f"{', '.join(known[one].name for one in near)}"
            )
        found.append(known[step])
    return found


def spread(there: list[Revision], count: int, spacing: str, late: int) -> list[Revision]:
    """`count` branches after step 0: the last `late`, which are neighbours, and before them the
    first and others, spaced evenly over steps (`linear`) or their logarithm (`log`), each the
    nearest that is not taken.

    Raises RevisionError where there are fewer, or none before the late ones is asked for.
    """
    after = [one for one in there if one.step > 0]
    if len(after) < count or count <= late:
        raise RevisionError(
            f"{count} checkpoints are asked for, the last {late} of them neighbours; {len(after)} "
            "are there"
        )
    early, taken = after[:-late], set()
    scale = np.array([one.step for one in after], dtype=float)
    scale = np.log(scale) if spacing == "log" else scale
    for place in np.linspace(scale[0], scale[-late], count - late + 1)[:-1]:
        free = [i for i in range(len(early)) if i not in taken]
        taken.add(min(free, key=lambda i: abs(scale[i] - place)))
    return [early[i] for i in sorted(taken)] + after[-late:]


def gaps(there: list[Revision], factor: float = 2.0) -> list[tuple[Revision, Revision]]:
    """Neighbours between which steps grow by more than `factor`, and by more than ten times the
    usual distance.
    """
    apart = [two.step - one.step for one, two in zip(there, there[1:], strict=False)]
    usual = float(np.median(apart)) if apart else 0.0
    return [
        (one, two)
        for one, two in zip(there, there[1:], strict=False)
        if one.step and two.step > factor * one.step and two.step - one.step > 10 * usual
    ]


def listed(names: Iterable[str]) -> list[str]:
    """What a repository has, a line each: every run and stage with its checkpoints and gaps,
    then branches that are no points.
    """
    every, lines = {name: parse(name) for name in names}, []
    for run, stage in sorted({(one.run, one.stage) for one in every.values() if one}):
        there = [one for one in every.values() if one and (one.run, one.stage) == (run, stage)]
        there.sort(key=lambda one: one.step)
        named = " ".join(part for part in (stage, run) if part) or "pre-training"
        first, last = there[0].step, there[-1].step
        lines.append(f"{named}: {len(there)} checkpoints, steps {first:,} to {last:,}")
        lines += [
            f"  step {one.step:>9,}  {_billions(one.tokens):>18}  {one.name}" for one in there
        ]
        lines += [
            f"  gap: nothing between steps {one.step:,} and {two.step:,}"
            for one, two in gaps(there)
        ]
    rest = sorted(name for name, one in every.items() if one is None)
    return lines + ([f"no points of a run: {', '.join(rest)}"] if rest else [])


def _billions(tokens: int | None) -> str:
    return "tokens not said" if tokens is None else f"{tokens:,} B tokens"
