"""From records to pages: which can be made, executing those that are stale, rendering all."""

from __future__ import annotations

import time

from pretune import paths
from pretune.plan.cells import Plan
from pretune.report import pages, site
from pretune.run import status
from pretune.run.outcome import alone


def build(
    plan: Plan, only: tuple[str, ...], jobs: int, wall: dict[str, float]
) -> tuple[dict[str, str], int]:
    """Execute what is stale and render all; what failed, and how many pages were executed. Seconds
    are added to `wall`, and the first page is printed.
    """
    study = plan.study
    with alone(paths.study_folder(study.name)):
        start, without = time.perf_counter(), _unmeasured(plan)
        wanted = [page for page in pages.pages(plan, only) if page.checkpoint not in without]
        old = pages.stale(plan, wanted)
        failed = _executed(plan, old, jobs) if old else {}
        wall["notebooks"], start = time.perf_counter() - start, time.perf_counter()
        made = {page: pages.executed(study, page) for page in pages.pages(plan)}
        there = {page: file for page, file in made.items() if file.exists()}
        written = site.render(study.title, there, paths.study_folder(study.name) / "site")
        wall["site"] = time.perf_counter() - start
    if written:
        print(written[0])
    return failed, len(old)


def _executed(plan: Plan, old: list, jobs: int) -> dict[str, str]:
    from pretune.report import execution

    return execution.execute(plan, old, jobs)


def _unmeasured(plan: Plan) -> set[str]:
    """Checkpoints, or `all`, whose pages would measure something, or have nothing to show. What
    failed leaves a hole instead.
    """
    lacking, noted = status.missing(plan), status.failed(plan)
    untried = {cell.model.checkpoint.name for cell in lacking if cell.model.name not in noted}
    # nothing to compare with
    bare = {cell.model.checkpoint.name for cell in lacking if cell.model.recipe == "base"}
    whole = not untried and bare != {cell.model.checkpoint.name for cell in plan.cells}
    return untried | bare | (set() if whole else {"all"})
