"""One model that several processes train, each with a part of every weight: it is what one process
makes of it.
"""

import copy
import json
import os
import shutil
import signal
from itertools import chain
from shutil import ignore_patterns
from types import SimpleNamespace
from typing import ClassVar

import pandas as pd
import psutil
import pytest
import torch
from torch import distributed
from torch.multiprocessing import ProcessExitedException
from torch.testing import assert_close

from conftest import CORES, OUTPUTS, run_pretune
from pretune.models import adapters, group, loading, training, tuned
from pretune.models.training import TrainingFailed
from pretune.recipes.sft import Sft
from small_models import small
from test_training import SETTINGS, some_rows

ROWS = some_rows(21)  # the last batch has five rows, which four processes cannot share evenly
NEAR = {"rtol": 0, "atol": 3e-5}  # of weights of .02: sums of float32 in another order, and AdamW


@pytest.fixture
def folder(tmp_path):
    small("olmo", tie_word_embeddings=True).save_pretrained(tmp_path)
    return tmp_path


def task_of(folder, trainable=None, settings=SETTINGS, **more):
    recipe = Sft(dataset="mnli", trainable=trainable)
    return group.Task(folder, recipe, ROWS, settings, 0, folder / "state", **more)


def alone(task):
    """What one process makes of it, and its log."""
    part = adapters.part_of(loading.loaded(task.start), task.recipe.trainable, task.seed)
    return part.model, training.train(part.model, task.rows, task.settings, task.seed)


def together(task, size, after_step=lambda _: None):
    part = adapters.part_of(loading.loaded(task.start), task.recipe.trainable, task.seed)
    return part.model, group.train(part.model, task, size, after_step)


def losses(log):
    return [step.loss for step in log]


@pytest.mark.parametrize(
    ("size", "trainable"), [(4, None), (2, {"peft_type": "LORA"}), (2, r"layers\.1")]
)
def test_a_group_makes_the_model_that_one_process_makes(size, trainable, folder):
    task = task_of(folder, trainable)
    one, log = alone(task)
    many, found = together(task, size)
    assert losses(found) == pytest.approx(losses(log), abs=1e-5)
    assert [step.tokens for step in found] == [step.tokens for step in log]
    assert_close(dict(many.named_parameters()), dict(one.named_parameters()), **NEAR)


def test_embedding_and_head_are_one_tensor_after_all(folder):
    task = task_of(folder)
    one, _ = alone(task)
    two, _ = together(task, 2)
    tuned.keep_tuned("tied", two.save_pretrained, {}, 1.0)
    kept = tuned.load_tuned("tied", two, None)
    assert kept.get_input_embeddings().weight is kept.get_output_embeddings().weight
    assert_close(dict(kept.named_parameters()), dict(one.named_parameters()), **NEAR)


def test_a_cell_of_a_study_is_tuned_by_a_group_where_that_is_asked_for(smoke, tmp_path):
    """Under the same keys; its scores are those of one process."""
    shutil.copytree(OUTPUTS / "cache", tmp_path / "cache", ignore=ignore_patterns("tuned"))
    asked = ("tuning.sharding=fsdp", "recipes={base: {}, mnli: {dataset: mnli}}")
    words = chain.from_iterable(("--set", one) for one in asked)
    done = run_pretune(
        "run", "smoke", "--no-notebooks", "--only", "step-40", "--jobs", "1", *words,
        outputs=tmp_path, preexec_fn=lambda: os.sched_setaffinity(0, CORES),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, processes = {}, {}
    for outputs in (OUTPUTS, tmp_path):
        [record] = (outputs / "smoke" / "records").glob("step-40.mnli.0*/*")
        rows[outputs] = pd.read_parquet(record / "text_loss.parquet")
        processes[outputs] = json.loads((record / "record.json").read_text())["processes"]
    assert processes == {OUTPUTS: 1, tmp_path: len(CORES)}
    pd.testing.assert_frame_equal(rows[OUTPUTS], rows[tmp_path], atol=0.02)


def test_a_group_that_is_killed_goes_on_from_its_state(folder):
    """With as many processes or with others."""
    task = task_of(folder, settings=SETTINGS.model_copy(update={"epochs": 20}), state_every=0.0)
    whole, log = alone(task)
    done, others = [], set(psutil.Process().children(recursive=True))

    def kill(step):
        done.append(step)
        if task.state.is_file():
            family = set(psutil.Process().children(recursive=True)) - others
            member = max(family, key=psutil.Process.create_time)
            member.send_signal(signal.SIGKILL)

    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        together(task, 2, kill)
    assert len(done) < len(log) and task.state.is_file()
    seen = []
    again, found = together(task, 1, seen.append)
    assert 0 < len(seen) < len(log) and losses(found) == pytest.approx(losses(log), abs=1e-3)
    assert_close(dict(again.named_parameters()), dict(whole.named_parameters()), rtol=0, atol=1e-3)
    assert not task.state.is_file() and not task.trained.is_file()


def test_what_fails_in_a_group_is_said_as_alone(folder):
    wild = task_of(folder, settings=SETTINGS.model_copy(update={"learning_rate": 5e3}))
    with pytest.raises(TrainingFailed, match="lower the learning rate"):
        together(wild, 2)


def hungry(likelihood):
    """A loss of rows that does not fit one of the processes together with another row."""
    second = distributed.is_initialized() and distributed.get_rank() == 1
    if second and len(likelihood) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return -likelihood


class Hungry(Sft):
    loss: ClassVar = staticmethod(hungry)


def test_a_group_that_runs_out_of_memory_is_begun_again_and_spares_more(folder, monkeypatch):
    """Though what the others say is that one is gone."""
    task, tried, run = task_of(folder)._replace(recipe=Hungry(dataset="mnli")), [], group._run
    model = loading.loaded(folder)
    log = training.train(model, ROWS, SETTINGS, 0, loss=hungry)

    def noted(task, size, spared, after_step):
        tried.append(spared)
        return run(task, size, spared, after_step)

    monkeypatch.setattr(group, "_run", noted)
    _, found = together(task, 2)
    assert tried == [0, 1, 2] and losses(found) == pytest.approx(losses(log), rel=1e-4)
    monkeypatch.setattr(group, "_run", lambda *_: None)
    with pytest.raises(TrainingFailed, match="out of memory with a single row on each of 2"):
        together(task, 2)


def test_activations_computed_twice_change_nothing_in_a_group(folder):
    task = task_of(folder)
    _, log = alone(task)
    found = group._run(task, 2, 3, lambda _: None)  # rows one by one, and that
    assert losses(found) == pytest.approx(losses(log), abs=1e-5)


def test_a_worker_that_may_begin_no_processes_trains_alone_or_says_so(monkeypatch):
    """As Dask's are, unless they are told."""
    monkeypatch.setattr(group.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert group.size("auto") == group.size("none") == 1
    with pytest.raises(TrainingFailed, match="DASK_DISTRIBUTED__WORKER__DAEMON=False"):
        group.size("fsdp")


def test_the_loss_by_rows_counts_no_row_that_only_fills_a_share(folder):
    """Where a batch cannot be shared evenly, some process reads one in which nothing counts."""
    rows = some_rows(5)
    shares = [group.Group.share(SimpleNamespace(_place=n, size=4), rows) for n in range(4)]
    assert [len(share) for share in shares] == [2, 2, 2, 2]
    assert sum(row.counted.any() for share in shares for row in share) == 5
    model = loading.loaded(folder)
    silent = shares[3][1]
    loss = lambda likelihood: 1 + 0 * likelihood  # noqa: E731
    settings = SETTINGS.model_copy(update={"epochs": 1})
    [step] = training.train(copy.deepcopy(model), [*rows[:3], silent], settings, 0, loss=loss)
    assert step.loss == pytest.approx(3 / 4)
