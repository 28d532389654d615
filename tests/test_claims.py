"""The estimand of every claim on a table made by hand, where the answer is known, and the
conditions for asking.

All items of a score agree, seeds and neighbouring checkpoints too, so an effect is exact and its
interval is narrow.
"""

import itertools
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest

from pretune.analysis import groups, results
from pretune.findings import (
    dataset_dichotomy,
    domain_forgetting,
    latent_benefits,
    task_format,
    task_transfer,
)
from pretune.plan.cells import Plan
from pretune.study.load import load_study
from pretune.tasks.registry import REGISTRY

STEPS = (10, 700, 800, 900, 1000)  # the last three are late, the last four make the last third
ITEMS, SEEDS = 100, 3
CHANGES = (
    f"checkpoints.steps={list(STEPS)}",
    "grid=null",
    "probing.datasets=[xsum, cnn_dailymail, social_i_qa, mnli, rte, gpt3_nli, paws, arc_easy, "
    "openbookqa, hellaswag, sciq, sciq_closed, fact_recall, held_out_text]",
    "recipes.lora_mnli={dataset: mnli, trainable: {peft_type: LORA}, learning_rate: 2.0e-3}",
)
NO_SKILL = {
    "xsum": 0.3,
    "cnn_dailymail": 0.3,
    "social_i_qa": 0.3,
    "mnli": 0.35,
    "rte": 0.5,
    "gpt3_nli": 0.35,
    "paws": 0.55,
    "held_out_text": np.nan,
}


def rows_of(
    dataset, recipe, levels, form="default", shots=None, gold=-1.0, said=lambda step, draw, item: 0
):
    """Rows of one score at each step. `levels` is one number or one a step; `gold` is the
    log-likelihood of the gold answer, two tokens long; `said` is the number of the label that is
    predicted. `shots` left out: none of a model on the set it was tuned on, else four.
    """
    if shots is None:
        shots = 0 if recipe.removeprefix("lora_") == dataset else 4
    levels = levels if isinstance(levels, (list, tuple)) else [levels] * len(STEPS)
    # without examples there is nothing to draw
    draws = 1 if recipe == "base" and not shots else SEEDS
    frame = pd.DataFrame(
        itertools.product(STEPS, range(draws), range(ITEMS)), columns=["step", "draw", "item"]
    )
    labels = [said(*line) for line in frame.itertuples(index=False)]
    return frame.assign(
        run=0,
        checkpoint="step-" + frame["step"].astype(str),
        tokens=frame["step"] * 1000,
        late=frame["step"] >= 800,
        recipe=recipe,
        seed=0 if recipe == "base" else frame["draw"],
        dataset=dataset,
        split="",
        format=form,
        shots_asked=shots,
        shots=shots,
        flag="",
        gold=frame["item"] % 2,
        prediction=labels,
        score=frame["step"].map(dict(zip(STEPS, levels, strict=True))),
        baseline=NO_SKILL.get(dataset, 0.25),
        log_likelihood=[[gold, gold]] * len(frame),
        choice_tokens=[[2, 2]] * len(frame),
    )


def page_of(tables, missing=MappingProxyType({}), changes=()):
    study = load_study("microworld", (*CHANGES, *changes))
    rows = results.marked(study, pd.concat(tables, ignore_index=True))
    return results.Results(Plan(study, (), (), {}), "", "all", rows, missing)


def judged(finding, *tables, changes=()):
    """Claim to verdict of a finding's module on these rows."""
    made = page_of(tables, changes=changes)
    return {verdict.claim: verdict for verdict in finding.verdicts(made)}


def flat(dataset, level, **more):
    return rows_of(dataset, "base", level, **more)


RISES = [0.25, 0.5, 0.75, 0.75, 0.75]


def test_1a_is_the_difference_of_mean_gains_where_what_shares_its_items_counts_once():
    less = [0.25, 0.3, 0.45, 0.45, 0.45]
    found = judged(
        dataset_dichotomy,
        flat("hellaswag", RISES),
        flat("arc_easy", RISES),
        flat("sciq", less),
        flat("sciq_closed", less),
        flat("mnli", 0.33),
        flat("paws", [0.5, 0.5, 0.52, 0.52, 0.52]),
        flat("openbookqa", [0.6, 0.7, 0.9, 0.9, 0.9]),
    )["1a"]  # learned before
    assert found.effect.value == pytest.approx((0.5 + 0.5 + 0.2) / 3 - (0 + 0.02) / 2)
    assert (
        found.verdict == "supported" and "3 learned, 2 not learned, 1 learned before" in found.why
    )
    alone = judged(
        dataset_dichotomy,
        flat("hellaswag", RISES),
        flat("sciq", less),
        flat("sciq_closed", less),
        flat("mnli", 0.33),
    )
    assert alone["1a"].verdict == "not asked"


def test_1b_is_the_share_of_one_answer_within_each_model():
    """At each late checkpoint and draw another label throughout: constant. Three of ten items
    with another answer: not.
    """
    changing = flat("mnli", 0.33, said=lambda step, draw, item: (step // 100 + draw) % 3)
    found = judged(dataset_dichotomy, changing, flat("hellaswag", RISES))["1b"]
    assert found.effect.value == 1 and found.verdict == "supported"
    mixed = flat("paws", 0.5, said=lambda step, draw, item: int(item % 10 >= 7))
    found = judged(dataset_dichotomy, changing, mixed, flat("hellaswag", RISES))["1b"]
    assert (
        found.effect.value == pytest.approx(0.7)
        and found.verdict == "not supported"
        and "on PAWS" in found.why
    )


def test_balanced_accuracy_is_over_gold_labels_minus_chance():
    table = flat("mnli", 0.0)
    table["score"], table["baseline"] = np.where(table["gold"] == 0, 0.9, 0.5), 0.7
    found = judged(dataset_dichotomy, table, flat("hellaswag", RISES))["1b"]
    assert "balanced accuracy minus chance +0.20" in found.why


@pytest.fixture
def tuned():
    """MNLI and PAWS flat and tuned, HellaSwag and ARC-Easy learned and tuned."""
    late = [0.4, 0.5, 0.7, 0.7, 0.7]
    return [
        flat("mnli", 0.33),
        rows_of("mnli", "mnli", late),
        flat("paws", [0.5, 0.5, 0.52, 0.52, 0.52]),
        rows_of("paws", "paws", [0.6, 0.6, 0.7, 0.7, 0.7]),
        flat("hellaswag", RISES),
        rows_of("hellaswag", "hellaswag", 0.8),
        flat("arc_easy", RISES),
        rows_of("arc_easy", "arc_easy", 0.7),
    ]


def test_2a_is_what_tuning_reveals_beyond_what_base_shows(tuned):
    found = judged(latent_benefits, *tuned)["2a"]
    assert (
        found.effect.value == pytest.approx((0.3 + (0.1 - 0.02)) / 2)
        and found.verdict == "supported"
    )
    # with examples before the question, which no tuning row has, it is another score
    shown = [rows_of("mnli", "mnli", 0.4, shots=4), rows_of("paws", "paws", 0.7, shots=4)]
    assert judged(latent_benefits, *tuned, *shown)["2a"].effect.value == found.effect.value
    asked = judged(latent_benefits, *tuned, *shown, changes=("protocol.own_sets=with shots",))["2a"]
    assert asked.effect.value == pytest.approx((0 - 0.02) / 2)
    # never better than no skill
    weak = [flat("mnli", 0.33), rows_of("mnli", "mnli", [0.1, 0.2, 0.36, 0.36, 0.36])]
    assert judged(latent_benefits, *weak, *tuned[2:])["2a"].effect.value == pytest.approx(0.08)


def test_2b_is_the_difference_of_changes_and_asked_of_equally_many_examples(tuned):
    found = judged(latent_benefits, *tuned)["2b"]
    assert (
        found.effect.value == pytest.approx((0.37 + 0.18) / 2 - (0.05 - 0.05) / 2)
        and found.verdict == "supported"
    )
    unlike = judged(latent_benefits, *tuned, changes=("recipes.arc_easy.examples=200",))["2b"]
    assert (
        unlike.verdict == "not asked"
        and "ARC-Easy (microworld) 200" in unlike.why
        and "HellaSwag (microworld) 800" in unlike.why
    )


def test_2c_is_the_slope_per_doubling_of_tokens_over_the_last_third():
    levels = [0.2, *(0.4 + 0.2 * np.log2(step / 700) for step in STEPS[1:])]
    found = judged(
        latent_benefits,
        flat("mnli", 0.33),
        rows_of("mnli", "mnli", levels),
        flat("hellaswag", RISES),
    )["2c"]
    assert found.effect.value == pytest.approx(0.2)


def formats(base, tuned, first=None):
    """MNLI in three formats, untuned and tuned; `first` are the tuned scores at the first
    checkpoint.
    """
    first = first or tuned
    both = [(form, "base", [one] * 5) for form, one in base.items()]
    both += [(form, "mnli", [first[form], *[one] * 4]) for form, one in tuned.items()]
    return [rows_of("mnli", recipe, levels, form) for form, recipe, levels in both]


def test_3a_is_the_gap_that_tuning_adds_by_format():
    base, tuned = (
        {"default": 0.4, "instruct": 0.4, "io": 0.35},
        {"default": 0.8, "instruct": 0.77, "io": 0.5},
    )
    found = judged(task_format, *formats(base, tuned))
    assert (
        found["3a (instruct)"].effect.value == pytest.approx(0.03)
        and found["3a (instruct)"].verdict != "supported"
    )
    assert (
        found["3a (io)"].effect.value == pytest.approx(0.3 - 0.05)
        and found["3a (io)"].verdict == "supported"
    )


def test_3b_is_the_first_gap_minus_the_last():
    base, late = (
        {"default": 0.4, "instruct": 0.4, "io": 0.4},
        {"default": 0.8, "instruct": 0.8, "io": 0.7},
    )
    found = judged(task_format, *formats(base, late, {"default": 0.7, "instruct": 0.5, "io": 0.55}))
    assert found["3b (instruct)"].effect.value == pytest.approx(0.2) and found[
        "3b (io)"
    ].effect.value == pytest.approx(0.05)
    # not with its interval
    barely = judged(
        task_format, *formats(base, late, {"default": 0.41, "instruct": 0.0, "io": 0.0})
    )
    assert (
        barely["3b (instruct)"].effect.value == pytest.approx(0)
        and "from step 700" in barely["3b (instruct)"].why
    )
    never = judged(task_format, *formats(base, dict.fromkeys(late, 0.36)))
    assert never["3b (io)"].verdict == "not asked"


def test_3b_takes_the_first_checkpoint_from_one_half_and_the_gap_from_the_other():
    """Half A beats no skill at the second checkpoint, half B at none before late; what half B
    says is what counts.
    """
    tables = formats(
        {"default": 0.3, "instruct": 0.3, "io": 0.3}, {"default": 0.8, "instruct": 0.8, "io": 0.8}
    )
    here, a = (tables[3]["step"] == 700), tables[3]["item"] % 2 == 1
    tables[3].loc[tables[3]["step"] == 10, "score"] = 0.2
    tables[3].loc[here & ~a, "score"] = 0.1
    found = judged(task_format, *tables)["3b (io)"]
    assert (
        found.effect.value == pytest.approx(0.1 - 0.8)
        and "from step 700" in found.why
        and found.effect.n == ITEMS // 2
    )
    assert groups.half(tables[3], "A")["item"].mod(2).eq(1).all()


TWO = ("recipes={base: {}, xsum: {dataset: xsum}, mnli: {dataset: mnli}}",)


def test_4a_is_the_lost_share_of_sums_of_what_there_is_to_lose():
    tables = [
        flat("xsum", 0.5),
        rows_of("xsum", "mnli", 0.3),
        flat("social_i_qa", 0.1),
        rows_of("social_i_qa", "mnli", 0.0),
        flat("mnli", 0.33),
    ]
    found = judged(task_transfer, *tables)["4a"]
    assert found.effect.value == pytest.approx(1 - 0.3 / 0.5) and found.verdict == "supported"
    assert "does not beat no skill by the margin: SocialIQa" in found.why
    nothing = judged(
        task_transfer, flat("xsum", 0.2), rows_of("xsum", "mnli", 0.0), flat("mnli", 0.33)
    )["4a"]
    assert nothing.verdict == "not asked" and "Nothing to lose" in nothing.why


def test_4b_is_the_change_of_what_there_is_to_lose_held_against_minus_the_margin():
    tables = [
        flat("xsum", 0.2),
        flat("mnli", 0.6),
        rows_of("mnli", "xsum", 0.58),
        flat("paws", 0.5),
        rows_of("paws", "xsum", 0.1),
    ]
    found = judged(task_transfer, *tables, changes=TWO)["4b"]
    assert found.effect.value == pytest.approx(-0.02) and found.verdict == "supported"
    less = judged(task_transfer, *tables[:2], rows_of("mnli", "xsum", 0.4), changes=TWO)["4b"]
    assert less.effect.value == pytest.approx(-0.2) and less.verdict == "not supported"


def test_4c_is_supported_where_the_skill_is_exactly_kept_and_asked_where_4a_is_supported():
    base = [flat("xsum", 0.5, gold=-2.0), flat("mnli", 0.33)]
    same = judged(task_transfer, *base, rows_of("xsum", "mnli", 0.2, gold=-2.0), changes=TWO)["4c"]
    assert same.effect.value == pytest.approx(0) and same.verdict == "supported"
    lost = judged(task_transfer, *base, rows_of("xsum", "mnli", 0.2, gold=-3.0), changes=TWO)["4c"]
    # nats per token, of two tokens
    assert lost.effect.value == pytest.approx(-0.5) and lost.verdict == "not supported"
    kept = judged(task_transfer, *base, rows_of("xsum", "mnli", 0.5, gold=-3.0), changes=TWO)
    assert (kept["4a"].verdict, kept["4c"].verdict) == ("no effect", "not asked")


def test_5a_is_the_loss_on_other_domains_that_there_is_to_lose():
    tables = [
        flat("mnli", 0.33),
        rows_of("mnli", "mnli", 0.7),
        flat("rte", 0.8),
        rows_of("rte", "mnli", 0.6),
        flat("gpt3_nli", 0.3),
        rows_of("gpt3_nli", "mnli", 0.0),
    ]
    found = judged(domain_forgetting, *tables)["5a (MNLI)"]
    assert found.effect.value == pytest.approx(0.2) and found.verdict == "supported"
    only = judged(domain_forgetting, *tables[:2], *tables[4:])["5a (MNLI)"]
    assert only.verdict == "not asked" and "Nothing to lose" in only.why
    gains = judged(domain_forgetting, *tables[:2], flat("rte", 0.7), rows_of("rte", "mnli", 0.9))[
        "5a (MNLI)"
    ]
    assert gains.effect.value == pytest.approx(-0.2) and gains.verdict == "opposite"


def test_5b_is_the_mean_loss_of_knowledge_and_of_text_apart_and_shared_items_count_once():
    names = {"hellaswag": 0.1, "sciq": 0.3, "sciq_closed": 0.3, "fact_recall": 0.0}
    tables = [flat("mnli", 0.33), rows_of("mnli", "mnli", 0.7), flat("held_out_text", 1.0, shots=0)]
    for name, loss in names.items():
        tables += [flat(name, 0.75), rows_of(name, "mnli", 0.75 - loss)]
    changes = ("recipes={base: {}, mnli: {dataset: mnli}}",)
    found = judged(
        domain_forgetting, *tables, rows_of("held_out_text", "mnli", 1.4, shots=0), changes=changes
    )
    assert (
        found["5b"].effect.value == pytest.approx((0.1 + 0.3 + 0.0) / 3)
        and found["5b"].verdict == "supported"
    )
    assert found["5b (text)"].effect.value == pytest.approx(0.4)
    assert REGISTRY["sciq"].folder == REGISTRY["sciq_closed"].folder


def test_5c_is_what_lora_keeps_where_the_interval_of_own_scores_lies_within_the_margin():
    tables = [
        flat("mnli", 0.33),
        rows_of("mnli", "mnli", 0.7),
        flat("hellaswag", 0.75),
        rows_of("hellaswag", "mnli", 0.5),
        rows_of("hellaswag", "lora_mnli", 0.7),
    ]
    found = judged(domain_forgetting, *tables, rows_of("mnli", "lora_mnli", 0.69))["5c"]
    assert found.effect.value == pytest.approx(0.2) and found.verdict == "supported"
    apart = judged(domain_forgetting, *tables, rows_of("mnli", "lora_mnli", 0.64))["5c"]
    assert apart.verdict == "not asked" and "within ±0.05" in apart.why


def test_a_seed_that_is_lacking_blanks_what_rests_on_it_and_nothing_else(tuned):
    """Three seeds, one model of which failed: its effect is blank, the other's stands, and no
    verdict rests on the rest.
    """
    lacking = [*tuned[:1], tuned[1][tuned[1]["seed"] != 1], *tuned[2:]]
    made = page_of(lacking, {"step-1000.mnli.1": "killed"})
    shown = latent_benefits.benefits(made, None)["difference in differences"]
    assert shown["MNLI (microworld)"] == "–" and shown["PAWS (microworld)"].startswith("+0.08")
    assert {verdict.verdict for verdict in latent_benefits.verdicts(made)} == {"not asked"}
    # also where nobody noted the failure
    assert judged(latent_benefits, *lacking)["2a"].verdict == "not asked"
