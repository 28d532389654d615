"""The cells of a run that wait, by checkpoint: of twenty thousand, only as many are looked at as
can be begun.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from pretune.models.checkpoint import Checkpoint
from pretune.plan.cells import Cell


class Waiting:
    """Cells in the order of their checkpoints, and of a checkpoint in the order they came in."""

    def __init__(self, cells: Iterable[Cell]):
        self._by: dict[Checkpoint, OrderedDict[str, Cell]] = {}
        for cell in cells:
            self.add(cell)

    def __bool__(self) -> bool:
        return bool(self._by)

    def __contains__(self, cell: Cell) -> bool:
        return cell.model.name in self._by.get(cell.model.checkpoint, ())

    def add(self, cell: Cell, first: bool = False) -> None:
        some = self._by.setdefault(cell.model.checkpoint, OrderedDict())
        some[cell.model.name] = cell
        some.move_to_end(cell.model.name, last=not first)

    def remove(self, cell: Cell) -> None:
        some = self._by[cell.model.checkpoint]
        del some[cell.model.name]
        if not some:
            del self._by[cell.model.checkpoint]

    def of(self, point: Checkpoint) -> list[Cell]:
        return list(self._by.get(point, OrderedDict()).values())

    def ready(self) -> Iterator[Cell]:
        """Those whose checkpoint is there."""
        for point, some in self._by.items():
            if point.exists():
                yield from some.values()

    def missing(self) -> list[Checkpoint]:
        """The checkpoints that are waited for and not there."""
        return [point for point in self._by if not point.exists()]
