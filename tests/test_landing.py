"""What several studies say together: the first page of the site of all, and what an overview says
of findings that its study does not ask.
"""

import json

from pretune import paths
from pretune.analysis.claims import CHANGED, VERDICTS
from pretune.report import kept, landing, overview
from pretune.study.load import load_study


def keep(folder, study, line):
    """A study as if it were kept, with one claim."""
    finding, claim, verdict, effect, provisional = line
    about = {"finding": finding, "claim": claim, "verdict": verdict, "provisional": provisional}
    ends = {"effect": effect, "low": effect - 0.1, "high": effect + 0.1, "n": 9, "seeds": 1}
    (folder / study).mkdir(exist_ok=True)
    (folder / study / "findings.json").write_text(json.dumps([about | ends]))


def test_the_first_page_tells_the_story_from_the_run_that_can_say_most(tmp_path, monkeypatch):
    """Of two kept runs of a claim the one that is not provisional, of the control none; what is
    open is said to be, and advice follows the verdict.
    """
    monkeypatch.setattr(paths, "REFERENCE", tmp_path)
    keep(tmp_path, "quick", ("02_latent_benefits", "2a", "supported", 0.31, True))
    keep(tmp_path, "control", ("02_latent_benefits", "2a", "not supported", -0.07, False))
    told = landing.story()
    assert told["What pre-training gives"] == [] and told["What to do"] == []
    assert "by +0.31 (+0.21 to +0.41) more after tuning" in told["What tuning adds"][0]
    assert "quick, 1 run, provisional" in told["What tuning adds"][0]
    keep(tmp_path, "microworld", ("02_latent_benefits", "2a", "undecided", 0.04, False))
    (said,) = landing.story()["What tuning adds"]
    assert "Open: on sets that" in said and "+0.04" in said and "microworld, 5 runs</small>" in said
    for verdict, advice in landing.ADVICE["7c"].items():
        keep(tmp_path, "dynamics", ("07_capability_dynamics", "7c", verdict, 0.5, False))
        assert advice in landing.story()["What to do"][0]
        assert 'href="dynamics/07_capability_dynamics.html"' in landing.story()["What to do"][0]


def test_what_a_study_does_not_ask_is_shown_from_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "REFERENCE", tmp_path)
    keep(tmp_path, "dynamics", ("07_capability_dynamics", "7c", "undecided", 0.5, False))
    keep(tmp_path, "microworld", ("02_latent_benefits", "2a", "supported", 0.4, False))
    table = overview.elsewhere(load_study("quick"))
    assert list(table.index) == ["7c"] and table.loc["7c", "kept study"] == "dynamics"
    assert table.loc["7c", "effect"] == "+0.50 (+0.40 to +0.60)"
    assert list(overview.elsewhere(load_study("dynamics")).index) == ["2a"]


def test_an_overview_says_of_earlier_numbers_what_is_true_of_the_findings_that_it_asks():
    said = {name: overview.on_references(load_study(name)) for name in ("quick", "shift", "data")}
    assert "Sun & Dredze" in said["quick"] and CHANGED in said["quick"]
    assert "other papers" in said["shift"] and "Sun & Dredze" not in said["shift"]
    assert CHANGED not in said["shift"]


def test_every_claim_of_the_story_was_asked_for_and_has_advice_for_what_is_decided():
    told = {name for names in landing.STORY.values() for name in names}
    assert told | set(landing.ADVICE) <= set(kept.best())
    words = {verdict for some in landing.ADVICE.values() for verdict in some}
    assert words <= set(VERDICTS) - {"undecided", "not asked"}
