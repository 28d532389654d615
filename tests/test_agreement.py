"""What is read off a model is what it says itself, or the model is refused by name."""

import pytest
import torch

from pretune.models import agreement, checkpoint, loading
from pretune.models.checkpoint import Checkpoint
from small_models import FAMILIES, small

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GROUPS = {"num_key_value_heads": 2}
READ_WRONGLY = {  # what they do, and how they are refused
    "granite": ({"logits_scaling": 8.0}, r"[\d.]+ nats a token from those that it gives itself"),
    "granitemoe": ({"logits_scaling": 8.0, **EXPERTS}, r"[\d.]+ nats a token"),
    "cohere": ({"logit_scale": 0.0625}, r"[\d.]+ nats a token"),
    "cohere2": ({"logit_scale": 0.0625}, r"[\d.]+ nats a token"),
    "nemotron": (GROUPS, "RuntimeError: The size of tensor"),  # its layers hand no prefix on
    "bert": ({"is_decoder": False}, r"[\d.]+ nats a token"),  # sees what comes after
    "qwen2": (
        GROUPS | {"layer_types": ["chunked_attention"] * 4},
        "its layers are of the kind chunked_attention; known are",
    ),
    # has no window, whatever its configuration says
    "llama": ({"sliding_window": 24}, r"[\d.]+ nats a token"),
}


def kept(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checkpoint.describe(folder, checkpoint.weights_checksum(folder))
    return Checkpoint("step-1", 0, "pretraining", 1, 10, "r", folder, True)


@pytest.mark.parametrize("family", READ_WRONGLY)
def test_an_architecture_that_would_be_read_wrongly_is_refused_by_name(tokenizer, tmp_path, family):
    changes, why = READ_WRONGLY[family]
    model = small(family, **changes)
    point = kept(model, tokenizer, tmp_path / "step-1")
    for load in (
        lambda: loading.load_checkpoint(point),
        lambda: loading.check(point.folder, point),
    ):
        with pytest.raises(
            loading.CheckpointError, match=f"step-1: {type(model).__name__} cannot be used: .*{why}"
        ):
            load()


@pytest.mark.parametrize("family", [*FAMILIES, "mistral"])
def test_what_is_read_off_other_families_is_what_they_say(tokenizer, tmp_path, family):
    changes = GROUPS | {"sliding_window": 24} if family == "mistral" else {}
    point = kept(small(family, **changes), tokenizer, tmp_path / "step-1")
    network, _ = loading.load_checkpoint(point)
    assert agreement.difference(network) < 1e-4
    assert not network.training and getattr(network.config, "sliding_window", None) in (None, 24)


def test_a_checkpoint_whose_weights_are_not_numbers_is_named(model, tokenizer, tmp_path):
    with torch.no_grad():
        next(model.parameters())[:] = float("nan")
    point = kept(model, tokenizer, tmp_path / "step-1")
    with pytest.raises(
        loading.CheckpointError,
        match="step-1: OlmoForCausalLM .* its own log-probabilities are not finite",
    ):
        loading.load_checkpoint(point)


def test_what_is_left_to_chance_in_training_is_seen(model):
    assert agreement.difference(model) < 1e-4
    model.model.layers[0].mlp.down_proj = torch.nn.Sequential(
        model.model.layers[0].mlp.down_proj, torch.nn.Dropout(0.3)
    )
    assert agreement.difference(model) > 0.01
