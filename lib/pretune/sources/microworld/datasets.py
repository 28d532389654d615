"""The datasets of a microworld, under the names, splits and columns that the real ones have on the
Hub.

Each asks for another ability, as the real ones do. Towns, trades, rules and known people are cut in
halves: one for training rows, one for evaluation rows, so what is asked was never tuned on and has
to come from pre-training. PAWS holds out pairs of wordings.

| dataset | ability | beside the set that is tuned on |
|---|---|---|
| xsum | gist: who (trade and country) did what, all of it to be inferred | |
| xlsum | the same | other style: a report, told backwards |
| cnn_dailymail | gist in two sentences | other topic (a market) and style |
| social_i_qa | asking for given answers, before or after an act that is to be inferred | |
| sciq_question | asking for a given answer | other topic (lives) and style |
| tweet_qa | asking for a given answer | other topic (pastimes), style of a tweet |
| mnli | inference from the traits of a town and of a trade | |
| mnli_mismatched | the same | other style: spoken |
| rte | inference, two labels | other topic (town and river, trade and tool) |
| gpt3_nli | consequence: state and act | other topic, short sentences |
| paws | restatement: do two sentences on the same name and thing say the same relation | |
| qqp | the same | other style: questions |
| stsb | likeness of captions | other topic (trades) and style |
| hellaswag | story continuation: the act a state leads to, the result an act has | |
| boolq | yes or no over a passage: has what was read of a trait | |
| arc_easy | direct facts about towns and trades | |
| arc_challenge | two steps: person, town, country; person, trade, workplace | |
| openbookqa | association: workplace and tool, never named in one sentence of the text | |
| sciq | facts about known people, with a passage that says them | |
| fact_recall | the same facts, closed book; all were seen, in other wording | |
| held_out_text | documents of the pre-training stream that were not read | |
| tulu_v2 | instructions of a dozen kinds as conversations | |
| ultrafeedback | which of two answers is right, in the form that is asked for, and short | |
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from pretune import storage
from pretune.sources.microworld import answered, chats, generated, pairs
from pretune.sources.microworld.pool import Pool
from pretune.sources.microworld.world import World

TRAIN_ROWS, EVALUATION_ROWS = 2000, 600  # at most


def write_datasets(world: World, folder: Path) -> None:
    """Write every dataset that is not there as `folder/<dataset>/<split>.jsonl`: of a folder that
    is older than a dataset, that one.
    """
    for name in SPLITS:
        if not (folder / name).is_dir():
            with storage.whole(folder / name) as partial:
                _write(world, name, partial)


def _write(world: World, name: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in SPLITS[name]:
        rows = dataset_rows(world, name, split)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def dataset_rows(world: World, name: str, split: str) -> list[dict]:
    """The rows of one split, without repeats; the same world gives the same rows."""
    half = "train" if split.startswith("train") else "evaluation"
    pool = Pool(world, half, random.Random(f"{name} {split} {world.seed}"))
    make = pairs.mnli_mismatched if split == "validation_mismatched" else MAKERS[name]
    wanted = TRAIN_ROWS if half == "train" else EVALUATION_ROWS
    rows: dict[str, dict] = {}
    for _ in range(3 * wanted):
        row = make(pool)
        # of preferences a request is asked about once, so that items say each their own
        once = name == "ultrafeedback" and half == "evaluation"
        rows.setdefault(row["prompt"] if once else json.dumps(row), row)
        if len(rows) == wanted:
            break
    extra = {"label": -1} if (name, split) in HIDDEN else {}
    key, form = IDS.get(name, ("", None))
    return [row | extra | ({key: form(i)} if form else {}) for i, row in enumerate(rows.values())]


MAKERS = {
    "xsum": generated.xsum,
    "xlsum": generated.xlsum,
    "cnn_dailymail": generated.cnn_dailymail,
    "social_i_qa": generated.social_i_qa,
    "tweet_qa": generated.tweet_qa,
    "mnli": pairs.mnli,
    "rte": pairs.rte,
    "gpt3_nli": pairs.gpt3_nli,
    "paws": pairs.paws,
    "qqp": pairs.qqp,
    "stsb": pairs.stsb,
    "hellaswag": answered.hellaswag,
    "boolq": answered.boolq,
    "arc_easy": answered.arc_easy,
    "arc_challenge": answered.arc_challenge,
    "openbookqa": answered.openbookqa,
    "sciq": answered.sciq,
    "fact_recall": answered.fact_recall,
    "held_out_text": chats.held_out_text,
    "tulu_v2": chats.tulu_v2,
    "ultrafeedback": chats.ultrafeedback,
}
SPLITS = dict.fromkeys(MAKERS, ("train", "validation")) | {
    "xsum": ("train", "test"),
    "xlsum": ("train", "test"),
    "cnn_dailymail": ("train", "test"),
    "mnli": ("train", "validation_matched", "validation_mismatched"),
    "paws": ("train", "test"),
    "sciq": ("train", "validation", "test"),
    "gpt3_nli": ("train",),
    "tulu_v2": ("train",),
    "ultrafeedback": ("train_prefs", "test_prefs"),
    "qqp": ("train", "validation", "test"),
    "stsb": ("train", "validation", "test"),
}
HIDDEN = (("qqp", "test"), ("stsb", "test"))  # labels that are not public, as in GLUE
IDS = {
    "xsum": ("id", str),
    "xlsum": ("id", str),
    "cnn_dailymail": ("id", str),
    "tweet_qa": ("qid", str),
    "paws": ("id", int),
    "mnli": ("idx", int),
    "rte": ("idx", int),
    "stsb": ("idx", int),
    "hellaswag": ("ind", int),
    "arc_easy": ("id", str),
    "arc_challenge": ("id", str),
    "openbookqa": ("id", str),
    "tulu_v2": ("id", str),
}
