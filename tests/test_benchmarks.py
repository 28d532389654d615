"""The benchmarks, which run for an hour and with packages of their own, still fit the library."""

import importlib
import sys
from unittest import mock

import pytest

PEERS = (
    "joblib",
    "rank_bm25",
    "trl",
    "lm_eval",
    "lm_eval.api",
    "lm_eval.api.instance",
    "lm_eval.api.task",
)


@pytest.fixture
def without_peers(monkeypatch):
    for name in (*PEERS, "lm_eval.models", "lm_eval.models.huggingface"):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())


def test_rows_are_read_and_scored_as_the_library_does_it_now(without_peers, real_rows, olmo):
    setting, scoring = (
        importlib.import_module(f"benchmarks.{one}") for one in ("setting", "scoring")
    )
    tuning = importlib.import_module("benchmarks.tuning")
    tokenizer, model = setting.tokenizer(), setting.model("1 M")
    prefix, items = setting.items("mnli", 2, 1)
    [one, two] = scoring.scoring.log_likelihoods(model, setting.requests(tokenizer, prefix, items))
    assert len(one) == len(two) == 3
    _, losses = tuning.ours(model, tuning.rows(tokenizer, 8))
    assert len(losses) == 1
    preferences = importlib.import_module("benchmarks.preferences")
    _, losses = preferences.ours(model, preferences.pairs(tokenizer, 8))
    assert losses == [pytest.approx(0.6931, abs=1e-3)]


@pytest.mark.parametrize(
    "name",
    [
        *("run", "floor", "scaling", "reach", "generation", "divergence", "tasks", "gpu"),
        *("preferences", "learned", "retrieval", "executors"),
    ],
)
def test_every_benchmark_can_be_loaded(without_peers, name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__
