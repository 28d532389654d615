"""How many tokens rows have, for what a study is expected to cost: as `pretune data` measured
them, or as is known beforehand.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pretune import paths, storage
from pretune.study.config import Study
from pretune.tasks.registry import GENERATED, REGISTRY

ROW_TOKENS = 60  # tokens of a typical example of a generated world, prompt and completion
# the same of real rows: medians with OLMo's tokenizer (`pretune data`), but for those that are
# guessed
REAL_TOKENS = {
    "xsum": 400,
    "xlsum": 600,
    "cnn_dailymail": 850,
    "social_i_qa": 65,
    "sciq_question": 130,
    "tweet_qa": 80,
    "mnli": 54,
    "mnli_mismatched": 53,
    "rte": 71,
    "gpt3_nli": 51,
    "paws": 73,
    "qqp": 45,
    "stsb": 45,
    "arc_easy": 30,
    "arc_challenge": 35,
    "openbookqa": 19,
    "hellaswag": 45,
    "boolq": 131,
    "sciq": 99,
    "sciq_closed": 22,
    "wikitext": 168,
    "popqa": 20,
    "popqa_known": 20,
    "popqa_asked": 20,
    "popqa_rare": 20,
    "popqa_rare_own": 40,
    "popqa_rare_among": 70,
    "popqa_rare_found": 70,
    "popqa_rare_others": 70,
    "popqa_rare_text": 15,
    "tulu_v2": 500,
    "ultrafeedback": 400,
    "alpaca": 100,
    "dolly": 150,
}
POPQA = tuple(name for name in REAL_TOKENS if name.startswith("popqa"))
GUESSED = ("xlsum", *POPQA, "tulu_v2", "ultrafeedback", "alpaca", "dolly")


def note(study: Study, found: dict[str, dict[str, int]]) -> Path:
    """Leave what was measured: dataset to tokens, medians of an `item` and of a training `row`,
    and of the `longest` row.
    """
    storage.write(_file(study), json.dumps(found, indent=1))
    return _file(study)


def noted(study: Study) -> dict[str, dict[str, int]]:
    """What was measured; nothing where `pretune data` was not run."""
    file = _file(study)
    return _read(file, file.stat().st_mtime_ns) if file.is_file() else {}


def item(study: Study, dataset: str) -> int:
    """Tokens of a typical item of a dataset, prompt and completion."""
    return noted(study).get(dataset, {}).get("item") or _known(study, dataset)


def row(study: Study, recipe: str, context: int) -> int:
    """Tokens of a typical row that a recipe tunes on, the mean where it takes rows of several
    datasets.
    """
    parts = study.recipe(recipe).drawn(study.tuning_of(recipe).examples)
    most, known = _limit(study, recipe, context), noted(study)
    tokens = {name: known.get(name, {}).get("row") or _known(study, name) for name in parts}
    sizes = sum(min(most, tokens[name]) * count for name, count in parts.items())
    return round(sizes / sum(parts.values()))


def longest(study: Study, recipe: str, context: int) -> int:
    """Tokens of the longest row that a recipe tunes on: of those looked at, else the longest
    that it may have.
    """
    beforehand = ROW_TOKENS if study.datasets.source in GENERATED else context
    parts = study.recipe(recipe).drawn(1)
    measured = [noted(study).get(name, {}).get("longest") or beforehand for name in parts]
    return min(max(measured), _limit(study, recipe, context))


def basis(study: Study) -> str:
    """What the lengths rest on, in words."""
    used = dict.fromkeys(
        [*study.probing.datasets, *(one.dataset for one in study.recipes.values() if one.dataset)]
    )
    unmeasured = [name for name in used if name not in noted(study)]
    words = ["measured"] if len(unmeasured) < len(used) else []
    if study.datasets.source in GENERATED:
        return ", ".join(
            words + [f"{ROW_TOKENS} tokens, as is typical of a generated world"] * bool(unmeasured)
        )
    guessed = [name for name in unmeasured if name in GUESSED or name not in REAL_TOKENS]
    known = [name for name in unmeasured if name not in guessed]
    if known:
        words.append(
            f"registered medians for {', '.join(known)}" if words else "registered medians"
        )
    return ", ".join(words + [f"guessed for {', '.join(guessed)}"] * bool(guessed))


def basis_of_longest(study: Study) -> str:
    """What the length of the longest row rests on, in words."""
    if any("longest" in one for one in noted(study).values()):
        return "the longest of those looked at"
    return (
        "as a generated world has them"
        if study.datasets.source in GENERATED
        else "the longest that may come"
    )


def _known(study: Study, dataset: str) -> int:
    if study.datasets.source not in GENERATED:
        return REAL_TOKENS.get(dataset, ROW_TOKENS)
    passages = REGISTRY[dataset].passages
    return ROW_TOKENS * (1 + (passages.many if passages else 0))


def _limit(study: Study, recipe: str, context: int) -> int:
    return min(context, study.tuning_of(recipe).max_length or context)


def _file(study: Study) -> Path:
    return paths.study_folder(study.name) / "lengths.json"


@cache
def _read(file: Path, _: int) -> dict[str, dict[str, int]]:
    return json.loads(file.read_text(encoding="utf-8"))
