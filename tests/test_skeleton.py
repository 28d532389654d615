"""The top level, the lock, and the notebook pairs."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from conftest import ROOT
from pretune.report import pairing

TOP = {
    "notebooks",
    "lib",
    "params",
    "outputs",
    "tests",
    "environment.yml",
    "README.md",
    "pyproject.toml",
    "Makefile",
    "LICENSE",
    ".gitignore",
    ".ci",
    ".github",
}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lock = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    return {normal(line.split("==")[0]): line.split("==")[1] for line in lock if "==" in line}


def requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(text)
        for text in project["dependencies"] + project["optional-dependencies"]["test"]
    ]


def git(*words):
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    return done.stdout.split("\n")[:-1]


def test_the_top_level_is_what_was_agreed():
    assert {file.split("/")[0] for file in git("ls-files")} == TOP


def test_no_file_of_the_library_is_ignored():
    ours = [str(path.relative_to(ROOT)) for path in (ROOT / "lib").rglob("*.py")]
    assert len(ours) > 20 and not git("check-ignore", *ours)


def test_the_lock_is_exact_and_holds_what_the_project_asks_for():
    held = pins()
    assert held["torch"] == "2.13.0"
    for wanted in requirements():
        assert {clause.operator for clause in wanted.specifier} == {">="}, wanted
        assert wanted.specifier.contains(held[normal(wanted.name)]), wanted
    text = (ROOT / "environment.yml").read_text()
    assert "- -e ." in text and "://" not in text and "+" not in text


@pytest.mark.skipif(
    not sys.prefix.startswith(str(ROOT)), reason="not the environment that make built"
)
def test_what_is_installed_is_what_is_locked():
    found = {
        normal(one.metadata["Name"]): one.version.split("+")[0]
        for one in importlib.metadata.distributions()
    }
    for tool in ("pip", "setuptools", "wheel", "pretune"):
        found.pop(tool, None)
    assert found == {
        name: version
        for name, version in pins().items()
        if name not in ("pip", "setuptools", "wheel")
    }


def content(book):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in book.cells]


@pytest.mark.parametrize(
    "script", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem
)
def test_script_and_notebook_hold_the_same_cells(script):
    book = nbformat.read(script.with_suffix(".ipynb"), 4)
    assert content(book) == content(pairing.notebook_of(script)), "run `make notebooks`"
    changed = nbformat.from_dict(book)
    changed.cells[0].source += "x"
    assert content(changed) != content(pairing.notebook_of(script))


@pytest.mark.parametrize(
    "script", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.stem
)
def test_a_notebook_argues(script):
    """Short cells, more prose than code, one parameters cell, no function definitions."""
    cells = content(pairing.notebook_of(script))
    prose = sum(len(source.split()) for kind, source, _ in cells if kind == "markdown")
    code = [source for kind, source, _ in cells if kind == "code"]
    assert prose > 4 * sum(source.count("\n") + 1 for source in code)
    assert all(source.count("\n") < 15 and "def " not in source for source in code)
    assert [tags for _, _, tags in cells].count(["parameters"]) == 1


def test_writing_the_pairs_again_changes_nothing_and_cleans_outputs(tmp_path):
    script = tmp_path / "01_a.py"
    script.write_text(
        '# %% [markdown]\n# # Title\n\n# %% tags=["parameters"]\nstudy = 1\n\n# %%\nprint(study)\n'
    )
    [target] = pairing.write_pairs(tmp_path)
    first = target.read_bytes()
    assert pairing.write_pairs(tmp_path) == []
    book = nbformat.read(target, 4)
    book.cells[2].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    book.cells[2].execution_count = 3
    nbformat.write(book, target)
    assert content(book) == content(
        pairing.notebook_of(script)
    )  # outputs do not fail the comparison
    assert pairing.write_pairs(tmp_path) == [target] and target.read_bytes() == first


def test_the_table_of_speed_is_what_was_measured_and_reaches_what_it_says():
    told = (ROOT / "outputs" / "reference" / "README.md").read_text().splitlines()
    for one in json.loads((ROOT / "outputs" / "reference" / "bench.json").read_text())["results"]:
        [line] = [line for line in told if line.startswith(f"| {one['what']} | {one['peer']} |")]
        shown = f"{one['ratio']:.{1 + (one['ratio'] < 10)}f} ({one['to_reach']:.2g})"
        assert line.split(" | ")[2 + (one["model"] == "30 M")] == shown, one
        assert one["ratio"] >= one["to_reach"], one
