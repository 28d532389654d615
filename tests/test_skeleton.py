"""The top level, the lock, the notebook pairs, and what the README files say."""

import ast
import importlib.metadata
import importlib.util
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
from pretune import cli
from pretune.report import pairing
from pretune.study.load import load_study

TOP = {
    "notebooks",
    "lib",
    "params",
    "outputs",
    "tests",
    "environment.yml",
    "README.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "pyproject.toml",
    "Makefile",
    "LICENSE",
    ".gitignore",
    ".ci",
    ".github",
}
READMES = {
    where: ROOT / where / "README.md"
    for where in (".", "params", "outputs/reference", "tests", "lib/pretune")
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
    told = READMES["outputs/reference"].read_text().splitlines()
    for one in json.loads((ROOT / "outputs" / "reference" / "bench.json").read_text())["results"]:
        [line] = [line for line in told if line.startswith(f"| {one['what']} | {one['peer']} |")]
        shown = f"{one['ratio']:.{1 + (one['ratio'] < 10)}f} ({one['to_reach']:.2g})"
        assert line.split(" | ")[2 + (one["model"] == "30 M")] == shown, one
        assert one["ratio"] >= one["to_reach"], one


def test_the_citation_and_the_changelog_are_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.findall(r"(?m)^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text())[0] == version


def test_the_readme_is_short_and_no_readme_is_wide():
    assert len(READMES["."].read_text().split()) <= 1300
    for file in READMES.values():
        assert [line for line in file.read_text().splitlines() if len(line) > 100] == [], file


def code(text):
    """The blocks and spans of code of a text, a line each."""
    found = []
    for block in (r"^```.*?^```$", r"^ {4}[^\n]+$", r"`[^`\n]+`"):
        found += re.findall(block, text, re.M | re.S)
        text = re.sub(block, "", text, flags=re.M | re.S)
    return "\n".join(one.strip("`") for one in found)


def anchors(text):
    """What links to the headings of a text end in."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.M)
    }


def rooms_of(file):
    """The rooms that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "pretune":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pretune."):
            found.add(node.module.split(".")[1])
    return found


def test_a_room_imports_only_from_rooms_below_it_in_the_readme():
    library = ROOT / "lib" / "pretune"
    said = (library / "README.md").read_text().partition("\n\nOutside")[0].partition("\n- ")[2]
    named = [name for name in re.findall(r"`(\w+)`", said) if name != "microworld"]
    there = {file.stem for file in library.iterdir() if file.is_dir() or file.suffix == ".py"}
    assert set(named) == there - {"__init__", "__pycache__"}
    for file in library.rglob("*.py"):
        room = file.relative_to(library).parts[0].removesuffix(".py")
        if room != "__init__":
            assert rooms_of(file) <= {room, *named[named.index(room) + 1 :]}, file
        if room == "findings":
            assert "from pretune.findings" not in file.read_text()  # none stands on another


@pytest.mark.parametrize("where", READMES)
def test_what_a_readme_names_exists(where, capsys):
    """Targets of make, subcommands with their options, modules that are run, test modules, files,
    and links.
    """
    text, here = READMES[where].read_text(), READMES[where].parent
    named = code(text)
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake ([a-z.][\w./-]*)", named)) <= set(targets)
    for name, rest in set(re.findall(r"\bpretune ([a-z]+)\b(.*)", named)):
        with pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0, name
        assert set(re.findall(r" (--[a-z-]+)", rest)) <= set(
            re.findall(r"--[a-z-]+", capsys.readouterr().out)
        ), name
    for module in re.findall(r"\bpython3? -m ([a-z][\w.]*)", named):
        assert importlib.util.find_spec(module), module
    for module in re.findall(r"\btest_\w+", text):
        assert (ROOT / "tests" / f"{module}.py").is_file(), module
    for path in re.findall(r"^([\w.-]+(?:/[\w.-]+)+/?)$", named, re.M):
        if path.split("/")[0] in (*TOP - {"outputs"}, "sources", "report"):
            assert (ROOT / path).exists() or (here / path).exists(), path
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", text, re.M)
    for link in ("".join(pair) for pair in links):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            assert (here / path).exists(), link
            assert not anchor or anchor in anchors((here / path).read_text()), link


def test_examples_of_the_readmes_are_studies(tmp_path):
    """Each is a part of a study, here in the place of that part of `quick`."""
    quick = yaml.safe_load((ROOT / "params" / "quick.yaml").read_text())
    found = "".join(file.read_text() for file in READMES.values())
    examples = [
        yaml.safe_load(one) for one in re.findall(r"^```yaml\n(.+?)^```", found, re.M | re.S)
    ]
    assert examples
    for one in examples:
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(quick | one))
        assert load_study(str(tmp_path / "mine.yaml")).name == "mine"
