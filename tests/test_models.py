"""What is kept of a model is what is loaded: anything else is found, named and set aside, or
refused.
"""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pretune import paths
from pretune.errors import Damaged
from pretune.models import checkpoint, loading, training, tuned
from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Model
from pretune.recipes.optimisation import Tuning
from pretune.run import cell
from pretune.study.load import load_study
from pretune.tasks import prompts
from small_models import small


def damage(folder, how, outside):
    """Spoil a folder of weights in one of the ways in which it happens."""
    weights = folder / "model.safetensors"
    if how == "flip":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif how in ("cut", "empty"):
        weights.write_bytes(weights.read_bytes()[:1000] if how == "cut" else b"")
    elif how == "config":
        (folder / "config.json").write_text("{")
    elif how == "notes":
        (folder / "checkpoint.json").write_text("")
    elif how == "another version":
        about = json.loads((folder / "checkpoint.json").read_text())
        del about["other_sha256"]
        (folder / "checkpoint.json").write_text(json.dumps(about))
    elif how == "link":
        shutil.move(weights, outside / "elsewhere")
        weights.symlink_to(outside / "elsewhere")
    elif how == "index":
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}})
        )
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


WAYS = ["flip", "cut", "empty", "config", "notes", "another version", "link", "index", "pickle"]


def keep(model, tokenizer, folder):
    """A checkpoint as pre-training leaves it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    checkpoint.describe(folder, checkpoint.weights_checksum(folder), step=1, tokens=10)
    return Checkpoint("step-1", 0, "pretraining", 1, 10, "r", folder, True)


@pytest.fixture
def kept(model, tokenizer, tmp_path):
    return keep(model, tokenizer, tmp_path / "run" / "step-1")


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_checkpoint_is_named_and_set_aside(kept, tmp_path, how):
    loading.load_checkpoint(kept)
    damage(kept.folder, how, tmp_path)
    with pytest.raises(Damaged, match="step-1: .*: set aside, to be made again"):
        loading.load_checkpoint(kept)
    assert not kept.folder.exists() and kept.folder.with_name("step-1.damaged").is_dir()
    with pytest.raises(Damaged):  # another process that was about to read it
        loading.load_checkpoint(kept)
    assert kept.folder.with_name("step-1.damaged").is_dir()


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_tuned_model_is_named_and_set_aside(model, tmp_path, monkeypatch, caplog, how):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    tuned.keep_tuned("key", model.save_pretrained, {"training": []}, 1.0)
    before = tuned.load_tuned("key", model, None)
    assert all(
        torch.equal(one, other)
        for one, other in zip(before.parameters(), model.parameters(), strict=True)
    )
    damage(tmp_path / "tuned" / "key", how, tmp_path)
    assert tuned.load_tuned("key", model, None) is None
    assert "key: " in caplog.text and "set aside, to be tuned again" in caplog.text
    tuned.keep_tuned("key", model.save_pretrained, {"training": []}, 1.0)
    assert tuned.load_tuned("key", model, None) is not None
    (file,) = (tmp_path / "tuned" / "key").glob("*.safetensors")
    assert tuned.tuning_of("key") == {"training": [], "kept_bytes": file.stat().st_size}


@pytest.mark.parametrize("how", ["link", "index"])
def test_a_checkpoint_of_the_users_that_leads_elsewhere_is_refused(kept, tmp_path, how):
    damage(kept.folder, how, tmp_path)
    with pytest.raises(loading.CheckpointError, match="leads out of .*; put the file itself there"):
        loading.check(kept.folder, kept)


def test_a_link_within_the_users_folder_is_followed(kept):
    other = kept.folder.with_name("weights.safetensors")
    shutil.move(kept.folder / "model.safetensors", other)
    (kept.folder / "model.safetensors").symlink_to(other)
    assert loading.check(kept.folder, kept) == checkpoint.weights_checksum(kept.folder)


def test_a_model_that_cannot_be_given_masks_is_refused(tmp_path):
    shape = {
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 2,
        "rotary_dim": 4,
        "vocab_size": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    AutoModelForCausalLM.from_config(AutoConfig.for_model("gptj", **shape)).save_pretrained(
        tmp_path / "gptj"
    )
    with pytest.raises(
        loading.CheckpointError,
        match=r"gptj: GPTJForCausalLM does not support .*scaled_dot_product_attention",
    ):
        loading.check(
            tmp_path / "gptj",
            Checkpoint("step-1", 0, "pretraining", 1, 10, "r", tmp_path / "gptj", True),
        )


def test_checkpoints_with_the_same_tokenizer_share_what_it_made_of_a_text(kept, tmp_path):
    folder = tmp_path / "run" / "step-2"
    shutil.copytree(kept.folder, folder)
    again = Checkpoint("step-2", 0, "pretraining", 2, 20, "s", folder, True)
    first, tokenizer = loading.load_checkpoint(kept)[1], loading.load_checkpoint(again)[1]
    prompts.split(first, "Where is Lorn?", " Avaria")
    before = prompts.split.cache_info()
    prompts.split(tokenizer, "Where is Lorn?", " Avaria")
    assert prompts.split.cache_info().hits == before.hits + 1
    tokenizer.add_tokens(["Avaria"])
    tokenizer.save_pretrained(folder)
    checkpoint.describe(folder, checkpoint.weights_checksum(folder))
    other = loading.load_checkpoint(again)[1]
    assert other is not tokenizer and len(other) == len(tokenizer)


def tuned_weights(point, torch_seed):
    """What tuning makes of a checkpoint when the generator of torch, which nothing in a study
    sets, stands at `torch_seed`.
    """
    network, _ = loading.load_checkpoint(point)
    torch.manual_seed(torch_seed)
    draw, counted = np.random.default_rng(0), np.arange(12) > 4
    rows = [training.Row(draw.integers(2, 500, 12).astype(np.int32), counted) for _ in range(16)]
    training.train(
        network,
        rows,
        Tuning(learning_rate=1e-3, batch_size=8, examples=1, precision="float32"),
        0,
    )
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("gpt2", {}, "off; its configuration says resid_pdrop 0.1, embd_pdrop 0.1, attn_pdrop 0.1"),
        (
            "opt",
            {"attention_dropout": 0.2, "layerdrop": 0.5},
            "off; its configuration says dropout 0.1, attention_dropout 0.2, layerdrop 0.5",
        ),
        (
            "phimoe",
            {"num_key_value_heads": 2, "num_local_experts": 4},
            "off; its configuration says router_jitter_noise 0.01",
        ),
        ("gpt_neox", {"hidden_dropout": 0.0, "classifier_dropout": 0.1}, "none"),
    ],
)
def test_nothing_is_dropped_that_no_seed_of_the_study_decides(
    tokenizer, tmp_path, caplog, family, changes, said
):
    point = keep(small(family, **changes), tokenizer, tmp_path / "step-1")
    assert torch.equal(tuned_weights(point, 0), tuned_weights(point, 1))
    loading.check(point.folder, point)
    assert (f"step-1: dropout is {said}" in caplog.text) == (said != "none")
    network, tokenizer = loading.load_checkpoint(point)
    about = cell._provenance(
        network, tokenizer, load_study("smoke"), Model(point, "base", 0, "key")
    )
    assert about["dropout"] == said


def test_pickled_weights_keep_what_their_configuration_says(tokenizer, tmp_path):
    """Converting them goes through a model whose dropout is off."""
    point, model = keep(small("gpt2"), tokenizer, tmp_path / "step-1"), small("gpt2")
    (point.folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), point.folder / "pytorch_model.bin")
    loading.convert(point.folder)
    assert loading.dropout(point.folder).startswith("off; its configuration says resid_pdrop 0.1")
