"""Branch names of the public families: read, chosen by step, never computed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import OLMO
from pretune.sources import revisions
from pretune.sources.revisions import Revision, RevisionError

LIST = OLMO / "revisions.txt"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("step1000-tokens4B", Revision("step1000-tokens4B", 1000, 4)),
        ("stage1-step10000-tokens21B", Revision("stage1-step10000-tokens21B", 10000, 21, "stage1")),
        (
            "stage2-ingredient3-step5-tokens51B",
            Revision("stage2-ingredient3-step5-tokens51B", 5, 51, "stage2", "ingredient3"),
        ),
        ("stage1-step0", Revision("stage1-step0", 0, None, "stage1")),
        ("step143000", Revision("step143000", 143000)),
        ("stage1-step-40000", Revision("stage1-step-40000", 40000, None, "stage1")),
        ("step-001000-2BT", Revision("step-001000-2BT", 1000, 2)),
        ("ckpt_000", Revision("ckpt_000", 0)),
        (
            "step37500-seed-small-aux-2",
            Revision("step37500-seed-small-aux-2", 37500, run="small-aux-2"),
        ),
        *(
            (name, None)
            for name in (
                "main",
                "fp32",
                "it-SFT",
                "it-LC-expert",
                "step",
                "step10-tokensB",
                "a step10",
                "step10 ",
            )
        ),
    ],
)
def test_a_name_says_step_stage_tokens_and_run(name, wanted):
    assert revisions.parse(name) == wanted


@given(st.integers(0, 10**7), st.none() | st.integers(0, 10**4), st.none() | st.integers(1, 3))
def test_what_was_written_is_read(step, tokens, stage):
    name = (
        (f"stage{stage}-" if stage else "")
        + f"step{step}"
        + (f"-tokens{tokens}B" if tokens is not None else "")
    )
    assert revisions.parse(name) == Revision(name, step, tokens, f"stage{stage}" if stage else "")


def test_stages_are_kept_apart_and_a_branch_without_one_is_of_the_first():
    names = [
        "main",
        "stage1-step10-tokens1B",
        "step20-tokens2B",
        "stage2-step5-tokens1B",
        "stage1-step0",
    ]
    assert [one.step for one in revisions.points(names)] == [0, 10, 20]
    assert [one.name for one in revisions.points(names, "stage2")] == ["stage2-step5-tokens1B"]
    with pytest.raises(RevisionError, match="stage 'stage3', run ''; stages: stage1, stage2"):
        revisions.points(names, "stage3")
    with pytest.raises(
        RevisionError, match="two branches hold step 10: .*step10-tokens1B and .*step10-tokens1B"
    ):
        revisions.points([*names, "step10-tokens1B"])
    assert [
        one.name for one in revisions.points(["step5-seed-default", "step5-seed-aux"], run="aux")
    ] == ["step5-seed-aux"]


def test_a_step_that_is_not_there_names_the_nearest():
    there = revisions.points(
        ["step1000-tokens4B", "step2000-tokens8B", "step9000-tokens37B", "step20000-tokens83B"]
    )
    assert [one.name for one in revisions.by_step(there, (9000, 1000))] == [
        "step9000-tokens37B",
        "step1000-tokens4B",
    ]
    with pytest.raises(
        RevisionError,
        match="no checkpoint at step 3000; the nearest are step1000-tokens4B, step2000-",
    ):
        revisions.by_step(there, (1000, 3000))


@given(
    st.sets(st.integers(1, 10**6), min_size=3, max_size=60),
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from(["log", "linear"]),
)
def test_a_spread_has_both_ends_its_late_neighbours_and_no_checkpoint_twice(
    steps, count, late, spacing
):
    there = [Revision(f"step{step}", step) for step in sorted({0, *steps})]
    if count > len(steps) or count <= late:
        with pytest.raises(RevisionError, match=f"{count} checkpoints are asked for"):
            revisions.spread(there, count, spacing, late)
        return
    found = [one.step for one in revisions.spread(there, count, spacing, late)]
    assert found == sorted(set(found)) and len(found) == count and found[0] == min(steps)
    assert found[-late:] == sorted(steps)[-late:]


@pytest.mark.skipif(not LIST.is_file(), reason="the real list of branches is not here")
def test_the_real_list_of_olmo_1b_with_its_gap():
    there = revisions.points(LIST.read_text().split())
    assert len(there) == 335 and there[-1].step == 738020
    late = revisions.by_step(there, (342000, 424000, 505000, 592000, 738000, 738020))
    assert [one.tokens for one in late] == [1434, 1778, 2118, 2483, 3095, 3095]
    with pytest.raises(
        RevisionError, match="no checkpoint at step 1000; the nearest are step20000-tokens84B"
    ):
        revisions.by_step(there, (1000,))
    assert [(one.step, two.step) for one, two in revisions.gaps(there)] == [(117850, 330000)]


@pytest.mark.parametrize(
    ("name", "step"),
    [("checkpoint-1000", 1000), ("epoch_3", 3), ("qwen-0.5b-checkpoint-20", 20), ("7", 7)],
)
def test_folders_are_named_as_the_trainer_names_them_or_by_one_number(name, step):
    [found] = revisions.points([name, "runs", "logs-1-of-2"], forms=revisions.FORMS + revisions.OWN)
    assert (found.name, found.step, found.tokens) == (name, step, None)


def test_where_no_name_is_read_those_that_are_read_are_told():
    with pytest.raises(RevisionError, match="names that are read: step1000, .*checkpoint-1000"):
        revisions.points(["main", "fp32"])
