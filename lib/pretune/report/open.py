"""Opening a page: measure what it lacks, read what it needs."""

from __future__ import annotations

from pretune import plan, records
from pretune.analysis.results import Page
from pretune.errors import RunError
from pretune.run import queue
from pretune.sources import released
from pretune.study.load import load_study
from pretune.tasks.registry import RESERVE


def open_page(study: str, finding: str, checkpoint: str, normalisation: str | None = None) -> Page:
    """Measure what the page lacks, nothing else, and read what it needs.

    Raises RunError when something cannot be measured, StudyError for an unknown study or
    checkpoint.
    """
    whole = load_study(study)
    narrow = whole.model_copy(update={"findings": (finding,)})
    only = () if checkpoint == "all" else (checkpoint,)
    plan.check(narrow, only)
    queue.need(narrow, only)
    if whole.tables:
        rows, absent = released.planned(narrow, only)
        return Page(narrow, finding, checkpoint, rows, {}, 0, absent)
    noted = records.failed(narrow)
    lacking = {
        cell.model.name: noted.get(cell.model.name, "not measured")
        for cell in records.missing(narrow, only)
    }
    bases = [cell.model.name for cell in plan.cells(narrow, only) if cell.model.recipe == "base"]
    if all(name in lacking for name in bases):
        raise RunError(
            f"{checkpoint}: no untuned model was measured, nothing can be compared; {bases[0]}: "
            f"{lacking[bases[0]]}"
        )
    rows = (
        records.load(narrow) if not only else records.load(narrow, where={"checkpoint": checkpoint})
    )
    rows = records.scored(
        rows[rows["split"] != RESERVE], normalisation or whole.protocol.normalisation
    )
    return Page(narrow, finding, checkpoint, rows, lacking, len(plan.cells(narrow, only)))
