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
        self._taught: dict[Checkpoint, dict[str, Cell]] = {}  # by the checkpoint of their teacher
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
        for point in cell.model.points[1:]:
            self._taught.setdefault(point, {})[cell.model.name] = cell

    def remove(self, cell: Cell) -> None:
        some = self._by[cell.model.checkpoint]
        del some[cell.model.name]
        if not some:
            del self._by[cell.model.checkpoint]
        for point in cell.model.points[1:]:
            self._taught[point].pop(cell.model.name, None)

    def of(self, point: Checkpoint) -> list[Cell]:
        """Those that wait for a checkpoint, be it their teacher's."""
        return [*self._by.get(point, {}).values(), *self._taught.get(point, {}).values()]

    def ready(self) -> Iterator[Cell]:
        """Those whose checkpoint is there, and their teacher's."""
        for point, some in self._by.items():
            if point.exists():
                for cell in some.values():
                    if all(one.exists() for one in cell.model.points[1:]):
                        yield cell

    def missing(self) -> list[Checkpoint]:
        """The checkpoints that are waited for and not there; those of teachers first, for which
        cells wait that hold another.
        """
        taught = [point for point, some in self._taught.items() if some]
        return [point for point in dict.fromkeys([*taught, *self._by]) if not point.exists()]
