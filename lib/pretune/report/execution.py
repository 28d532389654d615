"""Executing notebooks. Papermill does; its traps are handled here.

- A page is done only when its kernel left with success and the copy was renamed into place; a
  killed kernel's notebook, which papermill saves as completed, stays under another name.
- Parameter names are checked before a kernel starts, because papermill only warns of unknown ones.
- It saves a notebook twice a cell, which takes a third of the time of our pages: here at the end
  only, be it a good one.
- A kernel that does not start is tried again, since kernels started at once race for ports;
  nothing else is repeated.
"""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from pretune import paths, storage
from pretune.plan.cells import Plan
from pretune.report import kernels
from pretune.report.kernels import Kernel
from pretune.report.pages import (
    Page,
    PageError,
    check_parameters,
    executed,
    fingerprint,
    source_of,
)
from pretune.run.progress import Progress
from pretune.study.config import Study

logging.getLogger("papermill").setLevel(logging.ERROR)
STARTS = 3  # tries to start a kernel
ENGINE = "pretune"


class _SavingOnce(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, nb_man, *given, **named):
        target, nb_man.output_path = nb_man.output_path, None
        try:
            return super().execute_managed_notebook(nb_man, *given, **named)
        finally:
            nb_man.output_path = target


papermill_engines.register(ENGINE, _SavingOnce)


def execute(plan: Plan, wanted: list[Page], jobs: int) -> dict[str, str]:
    """Execute `wanted`, `jobs` kernels at a time; page name to reason for those that failed."""
    for page in wanted:
        check_parameters(source_of(page.finding), {"study", "checkpoint"})
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
    """The executed notebook, which is also saved as `target`, and up to where it failed."""
    for attempt in range(STARTS):
        try:
            return papermill.execute_notebook(
                source_of(page.finding),
                target,
                {"study": study.file, "checkpoint": page.checkpoint},
                engine_name=ENGINE,
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
