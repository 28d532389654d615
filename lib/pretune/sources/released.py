"""The score tables that the reference study released, as summary rows: one row per mean score,
without single answers.

Sun & Dredze (arXiv 2408.06663) put their tables into their repository, which is what makes a
re-analysis possible. They are fetched at a pinned commit and held against their checksums, or
read from a folder. Names of runs and datasets are read by one grammar each; a name that it does
not know is an error, and what no finding uses is listed, not dropped in silence.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pretune import paths, storage
from pretune.sources.checkpoints import RELEASED_TOKENS

COMMIT = "8b79c396cb2fef1e13ef69df1a56321fee2619db"
SHA256 = {
    "all_perf_table.csv": "7996bca9ab8b5251892a6658297909d2d19f8210f6fa9785404d00dd1a0ae295",
    "official_eval_table.csv": "624ea9153af9010972bf95fd866bf74ee2812ed0004601be2ccfbb4fd9d16bcf",
    "it_perf_table.csv": "04ce16f9713c7d4ff3649fe07bd01c41bba8e89702fece0e449ef0ed5b776afc",
}
MAIN = 738020  # optimizer step of the branch `main`
STEPS = (1000, 18000, 342000, 424000, 505000, 592000, 738000, MAIN)
_STEP = r"(?:ckpt|checkpoint-)(?P<step>\d+)"
_TUNED = (
    rf"olmo1b_(?P<hf>hf_)?(?:(?:{_STEP}|main)_)?"
    r"(?P<train>mnli|paws|socialiqa|xsum|tulu)_\d+epoch_(?P<rate>2e-[567])"
)
_SHOTS = r"(?:_(?P<shots>\d+)shots)?"
GRAMMAR = {  # table: what a run may be called there
    "all_perf_table.csv": (
        rf"{_TUNED}{_SHOTS}",
        rf"olmo1b_(?:{_STEP}_)?original(?P<hf>_hf)?{_SHOTS}",
        rf"(?P<stray>{_STEP}_4shots)",
    ),
    "official_eval_table.csv": (_TUNED, rf"(?P<hf>){_STEP}", r"olmo1b_original(?P<hf>_hf)"),
    "it_perf_table.csv": (
        rf"{_TUNED}(?:_cot_chat)?",
        rf"{_STEP}(?:_cot_chat)?",
        r"olmo1b_(?P<hf>hf_)?original(?:_cot_chat)?",
    ),
}
RECIPES = {
    "mnli": "mnli",
    "paws": "paws",
    "socialiqa": "social_i_qa",
    "xsum": "xsum",
    "tulu": "instruct",
}
RATES = {"mnli": "2e-6", "paws": "2e-6", "social_i_qa": "2e-6", "xsum": "2e-7", "instruct": "2e-6"}
FORMATS = {"": "default", "_instruct": "instruct", "_inputoutput": "io"}
DATASETS = {  # table: its names for datasets; None for those no finding uses
    "all_perf_table.csv": {
        "mnli_matched": "mnli",
        "mnli_mismatched": "mnli_mismatched",
        "paws": "paws",
        "socialiqa": "social_i_qa",
        "xsum": "xsum",
        "xlsum": "xlsum",
        "cnn": "cnn_dailymail",
        "gpt3nli": "gpt3_nli",
        "qqp": "qqp",
        "rte": "rte",
        "sciq": "sciq_question",
        "stsb": "stsb",
        "tweetqa": "tweet_qa",
        "llmbar_Adversarial_Manual": None,
        "llmbar_Adversarial_Neighbor": None,
        "llmbar_Natural": None,
    },
    "official_eval_table.csv": {
        "arc_challenge": "arc_challenge",
        "arc_easy": "arc_easy",
        "boolq": "boolq",
        "hellaswag": "hellaswag",
        "openbookqa": "openbookqa",
        "sciq": "sciq",
        "qqp": None,
        "rte": None,
    },
    "it_perf_table.csv": dict.fromkeys(("alpaca", "gsm", "mmlu", "toxigen", "truthfulqa")),
}
# Shares of the labels in the splits that were scored: what a constant answer scores. Of hidden
# labels none is known, and of generation no score without a skill was released.
SHARES = {
    "mnli": {"entailment": 3479 / 9815, "neutral": 3123 / 9815, "contradiction": 3213 / 9815},
    "mnli_mismatched": {
        "entailment": 3463 / 9832,
        "neutral": 3129 / 9832,
        "contradiction": 3240 / 9832,
    },
    "rte": {"entailment": 1249 / 2490, "neutral": 1241 / 2490},
    "gpt3_nli": {"any": 1 / 3},
    "paws": {"no": 4464 / 8000, "yes": 3536 / 8000},
    "boolq": {"yes": 2033 / 3270, "no": 1237 / 3270},
} | dict.fromkeys(
    ("arc_easy", "arc_challenge", "openbookqa", "hellaswag", "sciq"), {"chance": 0.25}
)
# scored on test splits of GLUE, whose labels are all -1 and were read as "no"
HIDDEN = ("qqp", "stsb")
# Items behind a score: sizes of the splits that were scored. From them the standard errors that
# official_eval_table.csv lacks.
ITEMS = {
    "arc_easy": 570,
    "arc_challenge": 299,
    "openbookqa": 500,
    "hellaswag": 10042,
    "boolq": 3270,
    "sciq": 1000,
    "xsum": 11334,
    "xlsum": 11535,
    "cnn_dailymail": 11490,
    "social_i_qa": 1954,
    "sciq_question": 1000,
    "tweet_qa": 10692,
    "mnli": 9815,
    "mnli_mismatched": 9832,
    "rte": 2490,
    "gpt3_nli": 30000,
    "paws": 8000,
    "qqp": 390965,
    "stsb": 1379,
}


class TableError(ValueError):
    """A table that is not the released one: one line naming the file, what is wrong, and where."""


@dataclass(frozen=True)
class Run:
    """What the name of a run says."""

    step: int
    recipe: str  # a recipe, or one at another learning rate: mnli@2e-5
    shots: int
    why_left_out: str = ""


def tables(source: str) -> dict[str, pd.DataFrame]:
    """The three tables, from a folder or, downloaded once, from an address. Raises TableError."""
    folder = Path(source)
    if source.startswith(("http://", "https://")):
        folder = paths.CACHE / "published"
        for name in SHA256:
            _fetch(f"{source}/{name}", folder / name)
    return {name: _read(folder / name) for name in SHA256}


def _lines(source: str) -> Iterator[tuple[str, tuple]]:
    """Every score: the table it stands in, and its line. Raises TableError."""
    for table, frame in tables(source).items():
        for line in frame.itertuples():
            yield table, line


def rows(source: str) -> pd.DataFrame:
    """Summary rows of every score that a finding can use: the columns of scored records, one row in
    place of items.

    `score` is the middle of the published interval, `standard_error` that of the mean over
    items. Raises TableError.
    """
    found = [_row(table, line) for table, line in _lines(source)]
    used = [row for row in found if not row["why_left_out"]]
    return pd.DataFrame(used).drop(columns="why_left_out")


def left_out(source: str) -> pd.DataFrame:
    """What the tables hold and no finding uses: table, run, dataset and why."""
    lines = []
    for table, line in _lines(source):
        if why := _row(table, line)["why_left_out"]:
            lines.append((table, line.model_id, line.dataset, why))
    return pd.DataFrame(lines, columns=["table", "run", "eval dataset", "why_left_out"])


def parse_run(table: str, name: str) -> Run:
    """Raises TableError for a name that the grammar of the table does not know."""
    matches = (re.fullmatch(pattern, name) for pattern in GRAMMAR[table])
    found = next((match for match in matches if match), None)
    if found is None:
        raise TableError(
            f"{table}: {name!r} is no name of a run; known are the forms "
            f"{', '.join(GRAMMAR[table])}"
        )
    parts = ("step", "train", "rate", "shots", "hf", "stray")
    said = dict.fromkeys(parts) | found.groupdict()
    step = int(said["step"]) if said["step"] else MAIN
    if step not in STEPS:
        raise TableError(
            f"{table}: {name!r} names step {step}; known: {', '.join(map(str, STEPS))}"
        )
    recipe = RECIPES[said["train"]] if said["train"] else "base"
    if said["rate"] and said["rate"] != RATES[recipe]:
        recipe += f"@{said['rate']}"
    shots = int(said["shots"] or 0) if table == "all_perf_table.csv" else 4
    why = "stray name, a second score of the same model" if said["stray"] else ""
    if said["hf"] is None and not why:
        why = "a name without hf: measured before the weights were converted again"
    return Run(step, recipe, shots, why)


def parse_dataset(table: str, name: str) -> tuple[str | None, str]:
    """(dataset or None, format). Raises TableError for a name that the table does not know."""
    for ending, form in reversed(FORMATS.items()):
        if name.endswith(ending) and name.removesuffix(ending) in DATASETS[table]:
            return DATASETS[table][name.removesuffix(ending)], form
    raise TableError(
        f"{table}: {name!r} is no name of a dataset; known: {', '.join(DATASETS[table])}"
    )


def _row(table: str, line) -> dict:
    run, (dataset, form) = parse_run(table, line.model_id), parse_dataset(table, line.dataset)
    error = line.std if table == "all_perf_table.csv" else _binomial(dataset, line.Performance)
    return {
        "run": 0,
        "checkpoint": "main" if run.step == MAIN else f"step-{run.step}",
        "step": run.step,
        "tokens": run.step * RELEASED_TOKENS,
        "stage": "pretraining",
        "late": run.step >= STEPS[-2],
        "recipe": run.recipe,
        "seed": 0,
        "draw": 0,
        "dataset": dataset,
        "split": "",
        "format": form,
        "shots_asked": run.shots,
        "shots": run.shots,
        "item": 0,
        "flag": "hidden label" if dataset in HIDDEN else "",
        "gold": 0,
        "prediction": -1,
        "baseline": max(SHARES.get(dataset, {"none": float("nan")}).values()),
        "score": line.Performance,
        "standard_error": error,
        "n": ITEMS.get(dataset, 0),
        "why_left_out": run.why_left_out or ("" if dataset else "a dataset that no finding uses"),
    }


def _binomial(dataset: str | None, share: float) -> float:
    return (share * (1 - share) / ITEMS[dataset]) ** 0.5 if dataset else float("nan")


def _fetch(address: str, target: Path) -> None:
    """Download a table unless the right one is there."""
    if target.is_file() and storage.sha256(target).hexdigest() == SHA256[target.name]:
        return
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  http or https, by the caller
            content = answer.read()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        help_ = "without a network give a folder that holds the tables: --set tables=FOLDER"
        raise TableError(f"{address}: {reason}; {help_}") from None
    with storage.whole(target) as partial:
        partial.write_bytes(content)


def _read(file: Path) -> pd.DataFrame:
    """One table, checked: the released bytes, the columns, one score a cell, between 0 and 1."""
    if not file.is_file():
        raise TableError(f"{file}: not there; the folder must hold {', '.join(SHA256)}")
    frame = pd.read_csv(file, index_col=0).rename(columns={"eval dataset": "dataset"})
    wanted = {"model_id", "dataset", "Performance"}
    if file.name == "all_perf_table.csv":
        wanted.add("std")
    if lacking := wanted - set(frame.columns):
        raise TableError(f"{file}: column {sorted(lacking)[0]!r} is missing")
    double = frame[frame.duplicated(["model_id", "dataset"])]
    if len(double):
        raise TableError(
            f"{file}: {double.iloc[0]['model_id']!r} on {double.iloc[0]['dataset']!r} stands "
            "there twice"
        )
    highest = 100 if file.name == "it_perf_table.csv" else 1
    outside = frame[~frame["Performance"].between(0, highest)]
    if len(outside):
        model, dataset, score = outside.iloc[0][["model_id", "dataset", "Performance"]]
        raise TableError(
            f"{file}: {model!r} on {dataset!r} scores {score}, which is not between 0 and 1"
        )
    if storage.sha256(file).hexdigest() != SHA256[file.name]:
        raise TableError(
            f"{file}: its checksum is not that of the released table at commit {COMMIT[:7]}"
        )
    return frame
