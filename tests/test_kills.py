"""Thirty kills spread over one run of the smoke study: `make test-long`."""

import json
import shutil
import signal
import time

import pandas as pd
import psutil
import pytest

from conftest import plan_of, run_pretune
from pretune import records
from running import WHO, gone, rows_in, start

KILLS = 30


def done_so_far(outputs):
    """What a run has finished: checkpoints, records, pages."""
    places = (
        "cache/pretrained/*/step-*",
        "smoke/records/*/*/record.json",
        "smoke/notebooks/*.ipynb",
    )
    return sorted(
        path
        for place in places
        for path in outputs.glob(place)
        if not path.name.endswith((".partial", ".failed.ipynb"))
        and ".partial" not in str(path.parent)
    )


def until_two_more(outputs, before, process):
    while process.poll() is None and len(done_so_far(outputs)) < before + 2:
        time.sleep(0.02)


def victim(process, turn):
    """The run, one of its workers, or a kernel, by turns; the run where there is none of the
    kind at the moment.
    """
    kind = ("", "spawn_main", "ipykernel")[turn % 3]
    found = [one for one in process.children(recursive=True) if kind and kind in command(one)]
    return found[turn % len(found)] if found else process


def command(process):
    """Its command line; nothing of one that is about to go."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_thirty_kills_spread_over_a_run_lose_nothing(smoke, tmp_path, monkeypatch):
    expected = records.load(plan_of(smoke)).sort_values(WHO, ignore_index=True)
    killed, run, counts = [], None, []
    while len(killed) < KILLS:
        if run is None or run.poll() is not None:
            run = start(tmp_path, "run", "smoke")
        stamps = {path: path.stat().st_mtime_ns for path in done_so_far(tmp_path)}
        until_two_more(tmp_path, len(stamps), run)
        if run.poll() is not None:
            continue
        chosen = victim(psutil.Process(run.pid), len(killed))
        family = psutil.Process(run.pid).children(recursive=True)
        killed.append(chosen.pid == run.pid or command(chosen))
        chosen.send_signal(signal.SIGKILL)
        if chosen.pid == run.pid:
            run.wait()
            assert gone(family), "workers or kernels outlived the run"
        assert all(path.stat().st_mtime_ns == old for path, old in stamps.items()), (
            "something finished was made again"
        )
        counts.append(len(stamps))
    if run.poll() is None:
        run.communicate(timeout=200)
    done = run_pretune("run", "smoke", outputs=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    state = json.loads(run_pretune("status", "smoke", "--json", outputs=tmp_path).stdout)
    assert state["cells"]["missing"] == [] and state["pages"]["stale"] == []
    pd.testing.assert_frame_equal(expected, rows_in(tmp_path, smoke, monkeypatch))
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.name.endswith((".partial", ".damaged", ".failed.ipynb"))
    ]
    kinds = [
        sum(word in str(one) for one in killed) for word in ("True", "spawn_main", "ipykernel")
    ]
    assert min(kinds) >= 3 and counts[0] < 6 and counts[-1] > 40, (kinds, counts)
    shutil.rmtree(tmp_path)
