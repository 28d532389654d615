"""The first page of the site of all kept studies: the story, every claim in every study that asked
it, and the studies. All of it is computed from their `findings.json`.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

import pandas as pd

from pretune import findings, paths
from pretune.analysis import display
from pretune.analysis.claims import Claim, claim
from pretune.analysis.results import ranged
from pretune.analysis.theme import COLOURS, MARKS
from pretune.report import kept
from pretune.study.config import Study

# what is told, each by its claim; an effect is said as on the claim's own page
STORY = {
    "What pre-training gives": ("1a", "7a", "7c"),
    "What tuning adds": ("2a", "2b", "9a"),
    "What it costs": ("4a", "5b (text)", "10c", "11a"),
}
# what a user should do, by the claim and the verdict that say so
ADVICE = {
    "7c": {
        "supported": "Early checkpoints can be compared by their scores without tuning.",
        "not supported": "Compare checkpoints tuned: what they score untuned, early in the run, "
        "does not say which will be best.",
    },
    "3a (io)": {
        "supported": "Ask a tuned model in the format that it was tuned on.",
        "no effect": "A tuned model may be asked in another format than that of its tuning.",
    },
    "9c": {
        "supported": "Mend the rows before you add more of them.",
        "no effect": "Many rows, two fifths of them wrong, do as well as an eighth of them, all "
        "right.",
    },
    "10a": {
        "supported": "Say what is to be known in several wordings and orders.",
        "no effect": "One wording of a fact does.",
    },
    "10b": {
        "supported": "Put new facts into the prompt rather than into the weights.",
        "opposite": "Teach a model this small its new facts: from a prompt it reads fewer of them.",
    },
    "11b (5%)": {
        "supported": "Mix a twentieth of old text into what is tuned on.",
        "not supported": "A twentieth of old text in what is tuned on is too little to keep half "
        "of what is lost without.",
    },
}
LIMITS = (
    "Of small models pre-trained on the text of a generated world, but for <i>published</i>, the "
    "tables that were released for OLMo-1B. It shows what such an instrument can see, not what is "
    "true of language. In brackets 95 % intervals."
)
FEW = ", provisional"
LEGEND = ", ".join(f"{mark} <i>{name}</i>" for name, mark in MARKS.items()) + (
    "; ° provisional, on fewer than three seeds or runs. Last, the number of the paper that a "
    "claim redoes. Each cell leads to its page, which states the rule."
)


def first_page() -> dict:
    """What the template of the first page says, all of it HTML."""
    return {
        "story": story(),
        "limits": LIMITS,
        "legend": LEGEND,
        "matrices": matrices(),
        "overall": overall(),
    }


def story() -> dict[str, list[str]]:
    """Headings, and below each its sentences, with the mark of the verdict and a link to the page
    of the kept study that can say most. A claim that no study asked has none.
    """
    best = kept.best()
    told = {
        heading: [_sentence(best[name], _meaning(best[name])) for name in names if name in best]
        for heading, names in STORY.items()
    }
    return told | {"What to do": _advice(best)}


def _advice(best: Mapping[str, dict]) -> list[str]:
    said = []
    for name, by_verdict in ADVICE.items():
        if name in best and best[name]["verdict"] in by_verdict:
            said.append(_sentence(best[name], by_verdict[best[name]["verdict"]]))
    return said


def _about(line: Mapping) -> Claim:
    return claim(findings.find(line["finding"]).CLAIMS, line["claim"])


def _meaning(line: Mapping) -> str:
    """What an effect means, and for what is open that it is."""
    about, effect = _about(line), kept.effect(line)
    if effect is None:
        return f"Not asked: {about.text[0].lower()}{about.text[1:]}."
    said = about.meaning.format(ranged(effect))
    return f"Open: {said[0].lower()}{said[1:]}" if line["verdict"] == "undecided" else said


def _sentence(line: Mapping, text: str) -> str:
    """A sentence with its verdict, and where it is from."""
    runs = f", {line['replicates']} run{'s' * (line['replicates'] > 1)}"
    few = FEW if line["provisional"] else ""
    link = f'<a href="{line["study"]}/{line["finding"]}.html">{line["claim"]}</a>'
    mark, style = MARKS[line["verdict"]], f"color: {COLOURS[line['verdict']]}"
    return (
        f'<span style="{style}" title="{line["verdict"]}">{mark}</span> {html.escape(text)} '
        f"<small>{link} in {line['study']}{runs}{few}</small>"
    )


def overall() -> str:
    """The kept studies: what each is, and of how many claims it decides how many."""
    lines = {}
    for study in kept.studies():
        if asked := _of(study).values():
            decided = [one for one in asked if one["verdict"] not in ("undecided", "not asked")]
            lines[f'<a href="{study.name}/index.html">{study.name}</a>'] = {
                "what": html.escape(study.title),
                "runs": study.runs,
                "seeds of tuning": study.tuning.seeds,
                "claims decided": f"{len(decided)} of {len(asked)}",
                "supported": sum(one["verdict"] == "supported" for one in asked),
            }
    return display.as_html(pd.DataFrame(lines).T)


def _of(study: Study) -> dict[str, dict]:
    return kept.verdicts(study.name, paths.REFERENCE / study.name)


def matrices() -> list[str]:
    """Claims against the studies that asked them, each cell with its verdict and effect and a link
    to the page; the number of the reference study beside them. A table for findings that have a
    study in common.
    """
    lines = [line | {"study": one.name} for one in kept.studies() for line in _of(one).values()]
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
        about = _about(line)
        texts[line["claim"]] = f"{line['claim']} {html.escape(about.text)}"
        row = rows.setdefault(line["claim"], {})
        row[line["study"]] = _cell(line)
        row["reference"] = f'<small class="note">{html.escape(about.reference)}</small>'
    asked = {line["study"] for line in lines}
    columns = [*(one.name for one in kept.studies() if one.name in asked), "reference"]
    in_order = sorted(rows, key=lambda one: (one.partition(" ")[0], " " in one, one))
    table = pd.DataFrame(rows).T.reindex(index=in_order, columns=columns).fillna("–")
    return display.as_html(table.rename(index=texts))


def _cell(line: Mapping) -> str:
    """A verdict with its mark and effect, as a link; who hovers or listens gets the word."""
    effect = "" if line["effect"] is None else f"\N{NO-BREAK SPACE}{line['effect']:+.2f}"
    name = line["verdict"] + FEW * bool(line["provisional"] and effect)
    style = f"border-left: 4px solid {COLOURS[line['verdict']]}; padding-left: .5em"
    address = f"{line['study']}/{line['finding']}.html"
    return (
        f'<a style="{style}" href="{address}" title="{name}" aria-label="{name}{effect}">'
        f"{MARKS[line['verdict']]}{effect}{'°' if FEW in name else ''}</a>"
    )
