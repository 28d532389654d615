"""Tuning all weights against TRL's SFTTrainer: same batches, rates and dtype; and pre-training
against the bare loop.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks import setting
from benchmarks.setting import Result
from pretune.models import training
from pretune.recipes import sft
from pretune.recipes.optimisation import Tuning

BATCH, COUNT = 8, {"1 M": 64, "30 M": 32}
BAR = {"1 M": 1.5, "30 M": 1.1}
SETTINGS = Tuning(examples=1, learning_rate=1e-4, batch_size=BATCH, warmup=0.0, precision="float32")

# of TRL's trainers, so that they do what is done here
TRAINER = {
    "num_train_epochs": 1,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "lr_scheduler_type": "linear",
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
    "train_sampling_strategy": "sequential",
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "dataloader_pin_memory": False,
}


def rows(tokenizer, count: int) -> list[training.Row]:
    """Examples of MNLI in the order in which they are trained on."""
    _, items = setting.items("mnli", count, 0)
    made = [sft.training_row(tokenizer, item) for item in items]
    return [made[i] for batch in training.batch_order(count, SETTINGS, 0) for i in batch]


def ours(model, made: list[training.Row]) -> tuple[float, list[float]]:
    """Seconds of training and the loss of every step. Rows are given so that shuffling puts them
    into their order.
    """
    order = np.concatenate(training.batch_order(len(made), SETTINGS, 0))
    given = [made[place] for place in np.argsort(order)]
    start = time.perf_counter()
    log = training.train(model, given, SETTINGS, 0)
    return time.perf_counter() - start, [step.loss for step in log]


def trl(model, tokenizer, made: list[training.Row], packing: bool) -> tuple[float, list[float]]:
    data = Dataset.from_list(
        [
            {"input_ids": row.ids.tolist(), "completion_mask": row.counted.astype(int).tolist()}
            for row in made
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model,
            SFTConfig(
                folder,
                per_device_train_batch_size=BATCH if not packing else 1,
                **TRAINER,
                packing=packing,
                packing_strategy="wrapped",
                max_length=512,
                completion_only_loss=True,
            ),
            train_dataset=data,
            processing_class=tokenizer,
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def run(name: str) -> list[Result]:
    tokenizer, fresh, found = setting.tokenizer(), setting.model(name), []
    made = rows(tokenizer, COUNT[name])
    counted = sum(int(row.counted.sum()) for row in made)
    for packing in (False, True):
        ours_s, peer_s, mine, theirs = setting.in_turn(
            lambda: ours(copy.deepcopy(fresh), made),
            lambda packing=packing: trl(copy.deepcopy(fresh), tokenizer, made, packing),
        )
        apart = setting.farthest([mine], [theirs]) if not packing else float("nan")
        assert packing or apart < 1e-3, f"losses are {apart:g} apart"
        found.append(
            Result(
                f"tuning on MNLI, batch {BATCH}",
                name,
                f"TRL SFTTrainer{', packed' if packing else ''}",
                ours_s,
                peer_s,
                "not comparable: rows share a sequence"
                if packing
                else f"losses within {apart:.0e}",
                BAR[name],
                {"tokens that count": counted, "tokens": sum(len(row.ids) for row in made)},
            )
        )
    return found


def bare(model, made: list[training.Row]) -> tuple[float, list[float]]:
    """Seconds of the bare loop, and the loss of every step."""
    return setting.timed(lambda: setting.bare(model, made, SETTINGS))()


def pretraining(name: str) -> list[Result]:
    length, count = 256, 96
    ids = np.random.default_rng(0).integers(1000, 50000, (count, length)).astype(np.int32)
    made = [training.Row(row, np.arange(length) > 0) for row in ids]
    fresh, what = setting.model(name), f"pre-training, {BATCH} rows of {length}"
    return beside_the_loop(what, name, "bare transformers loop", made, fresh, fresh)


def beside_the_loop(
    what: str, name: str, peer: str, made: list[training.Row], model, other
) -> list[Result]:
    """Training of `model` by ours, of `other` by the bare loop, which draws the order of rows."""
    order = [i for batch in training.batch_order(len(made), SETTINGS, 0) for i in batch]
    ours_s, peer_s, mine, theirs = setting.in_turn(
        lambda: ours(copy.deepcopy(model), [made[i] for i in order]),
        lambda: bare(copy.deepcopy(other), made),
    )
    apart = setting.farthest([mine], [theirs])
    assert apart < 1e-3, f"losses are {apart:g} apart"
    same, read = f"losses within {apart:.0e}", {"tokens": sum(row.tokens for row in made)}
    return [Result(what, name, peer, ours_s, peer_s, same, 1.0, read)]


def memory(name: str) -> list[Result]:
    """Peak memory of a process that tunes, ours and TRL's, in GB in the place of seconds."""

    def peak(which: str) -> float:
        command = [sys.executable, "-m", "benchmarks.tuning", which, name]
        return float(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        )

    peaks = {which: [peak(which) for _ in range(3)] for which in ("ours", "trl")}
    return [
        Result(
            "peak memory of tuning, GB",
            name,
            "TRL SFTTrainer",
            peaks["ours"],
            peaks["trl"],
            "the same batches",
            1.0,
        )
    ]


if __name__ == "__main__":
    which, name = sys.argv[1:]
    torch.set_num_threads(1)
    made = rows(setting.tokenizer(), COUNT[name])
    ours(setting.model(name), made) if which == "ours" else trl(
        setting.model(name), setting.tokenizer(), made, False
    )
    # getrusage would count the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1e6)
