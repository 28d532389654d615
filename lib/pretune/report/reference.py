"""The pages that are committed for others to read."""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

import nbformat

from pretune import paths
from pretune.analysis import display
from pretune.plan.cells import Plan
from pretune.report.open import open_plan, summary
from pretune.report.pages import OVERVIEW, Page, PageError, executed
from pretune.study.config import Study
from pretune.study.load import load_study


def keep_reference(plan: Plan) -> list[Path]:
    """Copy the pages for all checkpoints, the first figure of each, findings and scores to the
    reference that is committed.

    Raises PageError for a study that is not as its file under `params/` says (where its tables
    come from does not matter), and where there is no checkout to keep them in.
    """
    study, told = plan.study, _as_told(plan.study)
    if not paths.IS_CHECKOUT:
        raise PageError("pages are kept in a checkout of the repository; this is the package")
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
        picture = kept[-1].with_suffix(".svg")
        picture.unlink(missing_ok=True)  # of an earlier run
        if first := _first_figure(book):
            kept.append(picture)
            picture.write_text(first, encoding="utf-8")
    if not study.tables:
        summary(plan).to_parquet(folder / "scores.parquet", compression="zstd", index=False)
        kept.append(folder / "scores.parquet")
    return kept


def _first_figure(book: nbformat.NotebookNode) -> str:
    """The first two panels that a notebook shows, side by side as one picture; empty where it
    shows none.
    """
    outputs = chain.from_iterable(cell.get("outputs", ()) for cell in book.cells)
    pictures = [output.get("data", {}).get("image/svg+xml", "") for output in outputs]
    panels = list(chain.from_iterable(display.parts_of(one, "panel") for one in pictures))
    return display.sheet("", panels[:2]) if panels else ""


def _as_told(study: Study) -> Study:
    """The study as its file under `params/` says it, with all that it leaves out."""
    where = (f"tables={study.tables}",) if study.tables else ()
    return open_plan(load_study(study.name, where)).study
