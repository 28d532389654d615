"""What is expected of memory: against measured peaks, and what of it is said to fit GPUs that are
made up.
"""

import os
import stat
import subprocess
import sys
from contextlib import closing

import pytest
import torch

from conftest import OLMO_1B, plan_of
from pretune.plan import devices, memory, told
from pretune.recipes.pretrain import Architecture
from pretune.run import local

# What tensors take at most, in bytes, while models are tuned for two steps: of each a line, in a
# process of its own. Each tensor of 64 kB and more has a mapping of its own, so that what is freed
# is gone, as on a GPU.
MEASURED = """
import multiprocessing, resource, sys
import numpy as np, peft, psutil, torch
from transformers import OlmoConfig, OlmoForCausalLM
from pretune.models import adapters, training
from pretune.recipes.optimisation import Tuning
from pretune.recipes.trainable import Lora
from pretune.tasks.prompts import Row

def tune(layers, width, vocabulary, rows, length, precision, how):
    torch.set_num_threads(1)
    before = psutil.Process().memory_info().rss
    model = OlmoForCausalLM(OlmoConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=width // 64, max_position_embeddings=512,
        tie_word_embeddings=True, eos_token_id=0,
    ))
    draw = np.random.default_rng(0).integers
    data = [
        Row(draw(2, vocabulary, length).astype(np.int32), np.arange(length) >= length // 2)
        for _ in range(2 * rows)
    ]
    settings = Tuning(learning_rate=1e-3, batch_size=rows, examples=1, precision=precision)
    with adapters.part(model, Lora() if how == "lora" else None, 0) as part:
        training.train(part.model, data, settings, 0)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, flush=True)

for asked in eval(sys.argv[1]):
    one = multiprocessing.get_context("fork").Process(target=tune, args=asked)
    one.start()
    one.join()
"""
MODELS = [
    (4, 384, 8192, 8, 128, "float32", "full"),
    (6, 512, 8192, 8, 256, "float32", "full"),
    (8, 768, 16384, 4, 256, "float32", "full"),
    (6, 512, 8192, 8, 256, "bfloat16", "full"),
    (6, 512, 8192, 8, 256, "float32", "lora"),
]


def expected(layers, width, vocabulary, rows, length, precision, how) -> float:
    shape = Architecture(
        layers=layers,
        width=width,
        heads=width // 64,
        intermediate=3 * width,
        vocabulary=vocabulary,
    )
    trained = shape.weights if how == "full" else 0
    one = memory.Training("mnli", shape, trained, rows, length)
    return one.bytes(rows, precision, "cpu")


def test_memory_is_as_measured_within_15_percent():
    """Of three sizes, in both precisions where there are two, of all weights and of adapters."""
    asked = [one for one in MODELS if "bfloat16" not in one or has_bfloat16()]
    given = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, repr(asked)],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    )
    measured = list(map(int, done.stdout.split()))
    assert len(measured) == len(asked) >= 4
    assert [expected(*one) for one in asked] == pytest.approx(measured, rel=0.15)


def has_bfloat16():
    return torch.cpu._is_avx512_bf16_supported()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with such GPUs: lines of number, UUID, name and MiB, as their maker's tool says."""

    def made(*lines):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "\n".join(f"echo '{line}'" for line in lines))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv(devices.VISIBLE, raising=False)
        devices._there.cache_clear()

    yield made
    devices._there.cache_clear()


def test_gpus_are_those_that_the_environment_names(machine, monkeypatch):
    machine("0, GPU-1f2e, NVIDIA H200, 143771", "1, GPU-77aa, NVIDIA H200, 143771")
    assert [gpu.place for gpu in devices.gpus()] == ["0", "1"] and devices.default_jobs() == 2
    assert devices.gpus()[0].gb == pytest.approx(150.8, abs=0.1)
    monkeypatch.setenv(devices.VISIBLE, "GPU-77, MIG-2a/1/0")
    named, part = devices.gpus()
    assert named.place == "GPU-77" and named.name == "NVIDIA H200" and part.place == "MIG-2a/1/0"
    assert part.gb != part.gb


@pytest.mark.parametrize(
    ("gpu", "many", "changes", "said"),
    [
        ("H200, 143771", 1, (), ["whole batches: xsum, mnli, instruct, lora_xsum"]),
        ("L40S, 46068", 2, (), ["4 of 8 rows at a time: xsum", "whole batches: lora_xsum"]),
        ("T4, 15360", 2, (), ["shared by 2 GPUs: xsum, mnli", "1 of 8 rows at a time: lora_xsum"]),
        ("T4, 15360", 1, (), ["not at all: 2 such GPUs could share it; or train adapters: xsum"]),
        ("T4, 15360", 2, ("tuning.sharding=none",), ["not at all: 2 such GPUs could share it"]),
    ],
)
def test_a_plan_says_what_fits_the_gpus_that_are_there(
    on_the_hub, machine, gpu, many, changes, said
):
    """And all GPUs are given to one process where a row does not fit one of them."""
    machine(*(f"{number}, GPU-{number}, NVIDIA {gpu}" for number in range(many)))
    recipes = "xsum: {dataset: xsum}, mnli: {dataset: mnli}, instruct: {dataset: tulu_v2}"
    lora = "lora_xsum: {dataset: xsum, trainable: {peft_type: LORA}}"
    study = on_the_hub("olmo-1b", OLMO_1B, f"recipes={{base: {{}}, {recipes}, {lora}}}", *changes)
    plan = plan_of(study)
    told_of = told.expected(plan, plan.cells)
    assert f"{many} x NVIDIA {gpu.partition(',')[0]} of" in told_of
    assert [line for line in said if line not in told_of] == [], told_of
    shared = "shared" in said[0]
    assert memory.default_jobs(plan) == (1 if shared else many)
    assert memory.is_shared(plan, devices.gpus()) == shared


def test_what_is_shared_has_all_gpus_or_as_many_as_jobs_leave(monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "0,1,2,3")
    with closing(local.Processes(2, 2)) as workers:
        seen = [workers.submit(os.getenv, devices.VISIBLE) for _ in range(2)]
        assert [one.result() for one in seen] == ["0,1", "2,3"]
