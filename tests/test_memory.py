"""What a cell held is handed back when it is over, for the next cell, the other processes and
whoever shares the GPU.
"""

import copy
import weakref

import pytest
import torch

from conftest import plan_of
from pretune import records
from pretune.models import loading, training
from pretune.models.checkpoint import Checkpoint
from pretune.run import cell as cells
from pretune.study.load import load_study


@pytest.fixture
def handed_back(monkeypatch):
    """As on a GPU: what is called to give memory back notes whether the model that a cell loaded
    is still held by something.
    """
    noted, loaded = [], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: noted.append([model() is not None for model in loaded])
    )
    return noted, loaded


@pytest.fixture
def run_cell(model, tokenizer, tmp_path, monkeypatch, handed_back):
    """Run a cell of base on a model that is nowhere else, and whatever it is asked in place of
    looking.
    """

    def load(checkpoint):
        network = copy.deepcopy(model)
        handed_back[1].append(weakref.ref(network))
        return network, tokenizer

    monkeypatch.setattr(loading, "load_checkpoint", load)
    monkeypatch.setattr(cells, "_provenance", lambda *given: {})
    monkeypatch.setattr(records, "write_record", lambda *given: None)
    study = load_study("smoke")
    cell = next(cell for cell in plan_of(study).cells if cell.model.recipe == "base")

    def run(look):
        monkeypatch.setattr(cells, "look", look)
        return cells.run_cell(study, cell)

    return run


def test_after_a_cell_its_model_is_gone_and_the_memory_handed_back(run_cell, handed_back):
    run_cell(lambda *given: None)
    assert handed_back[0] == [[False]]


def test_after_a_cell_that_failed_too_though_its_error_is_kept(run_cell, handed_back):
    def look(study, model, subject, *given):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except RuntimeError as error:
            raise training.TrainingFailed("a reason") from error

    with pytest.raises(training.TrainingFailed, match="a reason") as failed:
        run_cell(look)
    assert handed_back[0] == [[False]] and isinstance(
        failed.value.__cause__, torch.OutOfMemoryError
    )


def test_where_there_is_no_gpu_nothing_is_asked_of_it(run_cell, handed_back, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    run_cell(lambda *given: None)
    assert handed_back[0] == []


def test_a_fetched_checkpoint_is_checked_beside_the_gpu(model, tokenizer, tmp_path, monkeypatch):
    """A device that holds no numbers stands for one that is full."""
    model.save_pretrained(tmp_path / "step-1")
    tokenizer.save_pretrained(tmp_path / "step-1")
    monkeypatch.setattr(loading, "pick_device", lambda: torch.device("meta"))
    loading.check(
        tmp_path / "step-1",
        Checkpoint("step-1", 0, "pretraining", 1, 10, "r", tmp_path / "step-1", True),
    )
