"""The pages of a study: one per finding for all checkpoints and one per finding and checkpoint;
where their executed copies lie, and which of them are stale.

A page is stale when its source, the code that makes it or the records it reads changed: a
fingerprint of them is kept in its metadata. Notebooks are read as the JSON they are, because
nbformat takes longer to load than there is to do where nothing is stale.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pretune import paths, records
from pretune.findings import find, is_of_all, names
from pretune.plan.cells import Plan
from pretune.run import status
from pretune.study.config import Study

OVERVIEW = "00_overview"  # every study's first page, on all its findings


class PageError(RuntimeError):
    """A page that could not be made; the message names it, the reason and where to look."""


@dataclass(frozen=True)
class Page:
    """A finding's notebook for one checkpoint or for `all`."""

    finding: str
    checkpoint: str

    @property
    def stem(self) -> str:
        return self.finding if self.checkpoint == "all" else f"{self.finding}.{self.checkpoint}"

    @property
    def file(self) -> str:
        """Its name in the site."""
        return "index.html" if self.finding == OVERVIEW else f"{self.stem}.html"


def pages(plan: Plan, only: tuple[str, ...] = ()) -> list[Page]:
    """All pages of the study, the overview first; with `only`, those of these checkpoints and
    the ones for all.
    """
    points = [point.name for point in plan.checkpoints if not only or point.name in only]
    found = [Page(OVERVIEW, "all")]
    for finding in plan.study.findings:
        of_all = is_of_all(find(finding))
        found += [Page(finding, name) for name in ["all", *([] if of_all else points)]]
    return found


def executed(study: Study, page: Page) -> Path:
    """Where the executed copy lies."""
    return paths.study_folder(study.name) / "notebooks" / f"{page.stem}.ipynb"


def stale(plan: Plan, wanted: list[Page]) -> list[Page]:
    """Those of `wanted` that were never made or whose source, code or records changed since."""
    return [page for page in wanted if not _is_fresh(plan, page)]


def fingerprint(plan: Plan, page: Page) -> str:
    """A hash of all that a page depends on."""
    finding = None if page.finding == OVERVIEW else page.finding
    whole = plan.of(finding)
    shown = whole if page.checkpoint == "all" else whole.of(only=(page.checkpoint,))
    digest = hashlib.sha256(whole.study.model_dump_json().encode())
    digest.update(repr([(one.name, one.tokens, one.late) for one in plan.checkpoints]).encode())
    digest.update(source_of(page.finding).read_bytes() + _library(page.finding))
    if page.finding == OVERVIEW:  # it stands beside other runs
        beside = [paths.OUTPUTS / name for name in paths.BESIDE if name != plan.study.name]
        for file in (one / "findings.json" for one in beside):
            digest.update(file.read_bytes() if file.is_file() else b"-")
        for file in sorted(paths.REFERENCE.glob("*/findings.json")):
            digest.update(file.parent.name.encode() + file.read_bytes())
    for about in records.described(shown):
        digest.update(repr(about["sha256"]).encode())
    digest.update(json.dumps(status.failed(whole)).encode())
    return digest.hexdigest()


@cache
def _library(finding: str) -> bytes:
    """A hash of what makes a page of a finding, as it was when this process first asked."""
    own = [find(name) for name in names()] if finding == OVERVIEW else [find(finding)]
    files = [Path(one.__file__) for one in own]
    for room in ("analysis", "measures", "records", "report", "tasks"):
        files += sorted((Path(__file__).parents[1] / room).glob("*.py"))
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    return hashlib.sha256(b"".join(hashes)).digest()


def source_of(finding: str) -> Path:
    return paths.NOTEBOOKS / f"{finding}.ipynb"


def check_parameters(notebook: Path, given: set[str]) -> None:
    """One cell tagged `parameters` that assigns literals only, and every given name among them.

    Raises PageError.
    """
    cells = _read(notebook)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    if len(tagged) != 1:
        raise PageError(
            f"{notebook.name}: {len(tagged)} cells are tagged `parameters`, there must be one"
        )
    try:
        names = assigned("".join(tagged[0]["source"]))
    except ValueError as error:
        raise PageError(
            f"{notebook.name}: the parameters cell must assign literals only: {error}"
        ) from None
    if given - names:
        raise PageError(
            f"{notebook.name}: unknown parameters {sorted(given - names)}; allowed: {sorted(names)}"
        )


def assigned(source: str) -> set[str]:
    """The names that a cell assigns. Raises ValueError, with the line, for all but literals."""
    names = set()
    for line in ast.parse(source).body:
        try:
            ast.literal_eval(line.value)
            names |= {target.id for target in line.targets}
        except (ValueError, AttributeError):
            raise ValueError(ast.unparse(line)) from None
    return names


def _is_fresh(plan: Plan, page: Page) -> bool:
    try:
        mark = _read(executed(plan.study, page))["metadata"]["pretune"]["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return mark == fingerprint(plan, page)


def heading(notebook: Path) -> str:
    """The first heading of a notebook, executed or not; its name where it has none."""
    for cell in _read(notebook)["cells"]:
        if found := re.match(r"# (.+)", "".join(cell["source"])):
            return found[1]
    return notebook.stem


def _read(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))
