"""Executed notebooks: one per finding for all checkpoints and one per finding and checkpoint.

Papermill executes; its traps are handled here.
- A page is done only when its kernel left with success and the copy was renamed into place; a
  killed kernel's notebook, which papermill saves as completed, stays under another name.
- A page is stale when its source, the code that makes it or the records it reads changed: a
  fingerprint of them is kept in its metadata.
- Parameter names are checked before a kernel starts, because papermill only warns of unknown ones.
- A kernel that does not start is tried again, since kernels started at once race for ports;
  nothing else is repeated.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import shutil
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from papermill.exceptions import PapermillExecutionError

from pretune import paths, records, storage
from pretune.findings import find, is_of_all, names
from pretune.plan.cells import Plan
from pretune.report import kernels
from pretune.report.kernels import Kernel
from pretune.report.open import open_plan, summary
from pretune.run import status
from pretune.run.progress import Progress
from pretune.study.config import Study
from pretune.study.load import load_study

logging.getLogger("papermill").setLevel(logging.ERROR)


OVERVIEW = "00_overview"  # every study's first page, on all its findings
STARTS = 3  # tries to start a kernel


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
    return [
        page
        for page in wanted
        if not _is_fresh(executed(plan.study, page), fingerprint(plan, page))
    ]


def fingerprint(plan: Plan, page: Page) -> str:
    """A hash of all that a page depends on."""
    finding = None if page.finding == OVERVIEW else page.finding
    whole = plan.of(finding)
    shown = whole if page.checkpoint == "all" else whole.of(only=(page.checkpoint,))
    digest = hashlib.sha256(whole.study.model_dump_json().encode())
    digest.update(repr([(one.name, one.tokens, one.late) for one in plan.checkpoints]).encode())
    digest.update(_source(page.finding).read_bytes() + _library(page.finding))
    if page.finding == OVERVIEW:  # it stands beside other runs
        beside = [paths.OUTPUTS / name for name in paths.BESIDE if name != plan.study.name]
        kept = [paths.REFERENCE / name for name in (*paths.BESIDE, plan.study.name)]
        for folder in (*beside, *kept):
            file = folder / "findings.json"
            digest.update(file.read_bytes() if file.is_file() else b"-")
    for about in records.described(shown):
        digest.update(json.dumps(about["sha256"]).encode())
    digest.update(json.dumps(status.failed(whole)).encode())
    return digest.hexdigest()


@cache
def _library(finding: str) -> bytes:
    """A hash of what makes a page of a finding, as it was when this process first asked."""
    own = [find(name) for name in names()] if finding == OVERVIEW else [find(finding)]
    files = [Path(one.__file__) for one in own]
    for room in ("analysis", "records", "report", "tasks"):
        files += sorted((Path(__file__).parents[1] / room).glob("*.py"))
    hashes = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    return hashlib.sha256(b"".join(hashes)).digest()


def execute(plan: Plan, wanted: list[Page], jobs: int) -> dict[str, str]:
    """Execute `wanted`, `jobs` kernels at a time; page name to reason for those that failed."""
    for page in wanted:
        check_parameters(_source(page.finding), {"study", "checkpoint"})
    progress = Progress({page.stem: 1.0 for page in wanted}, "pages")
    waiting, failed = deque(wanted), {}

    def work(kernel: Kernel) -> None:
        while waiting:
            page = waiting.popleft()
            try:
                _execute(plan, page, kernel)
            except PageError as error:
                failed[page.stem] = str(error)
            progress.part(page.stem, 1.0, page.stem)

    several = [Kernel() for _ in range(min(jobs, len(wanted)))]
    with ThreadPoolExecutor(len(several)) as pool:
        try:
            for future in [pool.submit(work, kernel) for kernel in several]:
                future.result()
        finally:
            waiting.clear()  # after Ctrl-C: no further page, and the kernels at work are killed
            for kernel in several:
                kernel.stop()
    progress.close()
    return failed


def keep_reference(plan: Plan) -> list[Path]:
    """Copy the pages for all checkpoints, the first figure of each, findings and scores to the
    reference that is committed.

    Raises PageError for a study that is not as its file under `params/` says; where its tables
    come from does not matter.
    """
    study, told = plan.study, _as_told(plan.study)
    if study.model_copy(update={"file": told.file}) != told:
        raise PageError(
            f"{study.name} was run with overrides; only a study as in {told.file} is kept"
        )
    folder = paths.REFERENCE / study.name
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[Path] = []
    for name in ("findings.json", "rates.csv"):
        if (paths.study_folder(study.name) / name).exists():
            kept.append(folder / name)
            shutil.copyfile(paths.study_folder(study.name) / name, kept[-1])
    for finding in (OVERVIEW, *study.findings):
        source = executed(study, Page(finding, "all"))
        kept.append(folder / source.name)
        book = nbformat.read(source, 4)
        for cell in book.cells:
            if "injected-parameters" in cell.metadata.get("tags", ()):
                cell.source = cell.source.replace(study.file, told.file)
        nbformat.write(book, kept[-1])
        outputs = chain.from_iterable(cell.get("outputs", ()) for cell in book.cells)
        kinds = [output.get("data", {}) for output in outputs]
        figures = [some["image/svg+xml"] for some in kinds if "image/svg+xml" in some]
        if figures:
            kept.append(kept[-1].with_suffix(".svg"))
            kept[-1].write_text(figures[0], encoding="utf-8")
    if not study.tables:
        summary(plan).to_parquet(folder / "scores.parquet", compression="zstd", index=False)
        kept.append(folder / "scores.parquet")
    return kept


def _as_told(study: Study) -> Study:
    """The study as its file under `params/` says it, with all that it leaves out."""
    where = (f"tables={study.tables}",) if study.tables else ()
    return open_plan(load_study(study.name, where)).study


def check_parameters(notebook: Path, given: set[str]) -> None:
    """One cell tagged `parameters` that assigns literals only, and every given name among them.

    Raises PageError.
    """
    cells = [
        cell
        for cell in nbformat.read(notebook, 4).cells
        if "parameters" in cell.metadata.get("tags", ())
    ]
    if len(cells) != 1:
        raise PageError(
            f"{notebook.name}: {len(cells)} cells are tagged `parameters`, there must be one"
        )
    names = set()
    for line in ast.parse(cells[0].source).body:
        if not isinstance(line, ast.Assign) or not _is_literal(line.value):
            raise PageError(
                f"{notebook.name}: the parameters cell must assign literals only: "
                f"{ast.unparse(line)}"
            )
        names |= {target.id for target in line.targets if isinstance(target, ast.Name)}
    if given - names:
        raise PageError(
            f"{notebook.name}: unknown parameters {sorted(given - names)}; allowed: {sorted(names)}"
        )


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _source(finding: str) -> Path:
    return paths.NOTEBOOKS / f"{finding}.ipynb"


def _is_fresh(copy: Path, mark: str) -> bool:
    try:
        return nbformat.read(copy, 4).metadata.get("pretune", {}).get("fingerprint") == mark
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return False


def _execute(plan: Plan, page: Page, kernel: Kernel) -> None:
    copy, mark = executed(plan.study, page), fingerprint(plan, page)
    failed = copy.with_suffix(".failed.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / copy.name
        try:
            book = _papermill(plan.study, page, kernel, there)
        except PageError as error:
            if not there.is_file():
                raise
            storage.write(failed, there.read_text(encoding="utf-8"))
            raise PageError(f"{error}; what was executed is in {failed}") from error
    book.metadata["pretune"] = {"fingerprint": mark}
    book.metadata.pop("papermill", None)  # times and places of this machine
    for cell in book.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    storage.write(copy, nbformat.writes(book))
    failed.unlink(missing_ok=True)


def _papermill(study: Study, page: Page, kernel: Kernel, target: Path) -> nbformat.NotebookNode:
    """The executed notebook, which papermill also saves as `target` while it goes."""
    for attempt in range(STARTS):
        try:
            return papermill.execute_notebook(
                _source(page.finding),
                target,
                {"study": study.file, "checkpoint": page.checkpoint},
                progress_bar=False,
                kernel_name=kernels.NAME,
                km=kernel.manager(),
                cwd=paths.ROOT,
                extra_arguments=kernels.ARGUMENTS,
            )
        except PapermillExecutionError as error:
            raise PageError(f"{error.ename}: {error.evalue}") from error
        except (NoSuchKernel, nbformat.ValidationError, OSError) as error:
            raise PageError(f"{type(error).__name__}: {error}") from error
        # "Kernel died before replying" is a start that failed, a later death is not
        except RuntimeError as error:
            if "before replying" not in str(error) or attempt == STARTS - 1:
                raise PageError(f"kernel: {error}") from error
    raise AssertionError("unreachable")
