"""The output-free `.ipynb` beside every percent script: `python -m pretune.report.pairing`.

The percent script is the source. Papermill and JupyterLab users need a notebook, so one is
written beside it with cell ids that follow from place and text: writing it again changes
nothing, and the pair is compared by content, never by time.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat

from pretune import paths

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook_of(script: Path) -> nbformat.NotebookNode:
    """The output-free notebook of a percent script."""
    book = jupytext.read(script, fmt="py:percent")
    cells = []
    for place, cell in enumerate(book.cells):
        mark = hashlib.sha256(f"{place} {cell.source}".encode()).hexdigest()[:8]
        kind = (
            nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        )
        cells.append(
            kind(
                cell.source,
                id=mark,
                metadata={"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {},
            )
        )
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": KERNEL,
            "language_info": {"name": "python"},
            "jupytext": {"formats": "ipynb,py:percent"},
        },
    )


def write_pairs(folder: Path = paths.NOTEBOOKS) -> list[Path]:
    """Write the notebook of every percent script in `folder`; those that changed."""
    changed = []
    for script in sorted(folder.glob("*.py")):
        target, text = script.with_suffix(".ipynb"), nbformat.writes(notebook_of(script)) + "\n"
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            changed.append(target)
    return changed


if __name__ == "__main__":
    for path in write_pairs():
        print(path.relative_to(paths.ROOT), file=sys.stderr)
