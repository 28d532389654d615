"""Direct preference optimisation against TRL's DPOTrainer: the same pairs in the same batches, the
likelihoods before the first step included in the time of both.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import replace

import numpy as np
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from benchmarks import setting
from benchmarks.setting import Result
from benchmarks.tuning import BATCH, COUNT, SETTINGS, TRAINER
from pretune.models import scoring, training
from pretune.recipes import sft
from pretune.recipes.base import Asking
from pretune.recipes.dpo import Dpo
from pretune.tasks.prompts import Request, Row

RECIPE = Dpo(dataset="mnli", beta=0.1)


def pairs(tokenizer, count: int) -> list[Row]:
    """The right label of examples of MNLI beside a wrong one, in the order of training."""
    made = []
    for number, item in enumerate(setting.items("mnli", count, 0)[1]):
        rival = sft.training_row(tokenizer, sft.other_choice(item, number))
        made.append(replace(sft.training_row(tokenizer, item), rival=rival))
    return [made[i] for batch in training.batch_order(count, SETTINGS, 0) for i in batch]


def ours(model, made: list[Row]) -> tuple[float, list[float]]:
    """Seconds of reading and training, and the loss of every step."""
    order = np.concatenate(training.batch_order(len(made), SETTINGS, 0))
    given = [made[place] for place in np.argsort(order)]

    def losses(rows: list[Row]) -> list[float]:
        asked = [[Request(row.ids, int(row.counted.argmax()))] for row in rows]
        found = scoring.log_likelihoods(model.eval(), asked)
        return [-one / int(row.counted.sum()) for (one,), row in zip(found, rows, strict=True)]

    start = time.perf_counter()
    rows = RECIPE.finished(given, SETTINGS, Asking(losses, None))
    log = training.train(model, rows, SETTINGS, 0, loss=RECIPE.loss)
    return time.perf_counter() - start, [step.loss for step in log]


class Given(DPOTrainer):
    """On tokens, as they are."""

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset


def trl(model, tokenizer, made: list[Row], ahead: bool) -> tuple[float, list[float]]:
    """The same; what was likely before read `ahead`, or by a second model at each step."""
    data = Dataset.from_list([_split(row) for row in made])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Given(
            model,
            None if ahead else copy.deepcopy(model),
            DPOConfig(
                folder,
                beta=RECIPE.beta,
                per_device_train_batch_size=BATCH,
                **TRAINER,
                precompute_ref_log_probs=ahead,
            ),
            train_dataset=data,
            processing_class=tokenizer,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def _split(row: Row) -> dict[str, list[int]]:
    """A pair as TRL has it: what both have in common, and the two answers."""
    start = int(row.counted.argmax())
    better, worse = row.ids[start:].tolist(), row.rival.ids[start:].tolist()
    return {"prompt_ids": row.ids[:start].tolist(), "chosen_ids": better, "rejected_ids": worse}


def run(name: str) -> list[Result]:
    tokenizer, fresh, found = setting.tokenizer(), setting.model(name), []
    made = pairs(tokenizer, COUNT[name])
    for ahead in (False, True):
        ours_s, peer_s, mine, theirs = setting.in_turn(
            lambda: ours(copy.deepcopy(fresh), made),
            lambda ahead=ahead: trl(copy.deepcopy(fresh), tokenizer, made, ahead),
        )
        apart = setting.farthest([mine], [theirs])
        assert apart < 1e-5, f"losses are {apart:g} apart"
        found.append(
            Result(
                f"preferences on MNLI, batch {BATCH}",
                name,
                f"TRL DPOTrainer{', likelihoods ahead' if ahead else ''}",
                ours_s,
                peer_s,
                f"losses within {apart:.0e}",
                1.0,
                {"pairs": len(made), "tokens": sum(row.tokens for row in made)},
            )
        )
    return found
