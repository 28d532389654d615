"""Pre-training leaves ordinary folders, the same each time, also after a kill, and from the
user's own text.
"""

import itertools
import json
import lzma
import shutil

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretune.errors import Damaged
from pretune.models import checkpoint, loading, pretraining, training
from pretune.models.checkpoint import Checkpoint
from pretune.recipes.pretrain import Architecture, Pretraining
from pretune.sources import corpus
from pretune.sources.microworld.text import documents

SETTINGS = Pretraining(
    learning_rate=3e-3,
    batch_size=4,
    length=64,
    architecture=Architecture(
        layers=1, width=32, heads=2, intermediate=64, context=64, vocabulary=400
    ),
)
COOLED = SETTINGS.model_copy(update={"schedule": "constant", "cooldown": 1 / 3, "warmup": 0.1})


@pytest.fixture
def text(world):
    return lambda: documents(world, 0)


def run(text, folder, after=lambda step: None, settings=SETTINGS):
    pretraining.pretrain(text, (0, 6, 12), settings, folder, after_step=after)
    return {path.name: checkpoint.weights_checksum(path) for path in folder.glob("step-*")}


def test_two_runs_give_identical_weights_and_steps_differ(text, tmp_path):
    one, two = run(text, tmp_path / "one"), run(text, tmp_path / "two")
    assert (
        one == two and set(one) == {"step-0", "step-6", "step-12"} and len(set(one.values())) == 3
    )


def test_a_checkpoint_is_an_ordinary_folder(text, tmp_path):
    run(text, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "step-12")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "step-12")
    assert type(model).__name__ == "OlmoForCausalLM"
    assert tokenizer.decode(tokenizer("Größe: 3 €\n")["input_ids"]) == "Größe: 3 €\n"
    assert json.loads((tmp_path / "step-6" / "checkpoint.json").read_text())["tokens"] == 6 * 4 * 64
    losses = [json.loads(line)["loss"] for line in (tmp_path / "training.jsonl").open()]
    assert len(losses) == 12 and losses[-1] < losses[0]


@pytest.mark.parametrize("settings", [SETTINGS, COOLED], ids=["cosine", "branches"])
def test_a_killed_run_goes_on_and_ends_the_same(text, tmp_path, monkeypatch, settings):
    whole = run(text, tmp_path / "whole", settings=settings)
    real = training.train
    monkeypatch.setattr(
        training, "train", lambda *given, **named: real(*given, **named, state_every=0.0)
    )

    def kill(step):
        if step.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(text, tmp_path / "killed", kill, settings)
    seen = []
    assert run(text, tmp_path / "killed", seen.append, settings) == whole
    assert seen[0].step == 8
    assert not list((tmp_path / "killed").glob("*.safetensors"))


def test_a_branch_that_is_killed_begins_anew_and_one_that_is_lost_is_made_again(
    text, tmp_path, monkeypatch
):
    """The trunk is past where the lost one left it: then it, too, begins anew."""
    whole = run(text, tmp_path / "whole", settings=COOLED)

    def kill(step):
        if step.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(text, tmp_path / "killed", kill, COOLED)
    damaged = tmp_path / "killed" / "branch-12.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    shutil.rmtree(tmp_path / "killed" / "step-6")
    assert run(text, tmp_path / "killed", settings=COOLED) == whole
    early = COOLED.model_copy(update={"cooldown": 0.1})
    run(text, tmp_path / "early", settings=early)
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_a_branch_cools_a_checkpoint_and_leaves_the_trunk_alone(text, tmp_path):
    """The rate falls to 0 on the last third before a checkpoint, on the text that the trunk reads
    there; one checkpoint more or less changes no other.
    """
    rates = []
    made = run(
        text, tmp_path / "two", lambda step: rates.append((step.step, step.learning_rate)), COOLED
    )
    peak = COOLED.learning_rate
    falling = [peak * share for share in (1, 0.75, 0.5, 0.25)]
    assert [rate for step, rate in rates if step > 8][-4:] == pytest.approx(falling)
    assert [step for step, _ in rates] == [*range(1, 5), 5, 6, *range(5, 9), *range(9, 13)]
    pretraining.pretrain(text, (12,), COOLED, tmp_path / "one")
    assert checkpoint.weights_checksum(tmp_path / "one" / "step-12") == made["step-12"]
    trunk = COOLED.model_copy(update={"cooldown": 0.0})
    assert run(text, tmp_path / "trunk", settings=trunk)["step-12"] != made["step-12"]


def test_runs_differ_in_where_they_begin(text, tmp_path):
    for seed in (0, 1):
        pretraining.pretrain(text, (0, 2), SETTINGS, tmp_path / str(seed), seed)
    one, two = (checkpoint.weights_checksum(tmp_path / name / "step-0") for name in "01")
    assert one != two


def test_text_that_ends_too_soon_is_an_error_with_the_numbers(tmp_path):
    with pytest.raises(training.TrainingFailed, match=r"holds [\d,]+ tokens, the run needs 3,072"):
        pretraining.pretrain(lambda: iter(["A short text."] * 20), (0, 12), SETTINGS, tmp_path)


def test_corpus_folder(tmp_path, world):
    words = list(itertools.islice(documents(world, 0), 9))
    (tmp_path / "a.txt").write_text(words[0])
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"text": word}) + "\n" for word in words[1:5])
    )
    with lzma.open(tmp_path / "c.jsonl.xz", "wt") as packed:
        packed.writelines(json.dumps({"text": word, "id": 1}) + "\n" for word in words[5:])
    assert sorted(corpus.documents(tmp_path)) == sorted(words)
    with pytest.raises(FileNotFoundError, match="holds no"):
        next(corpus.documents(tmp_path / "nothing"))


def test_weights_that_are_not_the_models_are_fatal(text, tmp_path):
    run(text, tmp_path)
    point = Checkpoint("step-6", 0, "pretraining", 6, 1536, "r", tmp_path / "step-6", False)
    loading.load_checkpoint(point)
    (tmp_path / "step-6" / "model.safetensors").write_bytes(
        (tmp_path / "step-12" / "model.safetensors").read_bytes()
    )
    with pytest.raises(Damaged, match="step-6: a file is not what was written: set aside"):
        loading.load_checkpoint(point)
    assert not (tmp_path / "step-6").exists() and (tmp_path / "step-6.damaged").is_dir()
    config = json.loads((tmp_path / "step-12" / "config.json").read_text()) | {
        "num_hidden_layers": 2
    }
    (tmp_path / "step-12" / "config.json").write_text(json.dumps(config))
    # as if it had been written so
    checkpoint.describe(tmp_path / "step-12", checkpoint.weights_checksum(tmp_path / "step-12"))
    with pytest.raises(loading.CheckpointError, match="missing_keys"):
        loading.load_checkpoint(
            Checkpoint("step-12", 0, "pretraining", 12, 3072, "r", tmp_path / "step-12", False)
        )
