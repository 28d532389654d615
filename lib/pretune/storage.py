"""Files and folders that are there whole or not at all, whatever kills the process and whoever
writes beside it.

Everything is written under a name of its own (machine and process are part of it) and takes its
place by renaming. What a killed process left is removed by the next run on the same machine.
Locks hold between processes of one machine; where machines share a folder, work may be done
twice, and the first one to finish is kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock

from pretune import paths
from pretune.errors import RunError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PARTIAL = re.compile(r".+\.(?P<machine>[^.]+)-(?P<process>\d+)\.partial")


class DiskFull(RunError):
    """There is no room: the message names the file and what is free."""


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A place beside `target` to write a file or a folder to; it becomes `target` when the block
    ends well, else it is removed.

    A file replaces what is there; a folder that is there already is kept. Raises DiskFull.
    """
    partial = target.with_name(f"{target.name}.{_machine()}-{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        _place(partial, target)
    except Exception as error:
        if is_full(error):
            raise no_room(target, error) from None
        raise
    finally:
        _remove(partial)


def write(target: Path, text: str) -> None:
    """Write a text file whole."""
    with whole(target) as partial:
        partial.write_text(text, encoding="utf-8")


def mark(folder: Path) -> Path:
    """An empty file with a name of its own, which `clean` removes when this process is gone."""
    file = folder / f"{uuid.uuid4().hex}.{_machine()}-{os.getpid()}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, a quota or the largest size of a file is used up; libraries
    say so in words only.
    """
    return getattr(error, "errno", None) in FULL or any(
        words in str(error) for words in map(os.strerror, FULL)
    )


def no_room(target: Path, error: BaseException) -> DiskFull:
    free = shutil.disk_usage(next(one for one in target.parents if one.is_dir())).free
    return DiskFull(f"no room to write {target}: {free / 1e6:,.1f} MB are free there ({error})")


def sha256(file: Path | str) -> hashlib._Hash:
    """The hash of a file's content."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256")


def lock(name: str) -> FileLock:
    """Waits until no other process of this machine holds `name`, a thing in the cache that
    studies share.
    """
    home = paths.CACHE / "locks"
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home / f"{name}.lock")


def clean(folder: Path) -> None:
    """Remove what processes of this machine that are gone were writing under `folder`."""
    for left in folder.rglob("*.partial"):
        found = PARTIAL.fullmatch(left.name)
        if (
            found
            and found["machine"] == _machine()
            and not psutil.pid_exists(int(found["process"]))
        ):
            _remove(left)


def set_aside(damaged: Path) -> None:
    """Rename a file or folder to `NAME.damaged`, in the place of what was set aside before."""
    aside = damaged.with_name(damaged.name + ".damaged")
    if damaged.exists():  # another process may have been faster
        _remove(aside)
        damaged.replace(aside)


def _place(partial: Path, target: Path) -> None:
    try:
        partial.replace(target)
    except OSError:
        if not (partial.is_dir() and target.is_dir()):
            raise


def _machine() -> str:
    return re.sub(r"\W", "_", platform.node()) or "machine"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def short_hash(*parts: object) -> str:
    """Twelve hexadecimal digits that stand for `parts`."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:12]


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted(
        (str(path.relative_to(folder)), path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    )


def file_of(stem: Path) -> Path | None:
    """The file with rows under a name without ending; None where there is none, or an empty one."""
    there = (stem.with_name(f"{stem.name}{ending}") for ending in (".parquet", ".jsonl"))
    return next((file for file in there if file.is_file() and file.stat().st_size), None)
