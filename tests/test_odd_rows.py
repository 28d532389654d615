"""Rows that nobody expects: scored or refused by rule, and never a way out of a page."""

import json
import re
from html.parser import HTMLParser

import pytest
import yaml

from conftest import plan_of, run_here, run_pretune
from pretune import paths, records
from pretune.study.load import load_study
from pretune.tasks import rows
from pretune.tasks.registry import REGISTRY

ODD = {
    "markup": (
        "<script>alert('out')</script><img src=x onerror=alert(1)> **bold** "
        "[link](javascript:alert(2)) $x$ `code`"
    ),
    "controls": "before\u0000\u0007\u001b[31mafter\u2028line\rreturn",
    "directions": (
        "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
    ),
    "emoji": "\U0001f9d1\u200d\U0001f692 \U0001f600 \u0065\u0301",
    "megabyte": "word " * 200_000,
    "nothing but spaces": " \t\u00a0 ",
}


class Elements(HTMLParser):
    """The text of a page as a reader sees it, its scripts, and attributes that would do
    something.
    """

    def __init__(self):
        super().__init__()
        self.text, self.scripts, self.suspicious, self.inside = "", [], [], ""

    def handle_starttag(self, tag, attrs):
        self.inside = tag if tag in ("script", "style") else ""
        self.suspicious += [
            one for one in attrs if one[0].startswith("on") or str(one[1]).startswith("javascript")
        ]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.text += data


def write(folder, name, split, some):
    file = folder / REGISTRY[name].folder / f"{split}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return file


def pair(number, text):
    return {
        "premise": text,
        "hypothesis": f"Number {number} sleeps.",
        "label": number % 3,
        "idx": number,
    }


def article(number, text):
    document = f"<script>alert('out')</script> {number} met a friend. {text} They ate."
    return {"document": document, "summary": f"{text[:300]} {number}", "id": str(number)}


def plain(make, count, start=0):
    return [make(number, f"On day {number} it rained.") for number in range(start, start + count)]


@pytest.fixture
def odd_study(tmp_path):
    """The smoke study, with rows of which every second one that is scored is odd, and some of
    those that are tuned on.
    """
    folder = tmp_path / "data"
    for name, make in (("mnli", pair), ("xsum", article)):
        odd = [make(200 + number, text) for number, text in enumerate(ODD.values()) if text.strip()]
        write(
            folder,
            name,
            "train",
            plain(make, 120) + [make(300 + number, ODD["markup"]) for number in range(20)],
        )
        write(folder, name, REGISTRY[name].evaluation, odd + plain(make, 6, 150))
    raw = yaml.safe_load((paths.PARAMS / "smoke.yaml").read_text())
    raw["datasets"] = {"source": "folder", "folder": str(folder)}
    raw["recipes"] = {"base": {}, "xsum": {"dataset": "xsum"}}
    raw |= {
        "findings": ["02_latent_benefits"],
        "probing": raw["probing"] | {"datasets": ["mnli", "xsum"]},
    }
    (tmp_path / "odd.yaml").write_text(json.dumps(raw))
    return tmp_path / "odd.yaml"


def test_odd_rows_are_scored_or_left_out_and_shown_escaped(odd_study, tmp_path, monkeypatch):
    done = run_pretune(
        "run", str(odd_study), "--only", "step-20", outputs=tmp_path / "outputs", timeout=300
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path / "outputs")
    study = load_study(str(odd_study))
    table = records.load(plan_of(study), where={"recipe": "base"})
    about = records.provenance(plan_of(study).of(only=("step-20",)))
    left_out = [item for one in about["left_out"] for items in one.values() for item in items]
    megabyte = list(ODD).index("megabyte")
    assert set(left_out) == {megabyte} and megabyte not in set(table["item"])
    assert table.groupby("dataset")["item"].nunique().eq(10).all()  # all others, odd or not
    page = (tmp_path / "outputs" / "odd" / "site" / "02_latent_benefits.step-20.html").read_text(
        encoding="utf-8"
    )
    found = Elements()
    found.feed(page)
    # as text, and nowhere as an element, an action or a link
    assert "<script>alert('out')</script>" in found.text
    assert not [one for one in found.scripts if "alert" in one] and not found.suspicious
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", page)


def test_text_that_is_no_unicode_is_refused_with_the_file(tmp_path):
    file = write(tmp_path, "mnli", "train", plain(pair, 10))
    file.write_text(
        file.read_text() + '{"premise": "\\ud800 half", "hypothesis": "h", "label": 0, "idx": 10}\n'
    )
    with pytest.raises(rows.RowError, match="mnli: .*train.jsonl cannot be read: .*surrogate"):
        rows.read(tmp_path, REGISTRY["mnli"], "train")


def test_an_empty_text_is_refused_with_its_row(odd_study, tmp_path):
    file = tmp_path / "data" / "mnli" / f"{REGISTRY['mnli'].evaluation}.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = json.dumps(pair(1, ODD["nothing but spaces"]))
    file.write_text("\n".join(lines))
    done = run_here(
        "run",
        str(odd_study),
        "--only",
        "step-20",
        "--no-notebooks",
        outputs=tmp_path / "outputs",
    )
    assert (
        done.returncode == 2 and "mnli: row 1 of" in done.stderr and "Traceback" not in done.stderr
    )
    assert not list(paths.OUTPUTS.glob("odd/records/*"))
