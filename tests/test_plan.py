"""Which cells a study needs, what makes a record stale, and what a study costs."""

from collections import defaultdict

import pytest

from conftest import OLMO_1B, plan_of
from pretune import paths
from pretune.errors import StudyError
from pretune.models import adapters, pretraining
from pretune.plan import costs, lengths, memory
from pretune.recipes.pretrain import Architecture
from pretune.recipes.trainable import Lora
from pretune.study.load import load_study
from pretune.tasks.dataset import RESERVE


def keys(*overrides):
    return {
        cell.model.name: cell.model.key for cell in plan_of(load_study("smoke", overrides)).cells
    }


def probes(*overrides):
    return {
        probe.key for cell in plan_of(load_study("smoke", overrides)).cells for probe in cell.probes
    }


def test_one_cell_a_checkpoint_recipe_and_seed_and_base_once():
    names = list(keys("tuning.seeds=2"))
    assert len(names) == 5 * (1 + 2 * 4) and "step-20.base.0" in names and "step-20.mnli.1" in names
    base = next(
        cell
        for cell in plan_of(load_study("smoke", ("tuning.seeds=2",))).cells
        if cell.model.recipe == "base"
    )
    assert {probe.draw for probe in base.probes if probe.shots} == {0, 1}
    # without shots there is nothing to draw
    assert {probe.draw for probe in base.probes if not probe.shots} == {0}


def test_only_names_checkpoints():
    found = plan_of(load_study("smoke")).of(only=("step-36", "step-0")).cells
    assert {cell.model.checkpoint.name for cell in found} == {"step-0", "step-36"}


def test_a_rate_changes_its_recipe_only():
    old, new = keys(), keys("recipes.mnli.learning_rate=3.0e-4")
    assert {name for name in old if old[name] != new[name]} == {
        name for name in old if ".mnli." in name
    }


def test_settings_that_were_fixed_once_count_where_they_are_changed_only():
    """What was made before they were settings keeps its key."""
    old, base = keys(), {name for name in keys() if ".base." in name}
    assert (
        keys(
            "tuning.betas=[0.9, 0.95]",
            "tuning.max_length=null",
            "checkpoints.pretraining.betas=[0.9, 0.95]",
        )
        == old
    )
    assert not {"betas", "max_length"} & set(load_study("smoke").tuning.determining())
    changed = [
        keys(change)
        for change in (
            "tuning.betas=[0.9, 0.999]",
            "tuning.max_length=100",
            "tuning.max_length=101",
        )
    ]
    assert all({name for name in old if new[name] == old[name]} == base for new in changed)
    assert len({new["step-20.mnli.0"] for new in changed}) == 3
    assert not set(old.values()) & set(keys("checkpoints.pretraining.betas=[0.9, 0.999]").values())


def test_pretraining_and_world_change_everything():
    old = keys()
    for change in (
        "checkpoints.runs=[1]",
        "checkpoints.world.seed=5",
        "checkpoints.steps=[0, 20, 36, 38, 41]",
    ):
        assert not set(old.values()) & set(keys(change).values())


def test_an_added_checkpoint_keeps_the_others():
    old, new = keys(), keys("checkpoints.steps=[0, 10, 20, 36, 38, 40]")
    assert all(new[name] == key for name, key in old.items()) and len(new) == len(old) + 5


def test_probes_change_with_what_they_ask_and_not_with_training():
    assert probes() == probes("tuning.learning_rate=1.0e-4")
    assert not probes() & probes("protocol.stop=length")
    assert not probes() & probes("checkpoints.world.seed=5")


def views(recipe, *overrides):
    """What the study looks at in one recipe: dataset, format, shots."""
    study = load_study("smoke", overrides)
    return {
        (p.dataset, p.format, p.shots)
        for cell in plan_of(study).cells
        if cell.model.recipe == recipe
        for p in cell.probes
    }


def test_findings_decide_what_is_looked_at_and_no_more():
    only = ("findings=[01_dataset_dichotomy]",)
    # asked about its own set as it was tuned
    assert views("mnli", *only) == {("mnli", "default", 0)}
    assert views("mnli", *only, "protocol.own_sets=with shots") == {("mnli", "default", 2)}
    assert ("hellaswag", "default", 2) in views("base", *only) and (
        "hellaswag",
        "chat",
        2,
    ) not in views("base", *only)
    both = views("mnli")
    assert {
        ("mnli", "io", 0),
        ("xsum", "default", 2),
        ("rte", "default", 2),
        ("held_out_text", "default", 0),
    } <= both
    # other formats on its own task only
    assert not {name for name, form, _ in both if form != "default"} - {"mnli"}
    assert ("rte", "chat", 2) in views("instruct") & views("base")
    # what is generated is asked after every tuning, of the others the partners of what it tuned on
    assert ("cnn_dailymail", "default", 2) in both
    assert ("rte", "default", 2) not in views("xsum")


GRID = "grid={learning_rate: [5.0e-4, 1.0e-3, 2.0e-3], steps: [20, 40]}"


def test_a_grid_of_rates_adds_models_where_it_is_run_and_keeps_the_others():
    old, new = keys(), keys(GRID)
    added = set(new) - set(old)
    assert all(new[name] == key for name, key in old.items())
    assert (
        len(added) == 4 * 2 * 2
        and "step-20.mnli@0.0005.0" in added
        and not [name for name in added if "step-36" in name]
    )
    found = plan_of(load_study("smoke", (GRID,))).sweep().cells
    assert len(found) == 4 * 3 * 2
    for cell in found:
        [probe] = cell.probes
        assert probe.split == RESERVE and probe.dataset == {
            "xsum": "xsum",
            "instruct": "tulu_v2",
        }.get(cell.model.recipe.split("@")[0], "mnli")


def test_a_grid_is_run_at_the_runs_that_it_names():
    two = "checkpoints.runs=[0, 1]"
    both, first = keys(two, GRID), keys(two, GRID.replace("steps", "runs: [0], steps"))
    lacking = set(both) - set(first)
    assert len(lacking) == 4 * 2 * 2 and all(name.startswith("run-1-") for name in lacking)
    with pytest.raises(StudyError, match=r"grid\.runs: 2 is refused; allowed: 0, 1"):
        plan_of(load_study("smoke", (two, GRID.replace("steps", "runs: [2], steps"))))


def test_a_rate_of_the_grid_is_the_model_that_a_recipe_with_that_rate_would_be():
    swept, chosen = keys(GRID), keys(GRID, "recipes.mnli.learning_rate=5.0e-4")
    assert swept["step-20.mnli@0.0005.0"] == chosen["step-20.mnli.0"]


def test_a_grid_of_examples_is_an_axis_of_its_own_and_no_rate_is_chosen_on_it():
    """Along each axis a recipe changes alone; the model is the one that the recipe would be."""
    axes = "grid={examples: [24, 48], learning_rate: [1.0e-3, 2.0e-3], steps: [20]}"
    swept, fewer = keys(axes), keys("recipes.mnli.examples=24")
    added = {name for name in set(swept) - set(keys()) if ".mnli" in name}
    assert added == {"step-20.mnli@examples=24.0", "step-20.mnli@0.002.0"}
    assert swept["step-20.mnli@examples=24.0"] == fewer["step-20.mnli.0"]
    chosen_on = {cell.model.recipe for cell in plan_of("smoke", (axes,)).sweep().cells}
    assert {"mnli", "mnli@0.002"} <= chosen_on and "mnli@examples=24" not in chosen_on
    with pytest.raises(StudyError, match="a grid needs values of learning_rate or examples"):
        load_study("smoke", ("grid={steps: [20]}",))


def test_costs_grow_with_the_work():
    small, large = (load_study("smoke", (f"probing.items={n}",)) for n in (12, 24))
    one, two = (costs.total(plan_of(study), plan_of(study).cells) for study in (small, large))
    assert (
        two.scored_tokens > 1.5 * one.scored_tokens
        and two.seconds > one.seconds
        and two.flops > one.flops
    )
    assert one.trained_tokens == two.trained_tokens > 40 * 8 * 128
    assert 0 < memory.memory_gb(plan_of(small)) < 2 and 0 < costs.disk_gb(plan_of(small)) < 1


def test_a_cell_waits_for_its_checkpoint(monkeypatch):
    """With processes in plenty a study lasts as long as its pre-training and the last checkpoint's
    cells; with one, as long as all of it; with nothing to make, as long as its cells.
    """
    plan = plan_of("smoke")
    monkeypatch.setattr(type(plan.checkpoints[0]), "exists", lambda point: False)
    work, prepared = plan.cells, costs.preparation(plan).seconds
    late = [cell for cell in work if cell.model.checkpoint == plan.checkpoints[-1]]
    of = [costs.cell_cost(plan, cell).seconds for cell in work]
    assert costs.wall_seconds(plan, work, 1) == pytest.approx(costs.total(plan, work).seconds)
    assert costs.wall_seconds(plan, work, 10**6) == pytest.approx(prepared, rel=1e-3)
    assert costs.wall_seconds(plan, work, 2) >= prepared + sum(of[-len(late) :]) / 2
    monkeypatch.setattr(type(plan.checkpoints[0]), "exists", lambda point: True)
    assert costs.wall_seconds(plan, work, 2) == pytest.approx(sum(of) / 2)


def test_memory_is_that_of_a_batch_of_the_longest_rows_and_of_one_row(on_the_hub):
    """80 GB of one GPU were planned as 22, by rows of 60 tokens."""
    study = on_the_hub("olmo-1b", OLMO_1B)
    assert memory.longest_batch(plan_of(study)) == (8, 2048)
    assert (
        66 < memory.memory_gb(plan_of(study)) < 72 and 25 < memory.memory_gb(plan_of(study), 1) < 30
    )
    shorter, larger = (
        on_the_hub("olmo-1b", OLMO_1B, change)
        for change in ("tuning.max_length=512", "recipes.xsum.batch_size=32")
    )
    assert memory.longest_batch(plan_of(shorter)) == (8, 512) and memory.longest_batch(
        plan_of(larger)
    ) == (32, 2048)
    assert (
        memory.memory_gb(plan_of(shorter))
        < memory.memory_gb(plan_of(study))
        < memory.memory_gb(plan_of(larger))
    )
    assert memory.memory_gb(plan_of(larger), 1) == memory.memory_gb(plan_of(study), 1)


def test_models_are_in_memory_when_they_are_scored_too(on_the_hub):
    study = on_the_hub("olmo-1b", OLMO_1B, "recipes={base: {}}")
    cached = 40 * 16 * 2048  # bytes a token
    whole, least = (
        memory.PROCESS_GB + (4 * costs.parameters(plan_of(study)) + tokens * cached) / 1e9
        for tokens in (16_384, 2048)
    )
    assert memory.memory_gb(plan_of(study)) == pytest.approx(whole) and memory.memory_gb(
        plan_of(study), 1
    ) == pytest.approx(least)
    short = on_the_hub(
        "olmo-1b", OLMO_1B, "recipes={base: {}}", "probing.datasets=[mnli, paws]", "probing.shots=1"
    )
    assert memory.memory_gb(plan_of(short), 1) == pytest.approx(
        least - (2048 - 2 * 73) * cached / 1e9
    )


def test_lengths_that_were_measured_take_the_place_of_those_registered(on_the_hub):
    study = on_the_hub("olmo-1b", OLMO_1B)
    before = costs.total(plan_of(study), plan_of(study).cells)
    assert lengths.basis(study) == "registered medians, guessed for xlsum, popqa, tulu_v2"
    assert lengths.basis_of_longest(study) == "the longest that may come"
    twice = {
        name: {"item": 2 * tokens, "row": 2 * tokens, "longest": 3 * tokens}
        for name, tokens in lengths.REAL_TOKENS.items()
    }
    lengths.note(study, twice)
    after = costs.total(plan_of(study), plan_of(study).cells)
    assert (
        after.trained_tokens == 2 * before.trained_tokens
        and after.scored_tokens > 1.8 * before.scored_tokens
    )
    assert lengths.basis(study) == "measured" and memory.longest_batch(plan_of(study)) == (
        8,
        3 * lengths.REAL_TOKENS["tulu_v2"],
    )
    assert lengths.basis_of_longest(study) == "the longest of those looked at"
    lengths.note(study, {name: one for name, one in twice.items() if name not in ("mnli", "popqa")})
    assert lengths.basis(study) == "measured, registered medians for mnli, guessed for popqa"
    cut = on_the_hub("olmo-1b", OLMO_1B, "tuning.max_length=512")
    assert memory.longest_batch(plan_of(cut)) == (8, 512)
    assert (
        lengths.row(cut, "xsum", 2048) == 512
        and lengths.row(cut, "paws", 2048) == 2 * lengths.REAL_TOKENS["paws"]
    )


def test_rows_of_a_generated_world_are_as_it_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    quick = load_study("quick")
    assert lengths.basis(quick).startswith("60 tokens") and memory.longest_batch(
        plan_of(quick)
    ) == (
        6,
        384,
    )
    assert {lengths.item(quick, name) for name in quick.probing.datasets} == {60}


def test_the_disk_holds_a_state_for_each_process_that_trains(on_the_hub, tokenizer):
    study = on_the_hub("olmo-1b", OLMO_1B)
    assert costs.disk_gb(plan_of(study), 3) - costs.disk_gb(plan_of(study)) == pytest.approx(
        2 * 24e-9 * costs.parameters(plan_of(study))
    )
    written, kept = costs.tuned_gb(plan_of(study))
    # seven recipes train all weights, two adapters, each at five checkpoints with three seeds
    adapter = Lora(r=16).weights(costs.architecture(plan_of(study)))
    each = 7 * costs.parameters(plan_of(study)) + 2 * adapter
    assert written == pytest.approx(5 * 3 * 4e-9 * each) and kept == 100
    recipe = "{dataset: xsum, trainable: {peft_type: LORA, r: 16}}"
    small = on_the_hub("olmo-1b", OLMO_1B, f"recipes={{base: {{}}, xsum: {recipe}}}")
    assert 0 < costs.states_gb(plan_of(small)) < 0.02 * costs.states_gb(plan_of(study))


def test_adapters_are_counted_as_they_are_made(tokenizer):
    study = load_study("smoke")
    network = pretraining.new_model(study.checkpoints.pretraining.architecture, tokenizer, 0)
    with adapters.part(network, Lora(), 0) as part:
        counted = sum(weight.numel() for weight in part.model.parameters() if weight.requires_grad)
    assert Lora().weights(costs.architecture(plan_of(study))) == counted


def test_configurations_by_other_names_are_read_and_what_is_not_there_is_named(on_the_hub):
    gpt2 = {
        "n_layer": 12,
        "n_embd": 768,
        "n_head": 12,
        "n_inner": None,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    assert costs.architecture(plan_of(on_the_hub("olmo-1b", gpt2))) == Architecture(
        layers=12, width=768, heads=12, intermediate=3072, context=1024, vocabulary=50257
    )
    with pytest.raises(
        StudyError,
        match="says nothing of layers, context by a name that is known: num_hidden_layers, n_layer",
    ):
        costs.architecture(
            plan_of(
                on_the_hub(
                    "olmo-1b", {"d_model": 768, "n_embd": 768, "n_head": 12, "vocab_size": 50257}
                )
            )
        )


def test_several_runs_have_checkpoints_of_their_own():
    """Those of a run are the same whether it is alone or one of several; a verdict counts runs."""
    several = load_study("smoke", ("checkpoints.runs=[0, 1, 2]",))
    points = plan_of(several).checkpoints
    assert [point.name for point in points[:6]] == [
        *(f"run-0-step-{step}" for step in (0, 20, 36, 38, 40)),
        "run-1-step-0",
    ]
    alone = plan_of(load_study("smoke")).checkpoints
    assert [point.revision for point in points[:5]] == [point.revision for point in alone]
    assert len({point.revision for point in points}) == 15 and several.replicates == 3
    assert [point.run for point in points if point.late] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_runs_are_tuned_with_seeds_of_their_own():
    """Runs stand in the place of seeds: were rows, order and shots the same, an interval over runs
    would leave out what those add.
    """
    study = load_study("smoke", ("checkpoints.runs=[0, 1]", "tuning.seeds=2"))
    seeds, draws = defaultdict(set), defaultdict(set)
    for cell in plan_of(study).cells:
        run, shown = cell.model.checkpoint.run, {one.draw for one in cell.probes if one.shots}
        if cell.model.recipe != "base":
            seeds[run].add(cell.model.seed)
        draws[run] |= shown
    assert seeds == draws == {0: {0, 1}, 1: {2, 3}}
