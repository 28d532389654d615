"""The first page of the site of all kept studies: what came out, from their `findings.json`."""

from __future__ import annotations

import html
import json

import pandas as pd

from pretune import findings, paths
from pretune.analysis import display
from pretune.analysis.claims import claim, word
from pretune.analysis.theme import COLOURS
from pretune.study.config import Study
from pretune.study.load import load_study

# the order in which they are told; then by name
FIRST = (
    "microworld",
    "quick",
    "control",
    "published",
    "gpu",
    "dynamics",
    "shift",
    "data",
    "knowledge",
)


def studies() -> list[Study]:
    """The studies that are kept, the main ones first."""
    there = sorted(path.name for path in paths.REFERENCE.iterdir() if path.is_dir())
    order = {name: place for place, name in enumerate(FIRST)}
    return [
        load_study(name) for name in sorted(there, key=lambda name: order.get(name, len(order)))
    ]


def _kept(study: Study) -> dict[str, dict]:
    """What a study says of each claim."""
    file = paths.REFERENCE / study.name / "findings.json"
    return {line["claim"]: line for line in json.loads(file.read_text())} if file.is_file() else {}


def said() -> list[str]:
    """What came out, a sentence for each study that has claims."""
    return [_sentence(study, lines) for study in studies() if (lines := _kept(study))]


def _sentence(study: Study, lines: dict[str, dict]) -> str:
    """How many claims a study decides, and which it supports, in words."""
    decided = [one for one in lines.values() if one["verdict"] not in ("undecided", "not asked")]
    held = [_text(one) for one in decided if one["verdict"] == "supported"]
    link = f'<a href="{study.name}/index.html">{html.escape(study.title)}</a>'
    named = "; ".join(dict.fromkeys(held)) or "none"
    few = " (provisional)" if any(one["provisional"] for one in lines.values()) else ""
    return f"{link} decides {len(decided)} of {len(lines)} claims{few}. Supported: {named}."


def _text(line: dict) -> str:
    """A claim in words."""
    about = claim(findings.find(line["finding"]).CLAIMS, line["claim"])
    return html.escape(about.text[0].lower() + about.text[1:])


def matrices() -> list[str]:
    """Claims against the studies that asked them, each cell with its verdict and effect and a link
    to the page; the number of the reference study beside them. A table for findings that have a
    study in common.
    """
    lines = [line | {"study": one.name} for one in studies() for line in _kept(one).values()]
    groups: list[list[dict]] = []
    for finding in sorted({line["finding"] for line in lines}):
        some = [line for line in lines if line["finding"] == finding]
        known = {line["study"] for line in groups[-1]} if groups else set()
        if known & {line["study"] for line in some}:
            groups[-1] += some
        else:
            groups.append(some)
    return [_matrix(group) for group in groups]


def _matrix(lines: list[dict]) -> str:
    rows: dict[str, dict[str, str]] = {}
    texts = {}
    for line in lines:
        about = claim(findings.find(line["finding"]).CLAIMS, line["claim"])
        texts[line["claim"]] = f"{line['claim']} {html.escape(about.text)}"
        row = rows.setdefault(line["claim"], {})
        row[line["study"]] = _cell(line["study"], line)
        row["reference"] = f'<small class="note">{html.escape(about.reference)}</small>'
    asked = {line["study"] for line in lines}
    columns = [*(one.name for one in studies() if one.name in asked), "reference"]
    in_order = sorted(rows, key=lambda one: (one.partition(" ")[0], " " in one, one))
    table = pd.DataFrame(rows).T.reindex(index=in_order, columns=columns).fillna("–")
    return display.as_html(table.rename(index=texts))


def _cell(study: str, line: dict) -> str:
    """A verdict with its mark and effect, as a link."""
    effect = "" if line["effect"] is None else f" {line['effect']:+.2f}"
    said = f"{word(line['verdict'], line['provisional'])}{effect}"
    style = f"border-left: 4px solid {COLOURS[line['verdict']]}; padding-left: .5em"
    return f'<a style="{style}" href="{study}/{line["finding"]}.html">{said}</a>'
