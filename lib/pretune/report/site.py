"""Executed notebooks as a static site: one page each, a contents page, nothing fetched from
anywhere.

nbconvert renders with the small template beside this module. Code is folded but there; figures
are inline SVG; scripts, stylesheets and fonts from outside are left out. The same notebooks give
the same bytes, and a page is written only when its notebook, the template or the list of pages
changed.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pretune import paths, storage
from pretune.analysis import display
from pretune.errors import RunError
from pretune.report import kept, landing
from pretune.report.pages import Page, heading

TEMPLATES = Path(__file__).parent / "templates"
CONTENTS = "index.html"
TITLE = "pretune: how pre-training and fine-tuning depend on each other"  # of several studies


def render(title: str, made: dict[Page, Path], folder: Path) -> list[Path]:
    """The site of executed notebooks, in the order given; its files, in that order.

    Files of pages that are no longer made are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = _contents(made)
    order = [(page.file, _name(page, notebook)) for page, notebook in made.items()]
    before, after = [None, *order[:-1]], [*order[1:], None]
    for place, (page, notebook) in enumerate(made.items()):
        context = {
            "site": title,
            "page": page,
            "name": order[place][1],
            "contents": contents,
            "before": before[place],
            "after": after[place],
        }
        _write(folder / page.file, notebook, context)
    keep = [folder / page.file for page in made]
    if folder / CONTENTS not in keep:  # no overview yet
        sections = []
        for one in contents:
            links = [(page.file, label) for page, label in one["links"]]
            sections.append((one["title"], links))
        _list(folder / CONTENTS, title, sections)
    for leftover in set(folder.glob("*.html")) - {*keep, folder / CONTENTS}:
        leftover.unlink()
    return keep


def publish(folder: Path) -> Path:
    """A site of every study that is kept under `outputs/reference`, each in its own folder, and a
    first page on what came out of them; returns that page.

    Raises RunError in an installed package, which brings what came out and not the pages.
    """
    if not paths.IS_CHECKOUT:
        raise RunError("kept pages are in a checkout of the repository; this is the package")
    several = []
    for study in kept.studies():
        books = sorted((paths.REFERENCE / study.name).glob("*.ipynb"))
        made = {Page(notebook.stem, "all"): notebook for notebook in books}
        files = render(study.title, made, folder / study.name)
        links = [
            (f"{study.name}/{file.name}", heading(notebook))
            for file, notebook in zip(files, made.values(), strict=True)
        ]
        several.append((study.title, links))
    return _list(folder / CONTENTS, TITLE, several, landing.first_page())


def _list(
    target: Path, title: str, sections: list[tuple[str, list[tuple[str, str]]]], first: Mapping = {}
) -> Path:
    """A page of links: sections of a heading and (address, label) pairs; above them, where there
    is, what the template says on the `first` page of several studies, all HTML.
    """
    from jinja2 import Environment

    text = (TEMPLATES / "report" / "contents.html.j2").read_text()
    style = (TEMPLATES / "report" / "style.css").read_text()
    template = Environment(autoescape=True).from_string(text)
    page = template.render(style=style, title=title, sections=sections, first=first)
    target.write_text(page, encoding="utf-8")
    return target


def _write(target: Path, notebook: Path, context: dict) -> None:
    """Render one page unless it is there already, made of the same."""
    made_of = notebook.read_bytes() + _template_bytes() + repr(context).encode()
    mark = hashlib.sha256(made_of).hexdigest()
    if target.exists() and mark in target.read_text(encoding="utf-8")[:1000]:  # in its head
        return
    resources = {"report": {**context, "mark": mark, "code": _code_colours()}}
    body, _ = _exporter().from_filename(notebook, resources)
    storage.write(target, body)


def _contents(made: dict[Page, Path]) -> list[dict]:
    """Per finding its title and its links."""
    found: dict[str, dict] = {}
    for page, notebook in made.items():
        if page.finding not in found:
            title = heading(notebook)
            found[page.finding] = {"title": title, "name": title.partition(":")[0], "links": []}
        label = "all checkpoints" if page.checkpoint == "all" else page.checkpoint
        found[page.finding]["links"].append((page, label))
    return list(found.values())


def _name(page: Page, notebook: Path) -> str:
    """What a page is called in links and in a browser's tab: the first heading up to its colon,
    and the checkpoint.
    """
    short = heading(notebook).partition(":")[0]
    return short if page.checkpoint == "all" else f"{short}, {page.checkpoint}"


def as_figure(data: Mapping) -> str:
    """A figure as HTML, its panels side by side as far as there is room."""
    picture, about = data["image/svg+xml"], data.get(display.FIGURE)
    if about is None:
        return f"<figure>{picture}</figure>"
    panels, legends = (display.parts_of(picture, kind) for kind in ("panel", "legend"))
    drawn = "".join(one.replace("<svg ", '<svg aria-hidden="true" ', 1) for one in panels)
    legend = "".join(
        one.replace("<svg ", '<svg aria-hidden="true" class="legend" ', 1) for one in legends
    )
    single, wide = ' class="single"' if len(panels) == 1 else "", 26 * min(len(panels), 3)
    title, alt = html.escape(about["title"]), html.escape(about["alt"])
    return (
        f"<figure{single}><figcaption>{title}</figcaption>"
        f'<div class="panels" role="img" aria-label="{alt}" style="max-width: {wide}rem">{drawn}'
        f"</div>{legend}{about['numbers']}</figure>"
    )


@cache
def _exporter():
    """nbconvert with our template; it takes a while to load, and often nothing is to render."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_template_basedirs=[str(TEMPLATES)], template_name="report", embed_images=True
    )
    exporter.register_filter("as_figure", as_figure)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.exclude_anchor_links = True
    return exporter


@cache
def _code_colours() -> str:
    """Styles that are readable on the page's grounds: contrast of every token above 4.5 on light
    and dark.
    """
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="xcode").get_token_style_defs(".highlight")
    dark = HtmlFormatter(style="monokai").get_token_style_defs(".highlight")
    rules = [*light, "@media (prefers-color-scheme: dark) {", *dark, "}"]
    return re.sub(r" /\*.*?\*/", "", "\n".join(rules))


@cache
def _template_bytes() -> bytes:
    return b"".join(file.read_bytes() for file in sorted((TEMPLATES / "report").iterdir()))
