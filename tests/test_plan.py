"""Which cells a study needs, and what makes a record stale."""

from pretune import costs, params
from pretune.plan import cells, sweep
from pretune.tasks.registry import RESERVE


def keys(*overrides):
    return {cell.model.name: cell.model.key for cell in cells(params.load_study("smoke", overrides))}


def probes(*overrides):
    return {probe.key for cell in cells(params.load_study("smoke", overrides)) for probe in cell.probes}


def test_one_cell_a_checkpoint_recipe_and_seed_and_base_once():
    names = list(keys("tuning.seeds=2"))
    assert len(names) == 5 * (1 + 2 * 4) and "step-20.base.0" in names and "step-20.mnli.1" in names
    base = next(cell for cell in cells(params.load_study("smoke", ("tuning.seeds=2",))) if cell.model.recipe == "base")
    assert {probe.draw for probe in base.probes if probe.shots} == {0, 1}
    assert {probe.draw for probe in base.probes if not probe.shots} == {0}  # without shots there is nothing to draw


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
    assert all(new[name] == key for name, key in old.items()) and len(new) == len(old) + 5


def test_probes_change_with_what_they_ask_and_not_with_training():
    assert probes() == probes("tuning.learning_rate=1.0e-4")
    assert not probes() & probes("protocol.stop=length")
    assert not probes() & probes("checkpoints.world.seed=5")


def views(recipe, *overrides):
    """What the study looks at in one recipe: dataset, format, shots."""
    study = params.load_study("smoke", overrides)
    return {(p.dataset, p.format, p.shots) for cell in cells(study) if cell.model.recipe == recipe for p in cell.probes}


def test_findings_decide_what_is_looked_at_and_no_more():
    only = ("findings=[01_dataset_dichotomy]",)
    assert views("mnli", *only) == {("mnli", "default", 2)}
    assert ("hellaswag", "default", 2) in views("base", *only) and ("hellaswag", "chat", 2) not in views("base", *only)
    both = views("mnli")
    assert {("mnli", "io", 0), ("xsum", "default", 2), ("rte", "default", 2), ("held_out_text", "default", 0)} <= both
    assert not {name for name, form, _ in both if form != "default"} - {"mnli"}  # other formats on its own task only
    assert ("rte", "chat", 2) in views("instruct") & views("base") and ("cnn_dailymail", "default", 2) not in both


GRID = "rates={grid: [5.0e-4, 1.0e-3, 2.0e-3], steps: [20, 40]}"


def test_a_grid_of_rates_adds_models_where_it_is_run_and_keeps_the_others():
    old, new = keys(), keys(GRID)
    added = set(new) - set(old)
    assert all(new[name] == key for name, key in old.items())
    assert len(added) == 4 * 2 * 2 and "step-20.mnli@0.0005.0" in added and not [name for name in added if "step-36" in name]
    found = sweep(params.load_study("smoke", (GRID,)))
    assert len(found) == 4 * 3 * 2
    for cell in found:
        [probe] = cell.probes
        assert probe.split == RESERVE and probe.dataset == {"xsum": "xsum", "instruct": "tulu_v2"}.get(
            cell.model.recipe.split("@")[0], "mnli")


def test_a_rate_of_the_grid_is_the_model_that_a_recipe_with_that_rate_would_be():
    swept, chosen = keys(GRID), keys(GRID, "recipes.mnli.learning_rate=5.0e-4")
    assert swept["step-20.mnli@0.0005.0"] == chosen["step-20.mnli.0"]


def test_costs_grow_with_the_work():
    small, large = (params.load_study("smoke", (f"probing.items={n}",)) for n in (12, 24))
    one, two = (costs.total(study, cells(study)) for study in (small, large))
    assert two.scored_tokens > 1.5 * one.scored_tokens and two.seconds > one.seconds and two.flops > one.flops
    assert one.trained_tokens == two.trained_tokens > 40 * 8 * 128
    assert 0 < costs.memory_gb(small) < 2 and 0 < costs.disk_gb(small) < 1
