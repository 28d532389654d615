"""Files and folders are there whole or not at all; what the dead left is cleaned, what the
living write is not.
"""

import errno
import multiprocessing
import os

import pytest

from pretune import storage


def partial_name(name, machine, process):
    return f"{name}.{machine}-{process}.partial"


def dead():
    """The number of a process that has ended."""
    process = multiprocessing.Process(target=int)
    process.start()
    process.join()
    return process.pid


def test_a_file_appears_whole_and_replaces_what_was_there(tmp_path):
    storage.write(tmp_path / "deep" / "a.txt", "one")
    with storage.whole(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("two")
        assert (tmp_path / "deep" / "a.txt").read_text() == "one"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_breaks_off_leaves_nothing(tmp_path, error):
    (tmp_path / "a").write_text("before")
    with pytest.raises(error), storage.whole(tmp_path / "a") as partial:
        partial.write_text("half")
        raise error
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "before")]


def test_of_a_folder_made_twice_the_first_is_kept(tmp_path):
    for content in ("first", "second"):
        with storage.whole(tmp_path / "made") as partial:
            partial.mkdir()
            (partial / "file").write_text(content)
    assert [path.name for path in tmp_path.iterdir()] == ["made"] and (
        tmp_path / "made" / "file"
    ).read_text() == "first"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, "quota"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_what_is_free(tmp_path, error):
    with (
        pytest.raises(
            storage.DiskFull, match=rf"no room to write {tmp_path}/a/b: [\d,.]+ MB are free"
        ),
        storage.whole(tmp_path / "a" / "b") as partial,
    ):
        partial.write_text("half")
        raise error
    assert not list((tmp_path / "a").iterdir())


def test_leftovers_of_the_dead_are_removed_and_nothing_else(tmp_path):
    here = storage._machine()
    left = [
        tmp_path / partial_name("rows", here, dead()),
        tmp_path / "deep" / partial_name("a.txt", here, dead()),
    ]
    kept = [
        tmp_path / partial_name("rows", here, os.getpid()),
        tmp_path / partial_name("rows", "elsewhere", dead()),
        tmp_path / "0123abcd.partial",
        tmp_path / "rows",
    ]
    for folder in (left[0], kept[0], kept[1], kept[2]):
        folder.mkdir()
        (folder / "file").touch()
    left[1].parent.mkdir()
    for file in (left[1], kept[3]):
        file.touch()
    storage.clean(tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_what_is_set_aside_keeps_its_content_under_another_name(tmp_path):
    for content in ("old", "new"):
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / "file").write_text(content)
        storage.set_aside(tmp_path / "part")
    storage.set_aside(tmp_path / "part")  # another process was faster
    assert [path.name for path in tmp_path.iterdir()] == ["part.damaged"]
    assert (tmp_path / "part.damaged" / "file").read_text() == "new"
