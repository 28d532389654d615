"""Known answers, and no verdict where there is no effect."""

import numpy as np
import pandas as pd
import pytest

from pretune.analysis import claims, contrasts, curves, groups, labels, statistics
from pretune.analysis.scores import Scores, Term

STEPS = {0: False, 50: False, 200: False, 680: True, 690: True, 700: True}


def records(chances, items=300, seed=0):
    """Scored rows of one dataset per entry: chance of a right answer at each step."""
    draw, frames = np.random.default_rng(seed), []
    for dataset, levels in chances.items():
        for (step, late), level in zip(STEPS.items(), levels, strict=True):
            score = (draw.random(items) < level).astype(float)
            frames.append(
                pd.DataFrame(
                    {
                        "dataset": dataset,
                        "recipe": "base",
                        "format": "default",
                        "draw": 0,
                        "seed": 0,
                        "step": step,
                        "tokens": step * 1000,
                        "late": late,
                        "item": range(items),
                        "score": score,
                        "baseline": 0.25,
                        "prediction": 0,
                        "gold": np.arange(items) % 2,
                    }
                )
            )
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


def gain(rows, dataset="a"):
    scores = Scores(rows)
    return contrasts.effect(scores, contrasts.gain(scores, dataset))


def test_gain_is_late_minus_early_on_paired_items():
    rows = records({"a": [0.2, 0.3, 0.5, 0.9, 0.9, 0.9]})
    found, scores = gain(rows), rows.groupby("step")["score"].mean()
    assert found.value == pytest.approx(scores[[680, 690, 700]].mean() - scores[50])
    assert found.low < found.value < found.high and found.n == 300
    # items that were scored everywhere
    assert gain(rows[(rows["step"] != 50) | (rows["item"] > 3)]).n == 296
    assert np.isnan(gain(rows, "b").value)


def tuned(rows, seeds, shift, spread=0.0, seed=0):
    """Base rows, the same for every draw, and rows of a recipe whose items were lifted by
    `shift`, with a `spread` between seeds.
    """
    draw, frames = (
        np.random.default_rng(seed),
        [rows.assign(draw=number) for number in range(seeds)],
    )
    for number in range(seeds):
        more = draw.normal(shift, spread)
        lifted = rows["score"] + more + draw.normal(0, 0.02, len(rows))
        frames.append(rows.assign(recipe="mnli", seed=number, draw=number, score=lifted))
    return pd.concat(frames, ignore_index=True)


def test_an_effect_is_paired_by_item_and_seed():
    """Items differ far more than the effect; paired, they cancel."""
    rows = tuned(records({"a": [0.5] * 6}, items=400), 3, 0.1)
    terms = [Term(1, "a", "mnli"), Term(-1, "a")]
    found = contrasts.effect(Scores(rows), terms)
    assert (
        found.value == pytest.approx(0.1, abs=0.01)
        and found.high - found.low < 0.03
        and found.seeds == 3
    )
    alone = contrasts.effect(Scores(rows), [Term(1, "a", "mnli")])
    assert alone.high - alone.low > 2 * (found.high - found.low)


def test_seeds_that_differ_widen_the_interval():
    terms = [Term(1, "a", "mnli"), Term(-1, "a")]
    narrow, wide = (
        contrasts.effect(Scores(tuned(records({"a": [0.5] * 6}), 3, 0.1, spread)), terms)
        for spread in (0.0, 0.1)
    )
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low) and wide.freedom < 4


def test_an_early_checkpoint_carries_its_own_noise():
    shifts = [0, 0, 0, -0.05, 0, 0.05]  # neighbours that differ by more than items do
    rows = records({"a": [0.5] * 6}, items=3000)
    rows["score"] += rows["step"].map(dict(zip(STEPS, shifts, strict=True)))
    scores, late = Scores(rows), [Term(1, "a")]
    one, both = (contrasts.effect(scores, terms) for terms in (late, contrasts.gain(scores, "a")))
    # 1/3 of the floor's variance, against 1/3 and 1
    assert both.variance / one.variance == pytest.approx(4, rel=0.2)
    quiet = contrasts.effect(scores, late, noise=False)
    assert quiet.variance < one.variance / 5


def test_a_slope_is_that_of_least_squares_per_doubling():
    rows = records({"a": [0.0, 0.1, 0.2, 0.5, 0.5, 0.5]}, items=4000)
    tokens = {50: 1000, 200: 2000, 700: 4000}
    found = contrasts.effect(Scores(rows), contrasts.slope("a", "base", tokens))
    scores = rows.groupby("step")["score"].mean()
    assert found.value == pytest.approx(np.polyfit([0, 1, 2], scores[[50, 200, 700]], 1)[0])


def test_sorting_needs_equivalence_not_absence_of_significance():
    rows = records({"rises": [0.2, 0.25, 0.5, 0.9, 0.9, 0.9], "flat": [0.2] * 6}, items=4000)
    assert dict(groups.sort_datasets(rows)["group"]) == {"rises": "learned", "flat": "not learned"}
    few = records({"flat": [0.3] * 6}, items=40)
    assert groups.sort_datasets(few)["group"]["flat"] == "undecided"


def apart(rows, sorted_):
    scores = Scores(rows)
    terms = groups.groups_apart(
        sorted_, lambda dataset, weight: contrasts.gain(scores, dataset, weight=weight)
    )
    return contrasts.effect(scores, terms) if terms else None


def test_the_difference_of_groups_comes_out_and_is_asked_only_of_two_sets_each():
    rise, flat = [0.2, 0.25, 0.5, 0.8, 0.8, 0.8], [0.2] * 6
    rows = records({"a": rise, "b": rise, "c": flat, "d": flat}, items=2000)
    sorted_ = groups.sort_datasets(groups.half(rows, "A"))["group"]
    found = apart(groups.half(rows, "B"), sorted_)
    assert (
        found.low < 0.55 < found.high
        and claims.judge("1a", found, False, "").verdict == "supported"
    )
    assert apart(rows, sorted_.replace("not learned", "undecided")) is None
    assert claims.judge("1a", None, True, "why").verdict == "not asked"


def test_halves_share_no_item():
    rows = records({"a": [0.5] * 6, "b": [0.5] * 6}, items=101)
    one, two = groups.half(rows, "A"), groups.half(rows, "B")
    assert len(one) + len(two) == len(rows) and not set(one["item"]) & set(two["item"])


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.3, 0.02, "supported"),
        (0.0, 0.02, "no effect"),
        (-0.3, 0.02, "opposite"),
        (-0.04, 0.02, "not supported"),
        (0.06, 0.02, "undecided"),
        (0.0, 0.2, "undecided"),
    ],
)
def test_verdicts_are_held_against_both_margins(value, error, verdict):
    found = statistics.estimate(value, [(error**2, 1000)], 9)
    assert claims.judge("x", found, False, "").verdict == verdict
    # where the margin is no band around nothing
    below = claims.judge("x", found, False, "", claims.Claim("", "", two_sided=False)).verdict
    assert below == ("not supported" if verdict in ("no effect", "opposite") else verdict)


def test_the_smallest_effect_that_is_told_is_found_in_80_percent_of_trials():
    draw, error, freedom = np.random.default_rng(0), 0.03, 12
    smallest = claims.judge(
        "x", statistics.estimate(0.0, [(error**2, freedom)], 9), False, ""
    ).smallest
    assert 0.05 + 2.8 * error < smallest < 0.05 + 3.2 * error
    spread = error**2 * draw.chisquare(freedom, 4000) / freedom
    trials = [
        claims.judge("x", statistics.estimate(value, [(variance, freedom)], 9), False, "").verdict
        for value, variance in zip(draw.normal(smallest, error, 4000), spread, strict=True)
    ]
    assert np.mean([one == "supported" for one in trials]) == pytest.approx(0.8, abs=0.03)


def test_gain_covers_the_truth():
    """Items and checkpoints vary; at the sizes of the quick study the interval covers in at
    least 93 % of trials.
    """
    draw, covered, trials = np.random.default_rng(1), 0, 400
    for trial in range(trials):
        shift = draw.normal(0, 0.02, 6)
        rows = records(
            {"a": np.array([0.3, 0.3, 0.4, 0.6, 0.6, 0.6]) + shift}, items=150, seed=trial
        )
        found = gain(rows)
        covered += found.low <= 0.3 <= found.high
    assert covered / trials >= 0.93


def test_sets_that_are_sorted_by_luck_are_not_apart_on_fresh_items():
    """Twelve sets without any gain, of which the luckier six of half A are called learned: on
    half B they are found apart (by any distance) in at most 5 % of trials, where on half A
    itself they would be in many.
    """
    trials, wrong = 60, {"A": 0, "B": 0}
    for trial in range(trials):
        rows = records({name: [0.3] * 6 for name in "abcdefghijkl"}, items=60, seed=trial)
        halves = {which: groups.half(rows, which) for which in "AB"}
        lucky = groups.sort_datasets(halves["A"])["gain"].map(lambda found: found.value).rank() > 6
        sorted_ = lucky.map({True: "learned", False: "not learned"})
        for which, some in halves.items():
            wrong[which] += (
                claims.judge(
                    "1a", apart(some, sorted_), False, "", claims.Claim("", "", margin=0)
                ).verdict
                == "supported"
            )
    assert wrong["B"] <= 0.05 * trials < 0.2 * trials < wrong["A"]


def test_a_set_that_the_first_checkpoint_has_already_is_learned_before():
    rows = records(
        {"early": [0.2, 0.6, 0.7, 0.9, 0.9, 0.9], "late": [0.2, 0.2, 0.5, 0.9, 0.9, 0.9]},
        items=2000,
    )
    assert dict(groups.sort_datasets(rows)["group"]) == {
        "early": "learned before",
        "late": "learned",
    }


def test_balanced_accuracy_of_a_constant_answer_is_chance():
    rows = pd.DataFrame(
        {"item": range(100), "gold": [0] * 80 + [1] * 20, "score": [1.0] * 80 + [0.0] * 20}
    )
    assert labels.balanced_accuracy(rows).value == pytest.approx(0)


def test_a_share_is_wilsons():
    found = statistics.share(50, 100)
    assert (found.low, found.high) == (
        pytest.approx(0.4038, abs=1e-4),
        pytest.approx(0.5962, abs=1e-4),
    )
    assert found.value == 0.5 and statistics.share(3, 4).value == 0.75


def test_a_constant_answer_that_changes_is_constant_within_each_model():
    """Three checkpoints and two draws that each say one thing throughout, and not the same one."""
    said = {(680, 0): 0, (680, 1): 2, (690, 0): 1, (690, 1): 1, (700, 0): 2, (700, 1): 0}
    rows = pd.DataFrame(
        [
            {
                "dataset": "a",
                "recipe": "base",
                "run": 0,
                "seed": 0,
                "step": step,
                "draw": draw,
                "item": item,
                "prediction": label,
            }
            for (step, draw), label in said.items()
            for item in range(10)
        ]
    )
    assert labels.is_most_frequent(rows).eq(1).all()
    mixed = rows.assign(prediction=rows["prediction"].where(rows["item"] < 7, 3))
    assert labels.is_most_frequent(mixed).mean() == pytest.approx(0.7)


def test_bracket_names_the_steps_a_rise_falls_between():
    line = pd.DataFrame({"step": [0, 50, 100, 200, 400], "score": [0.5, 0.2, 0.3, 0.7, 0.8]})
    assert curves.bracket(line) == (100, 200)
    assert curves.bracket(line.assign(score=[0.5, 0.5, 0.4, 0.4, 0.4])) is None


def test_the_published_value_is_the_midpoint_of_a_bootstrap_interval():
    values = np.r_[np.ones(60), np.zeros(40)]
    found = statistics.bootstrap(values)
    assert found.value == (found.low + found.high) / 2 and found.n == 100
    assert found.value == pytest.approx(0.6, abs=0.02) and found.variance**0.5 == pytest.approx(
        0.049, abs=0.004
    )
    assert found == statistics.bootstrap(values) != statistics.bootstrap(values, seed=1)
    rows = pd.DataFrame(
        {
            "dataset": "mnli",
            "step": 10,
            "tokens": 100,
            "item": range(100),
            "score": values,
            "baseline": 0.3,
        }
    )
    assert curves.curve(rows, "bootstrap")["score"].item() == found.value
    assert curves.curve(rows)["score"].item() == 0.6


def summaries(scores, error=0.01):
    """One row in place of items: dataset and recipe to the score at each step; the last two
    steps are late.
    """
    lines = [
        {
            "dataset": dataset,
            "recipe": recipe,
            "format": "default",
            "shots_asked": 4,
            "draw": 0,
            "seed": 0,
            "step": step,
            "tokens": step,
            "late": step > 3,
            "item": 0,
            "score": score,
            "standard_error": error,
            "n": 500,
            "baseline": 0.25,
        }
        for (dataset, recipe), line in scores.items()
        for step, score in enumerate(line, 1)
    ]
    return pd.DataFrame(lines)


def test_summaries_give_the_interval_their_standard_errors_and_the_pair_allow():
    scores = Scores(summaries({("a", "base"): [0.2, 0.2, 0.3, 0.5, 0.6], ("b", "base"): [0.2] * 5}))
    quiet = contrasts.effect(scores, contrasts.gain(scores, "a"), noise=False)
    assert (
        quiet.value == pytest.approx(0.35)
        and quiet.variance == pytest.approx(0.01**2 * (1 + 1 / 2))
        and quiet.n == 500
    )
    full = contrasts.effect(scores, contrasts.gain(scores, "a"))
    assert full.variance == quiet.variance and full.pair == pytest.approx(0.1**2 / 2 * (1 + 1 / 2))
    # t(.975) with one degree of freedom
    reach = np.hypot(1.96 * quiet.variance**0.5, 12.706 * full.pair**0.5)
    assert full.high - full.value == full.value - full.low == pytest.approx(reach, rel=1e-3)
    # of its own cells, not of all
    assert contrasts.effect(scores, contrasts.gain(scores, "b")).pair == 0
    assert statistics.over_items(scores.rows[:1]).high == pytest.approx(0.2 + 1.96 * 0.01, abs=1e-4)


def test_a_hole_is_nan_and_decides_nothing():
    rows = summaries({("a", "base"): [0.2] * 5})
    terms = [Term(1, "b"), Term(-1, "a")]
    found = contrasts.effect(Scores(rows), terms)
    assert np.isnan([found.value, found.low, found.high]).all() and found.n == 0
    assert claims.judge("x", found, False, "").verdict == "not asked"
    bare = statistics.estimate(0.3, [(0.01, 9), (0.0, 0)], 9)  # its noise cannot be known
    assert claims.judge("x", bare, False, "").verdict == "undecided"


def seeds_of(recipe, numbers, scores):
    """Four items at one late checkpoint: what a model scores on all of them, by seed (of base:
    by draw).
    """
    frame = pd.DataFrame({"draw": np.repeat(numbers, 4), "item": np.tile(range(4), len(numbers))})
    return frame.assign(
        dataset="a",
        recipe=recipe,
        format="default",
        shots_asked=2,
        step=9,
        late=True,
        baseline=0.1,
        seed=frame["draw"] * (recipe != "base"),
        score=frame["draw"].map(scores),
    )


def test_seeds_are_paired_by_their_names_and_not_by_their_places():
    """Base and tuned differ by .1 in every seed, whatever order they come in; seeds by
    themselves differ far more.
    """
    level, terms = (
        {0: 0.1, 1: 0.5, 2: 0.8},
        [Term(1, "a", "mnli"), Term(-1, "a")],
    )
    higher = {number: score + 0.1 for number, score in level.items()}
    rows = pd.concat([seeds_of("base", (2, 0, 1), level), seeds_of("mnli", (1, 2, 0), higher)])
    found = contrasts.effect(Scores(rows), terms, noise=False)
    assert found.value == pytest.approx(0.1) and found.seeds == 3
    # what items that agree leave, and nothing of seeds
    steady = statistics.item_variance(np.full(4, 0.1))[0]
    assert found.variance == pytest.approx(steady)


@pytest.mark.parametrize("there", [(0,), (1, 2)])
def test_an_effect_that_lacks_a_seed_is_blank_and_not_the_rest(there):
    level = {0: 0.1, 1: 0.5, 2: 0.8}
    rows = pd.concat([seeds_of("base", range(3), level), seeds_of("mnli", there, level)])
    terms = [Term(1, "a", "mnli"), Term(-1, "a")]
    assert np.isnan(contrasts.effect(Scores(rows), terms).value)
    bare = rows.assign(shots_asked=rows["shots_asked"].where(rows["recipe"] == "mnli", 0))
    # without examples there is nothing to draw
    bare = bare[(bare["recipe"] == "mnli") | (bare["draw"] == 0)]
    assert contrasts.effect(Scores(bare), terms, noise=False).seeds == len(there)


def test_a_pair_of_checkpoints_is_one_degree_of_freedom_and_what_it_adds_is_kept_apart():
    found = statistics.estimate(0.0, [(0.01, 1e6)], 9, pair=0.04)
    assert found.high == pytest.approx(np.hypot(1.96 * 0.1, 12.706 * 0.2), rel=1e-3)
    assert found.beyond(found.high) == pytest.approx(0.025, rel=1e-3) and found.beyond(0.0) == 0.5
    plain = statistics.estimate(0.0, [(0.01, 10)], 9)
    # 1 - T(1) of ten degrees of freedom
    assert plain.beyond(0.1) == pytest.approx(0.17045, abs=1e-4)


def test_the_sum_with_a_known_number_moves_both_ends():
    found = statistics.estimate(0.2, [(0.01, 1e6)], 9).plus(0.5)
    assert (found.value, found.low, found.high) == (
        0.7,
        pytest.approx(0.504, abs=1e-3),
        pytest.approx(0.896, abs=1e-3),
    )


def test_the_noise_floor_is_that_of_a_dataset_or_pooled_where_it_has_but_two_neighbours():
    rows = records({"a": [0.5] * 6, "b": [0.5] * 6}, items=10)
    rows["score"] = (
        rows["step"].map({680: 0.1, 690: 0.2, 700: 0.3}).where(rows["dataset"] == "a", 0.5)
    )
    assert dict(curves.noise_floors(rows)) == pytest.approx({"a": 0.1, "b": 0})
    pair = curves.noise_floors(rows[rows["step"] != 690])
    assert dict(pair) == pytest.approx(dict.fromkeys("ab", np.sqrt((0.2**2 / 2 + 0) / 2)))


def test_rank_correlation_has_an_interval_from_five_checkpoints_on():
    line = pd.DataFrame(
        {"tokens": [1, 2, 4, 8, 16, 32, 64, 128], "score": [0.2, 0.1, 0.3, 0.4, 0.6, 0.5, 0.7, 0.8]}
    )
    found = curves.rank_correlation(line)
    assert found.value == pytest.approx(1 - 6 * 4 / (8 * 63))
    # tanh(arctanh(.9524) - 1.96 sqrt((1 + .9524^2 / 2) / 5))
    assert found.low == pytest.approx(0.664, abs=1e-3)
    assert np.isnan(curves.rank_correlation(line[:4]).low)
    assert np.isnan(curves.rank_correlation(line.assign(score=1)).value)


def test_holm_asks_more_of_every_claim_of_a_family():
    strong, weak, none = (
        claims.judge(name, statistics.estimate(value, [(0.0004, 1000)], 9), False, "")
        for name, value in (("a", 0.2), ("b", 0.092), ("c", 0.05))
    )
    assert [v.verdict for v in (strong, weak, none)] == ["supported", "supported", "undecided"]
    assert [v.verdict for v in claims.holm([weak, none, strong])] == [
        "undecided",
        "undecided",
        "supported",
    ]
    assert [v.verdict for v in claims.holm([weak])] == ["supported"]
    # no verdict contradicts what is printed
    widened = claims.holm([weak, none, strong])[0]
    assert widened.effect.low > 0.05 > widened.interval[0]
    assert f"widened for the claims of the page {widened.interval[0]:+.2f}" in claims.told(widened)
    assert not strong.widened and not claims.holm([weak])[0].widened
    unasked = claims.judge("d", None, True, "why")
    assert claims.holm([weak, unasked])[0].verdict == "supported"  # what is not asked is no test


def test_of_several_runs_each_counts_once_whatever_its_seeds():
    one, two, three = (
        records({"a": (0.3, 0.3, 0.5, *[level] * 3)}, seed=seed)
        for seed, level in enumerate((0.7, 0.8, 0.9))
    )
    seeds = pd.concat(
        [
            one.assign(run=0),
            one.assign(run=0, draw=1),
            two.assign(run=1),
            two.assign(run=1, draw=1),
            three.assign(run=2),
        ],
        ignore_index=True,
    )
    found = gain(seeds)
    assert found.seeds == 3 and found.value == pytest.approx(
        np.mean([gain(part).value for part in (one, two, three)])
    )
    # runs that differ leave more doubt than items of one
    assert found.high - found.low > gain(one).high - gain(one).low
