"""Which cells a study needs, and what makes a record stale."""

from pretune import costs, params
from pretune.plan import cells


def keys(*overrides):
    return {cell.model.name: cell.model.key for cell in cells(params.load_study("smoke", overrides))}


def probes(*overrides):
    return {probe.key for cell in cells(params.load_study("smoke", overrides)) for probe in cell.probes}


def test_one_cell_a_checkpoint_recipe_and_seed_and_base_once():
    names = list(keys("tuning.seeds=2"))
    assert len(names) == 5 * (1 + 2 * 2) and "step-20.base.0" in names and "step-20.mnli.1" in names
    base = next(cell for cell in cells(params.load_study("smoke", ("tuning.seeds=2",))) if cell.model.recipe == "base")
    assert {probe.draw for probe in base.probes} == {0, 1}


def test_only_names_checkpoints():
    found = cells(params.load_study("smoke"), ("step-36", "step-0"))
    assert {cell.model.checkpoint.name for cell in found} == {"step-0", "step-36"}


def test_a_rate_changes_its_recipe_only():
    old, new = keys(), keys("recipes.mnli.learning_rate=3.0e-4")
    assert {name for name in old if old[name] != new[name]} == {name for name in old if ".mnli." in name}


def test_pretraining_and_world_change_everything():
    old = keys()
    for change in ("checkpoints.pretraining.run=1", "checkpoints.world.seed=5", "checkpoints.steps=[0, 20, 36, 38, 41]"):
        assert not set(old.values()) & set(keys(change).values())


def test_an_added_checkpoint_keeps_the_others():
    old, new = keys(), keys("checkpoints.steps=[0, 10, 20, 36, 38, 40]")
    assert all(new[name] == key for name, key in old.items()) and len(new) == len(old) + 3


def test_probes_change_with_what_they_ask_and_not_with_training():
    assert probes() == probes("tuning.learning_rate=1.0e-4")
    assert not probes() & probes("probing.shots=1")
    assert not probes() & probes("checkpoints.world.seed=5")


def test_costs_grow_with_the_work():
    small, large = (params.load_study("smoke", (f"probing.items={n}",)) for n in (24, 48))
    one, two = (costs.total(study, cells(study)) for study in (small, large))
    assert two.scored_tokens > 1.5 * one.scored_tokens and two.seconds > one.seconds and two.flops > one.flops
    assert one.trained_tokens == two.trained_tokens > 40 * 8 * 128
    assert 0 < costs.memory_gb(small) < 2 and 0 < costs.disk_gb(small) < 1
