"""Records: written whole or not at all, verified when read, read through one accessor."""

import hashlib
import json
import logging
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import plan_of
from pretune import measures, paths, records
from pretune.measures import choices
from pretune.run import status
from pretune.study.load import load_study

SMALL = (
    "findings=[01_dataset_dichotomy]",
    "probing.datasets=[xsum, mnli, rte, hellaswag, arc_easy, sciq]",
)

ABOUT = {"left_out": {}, "training": [], "checkpoint_sha256": "0" * 64}


def bases(study):
    return [cell for cell in plan_of(study).cells if cell.model.recipe == "base"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study whose first two checkpoints have records of made-up rows for base."""
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    found = load_study("smoke", SMALL)
    for cell in bases(found)[:2]:
        write(found, cell, cell.probes)
    return found


def write(study, cell, probes):
    point, tables, texts = cell.model.checkpoint, {}, []
    for probe in probes:
        for item in range(6):
            generated = probe.dataset == "xsum"
            tables.setdefault(probe.measured_by.name, []).append(
                {
                    "run": 0,
                    "checkpoint": point.name,
                    "revision": point.revision,
                    "step": point.step,
                    "tokens": point.tokens,
                    "stage": point.stage,
                    "late": point.late,
                    "recipe": cell.model.recipe,
                    "seed": 0,
                    "probe": probe.key,
                    "dataset": probe.dataset,
                    "split": probe.split,
                    "format": "default",
                    "shots_asked": 2,
                    "shots": 2,
                    "draw": 0,
                    "item": item,
                    "gold": 0 if generated else item % 2,
                    "baseline": 0.5,
                    "log_likelihood": [-4.0] if generated else [-4.0, -6.0],
                    "blank_log_likelihood": [-1.0] if generated else [-1.0, -9.0],
                    "choice_tokens": [2] if generated else [1, 3],
                    "choice_characters": [5] if generated else [4, 24],
                    "rouge_l": 0.25 if generated else None,
                    "flag": "",
                }
            )
            texts.append(
                {"probe": probe.key, "item": item, "prompt": "p", "choices": ["a"], "output": None}
            )
    records.write_record(records.record_folder(study, cell.model), tables, texts, ABOUT)


def test_what_was_written_is_read_and_the_rest_is_missing(study):
    assert len(records.load(plan_of(study))) == 2 * 6 * 6
    there = {cell.model.name for cell in bases(study)[:2]}
    assert {cell.model.name for cell in status.missing(plan_of(study))} == {
        cell.model.name for cell in plan_of(study).cells
    } - there
    assert set(records.load(plan_of(study), columns=["dataset", "item"]).columns) == {
        "dataset",
        "item",
    }
    assert set(records.load(plan_of(study), where={"dataset": ["mnli", "rte"]})["dataset"]) == {
        "mnli",
        "rte",
    }
    assert len(records.load_texts(plan_of(study), {"checkpoint": "step-0"})) == 36


def test_unknown_names_are_errors_that_name_what_is_allowed(study):
    with pytest.raises(KeyError, match=r"'datset'.*dataset"):
        records.load(plan_of(study), columns=["datset"])
    with pytest.raises(KeyError, match="'recip'"):
        records.load(plan_of(study), where={"recip": "base"})
    with pytest.raises(LookupError, match="dataset = 'paws'"):
        records.load(plan_of(study), where={"dataset": "paws"})
    with pytest.raises(KeyError, match="calibrated"):
        measures.scored(records.load(plan_of(study)), "character")


def test_each_normalisation_picks_by_its_own_rule(study):
    rows = records.load(plan_of(study), where={"dataset": "mnli"})  # log-likelihoods -4, -6
    picked = {
        name: set(measures.scored(rows, name)["prediction"]) for name in choices.NORMALISATIONS
    }
    assert picked == {
        "dataset": {0},
        "sum": {0},
        "tokens": {1},
        "characters": {1},
        "calibrated": {1},
    }
    assert measures.scored(rows)["score"].mean() == 0.5
    generated = measures.scored(
        records.load(plan_of(study), where={"dataset": "xsum"}), "calibrated"
    )
    assert set(generated["score"]) == {0.25} and set(generated["prediction"]) == {-1}


@pytest.mark.parametrize("name", ["log_likelihood", "blank_log_likelihood"])
def test_log_likelihoods_that_are_not_finite_have_no_answer(study, name):
    rows = records.load(plan_of(study), where={"dataset": ["mnli", "xsum"]})
    picked = next(place for place in rows.index if rows["dataset"][place] == "mnli")
    rows.at[picked, name] = np.array([np.nan, -1.0])
    with pytest.raises(
        ValueError,
        match=r"mnli at step-0: row \d has log-likelihoods that are not finite \(\[nan, ",
    ):
        measures.scored(rows, "calibrated")
    rows.at[picked, name] = np.array([-1.0, -1.0])
    assert measures.scored(rows, "calibrated")["prediction"].isin([-1, 0, 1]).all()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "sidecar", "link", "weights"])
def test_a_damaged_record_is_named_set_aside_and_counts_as_missing(study, caplog, damage, tmp_path):
    cell = bases(study)[0]
    folder = records.record_folder(study, cell.model)
    table = next(folder.glob("*/choices.parquet"))
    data = bytearray(table.read_bytes())
    assert len(records.load(plan_of(study))) == 72  # what verified before is looked at again
    if damage == "flip":
        data[len(data) // 2] ^= 1
        table.write_bytes(data)
    elif damage == "gone":
        table.unlink()
    elif damage == "link":
        table.rename(tmp_path / "elsewhere.parquet")
        table.symlink_to(tmp_path / "elsewhere.parquet")
    elif damage == "weights":  # the checkpoint was made anew elsewhere, with other weights
        cell.model.checkpoint.about.parent.mkdir(parents=True)
        cell.model.checkpoint.about.write_text(json.dumps({"sha256": "f" * 64}))
    elif damage == "sidecar":
        next(folder.glob("*/record.json")).write_text("{")
    else:
        table.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with caplog.at_level(logging.WARNING):
        assert status.missing(plan_of(study))[0] == cell
    assert folder.name in caplog.text and "set aside" in caplog.text
    assert len(records.load(plan_of(study))) == 36  # the other cell's
    assert [path.suffix for path in folder.iterdir()] == [".damaged"]
    shutil.rmtree(cell.model.checkpoint.folder, ignore_errors=True)
    write(study, cell, cell.probes)
    assert len(records.load(plan_of(study))) == 72


@pytest.mark.parametrize("mark", [None, "of before"])
def test_a_table_of_other_columns_counts_as_missing_and_the_others_stay(mark, study):
    """As when a measure was changed since: whatever else a record holds is not measured again. A
    record that bears no mark of its columns is opened for them.
    """
    cell = bases(study)[0]
    table = next(records.record_folder(study, cell.model).glob("*/generation.parquet"))
    pq.write_table(pq.read_table(table).drop_columns(["stop"]), table)
    about = json.loads((table.parent / "record.json").read_text())
    about["columns"] = about["columns"] | {"generation": mark} if mark else {}
    about["sha256"]["generation.parquet"] = hashlib.sha256(table.read_bytes()).hexdigest()
    (table.parent / "record.json").write_text(json.dumps(about))
    lacking = next(one for one in status.missing(plan_of(study)) if one.model == cell.model)
    assert {probe.dataset for probe in lacking.probes} == {"xsum"}
    write(study, cell, lacking.probes)
    assert len(records.load(plan_of(study))) == 72


def test_what_rows_say_of_their_checkpoint_is_what_the_study_says_now(study):
    """A checkpoint that was one of the last three is none any more where another one is measured
    after it.
    """
    for cell in bases(study)[2:]:
        write(study, cell, cell.probes)
    more = load_study("smoke", (*SMALL, "checkpoints.steps=[0, 20, 36, 38, 39, 40]"))
    old, new = records.load(plan_of(study)), records.load(plan_of(more))
    assert set(old.loc[old["late"], "step"]) == {36, 38, 40} and set(
        new.loc[new["late"], "step"]
    ) == {38, 40}
    assert records.load(plan_of(more), where={"late": True})["step"].nunique() == 2
    assert (old.dtypes == new.dtypes).all() and old.drop(columns="late").equals(
        new.drop(columns="late")
    )


def test_half_written_files_are_never_read(study):
    cell = bases(study)[0]
    folder = records.record_folder(study, cell.model)
    part = next(folder.iterdir())
    part.rename(part.with_name(f"{part.name}.elsewhere-1.partial"))
    assert status.missing(plan_of(study))[0] == cell and len(records.load(plan_of(study))) == 36


def test_a_new_probe_is_the_only_thing_missing(study):
    more = load_study("smoke", ("probing.items=25", *SMALL))
    assert len(status.missing(plan_of(more))) == len(plan_of(study).cells) == 20
    cell = bases(study)[2]
    write(study, cell, cell.probes[:4])
    lacking = next(one for one in status.missing(plan_of(study)) if one.model == cell.model)
    assert lacking.probes == cell.probes[4:]


def test_the_same_record_twice_is_one_record(study):
    cell = bases(study)[0]
    before = sorted(path.name for path in records.record_folder(study, cell.model).iterdir())
    write(study, cell, cell.probes)
    assert (
        sorted(path.name for path in records.record_folder(study, cell.model).iterdir()) == before
    )
    about = json.loads(
        next(records.record_folder(study, cell.model).glob("*/record.json")).read_text()
    )
    assert set(about["sha256"]) == {
        "choices.parquet",
        "generation.parquet",
        "texts.parquet",
    } and all(len(value) == 64 for value in about["sha256"].values())
