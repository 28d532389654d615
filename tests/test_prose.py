"""What pages say in words follows the study: what is true of one is not said of another."""

import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from conftest import ROOT
from pretune import findings, paths
from pretune.analysis import claims, results, theme
from pretune.plan.cells import Plan
from pretune.report import answers, prose
from pretune.study.load import load_study

README = (ROOT / "README.md").read_text()


def of(study, *overrides):
    """A page of a study without rows: what is said here follows from settings alone."""
    return results.Results(Plan(load_study(study, overrides), (), (), {}), "", "all", None, {})


def test_how_datasets_are_asked_follows_the_protocol():
    corrected, published = prose.asked(of("smoke")), prose.asked(of("smoke", "protocol=published"))
    assert "never scored" in corrected and "ends at a newline" in corrected
    assert (
        "which stay scored" in published
        and "ends at its longest length" in published
        and "never scored" not in published
    )
    mixed = prose.asked(of("smoke", "protocol.stop=length"))
    assert "never scored" in mixed and "ends at its longest length" in mixed


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (["cpu, 1 threads", "cpu, 2 threads"], None),
        (["NVIDIA A100", "NVIDIA H200"], "on 2 kinds of device (NVIDIA A100, NVIDIA H200)"),
    ],
)
def test_a_page_says_where_rows_come_from_several_kinds_of_device(devices, said, monkeypatch):
    about = pd.DataFrame({"commit": "ab" * 20, "device": devices})
    monkeypatch.setattr(answers.records, "provenance", lambda plan: about)
    page = SimpleNamespace(has_items=True, plan=None)
    told = answers._measured_at(page)
    assert told.startswith("All was measured at commit abababa. ")
    assert said in told if said else "kinds of device" not in told


def test_what_differs_follows_the_protocol_and_released_scores_are_not_said_to_differ():
    options = tuple(prose.DIFFERS)
    assert "As in the reference study" not in prose.differences(of("smoke"), options)
    assert prose.differences(of("olmo-1b-published"), options).count(
        "As in the reference study"
    ) == len(options)
    tables = prose.differences(of("published"), options, "More.")
    assert (
        "Nothing was run" in tables and "never scored" not in tables and tables.endswith("- More.")
    )


@pytest.mark.parametrize(
    ("study", "words", "never"),
    [
        ("quick", "With one seed", "three seeds"),
        ("microworld", "5 pre-training runs of one family", "provisional"),
        ("polypythias-160m", "5 pre-training runs of one family", "One pre-training run"),
        ("olmo-1b", "One pre-training run", "A generated world"),
        ("published", "one degree of freedom", "A generated world"),
        ("control", "A generated world", "one degree of freedom"),
    ],
)
def test_limits_are_those_of_the_study(study, words, never):
    said = prose.limits(of(study), "And more.")
    assert words in said and never not in said and said.endswith("- And more.")


def test_examples_that_differ_are_told():
    assert prose.tuned(of("control")) == (
        "Every recipe tunes a checkpoint on 800 examples, with the same hyper-parameters at "
        "every checkpoint."
    )
    unlike = prose.tuned(of("olmo-1b"))
    assert unlike.startswith("Recipes tune a checkpoint on 4,000 examples (`instruct` on 16,000)")
    assert "`instruct` tunes on a mixture of instructions" in unlike


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ("quick", "Every fact that is asked for stood"),
        ("control", "No fact that is asked for stood"),
        ("olmo-1b", "is not known"),
    ],
)
def test_whether_facts_were_read_follows_the_world(study, words):
    assert words in prose.seen(of(study))


def test_tuned_sets_that_claim_2b_compares_have_equally_many_examples():
    """In every study that asks it."""
    for file in (ROOT / "params").glob("*.yaml"):
        study = load_study(file.stem)
        if study.findings and "02_latent_benefits" not in study.findings:
            continue
        single = [
            name
            for name, how in study.recipes.items()
            if how.dataset and how.dataset != "tulu_v2" and not how.trainable
        ]
        assert len({study.tuning_of(name).examples for name in single}) <= 1, file.stem


def test_notebooks_say_of_no_study_what_is_true_of_some():
    """Sentences that were false of the released tables stand in no notebook as they are."""
    for file in (ROOT / "notebooks").glob("*.py"):
        text = " ".join(re.sub(r"\n# ?", " ", file.read_text(encoding="utf-8")).split())
        for words in (
            "never scored",
            "ends at a newline",
            "equally many examples;",
            "One pre-training run is one sample",
            "Every label is public",
            "A generated world shows",
            "paired by item",
            "Welch",
        ):
            assert words not in text, (file.name, words)


def test_intervals_are_said_as_they_are_made():
    assert "seeds and shot draws" in prose.intervals(
        of("quick")
    ) and "one degree" not in prose.intervals(of("quick"))
    assert "over pre-training runs" in prose.intervals(of("polypythias-160m"))
    tables = prose.intervals(of("published"))
    assert "not paired" in tables and "one degree of freedom" in tables and "Welch" not in tables


def test_the_results_in_the_readme_are_those_of_the_records():
    """Each cell: mark and effect, or that it is not asked; empty where the study does not ask."""
    kept = {}
    for study in ("quick", "microworld", "control"):
        lines = json.loads((paths.REFERENCE / study / "findings.json").read_text())
        kept[study] = {line["claim"]: line for line in lines}
    rows = re.findall(
        r"^\| (\d\w(?: \(\w+\))?) (.*?) \| (.*?) \| (.*?) \| (.*?) ?\|$", README, re.M
    )
    assert len(rows) >= 6
    for claim, text, *cells in rows:
        assert text == find(claim).text
        assert dict(zip(kept, cells, strict=True)) == {
            study: shown(lines.get(claim)) for study, lines in kept.items()
        }


@pytest.mark.parametrize(("study", "count"), [("microworld", "nine"), ("quick", "13")])
def test_how_many_lines_a_study_decides_is_said_as_kept(study, count):
    lines = json.loads((paths.REFERENCE / study / "findings.json").read_text())
    decided = [one for one in lines if one["verdict"] not in ("undecided", "not asked")]
    assert len(decided) == {"nine": 9, "13": 13}[count]
    said = " ".join((paths.REFERENCE / "README.md").read_text().split())
    assert re.search(rf"`{study}`[^`]*decides {count} of (its )?{len(lines)} lines", said)


def test_every_number_told_of_a_kept_study_stands_on_its_pages():
    """Scores and effects of the paragraphs on studies: rounded as there, with the sign as there.
    What was run before and is not kept has a paragraph of its own.
    """
    told = (paths.REFERENCE / "README.md").read_text().partition("## Reading a verdict")[0]
    figures = re.findall(r"!\[.*?\*The study.*?\*", README, re.S)  # with what is told below
    told = "\n\n".join([told, *(" ".join(one.split()) for one in figures)])
    kept = {folder.name for folder in paths.REFERENCE.iterdir() if folder.is_dir()}
    checked = 0
    for paragraph in told.split("\n\n"):
        studies = kept & set(re.findall(r"`([\w-]+)`", paragraph))
        if not studies or paragraph.startswith("Before this"):
            continue
        stands = "".join(map(shown_on_pages, sorted(studies)))
        for sign, number in re.findall(r"(?<![\w.])([+-]?)(\.\d+)", paragraph):
            anywhere = "[+-]?" if not sign else rf"\{sign}"
            shown = rf"(?<![\d.]){anywhere}0\{number}0?(?!\d)"
            assert re.search(shown, stands), (number, paragraph)
            checked += 1
    assert checked > 100


def shown_on_pages(study):
    """All that the kept pages of a study show, tables and sentences, as text."""
    outputs = []
    for file in (paths.REFERENCE / study).glob("*.ipynb"):
        for cell in json.loads(file.read_text())["cells"]:
            outputs += [one.get("data", {}) for one in cell.get("outputs", ())]
    parts = ["".join(map(str, one.get(kind, ""))) for one in outputs for kind in KINDS]
    return re.sub(r"<[^>]+>", " ", "\n".join(parts))


KINDS = ("text/html", "text/markdown", "application/vnd.pretune.figure+json")


def test_no_page_that_is_kept_holds_a_warning():
    """Nor, with it, a path of the machine that made it."""
    for file in paths.REFERENCE.glob("*/*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        outputs = [one for cell in cells for one in cell.get("outputs", ())]
        assert not [one for one in outputs if one.get("name") == "stderr"], file


def find(name):
    every = {}
    for finding in map(findings.find, findings.names()):
        every |= finding.CLAIMS
    return claims.claim(every, name)


def shown(line):
    if line is None:
        return ""
    mark = theme.MARKS[line["verdict"]]
    if line["effect"] is None:
        return f"{mark} not asked"
    return f"{mark} {line['effect']:+.2f}".replace("0.", ".", 1)


def test_the_claims_laid_down_are_those_that_judge():
    """In words, effect, unit and margin; a case of a claim (`5a (MNLI)`) has its own nowhere."""
    said = (paths.REFERENCE / "PREREGISTRATION.md").read_text()
    laid = dict(
        re.findall(
            r"^- \*\*(\d+\w(?: \((?:text|task|5%)\))?)\*\* (.*?)(?=\n- |\n\n)", said, re.M | re.S
        )
    )
    judged = {}
    for finding in map(findings.find, findings.names()):
        for name, one in finding.CLAIMS.items():
            words = f"{one.text}. Effect ({one.unit}): {one.effect}. m = {one.margin:g}."
            own = name in ("5b (text)", "11b (5%)", "11c (task)")
            judged[name if own else name.partition(" ")[0]] = words
    assert {name: " ".join(words.split()) for name, words in laid.items()} == judged
    assert len(judged) == 33
