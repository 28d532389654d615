"""An installed package: what it brings, and that it runs outside a checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from conftest import ROOT

RESULTS = "outputs/reference"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as its wheel holds it."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
    for name in ("lib", "params", "notebooks", RESULTS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=IGNORED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, *build, str(source)], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(installed, folder, *words):
    """`pretune ...` of the package, in `folder`."""
    environment = {key: value for key, value in os.environ.items() if key != "PRETUNE_OUTPUTS"}
    return subprocess.run(
        [sys.executable, "-m", "pretune.cli", *words],
        **{"cwd": folder, "capture_output": True, "text": True, "check": False},
        env=environment | {"PYTHONPATH": str(installed)},
    )


def names(folder, pattern):
    return sorted(str(file.relative_to(folder)) for file in folder.glob(pattern))


def test_it_brings_all_studies_all_notebooks_and_what_came_out(installed):
    """Without the kept pages, of which there are many megabytes."""
    data = installed / "pretune" / "_data"
    assert names(data / "params", "*") == names(ROOT / "params", "*.yaml")
    assert names(data / "notebooks", "*") == names(ROOT / "notebooks", "*.ipynb")
    kept = names(ROOT / RESULTS, "*/findings.json")
    assert kept and names(data / "reference", "*/*") == kept
    assert next(installed.glob("*.whl")).stat().st_size < 1e6


def test_a_study_of_the_package_and_one_of_a_user_are_found_from_any_folder(installed, tmp_path):
    assert "25 cells, 325 probes" in run(installed, tmp_path, "plan", "smoke").stdout
    assert names(tmp_path, "*") == []  # nothing is written
    (tmp_path / "params").mkdir()
    text = (ROOT / "params" / "smoke.yaml").read_text()
    (tmp_path / "params" / "other.yaml").write_text(re.sub("(?m)^title: .*", "title: Mine", text))
    assert "title: Mine" in run(installed, tmp_path, "plan", "other").stdout


def test_what_needs_a_checkout_is_refused(installed, tmp_path):
    done = run(installed, tmp_path, "publish", "site")
    assert done.returncode == 1 and "in a checkout of the repository" in done.stderr
    assert names(tmp_path, "*") == []


@pytest.mark.slow
def test_it_runs_a_study_outside_a_checkout(installed, tmp_path):
    """Cells, pages, kernels; all of it below the folder where it is called."""
    before = names(installed, "**/*")
    done = run(installed, tmp_path, "run", "smoke")
    assert done.returncode == 0, done.stderr
    assert (
        "All was measured at commit v0.1.0"
        in (tmp_path / "outputs" / "smoke" / "site" / "02_latent_benefits.html").read_text()
    )
    assert names(tmp_path, "*") == ["outputs"]
    assert [
        one for one in names(installed, "**/*") if ".pyc" not in one and one not in before
    ] == []
