"""The rows of a split, as a table read from its file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pyarrow import ArrowException

from pretune import paths, storage
from pretune.tasks.dataset import RESERVE, Dataset
from pretune.tasks.example import RowError

# what it logs is raised too
logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)


@cache
def read(folder: Path, dataset: Dataset, split: str) -> Sequence[dict]:
    """All usable rows of a split of FOLDER/<dataset>/<split>.jsonl or .parquet. Raises RowError
    when there are none, and for a file that is not what its name says or holds text that is not
    Unicode.
    """
    with warnings.catch_warnings():  # in a notebook without widgets, of a bar that is not shown
        warnings.filterwarnings("ignore", "IProgress not found")
        from datasets import Dataset as Table  # it takes a second to load
        from datasets import disable_progress_bars
        from datasets.exceptions import DatasetGenerationError

    disable_progress_bars()
    split = dataset.train if split == RESERVE else split
    stem, cache_dir = folder / dataset.folder / split, str(paths.CACHE / "arrow")
    file, reader = Path(f"{stem}.parquet"), Table.from_parquet
    if not file.is_file():
        file, reader = Path(f"{stem}.jsonl"), Table.from_json
    if not file.is_file() or not file.stat().st_size:
        raise RowError(
            f"{dataset.name}: {file} is missing or empty; it should hold the {split} split"
        )
    try:
        table = reader(str(file), cache_dir=cache_dir)
    except (DatasetGenerationError, ArrowException, ValueError, OSError) as error:
        if storage.is_full(error.__cause__ or error):
            raise storage.no_room(paths.CACHE / "arrow", error.__cause__ or error) from None
        raise RowError(
            f"{dataset.name}: {file} cannot be read: {error.__cause__ or error}"
        ) from None
    try:
        table = table if dataset.keep is None else table.filter(dataset.keep)
    except (KeyError, TypeError, AttributeError) as error:
        raise RowError(
            f"{dataset.name}: {file} lacks what its rows are chosen by: {error}"
        ) from None
    if not len(table):
        raise RowError(f"{dataset.name}: {file} holds no row that can be used")
    return table
