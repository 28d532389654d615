"""What tuning does to the distribution: two models on the same tokens, against numbers that are
known and against the loop that a user would write.
"""

import copy
import json
import shutil
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from conftest import OUTPUTS, plan_of, run_pretune
from pretune import paths
from pretune.analysis import display, matching, shift
from pretune.analysis.claims import judge
from pretune.findings import distribution_shift
from pretune.models import comparing, prefix
from pretune.models.reading import ScoringFailed
from pretune.plan import costs, memory
from pretune.report.open import open_results
from pretune.study.load import load_study
from pretune.tasks.prompts import Request
from small_models import FAMILIES, small

V = 512


def requests(count=12, seed=0, shared=9, length=25):
    """Sequences that begin alike, of which the last tokens count."""
    draw = np.random.default_rng(seed)
    start, made = draw.integers(2, 500, shared), []
    for size in draw.integers(shared + 4, length, count):
        ids = np.concatenate([start, draw.integers(2, 500, size - shared)]).astype(np.int32)
        made.append(Request(ids, int(draw.integers(shared + 1, size))))
    return made


def moved(model, by=0.3, seed=1):
    """The model with other weights, as tuning would leave it."""
    other, draw = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight += by * weight.std() * torch.randn(weight.shape, generator=draw)
    return other


def alone(tuned, base, made):
    """What is found of requests, each an item of its own."""
    return [table for [table] in comparing.compared(tuned, base, [[one] for one in made])]


def plain(tuned, base, request):
    """The same by two forward passes of one sequence and scipy, in float64."""
    ids = torch.from_numpy(request.ids.astype(np.int64))[None]
    with torch.inference_mode():
        logits = [model(ids).logits[0, request.start - 1 : -1].double() for model in (tuned, base)]
    p, q = (one.softmax(-1).numpy() for one in logits)
    tokens, places = request.ids[request.start :], np.arange(len(p))
    ranks = [(one > one[places, tokens][:, None]).sum(1) + 1 for one in (p, q)]
    return {
        "tuned_log_probability": np.log(p[places, tokens]),
        "base_log_probability": np.log(q[places, tokens]),
        "tuned_rank": ranks[0],
        "base_rank": ranks[1],
        "kl_tuned_base": scipy.stats.entropy(p, q, axis=1),
        "kl_base_tuned": scipy.stats.entropy(q, p, axis=1),
        "tuned_entropy": scipy.stats.entropy(p, axis=1),
        "base_entropy": scipy.stats.entropy(q, axis=1),
        "base_choice": q.argmax(1),
    }


@pytest.mark.parametrize("family", ["olmo", *FAMILIES])
def test_distances_are_those_of_two_forward_passes(family):
    """Weights are widened, so that float32 leaves 1e-4 nats, by which two tokens may change
    places.
    """
    base = small(family)
    tuned, made = moved(base), requests()
    pairs = [[one, Request(np.append(one.ids[: one.start], 7), one.start)] for one in made]
    for some, tables in zip(pairs, comparing.compared(tuned, base, pairs, 200), strict=True):
        for one, table in zip(some, tables, strict=True):
            known = plain(tuned, base, one)
            for name, values in zip(comparing.NUMBERS, table, strict=True):
                near = 1 if name.endswith("rank") else 1e-4
                assert values == pytest.approx(known[name], abs=near), name
    assert base.config._attn_implementation != prefix.NAME


def test_a_model_is_not_apart_from_itself():
    model = small("olmo")
    for table in alone(model, copy.deepcopy(model), requests()):
        found = dict(zip(comparing.NUMBERS, table, strict=True))
        assert np.abs(found["kl_tuned_base"]).max() < 1e-6
        assert np.array_equal(found["base_rank"], found["tuned_rank"])
    assert comparing.weight_change(model, copy.deepcopy(model)) == 0


def test_a_distance_that_is_known_is_found(monkeypatch):
    """Of a model that finds all tokens alike, from one that finds two of them a hundred times as
    likely as each other one; logits a few positions at a time.
    """
    base = small("olmo")
    tuned, likely = copy.deepcopy(base), [7, 11]
    with torch.no_grad():
        base.lm_head.weight.zero_()
    logits = torch.zeros(V)
    logits[likely] = np.log(100.0)
    monkeypatch.setattr(tuned.lm_head, "forward", lambda hidden: logits.expand(len(hidden), V))
    monkeypatch.setattr(comparing, "HEAD_ENTRIES", {"cpu": 3 * V * comparing.ENTRIES})
    share, rest = 100 / (200 + V - 2), 1 / (200 + V - 2)
    entropy = -2 * share * np.log(share) - (V - 2) * rest * np.log(rest)
    back = -np.log(V) - (2 * np.log(share) + (V - 2) * np.log(rest)) / V
    for table in alone(tuned, base, requests()):
        found = dict(zip(comparing.NUMBERS, table, strict=True))
        assert found["kl_tuned_base"] == pytest.approx(np.log(V) - entropy, abs=1e-5)
        assert found["kl_base_tuned"] == pytest.approx(back, abs=1e-5)
        assert found["base_entropy"] == pytest.approx(np.log(V), abs=1e-5)
        assert set(found["base_rank"]) == {1} and set(found["tuned_rank"]) <= {1, 3}


def test_the_likeliest_tokens_alone_are_not_the_distance():
    """AlignTDS takes the likeliest fifty of each, made to sum to one, and those that both have: the
    rank is the same where it is among them, and the distance is another, and may be negative.
    """
    base = small("olmo", vocab_size=V)
    tuned, made = moved(base), requests(40)
    found, cut = [], []
    for one, table in zip(made, alone(tuned, base, made), strict=True):
        named = dict(zip(comparing.NUMBERS, table, strict=True))
        ids = torch.from_numpy(one.ids.astype(np.int64))[None]
        with torch.inference_mode():
            logits = [model(ids).logits[0, one.start - 1 : -1] for model in (tuned, base)]
        for place, token in enumerate(one.ids[one.start :].tolist()):
            tops = [table[place].softmax(-1).topk(50) for table in logits]
            lists = [(top.values / top.values.sum(), top.indices.tolist()) for top in tops]
            if token in lists[1][1]:
                assert named["base_rank"][place] == lists[1][1].index(token) + 1
            shared = [(lists[0][1].index(t), lists[1][1].index(t)) for t in lists[0][1]
                      if t in lists[1][1]]  # fmt: skip
            p, q = (lists[k][0][[pair[k] for pair in shared]] for k in (0, 1))
            cut.append(float((p * (p / q).log()).sum()))
            found.append(named["kl_tuned_base"][place])
    found, cut = np.array(found), np.array(cut)
    assert found.min() >= -1e-6 and cut.min() < -0.01
    assert np.mean(np.abs(found - cut) > 0.1 * found) > 0.5


def test_models_of_two_vocabularies_are_refused():
    with pytest.raises(ScoringFailed, match="520 tokens and its base one of 512"):
        alone(small("olmo", vocab_size=520), small("olmo"), requests())


def test_the_change_of_weights_is_its_norm_over_theirs():
    base = small("olmo")
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        for weight in tuned.parameters():
            weight *= 1.25
    assert comparing.weight_change(tuned, base) == pytest.approx(0.25, abs=1e-6)


FITS = pd.Series({"a1": 3.0, "a2": 2.0, "a3": 1.0, "a4": 1.5, "b1": 2.5, "b2": 1.5, "b3": 4.0})


def test_methods_are_compared_where_both_fit_equally_well():
    """The worse of the two best fits; what fits worse at a higher rate is not on the way."""
    found = matching.matched(FITS, ["a1", "a2", "a3", "a4"], ["b1", "b2", "b3"])
    assert found.loss == 1.5 and found.other == {"b2": 1.0}
    assert found.one == pytest.approx({"a2": 0.5, "a3": 0.5})
    assert matching.matched(FITS, ["a3", "a4"], ["b1", "b2"]) is None  # never as badly as 1.5


def test_at_equal_loss_methods_of_one_law_are_not_apart():
    """Distance follows the loss alone; at its rate one method is farther, since it is trained
    longer.
    """
    losses = {f"full{k}": 3 - 0.5 * k for k in range(5)} | {
        f"lora{k}": 3.1 - 0.3 * k for k in range(5)
    }
    moved = {name: 4 - loss for name, loss in losses.items()}
    full, lora = ([name for name in losses if name.startswith(how)] for how in ("full", "lora"))
    found = matching.matched(pd.Series(losses), full, lora)
    one, other = (sum(moved[name] * share for name, share in some.items()) for some in found[1:])
    assert one == pytest.approx(other) and moved["full4"] - moved["lora4"] > 0.5


def tuned(draw, monkeypatch, gap=0.0, overrides=(), runs=5):
    """A page of made-up models of the study `shift`: by one law of the tuning loss, from which
    adapters are `gap` below; each run has losses, items and a distance of its own. Its answers.
    """
    study = load_study("shift", (f"checkpoints.runs={list(range(runs))}", *overrides))
    losses, rows, seeds = {}, [], range(study.tuning.seeds)
    singles = [name for name, how in study.recipes.items() if how.dataset in ("xsum", "mnli")]
    items = {name: draw.normal(0, 0.3, 40) for name in ("xsum", "mnli")}
    for run, recipe in product(range(runs), singles):
        own, is_full = study.recipe(recipe).dataset, study.recipe(recipe).trainable is None
        for place, name in enumerate(study.along(recipe, "learning_rate").values()):
            loss = (3.0 - 0.3 * place if is_full else 2.8 - 0.25 * place) + draw.normal(0, 0.03)
            moved = 4 - loss - gap * (not is_full) + draw.normal(0, 0.05)
            for seed in seeds if name in study.recipes else seeds[:1]:
                unit = run * study.tuning.seeds + seed
                losses[name, 800, run, unit] = loss + draw.normal(0, 0.1, 25)
                about = {"recipe": name, "dataset": own, "step": 800, "run": run, "seed": unit}
                scores = moved + items[own] + draw.normal(0, 0.1, 40)
                rows += [
                    about | {"draw": unit, "item": item, "moved": score}
                    for item, score in enumerate(scores)
                ]
    index = pd.MultiIndex.from_tuples(list(losses), names=matching.MODEL)
    made = pd.Series(list(losses.values()), index, dtype=object)
    monkeypatch.setattr(matching, "losses", lambda page: made)
    return SimpleNamespace(study=study, without=(), missing={}), pd.DataFrame(rows)


def compared(page, rows):
    some = [both for (own, _), both in shift.pairs(page).items() if own in set(rows["dataset"])]
    return matching.at_equal_loss(page, rows, "moved", some)


def test_adapters_are_said_to_be_gentler_only_where_they_are(monkeypatch):
    """At each method's rate they differ throughout, by how much they were tuned."""
    draw, claim = np.random.default_rng(2), distribution_shift.CLAIMS["8b"]

    def said(gap):
        found = compared(*tuned(draw, monkeypatch, gap))
        return judge("8b", found, False, "", claim).verdict, found

    without = [said(0.0) for _ in range(40)]
    assert [word for word, _ in without].count("supported") <= 2
    assert np.mean([found.low < 0 < found.high for _, found in without]) > 0.85
    assert [said(0.3)[0] for _ in range(10)].count("supported") >= 9


def test_a_single_run_is_compared_with_the_doubt_of_its_last_steps(monkeypatch):
    """Of a recipe that has more seeds than its variants, the one that these have."""
    draw = np.random.default_rng(3)
    page, rows = tuned(draw, monkeypatch, 0.3, ("tuning.seeds=3",), runs=1)
    found = compared(page, rows)
    assert found.low < 0.3 < found.high and found.seeds == 1
    known = compared(page, rows.assign(moved=1.0))
    assert known.value == pytest.approx(0) and known.high - known.low < found.high - found.low


def test_what_lacks_a_model_or_a_set_is_not_compared(monkeypatch):
    page, rows = tuned(np.random.default_rng(4), monkeypatch)
    made = matching.losses(page)
    page.without = ("mnli",)
    assert {own for own, _ in shift.pairs(page)} == {"xsum", "tulu_v2"}
    lost = made.drop("lora8_xsum@0.016", level="recipe")
    monkeypatch.setattr(matching, "losses", lambda page: lost)
    assert matching.at_equal_loss(page, rows, "moved", [("xsum", "lora8_xsum")]) is None
    assert matching.at_equal_loss(page, rows, "moved", [("xsum", "lora2_xsum")]) is not None


def points(draw, recipes=10, noise=0.02, law=True):
    lines = []
    for number in range(recipes):
        for moved in np.exp(draw.uniform(-4, 1, 12)):
            lost = 0.1 + 0.05 * moved + 0.01 * moved**2
            lines.append({"whole": f"r{number}", "moved": moved, "forgot": lost * law})
    table = pd.DataFrame(lines)
    own = {name: draw.normal(0, 0 if law else 0.1) for name in table["whole"].unique()}
    return table.assign(
        forgot=table["forgot"] + table["whole"].map(own) + draw.normal(0, noise, len(table))
    )


def test_a_law_that_holds_for_all_recipes_is_found_and_no_other():
    draw = np.random.default_rng(0)
    assert shift.predicted(points(draw, noise=0.005), "moved") > 0.9
    without = [shift.predicted(points(draw, law=False), "moved") for _ in range(20)]
    assert np.max(without) < 0.3 and np.mean(without) < 0


def test_words_are_of_the_prompt_before_they_are_of_tuning_rows():
    pieces = [" In", " To", "wa", ",", " bread", " x", ""]
    found = shift.kinds(pieces, "Who lives in Towa?", frozenset({"bread", "towa"}))
    prompt, rows, neither, none = shift.KINDS
    assert found == [prompt, prompt, prompt, none, rows, neither, none]


def test_copied_words_stand_in_tuning_rows_and_nowhere_else(monkeypatch):
    rows = pd.DataFrame({
        "format": ["chat", "chat", "default"], "own": [4, 1, 1], "recipe": "instruct", "seed": 0,
        "pieces": [["The", " red", " cat", "\n", "A", " red", " dog"], ["\n", "A"], ["red", "A"]],
    })  # fmt: skip
    monkeypatch.setattr(shift, "answers", lambda page: rows)
    monkeypatch.setattr(shift, "prompts", lambda study, some: ["Say the word."] * len(some))
    monkeypatch.setattr(shift, "tuning_words", lambda *given: frozenset({"cat", "the", "red"}))
    found = shift._copied(SimpleNamespace(study=None))
    assert found["copied"].tolist() == [pytest.approx(1 / 3), 0.0]


def test_answers_are_shown_escaped_and_in_their_classes(capsys):
    pieces = (["<b>", " \n", ""], ["</script>", "x", "y"], ["shifted", "marginal", "unshifted"])
    with mock.patch.object(display, "display") as shown:
        display.coloured([("A & B", [pieces])], distribution_shift.CLASSES)
    html = shown.call_args[0][0].data
    assert "<b>" not in html and "</script>" not in html and "&lt;b&gt;" in html and "↵" in html
    assert html.count("<rt") == 2 and "[end]" in html and "A &amp; B" in html


@pytest.fixture(scope="module")
def page(smoke, tmp_path_factory):
    """Of the smoke study, which has no grid of rates."""
    outputs = tmp_path_factory.mktemp("shift")
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    words = ("--set", "findings=[08_distribution_shift]")
    done = run_pretune("run", "smoke", *words, outputs=outputs)
    assert done.returncode == 0, done.stderr
    with mock.patch.object(paths, "OUTPUTS", outputs):
        study = str(outputs / "smoke" / "smoke.yaml")
        found = open_results(study, "08_distribution_shift", "all")
        shift.answers(found)
    return found, outputs


def test_a_study_that_names_it_measures_how_far_tuning_moved_its_models(page, monkeypatch):
    found, outputs = page
    monkeypatch.setattr(paths, "OUTPUTS", outputs)
    rows = shift.answers(found)
    assert set(rows["recipe"]) == {"xsum", "mnli", "instruct", "lora_mnli"}
    assert shift.answers(found) is rows  # made once for a page
    chats = rows[rows["recipe"] == "instruct"]
    assert set(chats["format"]) == {"chat"} and set(chats["dataset"]) == {"xsum", "cnn_dailymail"}
    for row in rows.itertuples():
        assert len(row.pieces) == len(row.base_rank) > row.own > 0
        assert max(row.tuned_rank[: row.own]) == 1  # by greedy generation
        assert (
            row.on_gold == pytest.approx(np.mean(row.kl_base_tuned[row.own :])) and row.on_gold > 0
        )
    told = distribution_shift.shares(found)
    assert (told["on right answers"] > 0).all() and (told["on text"] > 0).all()
    text = found.measured("divergence").query("own == 0")
    assert set(text["dataset"]) == {"held_out_text"} and (rows["moved"] > 0).all()
    told = json.loads((outputs / "smoke" / "findings.json").read_text())
    assert "8a" in json.dumps(told)
    html = (outputs / "smoke" / "site" / "08_distribution_shift.html").read_text()
    assert "which methods could be compared" in html
    fewer = found.otherwise(sets=["mnli", "arc_easy"])
    assert set(shift.by_set(fewer)) == {"mnli"} and "xsum" not in set(
        shift.answers(fewer)["dataset"]
    )
    assert distribution_shift.copying(fewer).empty and len(distribution_shift.by_kind(fewer))
    partial = replace(found, missing={"step-40.mnli.0": "failed"})
    assert {one.verdict for one in distribution_shift.verdicts(partial)} == {"not asked"}
    lost = rows[rows["recipe"] != "lora_mnli"]  # its tuning failed
    monkeypatch.setattr(shift, "answers", lambda page: lost)
    distribution_shift.show_answers(found)
    distribution_shift.show_positions(found)


def test_a_plan_counts_the_model_that_is_held_beside():
    """And the answers that are written: what the same probes would take without the measure."""
    plan = plan_of(load_study("shift-quick"))
    [cell] = [one for one in plan.cells if one.model.name == "step-500.xsum.0"]
    own = tuple(one for one in cell.probes if not one.measure)
    without = plan.of()
    without = replace(without, cells=tuple(replace(one, probes=own) for one in plan.cells))
    beside = memory._scoring(plan, "", None) - memory._scoring(without, "", None)
    assert beside == 4 * costs.parameters(plan)
    some, rest = (costs.cell_cost(plan, one) for one in (cell, replace(cell, probes=own)))
    assert some.scored_tokens > 1.5 * rest.scored_tokens


def test_of_a_study_that_does_not_name_it_nothing_of_it_is_measured():
    assert "08_distribution_shift" not in plan_of(load_study("microworld")).study.findings


def judged_8c(monkeypatch, table):
    """The verdict of 8c on such models."""
    index = pd.MultiIndex.from_arrays(
        [
            [f"{one}@{k}" for k, one in enumerate(table["whole"])],
            [1] * len(table),
            [0] * len(table),
        ],
        names=["recipe", "step", "run"],
    )
    more = {"weights": table["moved"], "loss": table["moved"], "own": table["whole"]}
    table = table.assign(**more).set_index(index)
    monkeypatch.setattr(shift, "models", lambda page: table)
    effect, _ = distribution_shift._claim_8c(SimpleNamespace())
    return judge("8c", effect, False, "", distribution_shift.CLAIMS["8c"]).verdict


def test_how_far_a_model_moved_is_not_said_to_matter_where_it_does_not(monkeypatch):
    draw = np.random.default_rng(1)
    said = [judged_8c(monkeypatch, points(draw, law=False)) for _ in range(40)]
    assert said.count("supported") <= 2 and said.count("not supported") > 20
    with_law = [judged_8c(monkeypatch, points(draw, noise=0.005)) for _ in range(10)]
    assert with_law.count("supported") >= 9
