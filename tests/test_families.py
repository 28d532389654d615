"""The studies of public families: every params file finds its checkpoints under the names that
family uses, and has a cost.
"""

import json

import pytest
import yaml

from conftest import run_pretune
from local_hub import LocalHub
from pretune import paths
from pretune.sources import found
from pretune.study.load import load_study
from pretune.tasks.registry import REGISTRY

# layers, width, heads, inner width, vocabulary, context: as the families' configurations have them
SHAPES = {
    "olmo-1b": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-1b-data": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-1b-knowledge": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-1b-published": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-1b-methods": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-1b-shift": (16, 2048, 16, 8192, 50304, 2048),
    "olmo-2-1b": (16, 2048, 16, 8192, 100352, 4096),
    "olmo-3-7b": (32, 4096, 32, 11008, 100278, 8192),
    "pythia-160m": (12, 768, 12, 3072, 50304, 2048),
    "polypythias-160m": (12, 768, 12, 3072, 50304, 2048),
    "pythia-sizes": (24, 1024, 16, 4096, 50304, 2048),  # of the largest
    "smollm3-3b": (36, 2048, 16, 11008, 128256, 65536),
}
NAMES = {  # how branches are called, and of which steps there are some
    "olmo-1b": ("step{step}-tokens{tokens}B", ()),
    "olmo-1b-data": ("step{step}-tokens{tokens}B", ()),
    "olmo-1b-knowledge": ("step{step}-tokens{tokens}B", ()),
    "olmo-1b-published": ("step{step}-tokens{tokens}B", ()),
    "olmo-1b-methods": ("step{step}-tokens{tokens}B", ()),
    "olmo-1b-shift": ("step{step}-tokens{tokens}B", ()),
    "olmo-2-1b": ("stage1-step{step}-tokens{tokens}B", ()),
    "olmo-3-7b": ("stage1-step{step}", ()),
    "pythia-160m": ("step{step}", ()),
    "polypythias-160m": ("step{step}", ()),
    "pythia-sizes": ("step{step}", ()),
    "smollm3-3b": ("stage1-step-{step}", range(40_000, 3_440_001, 40_000)),
}


def sources_of(raw):
    """The sources of a study's checkpoints: one, or one for each size."""
    said = raw["checkpoints"]
    return [said] if "source" in said else list(said.values())


@pytest.fixture
def family(request, tmp_path):
    """A local Hub with what a study's file names: branches without weights to speak of, and
    datasets.
    """
    raw, name = yaml.safe_load((paths.PARAMS / f"{request.param}.yaml").read_text()), request.param
    sources, (form, steps) = sources_of(raw), NAMES[name]
    shape = dict(
        zip(
            (
                "num_hidden_layers",
                "hidden_size",
                "num_attention_heads",
                "intermediate_size",
                "vocab_size",
                "max_position_embeddings",
            ),
            SHAPES[name],
            strict=True,
        )
    )
    branches = {}
    for step in [0, *(sources[0].get("steps") or steps)]:
        branch = form.format(step=step, tokens=step * 4 // 1000)
        branches[branch] = tmp_path / "repo" / branch
        branches[branch].mkdir(parents=True)
        (branches[branch] / "config.json").write_text(json.dumps(shape))
        (branches[branch] / "model.safetensors").write_text(branch)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("parquet")
    repos = {
        source["repo"].replace("{run}", run): branches | {"main": branches[branch]}
        for source in sources
        for run in source.get("runs", [""])
    }
    with LocalHub(
        repos, {one.hub[0]: tmp_path / "data" for one in REGISTRY.values() if one.hub[0]}
    ) as server:
        yield name, server


@pytest.mark.parametrize("family", sorted(SHAPES), indirect=True)
def test_a_study_of_a_public_family_is_planned(family, tmp_path, monkeypatch):
    name, server = family
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    done = run_pretune("plan", name, outputs=tmp_path / "outputs")
    assert done.returncode == 0, done.stderr
    assert "on 64 H200" in done.stdout and "GB" in done.stdout
    first = {"olmo-1b-data": "tulu_v2", "olmo-1b-knowledge": "popqa_known"}
    first |= {"olmo-1b-methods": "popqa"}
    guessed = first.get(name, "xlsum")
    assert (
        "(at 5.0% of their peak, as 1.2 B weights reach on short rows; row lengths: "
        + "registered medians, " * (name != "olmo-1b-knowledge")
        + f"guessed for {guessed}"
    ) in done.stdout
    most = 16 if name == "olmo-1b-methods" else 8  # a pair of answers is two rows
    assert f"(batches of {most} rows of 2,048 tokens, the longest that may come)" in done.stdout
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    study, taken = load_study(name), []
    for model, source in study.models.items():
        there = found.pinned(study.of(model))["checkpoints"]
        assert len({one["commit"] for one in there}) * len(source.runs) == len(there)
        taken += there
    assert all(one["tokens"] > 0 for one in taken) and not any(
        one["name"] == "main" for one in taken
    )


def test_every_study_of_the_hub_is_tested_here():
    studies = {file.stem: load_study(file.stem) for file in paths.PARAMS.glob("*.yaml")}
    files = {
        name
        for name, one in studies.items()
        if {source.source for source in one.models.values()} == {"hub"}
    }
    assert files - {"rehearsal"} == set(SHAPES)
