"""A folder of text to pre-train on: its files, and the documents in them."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

TEXTS = ("*.jsonl", "*.jsonl.xz", "*.txt")  # what a corpus may consist of


def texts(folder: Path) -> list[Path]:
    """The files of a corpus, in order of name."""
    return sorted(chain.from_iterable(folder.rglob(ending) for ending in TEXTS))


def documents(folder: Path) -> Iterator[str]:
    """The documents of every *.jsonl, *.jsonl.xz and *.txt under `folder`, files taken in turn,
    in order of name.
    """
    files = texts(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no {', '.join(TEXTS)}")
    streams = [_of(path) for path in files]
    while streams:
        for stream in list(streams):
            document = next(stream, None)
            if document is None:
                streams.remove(stream)
            else:
                yield document


def _of(file: Path) -> Iterator[str]:
    if file.suffix == ".txt":
        yield file.read_text(encoding="utf-8")
        return
    with (lzma.open if file.suffix == ".xz" else open)(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
