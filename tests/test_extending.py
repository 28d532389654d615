"""What is added as a file of its own, and nothing else changed: a finding, a measure, a kind of
recipe.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import OUTPUTS, ROOT, run_pretune
from pretune import cli, paths
from pretune.findings import find, names
from pretune.plan import cells
from pretune.records import store
from pretune.report import behaviour, material
from pretune.report.open import open_results

TOY = '''
"""A toy: does tuning on MNLI change MNLI?"""

from pretune.analysis import contrasts
from pretune.analysis.claims import Claim, judged
from pretune.analysis.scores import Term
from pretune.plan.needs import Need

CLAIMS = {"99a": Claim("Tuning on a toy helps the toy", "tuned - base at late")}


def needs(study, recipe):
    return [Need("mnli", study.probing.shots)] if recipe in ("base", "mnli") else []


def verdicts(results):
    terms = [Term(1, "mnli", "mnli", shots=2), Term(-1, "mnli", shots=2)]
    return judged(results, CLAIMS, {"99a": (contrasts.effect(results.scores, terms), "A toy.")})


def checkpoint_answer(results):
    return f"{len(results.rows)} toys at {results.checkpoint}."
'''
MEASURE = '''
"""A toy: how far logits are from those of the untuned model."""

import pandas as pd
import pyarrow as pa

from pretune.measures.base import Measure, Measured


class Toy(Measure):
    name = "toy"
    columns = {"apart": pa.float64()}

    def rows(self, subject, asked):
        import torch

        for item in asked.examples:
            ids = torch.tensor(subject.tokenizer(item.prompt)["input_ids"])[None]
            with torch.inference_mode():
                ours, theirs = (one(ids).logits for one in (subject.network, subject.base()))
            yield Measured({"apart": (ours - theirs).abs().max().item()}, None, ids.numel())

    def score(self, rows, normalisation):
        return pd.DataFrame({"score": rows["apart"].to_numpy()})


MEASURE = Toy()
'''
KIND = '''
"""A toy: what a dataset teaches is made unlikely, down to a floor."""

from typing import Literal

import torch

from pretune.recipes.sft import Sft


class Unlearn(Sft):
    method: Literal["unlearn"] = "unlearn"
    floor: float = -20.0
    passes = 4.0

    def loss(self, likelihood):
        return torch.nn.functional.softplus(likelihood - self.floor)


KIND = Unlearn
'''
KEYS = """
import sys

from pretune.plan import costs
from pretune.report.open import open_plan
from pretune.study.load import load_study

for own in sys.argv[1:]:
    plan = open_plan(load_study("smoke", (own,)))
    (cell,) = (one for one in plan.cells if one.model.name == "step-40.unlearn.0")
    print(cell.model.key, costs.cell_cost(plan, cell).flops)
"""
PAGE = """
# %% [markdown]
# # 99. Toy: does tuning on MNLI change MNLI?

# %% tags=["parameters"]
study = "quick"
checkpoint = "all"

# %%
from pretune.findings import toy
from pretune.report import answers
from pretune.report.open import open_results

page = open_results(study, "99_toy", checkpoint)
answers.answer(page, toy)
"""


@pytest.fixture
def house(tmp_path):
    """A copy of the code, and a runner of what stands in it."""
    for part in ("lib", "notebooks", "params"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, ignore=ignored)
    return tmp_path


def test_a_finding_is_a_module_and_a_notebook(smoke, house):
    """It is found by its name, planned, measured, executed by papermill, judged, and stands in
    the overview.
    """
    (house / "lib" / "pretune" / "findings" / "toy.py").write_text(TOY.lstrip())
    (house / "notebooks" / "99_toy.py").write_text(PAGE.lstrip())
    shutil.copytree(OUTPUTS / "cache", house / "outputs" / "cache")
    shutil.copytree(OUTPUTS / "smoke" / "records", house / "outputs" / "smoke" / "records")
    environment = os.environ | {"PYTHONPATH": str(house / "lib")}
    paired = run_pretune(module="pretune.report.pairing", environment=environment)
    assert paired.returncode == 0, paired.stderr
    words = ("run", "smoke", "--set", "findings=[99_toy]")
    done = run_pretune(*words, outputs=house / "outputs", environment=environment)
    assert done.returncode == 0, done.stderr
    kept = json.loads((house / "outputs" / "smoke" / "findings.json").read_text())
    assert [(line["finding"], line["claim"]) for line in kept] == [("99_toy", "99a")]
    assert kept[0]["effect"] is not None and kept[0]["verdict"] != "not asked"
    site = house / "outputs" / "smoke" / "site"
    assert "Tuning on a toy helps the toy" in (site / "index.html").read_text()
    assert "24 toys at step-20." in (site / "99_toy.step-20.html").read_text()


def test_a_measure_is_a_module_with_a_table_of_its_own(smoke, house):
    """Records that exist stay as they are, and only what the new measure lacks is looked at; the
    untuned model is there beside the tuned one.
    """
    toy = TOY.replace("study.probing.shots)]", 'study.probing.shots, measure="toy")]')
    toy = toy.replace("results.scores, terms", 'Scores(results.measured("toy")), terms')
    toy = toy.replace("import Term", "import Scores, Term")
    (house / "lib" / "pretune" / "findings" / "toy.py").write_text(toy.lstrip())
    (house / "lib" / "pretune" / "measures" / "toy.py").write_text(MEASURE.lstrip())
    (house / "notebooks" / "99_toy.py").write_text(PAGE.lstrip())
    outputs, environment = house / "outputs", os.environ | {"PYTHONPATH": str(house / "lib")}
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    shutil.copytree(OUTPUTS / "smoke" / "records", outputs / "smoke" / "records")
    files = [one for one in (outputs / "smoke" / "records").rglob("*") if one.is_file()]
    before = {file: file.read_bytes() for file in files}
    run_pretune(module="pretune.report.pairing", environment=environment)
    words = ("run", "smoke", "--set", "findings=[99_toy]", "--only", "step-40", "--no-notebooks")
    done = run_pretune(*words, outputs=outputs, environment=environment)
    assert done.returncode == 0, done.stderr
    assert all(file.read_bytes() == content for file, content in before.items())
    made = {file.parents[1].name.split(".")[1]: file for file in outputs.rglob("toy.parquet")}
    assert set(made) == {"base", "mnli"}
    apart = {recipe: pd.read_parquet(file)["apart"] for recipe, file in made.items()}
    assert apart["base"].eq(0).all() and apart["mnli"].gt(0).all() and len(apart["mnli"]) == 12


def test_a_kind_of_recipe_is_a_module(smoke, house, tmp_path):
    """It is read from YAML, strictly, keyed apart, counted in the plan, and trained by its own
    loss.
    """
    (house / "lib" / "pretune" / "recipes" / "unlearn.py").write_text(KIND.lstrip())
    outputs, environment = house / "outputs", os.environ | {"PYTHONPATH": str(house / "lib")}
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    shutil.copytree(OUTPUTS / "smoke" / "records", outputs / "smoke" / "records")
    own = "recipes.unlearn={method: unlearn, dataset: mnli, learning_rate: 0.003"
    words = ("smoke", "--set", "findings=[05_domain_forgetting]", "--set")
    wrong = run_pretune("plan", *words, f"{own}, flor: 3}}", environment=environment)
    assert (
        wrong.returncode == 2 and "unlearn.flor: unknown key; did you mean floor?" in wrong.stderr
    )
    done = run_pretune("run", *words, own + "}", "--only", "step-40", "--no-notebooks",
                       outputs=outputs, environment=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    likely = {}
    for recipe in ("base", "mnli", "unlearn"):
        (file,) = (outputs / "smoke" / "records").glob(f"step-40.{recipe}.0.*/*/choices.parquet")
        rows = pd.read_parquet(file).query("dataset == 'mnli' and format == 'default'")
        likely[recipe] = np.mean(
            [one[gold] for one, gold in rows[["log_likelihood", "gold"]].values]
        )
    assert likely["mnli"] > likely["base"] > likely["unlearn"] + 1
    asked = [own.replace("unlearn, ", "sft, ") + "}", own + "}", own + ", floor: -30}"]
    said = subprocess.run([sys.executable, "-c", KEYS, *asked], env=environment, text=True,
                          capture_output=True, check=True).stdout.split()  # fmt: skip
    keys, flops = said[::2], [float(one) for one in said[1::2]]
    assert len(set(keys)) == 3 and flops[1] == flops[2] > flops[0]


def test_a_study_of_several_models_is_read_by_their_names(smoke, house, tmp_path):
    """Each has its own checkpoints, is made by itself and counted in the plan; rows say which it
    is, and a finding about one model is refused.
    """
    toy = TOY.replace("CLAIMS =", 'MODELS = "several"\nCLAIMS =')
    (house / "lib" / "pretune" / "findings" / "toy.py").write_text(toy.lstrip())
    (house / "notebooks" / "99_toy.py").write_text(PAGE.lstrip())
    outputs, environment = house / "outputs", os.environ | {"PYTHONPATH": str(house / "lib")}
    shutil.copytree(OUTPUTS / "cache", outputs / "cache")
    run_pretune(module="pretune.report.pairing", environment=environment)
    small = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    source = small["checkpoints"]
    own = source["pretraining"] | {"architecture": {"layers": 1, "width": 32, "heads": 2}}
    small["checkpoints"] = {"small": source | {"pretraining": own}, "large": source}
    small["recipes"] = {"base": {}, "mnli": {"dataset": "mnli"}}
    small["findings"] = []
    (house / "params" / "two.yaml").write_text(json.dumps(small))
    planned = run_pretune("plan", "two", environment=environment, outputs=outputs)
    assert "20 cells" in planned.stdout and "small-step-20.mnli.0" in planned.stdout, planned.stderr
    words = ("run", "two", "--no-notebooks")
    done = run_pretune(*words, environment=environment, outputs=outputs)
    assert done.returncode == 0, done.stderr
    files = (outputs / "two" / "records").glob("*.mnli.*/*/choices.parquet")
    rows = pd.concat(pd.read_parquet(file) for file in files)
    assert set(rows["model"]) == {"small", "large"}
    assert set(rows["checkpoint"].str.split("-").str[0]) == {"small", "large"}
    shown = "from pretune.report import open, material; print(material.described("
    shown += "open.open_results('two', '99_toy', 'all')))"
    page = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True,
                          env=environment | {"PRETUNE_OUTPUTS": str(outputs)})  # fmt: skip
    assert "10 checkpoints, saved at optimizer steps 0, 20" in page.stdout
    assert "neighbours, of `small`, `large`." in page.stdout
    assert "pre-training runs" not in page.stdout
    of_one = run_pretune("plan", "two", "--set", "findings=[01_dataset_dichotomy]",
                         environment=environment, outputs=outputs)  # fmt: skip
    assert of_one.returncode == 2 and "about one model, and the study has several" in of_one.stderr


@pytest.mark.parametrize(
    ("file", "shows"), [("measures/choices", True), ("analysis/scores", True), ("run/queue", False)]
)
def test_a_page_is_stale_when_what_makes_it_of_rows_changed(house, file, shows):
    code = (
        "from pretune.report.pages import _library; print(_library('01_dataset_dichotomy').hex())"
    )
    environment, said = os.environ | {"PYTHONPATH": str(house / "lib")}, []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                              capture_output=True, check=True)  # fmt: skip
        said.append(done.stdout)
        with (house / "lib" / "pretune" / f"{file}.py").open("a") as module:
            module.write("# changed\n")
    assert (said[0] != said[1]) == shows


def test_a_study_that_names_no_findings_has_those_with_something_to_look_at(house):
    (house / "lib" / "pretune" / "findings" / "toy.py").write_text(TOY.lstrip())
    (house / "notebooks" / "99_toy.py").write_text(PAGE.lstrip())
    environment = os.environ | {"PYTHONPATH": str(house / "lib")}
    run_pretune(module="pretune.report.pairing", environment=environment)
    words = ("plan", "smoke", "--set", "findings=[]")
    with_mnli = run_pretune(*words, environment=environment).stdout
    assert "- 99_toy" in with_mnli and "- 05_domain_forgetting" in with_mnli
    assert "06_published_tables" not in with_mnli
    recipes = "recipes={base: {}, xsum: {dataset: xsum}}"
    assert "99_toy" not in run_pretune(*words, "--set", recipes, environment=environment).stdout


@pytest.mark.parametrize("name", names())
def test_every_finding_keeps_to_the_contract(name):
    finding = find(name)
    for part in ("CLAIMS", "needs", "verdicts"):
        assert hasattr(finding, part), part
    source = (paths.NOTEBOOKS / f"{name}.py").read_text()
    assert f'"{name}"' in source and finding.__name__.rpartition(".")[2] in source


@pytest.fixture
def seen(monkeypatch) -> Counter:
    """How often a study is planned, each record verified, and its files looked at."""
    calls = Counter()

    def count(module, name, what):
        real = getattr(module, name)

        def counted(*given, **named):
            calls[what(*given)] += 1
            return real(*given, **named)

        monkeypatch.setattr(module, name, counted)

    count(cells, "make", lambda *given: "plan")
    count(store, "_fault", lambda part, *rest: ("verified", part))
    count(store, "_mark", lambda part, *rest: ("looked at", part))
    monkeypatch.setattr(store, "_verified", {})
    return calls


def test_a_page_of_a_finished_study_plans_once_and_verifies_each_record_once(smoke, seen):
    page = open_results(smoke.file, "02_latent_benefits", "all")
    material.introduce(page)
    behaviour.show_prompts(page, ["mnli"])
    verified = {one: times for one, times in seen.items() if one[0] == "verified"}
    assert seen["plan"] == 1 and len(verified) == len(page.plan.cells)
    assert set(verified.values()) == {1}


def test_status_looks_at_each_record_once_for_all_pages(smoke, seen, capsys):
    assert cli.main(["status", smoke.file]) == 0
    assert "pages done" in capsys.readouterr().out
    assert seen.pop("plan") == 1 and set(seen.values()) == {1}
