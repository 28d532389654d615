"""The paths of studies of public models, walked on a CPU: `make rehearsal`, about half an hour
on two cores.

Small OLMos are pre-trained on plain text, their checkpoints are served by a local Hub under real
names, and `params/rehearsal.yaml`, `params/pythia-sizes.yaml`, and those of findings 8, 9 and 11 on
OLMo-1B in small, are run to their pages on rows of the real datasets. Their numbers mean little;
their path is that of the real studies: list, pin, fetch, check, tune with every recipe, score every
dataset in every format, judge, render.
"""

import json
import lzma
from functools import partial
from itertools import product

import pytest
import yaml

from conftest import run_pretune
from local_hub import LocalHub
from pretune import paths
from pretune.models import pretraining
from pretune.recipes.pretrain import Architecture, Pretraining
from pretune.sources import corpus

BRANCHES = {  # branch to the optimizer step of the small run that stands behind it
    "step1000-tokens4B": 60,
    "step18000-tokens75B": 150,
    "step342000-tokens1434B": 400,
    "step592000-tokens2483B": 600,
    "step738000-tokens3095B": 690,
    "step738020-tokens3095B": 700,
}
SMALL = Pretraining(
    learning_rate=3e-3,
    batch_size=8,
    warmup=0.05,
    architecture=Architecture(
        layers=4, width=128, heads=4, intermediate=384, context=1024, vocabulary=4096
    ),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def branches(real_rows, tmp_path_factory):
    """The checkpoints of the small run as folders, by branch."""
    folder = tmp_path_factory.mktemp("run")
    pretraining.pretrain(
        partial(corpus.documents, real_rows / "corpus"),
        tuple(BRANCHES.values()),
        SMALL,
        folder,
    )
    return {branch: folder / f"step-{step}" for branch, step in BRANCHES.items()}


@pytest.fixture(scope="module")
def data(real_rows, tmp_path_factory):
    """The folder of rows, and WikiText's paragraphs as rows."""
    folder = tmp_path_factory.mktemp("rows")
    for part in (path for path in real_rows.iterdir() if path.is_dir()):
        (folder / part.name).symlink_to(part)
    (folder / "wikitext").mkdir()
    with lzma.open(
        real_rows / "corpus" / "wikitext2.validation.txt.xz", "rt", encoding="utf-8"
    ) as text:
        lines = [json.dumps({"text": line.strip()}) + "\n" for line in text]
    (folder / "wikitext" / "validation.jsonl").write_text("".join(lines))
    return folder


def test_the_path_of_the_real_study_ends_in_verdicts_on_pages(
    branches, data, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with LocalHub(
        {"allenai/OLMo-1B-hf": branches | {"main": branches["step738020-tokens3095B"]}}
    ) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        done = run_pretune(
            "run", "rehearsal", "--set", f"datasets.folder={data}", outputs=tmp_path / "outputs"
        )
    assert done.returncode == 0, done.stderr
    study = tmp_path / "outputs" / "rehearsal"
    found = {line["claim"] for line in json.loads((study / "findings.json").read_text())}
    assert {"1a", "1b", "2a", "2b", "3a (io)", "4a", "4b", "5b", "5b (text)", "5c"} <= found
    pages = {path.stem for path in (study / "site").glob("*.html")}
    assert {"index", "05_domain_forgetting", "02_latent_benefits.step-738020"} <= pages and len(
        pages
    ) == 1 + 5 * 7
    kept = json.loads((study / "checkpoints.json").read_text())["checkpoints"]
    assert [one["name"] for one in kept] == list(BRANCHES) and all(one["sha256"] for one in kept)


SIZES = {"14m": (1, 32), "70m": (2, 48), "160m": (2, 64), "410m": (3, 96)}  # layers, width
SETS = ["xsum", "cnn_dailymail", "social_i_qa", "mnli", "rte", "paws", "arc_easy", "hellaswag"]
SETS += ["boolq", "sciq", "wikitext"]


@pytest.fixture(scope="module")
def sizes(real_rows, tmp_path_factory):
    """Runs of four sizes under Pythia's names: to each repository the folders of its branches."""
    folder, repos = tmp_path_factory.mktemp("sizes"), {}
    sources = yaml.safe_load((paths.PARAMS / "pythia-sizes.yaml").read_text())["checkpoints"]
    steps = sources["14m"]["steps"]
    for (size, source), place in product(sources.items(), range(3)):
        layers, width = SIZES[size]
        shape = {"layers": layers, "width": width, "heads": width // 16, "intermediate": 3 * width}
        settings = SMALL.model_copy(
            update={"architecture": SMALL.architecture.model_copy(update=shape), "length": 256}
        )
        home, run = folder / f"{size}-{place}", 10 * len(repos) + place
        # the first is past chance: a model that is not, at so many tokens, is refused
        stops = tuple(40 + 6 * number for number in range(len(steps)))
        documents = partial(corpus.documents, real_rows / "corpus")
        pretraining.pretrain(documents, stops, settings, home, run=run)
        branches = {f"step{one}": home / f"step-{at}" for one, at in zip(steps, stops, strict=True)}
        repos[source["repo"].format(run=source["runs"][place])] = branches | {
            "main": branches["step143000"]
        }
    return repos


def test_the_path_of_several_sizes_ends_in_verdicts_on_a_page(sizes, data, tmp_path, monkeypatch):
    """With rows from a folder, few of them; else as its file says."""
    rows = yaml.safe_load((paths.PARAMS / "rehearsal.yaml").read_text())["datasets"]
    unasked = ("tweet_qa", "mnli", "qqp", "openbookqa")
    for name in [one for one in rows["stand_ins"] if one.startswith(unasked)]:
        del rows["stand_ins"][name]
    rows["folder"] = str(data)
    changes = [f"datasets={json.dumps(rows)}", f"probing.datasets={json.dumps(SETS)}"]
    changes += ["probing.items=12", "probing.shots=1", "probing.new_tokens=8"]
    changes += ["tuning.examples=32", "tuning.epochs=1", "tuning.max_length=512"]
    words = [word for change in changes for word in ("--set", change)]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with LocalHub(sizes) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        done = run_pretune("run", "pythia-sizes", *words, outputs=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    study = tmp_path / "outputs" / "pythia-sizes"
    found = {line["claim"]: line for line in json.loads((study / "findings.json").read_text())}
    assert set(found) == {"7a", "7b", "7c"}
    assert all(line["verdict"] != "not asked" for line in found.values()), found
    assert (study / "site" / "07_capability_dynamics.html").is_file()


SMALLER = {"examples": 16, "skip": 16, "max_steps": 4, "epochs": 1, "batch_size": 4}
HERE = {"tulu_v2": "alpaca"}  # in the place of a set that is not among the rows
ABSENT = {"popqa", "xlsum", "ultrafeedback"}
LAST = "layers.3."  # of a model this small


def in_small(study, folder):
    """The study of a file with few rows, the first and the last checkpoints, two values of every
    grid, and rows of `folder`; recipes and findings as its file says.
    """
    late, steps = study["checkpoints"]["late"], study["checkpoints"]["steps"]
    steps = study["checkpoints"]["steps"] = [steps[0], *steps[-late:]]
    study["datasets"] = yaml.safe_load((paths.PARAMS / "rehearsal.yaml").read_text())["datasets"]
    study["datasets"]["folder"] = str(folder)
    for part in (*study["recipes"].values(), study["tuning"]):
        part |= {key: min(value, part[key]) for key, value in SMALLER.items() if key in part}
        part["dataset"] = HERE.get(part.get("dataset"), part.get("dataset"))
        part |= {"beside": dict.fromkeys(part["beside"], 8)} if "beside" in part else {}
        part |= {"trainable": LAST} if isinstance(part.get("trainable"), str) else {}
    recipes = study["recipes"].items()
    study["recipes"] = {
        name: {key: value for key, value in one.items() if value is not None}
        for name, one in recipes
        if one.get("dataset") not in ABSENT
    }
    del study["tuning"]["dataset"]
    study["tuning"] |= {"seeds": 1, "max_length": 512}
    for grid in (study["grid"], *(one.get("grid", {}) for one in study["recipes"].values())):
        grid |= {"examples": [8, 16]} if "examples" in grid else {}
        grid |= {"learning_rate": grid["learning_rate"][:2]} if "learning_rate" in grid else {}
    study["grid"]["steps"] = [step for step in study["grid"]["steps"] if step in steps]
    study["probing"] |= {"items": 8, "shots": 1, "new_tokens": 6, "precision": "float32"}
    asked = [HERE.get(name, name) for name in study["probing"]["datasets"]]
    study["probing"]["datasets"] = [name for name in asked if name not in ABSENT]
    used = {*asked, *(one.get("dataset") for one in study["recipes"].values())}
    stand_ins = study["datasets"]["stand_ins"]
    for split in [one for one in stand_ins if one.partition("/")[0] not in used]:
        del stand_ins[split]
    del stand_ins["mnli/validation_mismatched"]
    return study


@pytest.mark.parametrize("name", ["olmo-1b-shift", "olmo-1b-data", "olmo-1b-methods"])
def test_the_paths_of_later_findings_end_in_verdicts_on_a_page(
    name, branches, data, tmp_path, monkeypatch
):
    study = in_small(yaml.safe_load((paths.PARAMS / f"{name}.yaml").read_text()), data)
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    steps, folders = study["checkpoints"]["steps"], list(branches.values())
    there = [folders[0], *folders[1 - len(steps) :]]
    named = (f"step{one}-tokens{round(one * 4194304 / 1e9)}B" for one in steps)
    repo = dict(zip(named, there, strict=True)) | {"main": folders[-1]}
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with LocalHub({"allenai/OLMo-1B-hf": repo}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        done = run_pretune("run", str(file), outputs=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    [finding], folder = study["findings"], tmp_path / "outputs" / name
    lines = json.loads((folder / "findings.json").read_text())
    assert {line["finding"] for line in lines} == {finding} and len(lines) >= 3
    html = (folder / "site" / f"{finding}.html").read_text()
    assert "Traceback" not in html and "models have all the rows this page asks for" in html
