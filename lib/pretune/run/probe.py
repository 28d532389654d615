"""Which items and examples a probe takes, by the protocol of the study; what a measure shows of
them becomes rows.

The corrected protocol is the default, and what the published one lets pass is marked in the
column `flag`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from pretune.measures import Measure
from pretune.measures.base import Asked, Measured, Subject
from pretune.models import learned
from pretune.models.device import autocast
from pretune.plan.cells import Model, Probe
from pretune.sources import datasets
from pretune.study.config import Study
from pretune.tasks import prompts, rows
from pretune.tasks.example import Example, HiddenLabel, RowError
from pretune.tasks.prompts import Layout
from pretune.tasks.registry import REGISTRY


class NotFinite(ValueError):
    """A model gives numbers that are not finite: the message names model, dataset and row, and
    holds the values.
    """


@dataclass
class Seen:
    """What was seen of a model: rows of each measure and texts of a record, items left out by
    probe, tokens of all sequences.
    """

    tables: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))
    texts: list[dict] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    tokens: int = 0


@dataclass(frozen=True)
class _Items:
    """The items of a probe as examples, their row numbers, what is odd about each, and how they
    fit the context.
    """

    numbers: list[int]
    examples: list[Example]
    flags: list[str]
    layout: Layout


def look(study: Study, model: Model, subject: Subject, probe: Probe, seen: Seen) -> None:
    """Add to `seen` what one probe shows of `subject`. Raises RowError when no item can be used,
    NotFinite for a model that gives numbers that are none.
    """
    items = _items(study, subject, probe)
    measure, dataset, kept = probe.measured_by, REGISTRY[probe.dataset], items.layout.kept
    asked = [items.examples[place] for place in kept]
    given = Asked(dataset, items.layout.prefix, asked, probe.new_tokens, study.protocol)
    with autocast(study.probing.precision, subject.network.device):
        measured = list(measure.rows(subject, given))
    baselines = rows.baseline(datasets.data_folder(study), dataset, asked)
    shared = _shared(model, probe) | {"shots": items.layout.shots}
    for place, example, base, one in zip(kept, asked, baselines, measured, strict=True):
        item = {"item": items.numbers[place], "gold": example.gold, "baseline": base}
        _hold_finite(model, measure, f"row {item['item']} of {probe.split}", probe, one)
        row = shared | item | {"flag": items.flags[place]} | one.values
        seen.tables[measure.name].append(row)
        text = {"probe": probe.key, "item": item["item"], "output": one.output}
        text |= {"prompt": given.prefix + example.prompt, "choices": list(example.choices)}
        seen.texts.append(text)
        seen.tokens += one.tokens
    if items.layout.left_out:
        seen.left_out[probe.key] = [items.numbers[place] for place in items.layout.left_out]


def _shared(model: Model, probe: Probe) -> dict[str, object]:
    """What all rows of a probe say of the model and of how it was asked."""
    point = model.checkpoint
    names = ("model", "run", "revision", "step", "tokens", "stage", "late")
    said = {name: getattr(point, name) for name in names}
    said |= {"checkpoint": point.name, "recipe": model.recipe, "seed": model.seed}
    said |= {name: getattr(probe, name) for name in ("dataset", "split", "format", "draw")}
    return said | {"probe": probe.key, "shots_asked": probe.shots}


def _hold_finite(model: Model, measure: Measure, where: str, probe: Probe, one: Measured) -> None:
    """Raises NotFinite where a number of a row is none: of likelihoods, the first would be the
    answer, of the logits of a text the first token.
    """
    said = []
    for name, kind in measure.columns.items():
        number = kind.value_type if pa.types.is_list(kind) else kind
        if pa.types.is_floating(number) and not np.isfinite(one.values[name]).all():
            said.append(f"{name} is {one.values[name]}")
    said += [] if one.is_sound else [f"{one.output!r} was written by logits"]
    if said:
        raise NotFinite(
            f"{model.name}: {probe.dataset}: {where}: {said[0]}, which is not finite: its "
            "weights, or what is computed from them, left the range of numbers"
        )


def _items(study: Study, subject: Subject, probe: Probe) -> _Items:
    """Items and examples by the protocol. Corrected: a random choice of items, shots from the
    train split, what does not fit is left out. Published: the first items, the first of them as
    shots, nothing left out.
    """
    protocol, folder, dataset = study.protocol, datasets.data_folder(study), REGISTRY[probe.dataset]
    if protocol.shots == "train":
        numbers = rows.chosen(folder, dataset, probe.split, probe.items, 0)
        shots = rows.shots(folder, dataset, probe.split, probe.format, probe.shots, probe.draw)
        made, flags = _examples(study, probe, numbers)
    else:
        numbers = list(range(min(probe.items, len(rows.read(folder, dataset, probe.split)))))
        made, flags = _examples(study, probe, numbers)
        shots = made[: probe.shots]
        for place in range(len(shots)):
            flags[place] = f"{flags[place]} shot".strip()
    items = _Items(numbers, made, flags, _laid_out(subject, probe, shots, made))
    if protocol.too_long == "flag":
        items = _with_all(subject, probe, shots, items)
    if not items.layout.kept:
        context = learned.context(subject.network)
        raise RowError(f"{dataset.name}: no item fits {context} tokens, even with no shots")
    return items


def _laid_out(
    subject: Subject,
    probe: Probe,
    shots: list[Example],
    made: list[Example],
    context: int | None = None,
) -> Layout:
    """How items and shots fit the model's context, or so many tokens."""
    tokenizer = subject.tokenizer
    dataset = REGISTRY[probe.dataset]
    prefix = tokenizer.eos_token if dataset.kind == "text" else dataset.description
    end = f"{tokenizer.eos_token}\n" if probe.format == "chat" else dataset.between
    context = context or learned.context(subject.network)
    writes = probe.measured_by.generates
    return prompts.lay_out(tokenizer, prefix, shots, end, made, context, probe.new_tokens, writes)


def _with_all(subject: Subject, probe: Probe, shots: list[Example], items: _Items) -> _Items:
    """Nothing lowered or left out: what exceeds the context is marked."""
    if items.layout.shots == len(shots) and not items.layout.left_out:
        return items
    layout = _laid_out(subject, probe, shots, items.examples, 10**9)
    flags, context = list(items.flags), learned.context(subject.network)
    for place, need in enumerate(layout.needs):
        if need > context:
            flags[place] = f"{flags[place]} too long".strip()
    return replace(items, flags=flags, layout=layout)


def _examples(study: Study, probe: Probe, items: list[int]) -> tuple[list[Example], list[str]]:
    """The items as examples and their flags. A hidden label is refused, or read as the first
    label and marked.
    """
    folder, dataset = datasets.data_folder(study), REGISTRY[probe.dataset]
    if study.protocol.hidden_labels == "refuse":
        return rows.examples(folder, dataset, probe.split, probe.format, items), [""] * len(items)
    made, flags = [], []
    for item in items:
        try:
            made += rows.examples(folder, dataset, probe.split, probe.format, [item])
            flags.append("")
        except HiddenLabel:
            row = rows.read(folder, dataset, probe.split)[item] | {"label": 0}
            made.append(dataset.example(row, probe.format))
            flags.append("hidden label")
    return made, flags
