"""Looking at a model: one probe becomes the rows of its items.

The protocol of the study decides which items and examples are taken and how answers are read;
the corrected one is the default, and what the published one lets pass is marked in the column
`flag`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product

import numpy as np

from pretune.models import scoring
from pretune.models.training import autocast
from pretune.plan.cells import Model, Probe
from pretune.sources import datasets
from pretune.study.config import Protocol, Study
from pretune.tasks import prompts, rows
from pretune.tasks.example import Example, HiddenLabel, RowError
from pretune.tasks.prompts import Layout, Request
from pretune.tasks.registry import REGISTRY, Dataset


class NotFinite(ValueError):
    """A model gives log-likelihoods that are not finite: the message names model, dataset and
    row, and holds the values.
    """


@dataclass
class Seen:
    """What was seen of a model: rows and texts of a record, items left out by probe, tokens of
    all sequences.
    """

    rows: list[dict] = field(default_factory=list)
    texts: list[dict] = field(default_factory=list)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    tokens: int = 0


@dataclass(frozen=True)
class _Asked:
    """The items of a probe as examples, their row numbers, the prefix before them, and what is
    odd about each.
    """

    dataset: Dataset
    items: list[int]
    examples: list[Example]
    flags: list[str]
    layout: Layout

    @property
    def kept(self) -> list[Example]:
        """The examples of the items that fit."""
        return [self.examples[place] for place in self.layout.kept]


def look(study: Study, model: Model, network, tokenizer, probe: Probe, seen: Seen) -> None:
    """Add to `seen` what one probe shows of `network`. Raises RowError when no item can be used,
    NotFinite for a model that gives no log-likelihoods to choose by.
    """
    asked = _asked(study, tokenizer, network.config.max_position_embeddings, probe)
    kept, layout = asked.kept, asked.layout
    with autocast(study.probing.precision, network.device):
        measured = list(_measure(study.protocol, network, tokenizer, asked, probe.new_tokens))
    baselines = rows.baseline(datasets.data_folder(study), asked.dataset, kept)
    shared = _shared(model, probe, layout.shots)
    lines = zip(layout.kept, kept, baselines, measured, strict=True)
    for place, example, base, (values, output, read) in lines:
        item, flag = asked.items[place], asked.flags[place]
        _hold_finite(model, asked.dataset, f"row {item} of {probe.split}", values)
        about = {"item": item, "gold": example.gold, "baseline": base, "flag": flag}
        seen.rows.append(shared | about | values)
        seen.texts.append(
            {
                "probe": probe.key,
                "item": item,
                "prompt": layout.prefix + example.prompt,
                "choices": list(example.choices),
                "output": output,
            }
        )
        seen.tokens += read
    if layout.left_out:
        seen.left_out[probe.key] = [asked.items[place] for place in layout.left_out]


def _shared(model: Model, probe: Probe, shots: int) -> dict:
    """The columns that all rows of one probe of one model have in common."""
    point = model.checkpoint
    return {
        "run": point.run,
        "checkpoint": point.name,
        "revision": point.revision,
        "step": point.step,
        "tokens": point.tokens,
        "stage": point.stage,
        "late": point.late,
        "recipe": model.recipe,
        "seed": model.seed,
        "probe": probe.key,
        "dataset": probe.dataset,
        "split": probe.split,
        "format": probe.format,
        "shots_asked": probe.shots,
        "shots": shots,
        "draw": probe.draw,
    }


def _hold_finite(model: Model, dataset: Dataset, where: str, values: dict) -> None:
    """Text is not asked after a content-free prompt; every other log-likelihood is a number, or
    the first would be the answer.
    """
    names = ["log_likelihood"]
    if dataset.metric != "nats":
        names.append("blank_log_likelihood")
    for name in names:
        if not np.isfinite(values[name]).all():
            raise NotFinite(
                f"{model.name}: {dataset.name}: {where}: {name} is {values[name]}, which is not "
                "finite: its weights, or what is computed from them, left the range of numbers"
            )


def _asked(study: Study, tokenizer, context: int, probe: Probe) -> _Asked:
    """Items and examples by the protocol. Corrected: a random choice of items, shots from the
    train split, what does not fit is left out. Published: the first items, the first of them as
    shots, nothing left out.
    """
    protocol, folder, dataset = study.protocol, datasets.data_folder(study), REGISTRY[probe.dataset]
    if protocol.shots == "train":
        items = rows.chosen(folder, dataset, probe.split, probe.items, 0)
        shots = rows.shots(folder, dataset, probe.split, probe.format, probe.shots, probe.draw)
        made, flags = _examples(study, probe, items)
    else:
        items = list(range(min(probe.items, len(rows.read(folder, dataset, probe.split)))))
        made, flags = _examples(study, probe, items)
        shots = made[: probe.shots]
        flags = [
            f"{flag} shot".strip() if place < probe.shots else flag
            for place, flag in enumerate(flags)
        ]
    prefix = tokenizer.eos_token if dataset.kind == "text" else ""
    end = f"{tokenizer.eos_token}\n" if probe.format == "chat" else "\n"
    layout = prompts.lay_out(tokenizer, prefix, shots, end, made, context, probe.new_tokens)
    if protocol.too_long == "flag" and (layout.shots < len(shots) or layout.left_out):
        layout = prompts.lay_out(tokenizer, prefix, shots, end, made, 10**9, probe.new_tokens)
        flags = [
            f"{flag} too long".strip() if need > context else flag
            for flag, need in zip(flags, layout.needs, strict=True)
        ]
    if not layout.kept:
        raise RowError(f"{dataset.name}: no item fits {context} tokens, even with no shots")
    return _Asked(dataset, items, made, flags, layout)


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


def _measure(
    protocol: Protocol, network, tokenizer, asked: _Asked, new_tokens: int
) -> Iterator[tuple[dict, str | None, int]]:
    """Per item the measured columns of its row, the generated text or None, and the tokens of
    its sequences.
    """
    dataset, prefix, items = asked.dataset, asked.layout.prefix, asked.kept
    requests = [_requests(tokenizer, prefix, item) for item in items]
    outputs = [None] * len(items)
    if dataset.kind == "generation":
        only = [request for [request] in requests]
        outputs = _generate(network, tokenizer, protocol, prefix, items, only, new_tokens)
        likelihoods = [[output.gold] for output in outputs]
    elif _reads_sub_tokens(protocol, dataset):
        texts = [prefix + item.prompt for item in items]
        likelihoods = _label_likelihoods(network, tokenizer, protocol, dataset, texts)
    else:
        likelihoods = scoring.log_likelihoods(network, requests)
    blanks = _blanks(protocol, network, tokenizer, dataset, prefix, items)
    measured = zip(items, requests, likelihoods, blanks, outputs, strict=True)
    for item, request, likelihood, blank, output in measured:
        values = {
            "log_likelihood": likelihood,
            "blank_log_likelihood": blank,
            "choice_tokens": [len(one.ids) - one.start for one in request],
            "choice_characters": [len(choice.strip()) for choice in item.choices],
        }
        if output is not None:
            values |= {
                "rouge_l": rows.rouge_l(output.text, item.completion),
                "length": output.length,
                "stop": output.stop,
            }
        text = output.text if output is not None else None
        yield values, text, sum(len(one.ids) for one in request)


def _requests(tokenizer, prefix: str, item: Example) -> list[Request]:
    """An item with each of its completions."""
    return [prompts.split(tokenizer, prefix + item.prompt, choice) for choice in item.choices]


def _reads_sub_tokens(protocol: Protocol, dataset: Dataset) -> bool:
    return protocol.labels == "sub-tokens" and dataset.kind == "classification"


def _blanks(
    protocol: Protocol, network, tokenizer, dataset: Dataset, prefix: str, items: list[Example]
) -> list[list[float]]:
    """Per item the log-likelihoods of its completions after the content-free prompt; NaN of text,
    which has no prompt.
    """
    if dataset.metric == "nats":
        return [[np.nan]] * len(items)
    if _reads_sub_tokens(protocol, dataset):
        texts = [prefix + item.blank for item in items]
        return _label_likelihoods(network, tokenizer, protocol, dataset, texts)
    return _blank_likelihoods(network, tokenizer, prefix, items)


def _generate(
    network,
    tokenizer,
    protocol: Protocol,
    prefix: str,
    items: list[Example],
    requests: list[Request],
    new_tokens: int,
) -> list[scoring.Generation]:
    """Outputs after the tokens before each completion, or, as published, after the prompt with a
    space at its end.
    """
    asked = [one.ids[: one.start] for one in requests]
    golds = [one.ids[one.start :] for one in requests]
    if protocol.prompt_end == "space":
        asked = [_ids(tokenizer, f"{prefix}{item.prompt} ") for item in items]
        golds = [_ids(tokenizer, item.completion.strip(), begins=False) for item in items]
    return scoring.generate(
        network, tokenizer, asked, new_tokens, golds, newline=protocol.stop == "newline"
    )


def _ids(tokenizer, text: str, begins: bool = True) -> np.ndarray:
    """Tokens of `text`; where it `begins` a sequence, with whatever the tokenizer puts first."""
    return np.array(tokenizer(text, add_special_tokens=begins)["input_ids"], dtype=np.int32)


def _blank_likelihoods(network, tokenizer, prefix: str, items: list[Example]) -> list[list[float]]:
    """Log-likelihoods of the completions after the content-free prompt; the same completion is
    scored once.
    """
    pairs = [list(product([item.blank], item.choices)) for item in items]
    asked = list(dict.fromkeys(chain.from_iterable(pairs)))
    requests = [[prompts.split(tokenizer, prefix + blank, choice)] for blank, choice in asked]
    found = scoring.log_likelihoods(network, requests)
    values = {pair: value for pair, [value] in zip(asked, found, strict=True)}
    likelihoods = []
    for some in pairs:
        likelihoods.append([values[pair] for pair in some])
    return likelihoods


def _label_likelihoods(
    network, tokenizer, protocol: Protocol, dataset: Dataset, asked: list[str]
) -> list[list[float]]:
    """Per prompt and label the log-probability of the likeliest of the label's sub-tokens, with
    and without a leading space, as the next token (Sun & Dredze, code: the arg max over all
    sub-tokens, mapped back to the word).
    """
    parts = [_sub_tokens(tokenizer, label) for label in dataset.labels]
    flat = list(chain.from_iterable(parts))
    starts = [_ids(tokenizer, text + " " * (protocol.prompt_end == "space")) for text in asked]
    requests = [_next_tokens(start, flat) for start in starts]
    found = np.array(scoring.log_likelihoods(network, requests))
    firsts = np.cumsum([0, *map(len, parts[:-1])])
    return np.maximum.reduceat(found, firsts, axis=1).tolist()


def _sub_tokens(tokenizer, label: str) -> list[int]:
    plain = tokenizer(label, add_special_tokens=False)["input_ids"]
    spaced = tokenizer(" " + label, add_special_tokens=False)["input_ids"]
    return sorted({*plain, *spaced})


def _next_tokens(start: np.ndarray, tokens: list[int]) -> list[Request]:
    """Each of `tokens` as the completion of `start`."""
    return [Request(np.append(start, token).astype(np.int32), len(start)) for token in tokens]
