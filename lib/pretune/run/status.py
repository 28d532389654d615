"""What is missing of a plan, and what could not be done when it was last tried.

Of a cell that failed, the reason is noted in `failed.json`, until it is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pretune import paths, records, storage
from pretune.plan.cells import Cell, Plan
from pretune.study.config import Study

FAILED = "failed.json"  # in the study's folder


def missing(plan: Plan) -> list[Cell]:
    """The cells with the probes they still lack; cells that lack none are left out.

    Of a study of released tables nothing can be measured.
    """
    if plan.study.tables:
        return []
    lacking = []
    for cell in plan.cells:
        done = records.finished(plan.study, cell.model)
        probes = tuple(probe for probe in cell.probes if probe.key not in done)
        if probes:
            lacking.append(Cell(cell.model, probes))
    return lacking


def failed(plan: Plan) -> dict[str, str]:
    """Why cells could not be done when they were last tried: model name to reason."""
    if not (noted := _noted(plan.study)):
        return {}
    folders = {one.model.name: _folder(plan.study, one) for one in plan.cells}
    return {name: noted[folder] for name, folder in folders.items() if folder in noted}


def note_failures(study: Study, tried: Iterable[Cell], why: dict[str, str]) -> None:
    """Write down which of the cells `tried` failed, and `why`; the rest of them did not."""
    folders = {_folder(study, cell): cell.model.name for cell in tried}
    noted = {name: reason for name, reason in _noted(study).items() if name not in folders}
    noted |= {folder: why[name] for folder, name in folders.items() if name in why}
    if noted or _noted(study):
        storage.write(_file(study), json.dumps(noted, indent=1))


def _noted(study: Study) -> dict[str, str]:
    file = _file(study)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _file(study: Study) -> Path:
    return paths.study_folder(study.name) / FAILED


def _folder(study: Study, cell: Cell) -> str:
    return records.record_folder(study, cell.model).name
