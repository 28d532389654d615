"""Executed notebooks: one per finding for all checkpoints and one per finding and checkpoint.

Papermill executes; its traps are handled here.
- A page is done only when its kernel left with success and the copy was renamed into place; a
  killed kernel's notebook, which papermill saves as completed, stays under another name.
- A page is stale when its source, the library or the records it reads changed: a fingerprint of
  them is kept in its metadata.
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
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from papermill.exceptions import PapermillExecutionError

from pretune import paths, storage
from pretune import records as stored
from pretune.report import kernels
from pretune.report.kernels import Kernel
from pretune.run.progress import Progress
from pretune.sources.checkpoints import checkpoints
from pretune.study.config import Study
from pretune.study.load import load_study

logging.getLogger("papermill").setLevel(logging.ERROR)


OVERVIEW = "00_overview"  # every study's first page, on all its findings
WHOLE = (OVERVIEW, "06_published_tables")  # pages for all checkpoints only
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


def pages(study: Study, only: tuple[str, ...] = ()) -> list[Page]:
    """All pages of the study, the overview first; with `only`, those of these checkpoints and
    the ones for all.
    """
    names = ["all", *(point.name for point in checkpoints(study) if not only or point.name in only)]
    return [
        Page(finding, name)
        for finding in (OVERVIEW, *study.findings)
        for name in (("all",) if finding in WHOLE else names)
    ]


def executed(study: Study, page: Page) -> Path:
    """Where the executed copy lies."""
    return paths.study_folder(study.name) / "notebooks" / f"{page.stem}.ipynb"


def stale(study: Study, wanted: list[Page]) -> list[Page]:
    """Those of `wanted` that were never made or whose source, library or records changed since."""
    return [
        page for page in wanted if not _is_fresh(executed(study, page), fingerprint(study, page))
    ]


def fingerprint(study: Study, page: Page) -> str:
    """A hash of all that a page depends on."""
    digest = hashlib.sha256(study.model_dump_json().encode())
    digest.update(_source(page.finding).read_bytes() + _library())
    if page.finding == OVERVIEW:  # it stands beside other runs
        beside = [paths.OUTPUTS / name for name in paths.BESIDE if name != study.name]
        for folder in (*beside, *(paths.REFERENCE / name for name in (*paths.BESIDE, study.name))):
            file = folder / "findings.json"
            digest.update(file.read_bytes() if file.is_file() else b"-")
    narrow = (
        study
        if page.finding == OVERVIEW
        else study.model_copy(update={"findings": (page.finding,)})
    )
    for file in stored.record_files(narrow, () if page.checkpoint == "all" else (page.checkpoint,)):
        digest.update(json.dumps(json.loads(file.read_text())["sha256"]).encode())
    digest.update(json.dumps(stored.failed(narrow)).encode())
    return digest.hexdigest()


@cache
def _library() -> bytes:
    """A hash of this library, as it was when this process first asked."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(
        b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    ).digest()


def execute(study: Study, wanted: list[Page], jobs: int) -> dict[str, str]:
    """Execute `wanted`, `jobs` kernels at a time; page name to reason for those that failed."""
    for page in wanted:
        check_parameters(_source(page.finding), {"study", "checkpoint"})
    progress, waiting, failed = (
        Progress({page.stem: 1.0 for page in wanted}, "pages"),
        deque(wanted),
        {},
    )

    def work(kernel: Kernel) -> None:
        while waiting:
            page = waiting.popleft()
            try:
                _execute(study, page, kernel)
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


def keep_reference(study: Study) -> list[Path]:
    """Copy the pages for all checkpoints, the first figure of each, findings and scores to the
    reference that is committed.

    Raises PageError for a study that is not as its file under `params/` says; where its tables
    come from does not matter.
    """
    told = load_study(study.name)
    if study.model_copy(update={"tables": told.tables, "file": told.file}) != told:
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
        outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
        figures = [
            output.data["image/svg+xml"]
            for output in outputs
            if "image/svg+xml" in output.get("data", {})
        ]
        if figures:
            kept.append(kept[-1].with_suffix(".svg"))
            kept[-1].write_text(figures[0], encoding="utf-8")
    if not study.tables:
        stored.summary(study).to_parquet(folder / "scores.parquet", compression="zstd", index=False)
        kept.append(folder / "scores.parquet")
    return kept


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


def _execute(study: Study, page: Page, kernel: Kernel) -> None:
    copy, mark = executed(study, page), fingerprint(study, page)
    failed = copy.with_suffix(".failed.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / copy.name
        try:
            book = _papermill(study, page, kernel, there)
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
