"""Known answers, and no verdict where there is no effect."""

import numpy as np
import pandas as pd
import pytest

from pretune import statistics

STEPS = {0: False, 50: False, 200: False, 680: True, 690: True, 700: True}


def records(chances, items=300, seed=0):
    """Scored rows of one dataset per entry: chance of a right answer at each step."""
    draw, frames = np.random.default_rng(seed), []
    for dataset, levels in chances.items():
        for (step, late), level in zip(STEPS.items(), levels, strict=True):
            score = (draw.random(items) < level).astype(float)
            frames.append(pd.DataFrame({
                "dataset": dataset, "step": step, "tokens": step * 1000, "late": late, "item": range(items),
                "score": score, "baseline": 0.25, "prediction": 0, "gold": np.arange(items) % 2,
            }))
    return pd.concat(frames, ignore_index=True)


def test_an_estimate_is_students_interval():
    found = statistics.estimate(1.0, [(0.04, 9)], 10)
    assert found.low == pytest.approx(1 - 2.262157 * 0.2, abs=1e-4)  # t(.975, 9) = 2.262157
    joined = statistics.estimate(0.0, [(0.04, 9), (0.01, 2)], 10)
    assert joined.freedom == pytest.approx(0.05**2 / (0.04**2 / 9 + 0.01**2 / 2))
    assert np.isnan(statistics.estimate(1.0, [(0.04, 9), (0.0, 0)], 10).low)


def test_items_that_all_agree_leave_the_doubt_of_the_rule_of_three():
    found = statistics.over_items(pd.DataFrame({"item": range(200), "score": 1.0}))
    assert found.value == 1 and found.low == pytest.approx(1 - 3 / 200, abs=0.002)


def test_gain_is_late_minus_early_on_paired_items():
    rows = records({"a": [0.2, 0.3, 0.5, 0.9, 0.9, 0.9]})
    found = statistics.gain(rows)
    scores = rows.groupby("step")["score"].mean()
    assert found.value == pytest.approx(scores[[680, 690, 700]].mean() - scores[50])
    assert found.low < found.value < found.high and found.n == 300
    with pytest.raises(ValueError, match="not scored at every checkpoint"):
        statistics.gain(rows[(rows["step"] != 50) | (rows["item"] > 3)])


def test_sorting_needs_equivalence_not_absence_of_significance():
    rows = records({"rises": [0.2, 0.25, 0.5, 0.9, 0.9, 0.9], "flat": [0.2] * 6}, items=4000)
    assert dict(statistics.sort_datasets(rows)["group"]) == {"rises": "learned", "flat": "not learned"}
    few = records({"flat": [0.3] * 6}, items=40)
    assert statistics.sort_datasets(few)["group"]["flat"] == "undecided"


def test_the_difference_of_groups_comes_out_and_is_asked_only_of_two_sets_each():
    rise, flat = [0.2, 0.25, 0.5, 0.8, 0.8, 0.8], [0.2] * 6
    rows = records({"a": rise, "b": rise, "c": flat, "d": flat}, items=2000)
    groups = statistics.sort_datasets(statistics.half(rows, "A"))["group"]
    found = statistics.group_difference(statistics.half(rows, "B"), groups)
    assert found.low < 0.55 < found.high and statistics.judge("1a", found, False, "").verdict == "supported"
    assert statistics.group_difference(rows, groups.replace("not learned", "undecided")) is None
    assert statistics.judge("1a", None, True, "why").verdict == "undecided"


def test_halves_share_no_item():
    rows = records({"a": [0.5] * 6, "b": [0.5] * 6}, items=101)
    one, two = statistics.half(rows, "A"), statistics.half(rows, "B")
    assert len(one) + len(two) == len(rows) and not set(one["item"]) & set(two["item"])


@pytest.mark.parametrize(("value", "verdict"), [(0.3, "supported"), (0.0, "not supported"), (0.06, "undecided")])
def test_verdicts_are_held_against_the_margin(value, verdict):
    assert statistics.judge("x", statistics.estimate(value, [(0.0004, 100)], 9), False, "").verdict == verdict


def test_gain_covers_the_truth():
    """Items and checkpoints vary; at the sizes of the quick study the interval covers in at least 93 % of trials."""
    draw, covered, trials = np.random.default_rng(1), 0, 400
    for trial in range(trials):
        shift = draw.normal(0, 0.02, 6)
        rows = records({"a": np.array([0.3, 0.3, 0.4, 0.6, 0.6, 0.6]) + shift}, items=150, seed=trial)
        found = statistics.gain(rows)
        covered += found.low <= 0.3 <= found.high
    assert covered / trials >= 0.93


def test_no_effect_is_supported_in_at_most_five_percent():
    wrong, trials = 0, 200
    for trial in range(trials):
        rows = records({name: [0.3] * 6 for name in "abcd"}, items=150, seed=trial)
        groups = statistics.sort_datasets(statistics.half(rows, "A"))["group"]
        found = statistics.group_difference(statistics.half(rows, "B"), groups)
        wrong += statistics.judge("1a", found, False, "").verdict == "supported"
    assert wrong / trials <= 0.05


def test_balanced_accuracy_of_a_constant_answer_is_chance():
    rows = pd.DataFrame({"item": range(100), "gold": [0] * 80 + [1] * 20, "score": [1.0] * 80 + [0.0] * 20})
    assert statistics.balanced_accuracy(rows).value == pytest.approx(0)


def test_a_share_is_wilsons():
    found = statistics.share(50, 100)
    assert (found.low, found.high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_bracket_names_the_steps_a_rise_falls_between():
    line = pd.DataFrame({"step": [0, 50, 100, 200, 400], "score": [0.5, 0.2, 0.3, 0.7, 0.8]})
    assert statistics.bracket(line) == (100, 200)
    assert statistics.bracket(line.assign(score=[0.5, 0.5, 0.4, 0.4, 0.4])) is None


def test_the_published_value_is_the_midpoint_of_a_bootstrap_interval():
    values = np.r_[np.ones(60), np.zeros(40)]
    found = statistics.bootstrap(values)
    assert found.value == (found.low + found.high) / 2 and found.n == 100
    assert found.value == pytest.approx(0.6, abs=0.02) and found.variance**0.5 == pytest.approx(0.049, abs=0.004)
    assert found == statistics.bootstrap(values) != statistics.bootstrap(values, seed=1)
    rows = pd.DataFrame({"dataset": "mnli", "step": 10, "tokens": 100, "item": range(100), "score": values, "baseline": 0.3})
    assert statistics.curve(rows, "bootstrap")["score"].item() == found.value
    assert statistics.curve(rows)["score"].item() == 0.6
