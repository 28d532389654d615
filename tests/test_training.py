"""The loop: what counts, what does not change the result, what stops it, and going on after a
kill.
"""

import copy
import itertools
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from pretune import paths
from pretune.models import adapters, gradients, muon, training, tuned
from pretune.models.muon import Muon
from pretune.models.training import Row, TrainingFailed
from pretune.recipes.optimisation import Tuning
from pretune.recipes.trainable import Lora

SETTINGS = Tuning(learning_rate=1e-3, batch_size=8, examples=1, epochs=3, precision="float32")


def some_rows(count=24, seed=0):
    draw, rows = np.random.default_rng(seed), []
    for _ in range(count):
        size = int(draw.integers(5, 30))
        rows.append(
            Row(
                draw.integers(2, 500, size).astype(np.int32),
                np.arange(size) >= draw.integers(1, size - 1),
            )
        )
    return rows


def weights(model):
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_the_loss_is_the_mean_over_counted_tokens_of_the_whole_batch(model):
    rows = some_rows(8)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:  # each alone, nothing padded
            ids = torch.tensor(row.ids[None].astype(np.int64))
            losses = cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            total, count = (
                total + losses[row.counted[1:]].sum().item(),
                count + row.counted[1:].sum(),
            )
    assert training.train(copy.deepcopy(model), rows, settings, 0)[0].loss == pytest.approx(
        total / count, abs=1e-4
    )


def bare_loop(model, rows, settings):
    """What a user would write with transformers: padded batches, `model(ids, labels=...)`; the
    loss of every step.
    """
    order, losses = training.batch_order(len(rows), settings, 0), []
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=0.0
    )
    model.train()
    for number, batch in enumerate(order):
        longest = max(len(rows[i].ids) for i in batch)
        ids, labels, real = torch.zeros(3, len(batch), longest, dtype=torch.long).unbind()
        labels -= 100
        for line, row in enumerate(rows[i] for i in batch):
            size = len(row.ids)
            ids[line, :size], real[line, :size] = torch.from_numpy(row.ids.astype(np.int64)), 1
            labels[line, :size][row.counted] = ids[line, :size][row.counted]
        loss = model(ids, attention_mask=real, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * training.rate_share(
            number, len(order), settings
        )
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "entries", [2**23, 7 * 512], ids=["logits at once", "logits of 7 positions at a time"]
)
def test_losses_and_weights_are_those_of_the_bare_transformers_loop(model, monkeypatch, entries):
    """Speed is bought by leaving out what does not count, and by nothing else."""
    monkeypatch.setattr(gradients, "HEAD_ENTRIES", {"cpu": entries})
    rows, other = some_rows(24), copy.deepcopy(model)
    losses = bare_loop(other, rows, SETTINGS)
    assert [step.loss for step in training.train(model, rows, SETTINGS, 0)] == pytest.approx(
        losses, abs=1e-4
    )
    assert torch.allclose(weights(model), weights(other), atol=1e-3) and losses[-1] < losses[0]


def test_betas_are_those_of_the_settings(model):
    settings, usual, other = (
        SETTINGS.model_copy(update={"betas": (0.5, 0.999)}),
        copy.deepcopy(model),
        copy.deepcopy(model),
    )
    losses = bare_loop(other, some_rows(), settings)
    assert [step.loss for step in training.train(model, some_rows(), settings, 0)] == pytest.approx(
        losses, abs=1e-4
    )
    assert torch.allclose(weights(model), weights(other), atol=1e-3)
    training.train(usual, some_rows(), SETTINGS, 0)
    assert SETTINGS.betas == (0.9, 0.95) and not torch.allclose(
        weights(model), weights(usual), atol=1e-3
    )


def test_only_counted_targets_matter(model):
    """Another token where nothing counts changes the input, another target where it counts
    changes the loss.
    """
    row = Row(np.arange(5, 15, dtype=np.int32), np.arange(10) == 9)
    batch = gradients.collate([row, Row(np.arange(5, 9, dtype=np.int32), np.arange(4) == 3)], "cpu")
    ids, counted, attention = batch
    assert ids[counted].tolist() == [8, 14] or ids[counted].tolist() == [14, 8]
    assert attention.sum() == 14


def test_the_end_token_is_learned_though_padding_has_the_same_id(model, tokenizer):
    """Rows are padded with id 0, which is the end token here: its targets must survive."""
    assert tokenizer.eos_token_id == 0
    rows = [
        Row(np.array([9, 8, 7, 0], dtype=np.int32), np.array([False, False, True, True])),
        Row(np.arange(3, 23, dtype=np.int32), np.arange(20) > 10),
    ]
    ids, counted, attention = gradients.collate(rows, "cpu")
    assert ids[0, counted[0]].tolist() == [7, 0]
    assert attention[0].tolist() == [True] * 4 + [False] * 16
    settings = SETTINGS.model_copy(update={"epochs": 60, "batch_size": 2, "learning_rate": 5e-3})
    training.train(model, rows, settings, 0)
    said = model(torch.tensor([[9, 8, 7]])).logits[0, -1].argmax().item()
    assert said == tokenizer.eos_token_id


def test_batches_have_few_shapes_and_none_beyond_the_context(model, monkeypatch):
    """For each shape a processor makes code and keeps it."""
    shapes, real = [], gradients.collate

    def watched(rows, *rest):
        shapes.append(real(rows, *rest)[0].shape[1])
        return real(rows, *rest)

    monkeypatch.setattr(gradients, "collate", watched)
    context = model.config.max_position_embeddings - 3  # no multiple
    model.config.max_position_embeddings = context
    ids = np.arange(context, dtype=np.int32) % 500
    rows = [Row(ids[:size], np.arange(size) > 0) for size in range(context - 40, context + 1)]
    training.train(model, rows, SETTINGS.model_copy(update={"epochs": 1, "batch_size": 1}), 0)
    assert set(shapes) == {224, 240, context}


@pytest.mark.parametrize("fits", [1, 3])
def test_a_smaller_micro_batch_gives_the_same_weights(model, monkeypatch, caplog, fits):
    whole, halved = copy.deepcopy(model), copy.deepcopy(model)
    log = training.train(whole, some_rows(), SETTINGS, 0)
    real = gradients.collate

    def short_of_memory(rows, *rest):
        if len(rows) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(rows, *rest)

    monkeypatch.setattr(gradients, "collate", short_of_memory)
    again = training.train(halved, some_rows(), SETTINGS, 0)
    assert "micro-batch lowered to" in caplog.text
    assert [step.loss for step in again] == pytest.approx([step.loss for step in log], abs=1e-4)
    assert torch.allclose(weights(whole), weights(halved), atol=1e-3)


def computes_twice(model):
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["all weights", "adapters"])
def test_where_no_row_fits_activations_are_computed_twice_and_the_weights_are_the_same(
    model, monkeypatch, caplog, lora
):
    whole, spared, real, calls = copy.deepcopy(model), copy.deepcopy(model), gradients.collate, []
    spared.model.layers[0].mlp.register_forward_pre_hook(
        lambda *_: calls.append(computes_twice(spared))
    )
    with adapters.part(whole, lora, 0) as part:
        log = training.train(part.model, some_rows(), SETTINGS, 0)

    def fits_when_little_is_kept(rows, *rest):
        if not computes_twice(spared):
            raise RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
            )
        return real(rows, *rest)

    monkeypatch.setattr(gradients, "collate", fits_when_little_is_kept)
    with adapters.part(spared, lora, 0) as part:
        again = training.train(part.model, some_rows(), SETTINGS, 0)
    assert "gradient checkpointing is switched on" in caplog.text and not computes_twice(spared)
    assert not spared.get_input_embeddings()._forward_hooks
    # each row once forward, once again for its gradient, in three epochs
    assert len(calls) == 2 * 24 * 3 and all(calls)
    assert [step.loss for step in again] == pytest.approx([step.loss for step in log], abs=1e-4)
    assert torch.allclose(weights(whole), weights(spared), atol=1e-3)


def test_out_of_memory_with_one_row_fails_the_cell(model, monkeypatch):
    def never(rows, *rest):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gradients, "collate", never)
    with pytest.raises(TrainingFailed, match=r"single row of \d+ tokens on cpu at step 1 of \d+"):
        training.train(model, some_rows(), SETTINGS, 0)
    assert not computes_twice(model) and not model.training


def test_other_errors_are_not_taken_for_memory(model, monkeypatch):
    def broken(rows, *rest):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(gradients, "collate", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        training.train(model, some_rows(), SETTINGS, 0)


def test_nan_and_divergence_stop_with_step_and_values(model):
    with torch.no_grad():
        broken = copy.deepcopy(model)
        next(broken.parameters())[:] = float("nan")
    with pytest.raises(TrainingFailed, match="loss nan at step 1"):
        training.train(broken, some_rows(), SETTINGS, 0)
    wild = SETTINGS.model_copy(
        update={"learning_rate": 1.0, "clip": None, "warmup": 0.0, "epochs": 30}
    )
    with pytest.raises(TrainingFailed, match=r"step \d+ \(first"):
        training.train(model, some_rows(), wild, 0)


@pytest.mark.parametrize("killed_at", [1, 4, 8])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_training_ends_with_the_weights_it_would_have_had(
    model, tmp_path, killed_at, optimizer
):
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    whole, broken = copy.deepcopy(model), copy.deepcopy(model)
    log = training.train(whole, some_rows(), settings, 5)

    def kill(step):
        if step.step == killed_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(broken, some_rows(), settings, 5, tmp_path / "state.safetensors", 0.0, kill)
    seen, resumed = [], copy.deepcopy(model)
    again = training.train(
        resumed, some_rows(), settings, 5, tmp_path / "state.safetensors", 0.0, seen.append
    )
    assert seen[0].step == killed_at + 1
    assert again == log
    assert torch.equal(weights(whole), weights(resumed))
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("takes", "between"), [(0.5, 60), (3, 60), (30, 570)], ids=["quick", "at the border", "slow"]
)
def test_no_more_than_a_twentieth_of_the_time_goes_into_saved_states(
    model, tmp_path, monkeypatch, takes, between
):
    """On a clock that goes by what is done: five seconds a step, and what a state takes."""
    now, written = [0.0], []

    def save(*given):
        written.append((now[0], now[0] + takes))
        now[0] += takes

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(training, "save", save)
    settings = SETTINGS.model_copy(update={"epochs": 150})

    def after(step):
        now[0] += 5

    training.train(
        model, some_rows(), settings, 0, tmp_path / "state.safetensors", after_step=after
    )
    assert written[0][0] == 60
    pauses = [start - end for (_, end), (start, _) in itertools.pairwise(written)]
    assert set(pauses) == {between} and len(written) * takes <= 0.05 * (now[0] + between)


def test_a_state_of_another_training_is_not_continued(model, tmp_path, caplog):
    state = tmp_path / "state.safetensors"

    def kill(step):
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(copy.deepcopy(model), some_rows(), SETTINGS, 5, state, 0.0, kill)
    seen = []
    training.train(model, some_rows(seed=1), SETTINGS, 5, state, 0.0, seen.append)
    assert seen[0].step == 1 and "another training" in caplog.text


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_seed():
    order = training.batch_order(21, SETTINGS, 3)
    assert [len(batch) for batch in order] == [8, 8, 5] * 3
    for epoch in range(3):
        assert sorted(np.concatenate(order[3 * epoch : 3 * epoch + 3])) == list(range(21))
    assert not np.array_equal(order[0], order[3])
    assert not np.array_equal(order[0], training.batch_order(21, SETTINGS, 4)[0])


def test_steps_that_are_asked_for_are_made_in_whole_epochs_but_the_last():
    """Few rows go over more often, many not to their end; a run asked for so goes on where it was
    killed like any other (`fingerprint` has the settings).
    """
    asked = SETTINGS.model_copy(update={"max_steps": 7})
    order = training.batch_order(21, asked, 3)
    assert [len(batch) for batch in order] == [8, 8, 5, 8, 8, 5, 8]
    assert all(map(np.array_equal, order, training.batch_order(21, SETTINGS, 3)))
    many = training.batch_order(1000, asked, 3)
    assert len(many) == asked.steps_on(1000) == 7 and len(set(np.concatenate(many))) == 56
    assert SETTINGS.steps_on(21) == 9


def test_schedules():
    linear = [
        training.rate_share(step, 100, SETTINGS.model_copy(update={"warmup": 0.1}))
        for step in range(100)
    ]
    assert linear[0] == 0.1 and linear[9] == 1.0 and linear[10] == 1.0 and 0 < linear[-1] < 0.02
    cosine = SETTINGS.model_copy(update={"schedule": "cosine", "warmup": 0.0})
    assert training.rate_share(0, 100, cosine) == 1.0
    assert training.rate_share(100, 100, cosine) == pytest.approx(0.1)


def adapted_weights(model, seed, rate=1e-2):
    trained = copy.deepcopy(model)
    with adapters.part(trained, Lora(r=4), seed) as part:
        names = [name for name, weight in part.model.named_parameters() if weight.requires_grad]
        training.train(
            part.model, some_rows(), SETTINGS.model_copy(update={"learning_rate": rate}), seed
        )
    return trained, names


def test_lora_trains_adapters_only_and_merges_them_into_an_ordinary_model(model):
    trained, names = adapted_weights(model, 0)
    assert (
        names
        and all("lora_" in name for name in names)
        and all(p.requires_grad for p in trained.parameters())
    )
    before, after = dict(model.named_parameters()), dict(trained.named_parameters())
    assert set(after) == set(before) and type(trained) is type(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # every linear layer of the blocks, and not the embedding
    assert changed == {name for name in before if "proj" in name}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) <= 4


def test_adapters_follow_their_seed(model):
    one, again, other = (weights(adapted_weights(model, seed)[0]) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("trainable", [None, Lora(r=4), "layers.1.mlp"], ids=str)
def test_what_was_trained_is_kept_as_it_is_and_gives_the_same_model_to_the_byte(
    model, tmp_path, monkeypatch, trainable
):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    trained = copy.deepcopy(model)
    with adapters.part(trained, trainable, 0) as part:
        training.train(part.model, some_rows(), SETTINGS, 0)
        tuned.keep_tuned("key", part.save, {}, 1.0)
    assert not torch.equal(weights(trained), weights(model))
    (file,) = (tmp_path / "tuned" / "key").glob("*.safetensors")
    part = {None: 1.0}.get(trainable, 0.6)
    assert file.stat().st_size < 4 * part * len(weights(model)) + 10_000
    again = tuned.load_tuned("key", copy.deepcopy(model), trainable)
    assert torch.equal(weights(again), weights(trained))
    assert type(again) is type(model) and not again.training


def test_only_weights_whose_names_match_are_trained(model):
    trained = copy.deepcopy(model)
    with adapters.part(trained, r"layers\.1\.|lm_head", 0) as part:
        training.train(part.model, some_rows(), SETTINGS, 0)
    before, after = dict(model.named_parameters()), dict(trained.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "layers.1." in name}
    assert all(weight.requires_grad for weight in trained.parameters())
    named = r"'norm'.*model.layers.N.mlp.up_proj.weight"
    with pytest.raises(adapters.NothingToTrain, match=named), adapters.part(trained, "norm", 0):
        pass


def test_a_loss_of_rows_is_followed_as_autograd_would(model, monkeypatch):
    """The gradient of any function of the rows' log-likelihoods, a piece of the head at a time."""
    rows, device = some_rows()[:7], next(model.parameters()).device
    loss = lambda likelihood: torch.nn.functional.softplus(likelihood + 5)  # noqa: E731
    ids, counted, attention = gradients.collate(rows, device)
    logits = model(ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0].where(counted[:, 1:], 0.0)
    value = loss(chosen.sum(1)).mean()
    value.backward()
    expected = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    monkeypatch.setitem(gradients.HEAD_ENTRIES, "cpu", 3 * 512)
    found, _ = gradients.gradients(model, rows, 3, gradients.Way("float32", loss, training.ALONE))
    assert found == pytest.approx(value.item(), rel=1e-5)
    for weight, wanted in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, wanted, rtol=1e-3, atol=1e-5)


def test_a_loss_below_zero_does_not_run_away(model):
    """What is minimised may be of any sign: here the likelihood of the answers themselves."""
    settings = SETTINGS.model_copy(update={"batch_size": 24, "epochs": 8})
    log = training.train(model, some_rows(), settings, 0, loss=lambda likelihood: likelihood)
    assert log[-1].loss < log[0].loss < -1


def test_muon_moves_the_matrices_inside_and_adamw_the_words(model):
    """Of a first step of Muon three quarters of the singular values are alike, and its size is a
    fifth of the rate, as steps of AdamW have it in the long run; the first is the rate. The
    embedding moves as AdamW alone would move it.
    """
    moved = {}
    for optimizer in ("adamw", "muon"):
        changed = {"optimizer": optimizer, "epochs": 1, "batch_size": 24, "clip": None}
        trained = copy.deepcopy(model)
        training.train(trained, some_rows(), SETTINGS.model_copy(update=changed), 0)
        pairs = zip(model.named_parameters(), trained.parameters(), strict=True)
        moved[optimizer] = {name: (after - before).detach() for (name, before), after in pairs}
    for name, step in moved["muon"].items():
        if "embed" in name:
            assert torch.equal(step, moved["adamw"][name])
            continue
        ours, theirs = torch.linalg.svdvals(step), torch.linalg.svdvals(moved["adamw"][name])
        assert ours[24] > 0.55 * ours[0] and theirs[24] < 0.35 * theirs[0], name
        size = step.square().mean().sqrt() / moved["adamw"][name].square().mean().sqrt()
        assert 0.15 < size < 0.25, name


def test_with_muon_the_same_seed_gives_the_same_weights_and_a_lower_loss(model):
    changed = {"optimizer": "muon", "epochs": 8, "learning_rate": 4e-3}
    one, again = copy.deepcopy(model), copy.deepcopy(model)
    log = training.train(one, some_rows(), SETTINGS.model_copy(update=changed), 3)
    training.train(again, some_rows(), SETTINGS.model_copy(update=changed), 3)
    assert torch.equal(weights(one), weights(again)) and log[-1].loss < 0.9 * log[0].loss


def test_muon_is_that_of_torch_which_computes_in_bfloat16():
    """Matrices that are wide, square and tall, two of a shape; five steps."""
    shapes, moved = ((16, 48), (24, 24), (24, 24), (48, 16)), []
    settings = {"lr": 1e-2, "weight_decay": 0.1}
    for make in (Muon, partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")):
        draw = torch.Generator().manual_seed(0)
        matrices = [torch.nn.Parameter(torch.randn(one, generator=draw)) for one in shapes]
        before, optimizer = [one.detach().clone() for one in matrices], make(matrices, **settings)
        for _ in range(5):
            for one in matrices:
                one.grad = torch.randn(one.shape, generator=draw)
            optimizer.step()
        moved.append([one.detach() - old for one, old in zip(matrices, before, strict=True)])
    for ours, theirs in zip(*moved, strict=True):
        assert (ours - theirs).norm() < 0.03 * theirs.norm()
    assert torch.linalg.svdvals(muon.orthogonal(torch.randn(3, 16, 48))).sub(1).abs().max() < 0.4
