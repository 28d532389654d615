"""Several studies in one call: which are meant, in what order, and that none stops another."""

import re

import pytest

from conftest import run_here
from pretune import paths
from pretune.errors import StudyError
from pretune.plan import several


def test_all_are_those_that_need_nothing_but_this_machine():
    """No Hub, no tables, no folder of a user."""
    names = several.named(["all"])
    assert {"smoke", "microworld", "shift-quick", "knowledge", "gpu"} <= set(names)
    assert not {"olmo-1b", "published", "own-model", "rehearsal", "pythia-sizes"} & set(names)


def test_a_pattern_means_what_fits_it_and_each_is_run_once():
    quick = several.named(["*quick"])
    assert {"quick", "data-quick"} <= set(quick) and all(one.endswith("quick") for one in quick)
    assert several.named(["smoke", "*quick", "quick"]) == ["smoke", *quick]
    with pytest.raises(StudyError, match=r"\*slow: no study fits; known: control, data"):
        several.named(["*slow"])


def test_the_shortest_is_run_first_and_what_takes_too_long_only_by_its_name():
    seconds = {"long": 80_000.0, "short": 60.0, "middling": 4_000.0}
    assert several.in_order(["all"], seconds) == ["short", "middling"]
    assert several.in_order(["all", "long"], seconds) == ["short", "middling", "long"]
    assert several.in_order(["*g", "short"], seconds) == ["short", "middling", "long"]


def test_one_study_that_cannot_be_run_does_not_stop_the_others(smoke, tmp_path):
    lost, published = tmp_path / "lost.yaml", (paths.PARAMS / "published.yaml").read_text()
    lost.write_text(re.sub(r"(?m)^tables: .*$", "tables: /nowhere", published))
    done = run_here("run", str(lost), smoke.file)
    assert done.returncode == 1 and "/nowhere" in done.stderr
    assert done.stdout.startswith("2 studies, 0.0 minutes for what is missing")
    assert done.stdout.index("--- " + str(lost)) < done.stdout.index("--- " + smoke.file)
    assert done.stdout.rstrip().endswith("smoke/site/index.html")
