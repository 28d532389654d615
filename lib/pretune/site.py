"""Executed notebooks as a static site: one page each, a contents page, nothing fetched from anywhere.

nbconvert renders with the small template beside this module. Code is folded but there; figures are inline SVG; scripts,
stylesheets and fonts from outside are left out. The same notebooks give the same bytes, and a page is written only when
its notebook, the template or the list of pages changed.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import nbformat
from jinja2 import Environment
from nbconvert import HTMLExporter

from pretune import pages, paths
from pretune.checkpoints import checkpoints
from pretune.pages import Page
from pretune.params import Study

TEMPLATES = Path(__file__).parent / "templates"
CONTENTS = "index.html"


def render(study: Study, made: list[Page]) -> list[Path]:
    """The site of the executed pages `made`; its files, the first page for all checkpoints foremost.

    Files of pages that are no longer made are removed.
    """
    folder = paths.study_folder(study.name) / "site"
    folder.mkdir(parents=True, exist_ok=True)
    titles = {page: _title(pages.executed(study, page)) for page in made}
    keep = [folder / page.file for page in made]
    for place, page in enumerate(made):
        before, after = (made[i] if 0 <= i < len(made) else None for i in (place - 1, place + 1))
        context = {"site": study.title, "page": page, "contents": _contents(study, titles), "before": before, "after": after}
        _write(keep[place], pages.executed(study, page), context)
    if folder / CONTENTS not in keep:  # no overview yet: a plain list
        index = Environment(autoescape=True).from_string((TEMPLATES / "report" / "contents.html.j2").read_text())
        style = (TEMPLATES / "report" / "style.css").read_text()
        (folder / CONTENTS).write_text(index.render(site=study.title, contents=_contents(study, titles), style=style))
    for leftover in set(folder.glob("*.html")) - {*keep, folder / CONTENTS}:
        leftover.unlink()
    return keep


def _write(target: Path, notebook: Path, context: dict) -> None:
    """Render one page unless it is there already, made of the same."""
    mark = hashlib.sha256(notebook.read_bytes() + _template_bytes() + repr(context).encode()).hexdigest()
    if target.exists() and mark in target.read_text(encoding="utf-8")[:1000]:  # in its head
        return
    body, _ = _exporter().from_notebook_node(nbformat.read(notebook, 4), {"report": {**context, "mark": mark}})
    partial = target.with_suffix(".partial")
    partial.write_text(body, encoding="utf-8")
    partial.replace(target)


def _contents(study: Study, titles: dict[Page, str]) -> list[dict]:
    """Per finding its title and its links: all checkpoints first, then each, in the order of steps."""
    order = ["all", *(point.name for point in checkpoints(study))]
    lines = []
    for finding in (pages.OVERVIEW, *study.findings):
        some = sorted((page for page in titles if page.finding == finding), key=lambda page: order.index(page.checkpoint))
        if some:
            links = [(page, "all checkpoints" if page.checkpoint == "all" else page.checkpoint) for page in some]
            lines.append({"title": titles[some[0]], "links": links})
    return lines


def _title(notebook: Path) -> str:
    """The first heading of a notebook."""
    for cell in nbformat.read(notebook, 4).cells:
        if found := re.match(r"# (.+)", cell.source):
            return found[1]
    return notebook.stem


@cache
def _exporter() -> HTMLExporter:
    exporter = HTMLExporter(extra_template_basedirs=[str(TEMPLATES)], template_name="report", embed_images=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.exclude_anchor_links = True
    return exporter


@cache
def _template_bytes() -> bytes:
    return b"".join(file.read_bytes() for file in sorted((TEMPLATES / "report").iterdir()))
