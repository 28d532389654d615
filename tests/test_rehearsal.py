"""The path of a study of OLMo-1B, walked on a CPU: `make rehearsal`, about ten minutes on two
cores.

A small OLMo is pre-trained on plain text, its checkpoints are served by a local Hub under real
branch names, and `params/rehearsal.yaml` is run to its pages on rows of the real datasets. Its
numbers mean little; its path is that of the real study: list, pin, fetch, check, tune with every
recipe, score every dataset in every format, judge, render.
"""

import json
import lzma
from functools import partial

import pytest

from conftest import run_pretune
from local_hub import LocalHub
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
