"""Findings on the rows of the smoke study: every claim is judged, also where several
pre-training runs are replicated.
"""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pretune import findings
from pretune.analysis import claims, groups, results, statistics, theme
from pretune.findings import (
    dataset_dichotomy,
    domain_forgetting,
    latent_benefits,
    task_format,
    task_transfer,
)
from pretune.report import answers, behaviour
from pretune.report.open import open_results


@pytest.fixture
def open_page(smoke, monkeypatch):
    return lambda finding: open_results(smoke.file, finding, "all")


def with_runs(page, count):
    """The page as if `count` pre-training runs had been measured: a tenth of the scores differ
    from run to run.
    """
    draw, frames = np.random.default_rng(0), []
    for run in range(count):
        moved = draw.random(len(page.rows)) < 0.1
        score = np.where(moved, 1 - page.rows["score"], page.rows["score"])
        frames.append(
            page.rows.assign(
                run=run, score=score, checkpoint=f"run{run}-" + page.rows["checkpoint"]
            )
        )
    return replace(page, rows=pd.concat(frames, ignore_index=True))


@pytest.mark.parametrize("finding", findings.names()[:5])
def test_every_claim_is_judged_over_runs(open_page, finding):
    page = with_runs(open_page(finding), 3)
    verdicts = findings.find(finding).verdicts(page)
    assert verdicts and all(verdict.verdict in claims.VERDICTS for verdict in verdicts)
    assert {verdict.effect.seeds for verdict in verdicts if verdict.effect} <= {3}
    assert all(verdict.why for verdict in verdicts if verdict.verdict == "not asked")


def test_tables_of_all_findings_take_several_runs(open_page):
    one = with_runs(open_page("01_dataset_dichotomy"), 2)
    assert (
        len(dataset_dichotomy.sorting(one))
        == len(dataset_dichotomy.first_look(one))
        == len(one.titles)
    )
    two = with_runs(open_page("02_latent_benefits"), 2)
    assert set(latent_benefits.benefits(two, None).index) == {
        two.title(name) for name in results.recipes(two).values()
    }
    assert not task_format.gaps(with_runs(open_page("03_task_format"), 2)).empty
    assert task_transfer.matrix(with_runs(open_page("04_task_transfer"), 2), ()).notna().all().all()
    assert not domain_forgetting.changes(with_runs(open_page("05_domain_forgetting"), 2)).empty


def test_datasets_are_named_in_the_order_of_the_study_whatever_order_they_come_in(open_page):
    page = open_page("01_dataset_dichotomy")
    names = list(page.titles)
    assert page.named(reversed(names)) == page.named(set(names)) == ", ".join(page.titles.values())
    assert page.named([]) == "no dataset"


def test_a_verdict_is_told_with_its_mark_its_adjusted_p_and_what_could_have_been_decided():
    found = statistics.estimate(0.3, [(0.0004, 1000)], 90, 2)
    verdicts = claims.holm([claims.judge("2a", found, True, "Because.")])
    said, unasked = (
        claims.told(verdict).replace("\N{NO-BREAK SPACE}", " ")
        for verdict in (*verdicts, claims.judge("2a", None, True, "Nothing to ask."))
    )
    assert said.startswith(
        "**Claim 2a: ▲ supported, provisional: fewer than three seeds or runs.** Effect +0.30 (95 "
        "% interval"
    )
    assert (
        "p below .001 after Holm's adjustment. An effect of +0.11 or more would be found "
        "supported in 80 %"
    ) in said
    assert unasked == "**Claim 2a: ○ not asked.** Nothing to ask."


def test_marks_and_colours_tell_every_verdict_and_group_apart():
    assert set(theme.MARKS) == set(claims.VERDICTS) and len(set(theme.MARKS.values())) == len(
        claims.VERDICTS
    )
    assert set(claims.VERDICTS) | set(groups.GROUPS) <= set(theme.COLOURS)
    drawn = set(claims.VERDICTS) - {"not asked"}
    assert set(theme.MARKERS) == drawn and len(set(theme.MARKERS.values())) == len(drawn)


def with_seeds(page, count):
    """The page as if so many seeds had been run, with the same rows."""
    drawn = (page.rows["recipe"] != "base") | (page.rows["shots_asked"] > 0)
    more = [
        page.rows[drawn].assign(draw=seed, seed=seed * (page.rows["recipe"] != "base"))
        for seed in range(1, count)
    ]
    return replace(page, rows=pd.concat([page.rows, *more], ignore_index=True))


SHOWN = {
    "01_dataset_dichotomy": (
        dataset_dichotomy.at_a_glance,
        dataset_dichotomy.show_curves,
        dataset_dichotomy.first_look,
        dataset_dichotomy.constant_answers,
        dataset_dichotomy.show_gains,
        dataset_dichotomy.sorting,
        behaviour.show_label_shares,
    ),
    "02_latent_benefits": (
        latent_benefits.at_a_glance,
        latent_benefits.show_curves,
        lambda page: latent_benefits.benefits(page, page),
        latent_benefits.biggest,
        latent_benefits.end_of_run,
        lambda page: latent_benefits.parts_of_a_gain(page, page),
        lambda page: latent_benefits.procedures(page, page),
    ),
    "03_task_format": (
        task_format.show_formats,
        task_format.by_format,
        task_format.label_shares_other,
        task_format.gaps,
        task_format.at_a_glance,
    ),
    "04_task_transfer": (
        task_transfer.at_a_glance,
        task_transfer.show_matrix,
        task_transfer.over_checkpoints,
        task_transfer.outputs,
    ),
    "05_domain_forgetting": (
        domain_forgetting.at_a_glance,
        domain_forgetting.show_domains,
        domain_forgetting.changes,
        domain_forgetting.show_losses,
        domain_forgetting.show_plane,
    ),
}


@pytest.mark.parametrize("finding", SHOWN)
def test_a_page_on_three_seeds_of_which_one_failed_shows_all_the_rest_and_gives_no_verdict(
    open_page, finding
):
    page = with_seeds(open_page(finding), 3)
    lacking = (page.rows["recipe"] == "mnli") & (page.rows["seed"] == 1) & (page.rows["step"] == 38)
    page = replace(page, rows=page.rows[~lacking], missing={"step-38.mnli.1": "killed"})
    assert lacking.any()
    for show in SHOWN[finding]:
        show(page)
    assert {verdict.verdict for verdict in findings.find(finding).verdicts(page)} == {"not asked"}


def test_a_page_hands_over_its_scores_with_columns_that_are_explained(open_page):
    page = open_page("01_dataset_dichotomy")
    scores = page.frame()
    assert len(scores) == len(page.rows) and not scores["score"].isna().any()
    explained = re.findall(r"\w+", page.frame.__doc__)
    assert set(scores.columns) <= set(explained)
    means = scores[scores["recipe"] == "base"].groupby(["dataset", "step"])["score"].mean()
    assert means["mnli", 40] == page.of("mnli").query("step == 40")["score"].mean()


def test_another_margin_or_fewer_sets_is_another_page_that_says_so(open_page):
    page = open_page("05_domain_forgetting")
    other = page.otherwise(margin=1.0, sets=["mnli", "held_out_text"])
    assert page.explored == "" and page.otherwise().explored == ""
    assert other.explored.startswith("a margin of 1 in place of 0.05, without ARC-Easy (")
    assert set(other.titles) == {"mnli", "held_out_text"}
    [before, after] = (
        next(one for one in domain_forgetting.verdicts(some) if one.claim == "5b (text)")
        for some in (page, other)
    )
    assert after.margin == 1.0 and before.margin == 0.05
    assert (before.verdict, after.verdict) == ("undecided", "no effect")
    with pytest.raises(KeyError, match="not on this page: rotten; it has xsum, "):
        page.otherwise(sets=["rotten"])


def test_a_changed_margin_moves_claims_that_are_held_against_it_and_no_other():
    moved = {name: claim.at(0.1).margin for name, claim in task_transfer.CLAIMS.items()}
    assert moved == {"4a": 0.2, "4b": -0.1, "4c": -0.1}
    assert dataset_dichotomy.CLAIMS["1b"].at(0.1).margin == 0.9


def test_the_verdicts_stand_beside_those_by_another_rule(open_page):
    page = open_page("05_domain_forgetting")
    table = answers.compared(domain_forgetting, page, page.otherwise(margin=1.0))
    [line] = [name for name in table.index if name.startswith("5b (text)")]
    words = table.loc[line, [name for name in table.columns if name.startswith("verdict")]]
    blank = "\N{NO-BREAK SPACE}"
    assert list(words) == [f"◇{blank}undecided, provisional", f"■{blank}no effect, provisional"]
