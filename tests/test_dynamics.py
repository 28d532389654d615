"""Finding 7 on models that are made up: what it says of likeness that is there, and that it says
nothing of likeness that is not.
"""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy

from conftest import plan_of
from pretune import measures, records
from pretune.analysis import dynamics, several
from pretune.analysis.claims import judge
from pretune.analysis.results import Results, marked
from pretune.analysis.statistics import jackknife
from pretune.findings import capability_dynamics as finding
from pretune.plan.cells import Plan
from pretune.study.load import load_study

SETS = ["xsum", "xlsum", "mnli", "rte", "gpt3_nli", "paws", "qqp", "arc_easy", "sciq", "hellaswag"]
MODELS = list(product(("small", "medium", "large"), range(3)))
STEPS = [2**k for k in range(10)]


def page_of(table=None, came=None, early=None):
    """A page of such scores: of untuned models, of tuned ones, and of an early predictor."""
    items = pd.DataFrame({"dataset": SETS, "item": 0})
    return SimpleNamespace(
        table=table, came=came, early=early, base=items, distinct=list, tokens={1: 1, 4: 4, 16: 16}
    )


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr(several, "levels", lambda page: page.table)
    monkeypatch.setattr(several, "final", lambda page: page.came)
    known = lambda page: {"base score": lambda name, step: page.early[name]}  # noqa: E731
    monkeypatch.setattr(several, "predictors", known)


def levels(draw, shared=0.0, speed=None, shift=None, noise=0.02):
    """Scores that follow the loss, each with a walk of its own and, of a `shared` share of its
    variance, one with its domain; a size may be faster, or better at equal loss.
    """
    tables = []
    for size, run in MODELS:
        done = np.linspace(0, 1, len(STEPS)) * (speed or {}).get(size, 1.0)
        loss = 2 - 1.5 * done
        walks = {name: draw.normal(0, noise, len(STEPS)).cumsum() for name in SETS}
        ours = {finding.domain(name): draw.normal(0, noise, len(STEPS)).cumsum() for name in SETS}
        scores = {
            name: 0.8 - 0.3 * loss + (shift or {}).get(size, 0.0)
            + np.sqrt(1 - shared) * walks[name] + np.sqrt(shared) * ours[finding.domain(name)]
            for name in SETS
        }  # fmt: skip
        index = pd.MultiIndex.from_tuples(
            [(size, run, step, step) for step in STEPS], names=["model", "run", "step", "tokens"]
        )
        tables.append(pd.DataFrame(scores | {"loss": loss}, index))
    return pd.concat(tables)


def word(effect, claim):
    return judge(claim, effect, False, "", finding.CLAIMS[claim]).verdict


def test_what_moves_together_within_domains_is_found_beyond_the_loss(made_up):
    draw = np.random.default_rng(0)
    together = finding.together(page_of(levels(draw, shared=0.8)))
    assert together.value == pytest.approx(0.8, abs=0.15) and word(together, "7a") == "supported"
    table = levels(draw)
    lines = [part for _, part in table.groupby(level=["model", "run"])]
    rise = dynamics.correlations(part[SETS] for part in lines)
    assert rise.to_numpy().mean() > 0.9  # levels correlate all the same
    assert abs(finding.together(page_of(table)).value) < 0.1


def test_nothing_in_common_is_rarely_called_something(made_up):
    """7a in at most 5 % of trials, and dealing domains at random says as much."""
    draw = np.random.default_rng(1)
    pages = [page_of(levels(draw)) for _ in range(60)]
    assert sum(word(finding.together(page), "7a") == "supported" for page in pages) <= 3
    shares = [finding.permuted(page)[1] for page in pages[:20]]
    assert 0.25 < np.mean(shares) < 0.75
    assert finding.permuted(page_of(levels(draw, shared=0.8)))[1] < 0.01


def test_sizes_are_compared_at_equal_loss(made_up):
    draw, faster = np.random.default_rng(2), {"small": 0.5, "medium": 0.8}
    same = finding.alike(page_of(levels(draw, speed=faster, noise=0.003)))
    assert word(same, "7b") == "supported" and -0.03 < same.value < 0
    better = finding.alike(page_of(levels(draw, shift={"large": 0.3}, noise=0.003)))
    assert better.value == pytest.approx(-0.2, abs=0.02) and word(better, "7b") == "not supported"
    gaps = finding.apart(page_of(levels(draw, shift={"large": 0.3}, noise=0.003)))
    assert gaps.loc["small and medium"].max() < 0.05 < 0.25 < gaps.loc["small and large"].min()
    noisy = page_of(levels(draw))
    noise = finding.runs_apart(noisy)
    assert noise == pytest.approx(-finding.alike(noisy).value, rel=0.5)
    none = levels(draw, speed={"small": 0.0})  # whose loss no other size has ever but at the start
    assert not len(dynamics.shared_losses([none.loc["small"], none.loc["large"]]))


def models_of(values):
    index = pd.MultiIndex.from_tuples(MODELS, names=["model", "run"])
    return pd.Series(values, index)


def test_decision_accuracy_is_the_share_of_pairs_in_the_same_order():
    said, came = models_of([1, 2, 3, 4, 5, 6, 7, 8, 9]), models_of([2, 1, 3, 4, 5, 6, 7, 8, 9])
    assert dynamics.accuracy(said, came) == pytest.approx(35 / 36)
    assert dynamics.accuracy(said, -said) == 0 and dynamics.accuracy(said * 0, came) == 0.5
    tau = scipy.stats.kendalltau(said, came).statistic
    assert dynamics.accuracy(said, came) == pytest.approx((1 + tau) / 2)
    assert np.isnan(dynamics.accuracy(said.iloc[:1], came))


def test_an_early_score_that_says_nothing_is_rarely_said_to_predict(made_up):
    """7c in at most 5 % of trials; one that does predict is found."""
    draw, found = np.random.default_rng(3), {True: 0, False: 0}
    for trial, tells in product(range(60), (True, False)):
        came = {name: models_of(draw.normal(size=9)) for name in SETS[:6]}
        early = {
            name: (values if tells else 0) + models_of(draw.normal(0, 0.5, 9))
            for name, values in came.items()
        }
        page = page_of(levels(draw) if not trial else None, came, early)
        page.table = levels_of_models() if page.table is None else page.table
        found[tells] += word(finding.early_says(page), "7c") == "supported"
    assert found[False] <= 3 and found[True] >= 48


def levels_of_models():
    index = [(*model, 1, 1) for model in MODELS]
    names = ["model", "run", "step", "tokens"]
    return pd.DataFrame({"loss": 1.0}, pd.MultiIndex.from_tuples(index, names=names))


def test_leaving_one_out_covers():
    """Of the mean of three strata of three, whose own means differ."""
    draw, covered, sizes = np.random.default_rng(4), 0, ("small", "medium", "large")
    for _ in range(400):
        values = {model: 3 * sizes.index(model[0]) + draw.normal() for model in MODELS}

        def mean(kept, values=values):
            each = ([values[one] for one in kept if one[0] == size] for size in sizes)
            return np.mean(list(map(np.mean, each)))

        found = jackknife(mean, {key: key[0] for key in values}, 9)
        covered += found.low < 3 < found.high
    assert 0.93 <= covered / 400 <= 0.975
    assert np.isnan(jackknife(len, {"a": 1, "b": 2}, 2).low)  # of one unit nothing is known
    same = jackknife(lambda kept: 1.0, {key: key[0] for key in MODELS}, 9)
    assert same.value == 1 and np.isnan(same.low)  # nor of units that never disagree


def test_the_loss_is_extrapolated_by_a_power_law():
    tokens = np.array([1, 2, 4, 8, 64])
    lines = pd.DataFrame(
        {"loss": 3 * tokens**-0.2},
        pd.MultiIndex.from_arrays([tokens, tokens], names=["step", "tokens"]),
    )
    found = several.extrapolated({("small", 0): lines, ("large", 1): lines}, 4)
    assert found.tolist() == pytest.approx([3 * 64**-0.2] * 2)
    assert several.extrapolated({("small", 0): lines}, 1).empty  # one point is no line


@pytest.fixture
def page(smoke):
    """The rows of the smoke study, as if of two sizes with two runs each; tuned on MNLI, and on one
    of two sets that share their items.
    """
    recipes = "recipes={base: {}, mnli: {dataset: mnli}, sciq: {dataset: sciq}}"
    study = load_study("dynamics-quick", (recipes, f"probing.shots={smoke.probing.shots}"))
    plan = plan_of(smoke)
    rows = measures.scored(records.load(plan), "dataset")
    rows = rows[
        rows["dataset"].isin(study.probing.datasets) & rows["recipe"].isin(["base", "mnli"])
    ]
    some = rows[rows["dataset"] == "mnli"]
    shared = [some.assign(dataset=name) for name in ("sciq", "sciq_question")]
    models = [
        pd.concat([rows, *shared]).assign(model=model, run=run)
        for model, run in product(("small", "medium"), range(2))
    ]
    return Results(
        Plan(study, (), (), {}), "", "all", marked(study, pd.concat(models, ignore_index=True)), {}
    )


def test_tables_and_figures_take_rows_of_several_models(page, capsys):
    table = several.levels(page)
    assert table["loss"].between(0.1, 10).all()
    assert list(several.final(page)) == ["mnli"]
    early = finding.how_early(page)
    assert early.shape == (len(page.tokens) - (0 in page.tokens.values()), 4)
    assert early["base score"].eq(0.5).all()  # all models are one
    assert list(finding.to_take_home(page).index) == [page.title("mnli")]
    assert set(several.signal_and_noise(page)["signal"]) == {0}
    for show in (finding.at_a_glance, finding.show_map):
        show(page)
    for against in ("tokens", "loss"):
        finding.show_curves(page, against)
    assert [one.verdict for one in finding.verdicts(page)] == ["not asked"] * 3


def test_without_text_what_rests_on_its_loss_is_not_asked(page, monkeypatch):
    monkeypatch.setattr(finding, "LEAST", dict.fromkeys(finding.LEAST, 1))
    words = {one.claim: (one.verdict, one.why) for one in finding.verdicts(page)}
    assert words["7b"][0] != "not asked"
    without = page.otherwise(sets=["mnli", "rte"])
    words = {one.claim: (one.verdict, one.why) for one in finding.verdicts(without)}
    for claim in ("7a", "7b"):
        assert words[claim][0] == "not asked" and "a text whose loss" in words[claim][1]
