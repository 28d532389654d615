"""What the datasets of a study hold, before anything is scored: rows, labels, faults, and how many
prompts fit.

Held against every dataset: its columns and types, its set of labels (hidden ones are refused),
empty texts, items that stand in the train split too, and, with the model's tokenizer, the share
of prompts that fit its context at each number of shots. How long items are, and the rows that
are tuned on, is left for `pretune plan` (module `lengths`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from pretune.plan import lengths
from pretune.recipes import continued, sft
from pretune.sources import datasets
from pretune.sources.datasets import evaluation_split
from pretune.study.config import Study
from pretune.tasks import prompts, rows
from pretune.tasks.dataset import RESERVE, Dataset
from pretune.tasks.example import FORMATS, Example, HiddenLabel, RowError
from pretune.tasks.registry import REGISTRY

LOOKED_AT = 500  # rows of a split that are read for faults and lengths
SHOTS = (0, 1, 2, 4)
TWICE = 0.01  # share of items that may stand in the train split too


def table(study: Study, tokenizer, context: int) -> pd.DataFrame:
    """One line per dataset: rows, items, labels, lengths, and the share that fits at each number of
    shots.

    Of a dataset that cannot be scored it says that there is a fault; `faults` says which.
    Lengths are left in the study's folder too.
    """
    lengths.note(study, _lengths(study, tokenizer))
    lines = [_line(study, REGISTRY[name], tokenizer, context) for name in study.probing.datasets]
    return pd.DataFrame(lines).convert_dtypes().astype(object).fillna("")


def faults(study: Study) -> list[str]:
    """What stands against scoring the datasets or tuning on them, a line for each; nothing where
    all is well.
    """
    lines = (_fault(study, REGISTRY[name]) for name in datasets.used(study))
    return [" ".join(line.split()) for line in lines if line]


def _fault(study: Study, dataset: Dataset) -> str:
    try:
        _try_tuning(study, dataset)
        if dataset.name not in study.probing.datasets:
            return ""
        items, twice = _items(study, dataset), 0.0
        if study.protocol.shots == "train":
            twice = np.mean(_in_train(study, dataset, items))
    except RowError as error:
        return str(error)
    said = (
        f"{dataset.name}: {twice:.1%} of its items stand in the train split word for word; at "
        f"most {TWICE:.0%} may"
    )
    return said if twice > TWICE else ""


def _try_tuning(study: Study, dataset: Dataset) -> None:
    """Make texts of all rows that some recipe tunes on. Raises RowError for one of which none
    can be made, and where there are too few.
    """
    folder = datasets.data_folder(study)
    wanted = datasets.drawn(study, dataset.name)
    # with the most rows, among which those of the others are
    most = max(wanted, key=wanted.get, default="")
    for seed in range(study.runs * study.tuning.seeds) if most else ():
        indices = rows.chosen(folder, dataset, dataset.train, wanted[most], seed)
        if dataset.turns:
            rows.conversations(folder, dataset, indices)
        else:
            rows.examples(folder, dataset, dataset.train, "default", indices)
        if len(indices) < wanted[most]:
            all_of_it = wanted[most] == study.tuning_of(most).examples
            said = f"recipes.{most}.examples is" if all_of_it else f"recipes.{most} draws"
            raise RowError(
                f"{dataset.name}: {said} {wanted[most]}, its {dataset.train} split has "
                f"{len(indices)} rows beside the tenth that is reserved"
            )
    for name, count in wanted.items():
        _try_order(study, dataset, name, count)


def _try_order(study: Study, dataset: Dataset, name: str, count: int) -> None:
    """Raises RowError where a recipe takes some rows only, and there are too few of them."""
    recipe = study.recipe(name)
    chosen = isinstance(recipe, sft.Sft) and (recipe.opening or recipe.distinct)
    chosen = chosen or isinstance(recipe, continued.Continued) and recipe.wordings
    if chosen and recipe.dataset == dataset.name:
        there = len(list(islice(recipe.order(datasets.data_folder(study), 0), count)))
        if there < count:
            raise RowError(
                f"{dataset.name}: {name} takes {count} rows of its {dataset.train} split, which "
                f"has {there} that it may take beside the tenth that is reserved"
            )


def _items(study: Study, dataset: Dataset) -> list[Example]:
    """The items that are scored, as examples. Hidden labels are an error unless the protocol
    lets them pass.
    """
    folder, split = datasets.data_folder(study), evaluation_split(study, dataset)
    indices = rows.chosen(folder, dataset, split, study.probing.items, 0)
    if study.protocol.hidden_labels == "refuse":
        return rows.examples(folder, dataset, split, "default", indices)
    return list(_unless_hidden(folder, dataset, split, indices))


def _unless_hidden(
    folder: Path, dataset: Dataset, split: str, indices: list[int], form: str = "default"
) -> Iterator[Example]:
    """Those rows as examples, but for those whose label is hidden."""
    for index in indices:
        with suppress(HiddenLabel):
            yield from rows.examples(folder, dataset, split, form, [index])


def _in_train(study: Study, dataset: Dataset, items: list[Example]) -> list[bool]:
    """Of each item whether its prompt stands in the train split. Where that is the split scored,
    the reserve serves as shots.
    """
    folder = datasets.data_folder(study)
    split = RESERVE if evaluation_split(study, dataset) == dataset.train else dataset.train
    if dataset.kind == "text":
        return [False] * len(items)
    indices = rows.chosen(folder, dataset, split, len(rows.read(folder, dataset, split)))
    seen = {example.prompt for example in _unless_hidden(folder, dataset, split, indices)}
    return [item.prompt in seen for item in items]


def _line(study: Study, dataset: Dataset, tokenizer, context: int) -> dict:
    folder, split = datasets.data_folder(study), evaluation_split(study, dataset)
    line = {"dataset": dataset.name, "split": split}
    try:
        items = _items(study, dataset)
        line |= {
            "rows": len(rows.read(folder, dataset, split)),
            "scored": len(items),
            "train": len(rows.read(folder, dataset, dataset.train)),
            "in train": sum(_in_train(study, dataset, items)),
        }
        fits = _fits(study, dataset, tokenizer, context, items[:LOOKED_AT])
        line |= {"labels": _labels(dataset, items)} | fits
    except RowError:
        line["rows"] = "fault"
    return line


def _labels(dataset: Dataset, items: list[Example]) -> str:
    """How often each label is the right one."""
    counts = Counter(item.gold for item in items)
    return ", ".join(
        f"{label} {counts[number] / len(items):.0%}" for number, label in enumerate(dataset.labels)
    )


def _fits(study: Study, dataset: Dataset, tokenizer, context: int, items: list[Example]) -> dict:
    """Median tokens of a prompt, the share of items that fit at each number of shots, and the
    shots that are used.
    """
    folder, split = datasets.data_folder(study), evaluation_split(study, dataset)
    shots = []
    if dataset.kind != "text":
        shots = rows.shots(folder, dataset, split, "default", max(SHOTS), 0)
    said, end = dataset.description, dataset.between
    bare = prompts.lay_out(tokenizer, said, [], end, items, 10**9, study.probing.new_tokens)
    found = {"tokens": int(np.median(bare.needs))}
    for count in SHOTS if shots else (0,):
        before = "".join(f"{shot.prompt}{shot.completion}{end}" for shot in shots[:count])
        needs = np.array(bare.needs) + (len(tokenizer(before)["input_ids"]) if count else 0)
        found[f"fit {count}-shot"] = f"{(needs <= context).mean():.0%}"
    used = prompts.lay_out(
        tokenizer, said, shots[: study.probing.shots], end, items, context, study.probing.new_tokens
    )
    return found | {"shots": used.shots}


def _lengths(study: Study, tokenizer) -> dict[str, dict[str, int]]:
    """Tokens of each dataset, as `lengths.note` takes them; nothing of one that has a fault,
    which `faults` tells.
    """
    found = {}
    for dataset in (REGISTRY[name] for name in datasets.used(study)):
        with suppress(RowError):
            item = _item_length(study, dataset, tokenizer)
            found[dataset.name] = item | _row_lengths(study, dataset, tokenizer)
    return found


def _item_length(study: Study, dataset: Dataset, tokenizer) -> dict[str, int]:
    """Median tokens of the first items that are scored, each with its completion."""
    if dataset.name not in study.probing.datasets:
        return {}
    items = _items(study, dataset)[:LOOKED_AT]
    sizes = [len(prompts.split(tokenizer, one.prompt, one.completion).ids) for one in items]
    return {"item": int(np.median(sizes))}


def _row_lengths(study: Study, dataset: Dataset, tokenizer) -> dict[str, int]:
    """Median and longest tokens of the rows that the first seed tunes on, if none is passed
    over.
    """
    most = max(datasets.drawn(study, dataset.name).values(), default=0)
    if not most:
        return {}
    folder = datasets.data_folder(study)
    indices = rows.chosen(folder, dataset, dataset.train, most, 0)
    sizes = [len(sft.row_of(folder, dataset, index, tokenizer).ids) for index in indices]
    return {"row": int(np.median(sizes)), "longest": max(sizes)}


def rendered(study: Study) -> Iterator[tuple[str, str]]:
    """One prompt per dataset and format, zero-shot, with its answer in brackets: a heading and
    the text. A dataset of which none can be made is passed over; `faults` says why.
    """
    for dataset in (REGISTRY[name] for name in study.probing.datasets):
        with suppress(RowError):
            yield from _rendered(study, dataset)


def _rendered(study: Study, dataset: Dataset) -> Iterator[tuple[str, str]]:
    folder, split = datasets.data_folder(study), evaluation_split(study, dataset)
    [index] = rows.chosen(folder, dataset, split, 1, 0)
    for form in dataset.formats if dataset.kind != "text" else FORMATS[:1]:
        for example in _unless_hidden(folder, dataset, split, [index], form):
            yield f"{dataset.name}, {form}", f"{example.prompt}[{example.completion}]"
