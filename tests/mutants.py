"""How many changes of the code do the tests notice? Run as `make mutants`.

A fixed sample of mutants by cosmic-ray, one to a place, of what decides numbers: how models are
trained and scored, measures, records, and analysis without what is drawn, which is looked at. A
mutant is held against the tests that run its line, which coverage finds once, the quickest first;
it is killed when one of them fails, or takes too long. Mutants of annotations are none. What stays
is listed, in `outputs/reference/mutants.json` too; `EQUIVALENT` says of which it is no matter, and
why. A run that was stopped goes on, for the same commit.
"""

from __future__ import annotations

import ast
import json
import os
import random
import shlex
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cosmic_ray.commands.init import _all_work_items
from cosmic_ray.mutating import mutate_and_test
from coverage import CoverageData
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("analysis", "measures", "models", "recipes", "records")
DRAWN = ("figures.py", "theme.py", "display.py")
SAMPLE, SEED = 100, 1
SECONDS = 300  # of tests that a mutant is held against
COPIES = 2  # of the checkout, in which mutants are tried side by side
OUTPUTS = ROOT / "outputs" / "mutants"
TIMES = "times.xml"
KEPT = ROOT / "outputs" / "reference" / "mutants.json"

# what a mutant changes that no test need notice: "file: the line, the operator": the reason
EQUIVALENT: dict[str, str] = {}


def main() -> int:
    folder = OUTPUTS / _git(ROOT, "rev-parse", "HEAD")
    copies = [folder / str(number) for number in range(COPIES)]
    for copy in copies:
        if not copy.is_dir():
            _git(ROOT, "clone", "-q", str(ROOT), str(copy))
        _git(copy, "reset", "-q", "--hard", folder.name)  # of a run that was killed
    covering = tests_by_line(copies[0])
    jobs = {folder / f"{number}.json": spec for number, spec in enumerate(sample(copies[0]))}
    left = [
        (spec, tests_of(spec, copies[0], covering))
        for file, spec in jobs.items()
        if not file.is_file()
    ]
    places = [file for file in jobs if not file.is_file()]
    with ProcessPoolExecutor(COPIES, initializer=_enter, initargs=(copies,)) as pool:
        for file, line in zip(
            places, tqdm(pool.map(_tried, left), total=len(left), unit="mutant"), strict=True
        ):
            file.write_text(json.dumps(line))
    return report([json.loads(file.read_text()) for file in jobs])


def _git(where: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def sample(root: Path) -> list:
    """Mutants of places drawn at random, one to a place; the same for the same code."""
    files = [file for room in ROOMS for file in (root / "lib/pretune" / room).glob("*.py")]
    files = sorted(file for file in files if file.name not in DRAWN)
    places = defaultdict(list)
    for item in _all_work_items(files, {}):
        [spec] = item.mutations
        places[str(spec.module_path), spec.start_pos, spec.end_pos].append(spec)
    idle = {file: never_computed(file.read_text()) for file in files}
    there = [
        specs
        for (file, start, _), specs in sorted(places.items())
        if not any(first <= start < last for first, last in idle[Path(file)])
    ]
    draw = random.Random(SEED)
    return [draw.choice(specs) for specs in draw.sample(there, SAMPLE)]


def never_computed(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """From where to where annotations go, and `strict=True`, which guards what never happens."""
    found = []
    for node in ast.walk(ast.parse(text)):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        parts += [node.value] if isinstance(node, ast.keyword) and node.arg == "strict" else []
        for part in filter(None, parts):
            end = part.end_lineno, part.end_col_offset
            found.append(((part.lineno, part.col_offset), end))
    return found


def tests_by_line(root: Path) -> dict[str, dict[int, list[str]]]:
    """Of each file, and of its lines, the tests that run them, the quickest first."""
    if not (root / "seconds.json").is_file():
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(COPIES), "--dist", "loadfile"]
        command += [
            "--cov=lib/pretune",
            "--cov-context=test",
            "--cov-report=",
            f"--junitxml={TIMES}",
        ]
        subprocess.run(command, cwd=root, env=_environment(root), check=True)
    times = defaultdict(float)
    for case in xml.parse(root / TIMES).iter("testcase"):
        name = f"{case.get('classname').replace('.', '/')}.py::{case.get('name')}"
        times[name] += float(case.get("time"))
    data, found = CoverageData(str(root / ".coverage")), {}
    data.read()
    for file in data.measured_files():
        lines = data.contexts_by_lineno(file)
        found[str(Path(file).relative_to(root))] = {
            line: sorted({one.partition("|")[0] for one in some if one}, key=times.__getitem__)
            for line, some in lines.items()
        }
    (root / "seconds.json").write_text(json.dumps(times))
    return found


def tests_of(spec, root: Path, covering: dict) -> list[str]:
    """The tests that run the statement of a mutant, the quickest first, in the time there is."""
    name = str(spec.module_path.relative_to(root))
    times = json.loads((root / "seconds.json").read_text())
    names = set()
    for line in statement((root / name).read_text(), spec.start_pos[0]):
        names |= set(covering.get(name, {}).get(line, ()))
    chosen, spent = [], 0.0
    for test in sorted(names, key=lambda test: times.get(test, 0.0)):
        spent += times.get(test, 0.0)
        chosen += [test] if spent <= SECONDS or not chosen else []
    return chosen


def statement(text: str, line: int) -> range:
    """The lines of the smallest statement around a line; of a block, those of its head."""
    around = range(line, line + 1)
    smallest = float("inf")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= node.end_lineno:
            body = getattr(node, "body", None)
            end = body[0].lineno - 1 if body else node.end_lineno
            if line <= max(end, node.lineno) and end - node.lineno < smallest:
                smallest, around = end - node.lineno, range(node.lineno, max(end, node.lineno) + 1)
    return around


def _environment(root: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(root / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}


def _enter(copies: list[Path]) -> None:
    """Each process has a copy of its own, the one with its number."""
    import multiprocessing

    number = multiprocessing.current_process()._identity[0] - 1
    os.chdir(copies[number % len(copies)])
    os.environ |= _environment(Path.cwd())


def _tried(job: tuple) -> dict:
    """What came of a mutant: whether it was killed, and what it changed."""
    spec, tests = job
    place = Path(*spec.module_path.parts[-4:])  # lib/pretune/<room>/<file>
    here = spec.__class__(
        place, spec.operator_name, spec.occurrence, spec.start_pos, spec.end_pos, spec.operator_args
    )
    line = place.read_text().splitlines()[spec.start_pos[0] - 1].strip()
    about = {"mutant": f"{Path(*place.parts[2:])}: {line}, {spec.operator_name.split('/')[-1]}"}
    if not tests:
        return about | {"outcome": "no test", "change": ""}
    listed = Path("tests.txt")
    listed.write_text("\n".join(tests))
    command = f"{shlex.quote(sys.executable)} -m pytest -x -q -p no:cacheprovider @{listed}"
    result = mutate_and_test([here], command, 3 * SECONDS)
    change = [one for one in (result.diff or "").splitlines() if one[:1] in "+-"][2:]
    return about | {"outcome": result.test_outcome.value, "change": "\n".join(change)}


def report(lines: list[dict]) -> int:
    """Keep and print what stays; 1 where less than nine tenths of what matters is killed."""
    for one in lines:
        one["reason"] = EQUIVALENT.get(one["mutant"], "")
    alive = [one for one in lines if one["outcome"] in ("survived", "no test")]
    matter = [one for one in lines if not one["reason"]]
    killed = sum(one["outcome"] not in ("survived", "no test") for one in matter)
    said = {"sample": len(lines), "matter": len(matter), "killed": killed, "alive": alive}
    KEPT.write_text(json.dumps(said, indent=1) + "\n")
    for one in alive:
        print(f"\n{one['mutant']}: {one['outcome']}. {one['reason']}\n{one['change']}")
    print(f"\n{killed} of {len(matter)} that matter are killed, of {len(lines)} mutants")
    return int(killed < 0.9 * len(matter))


if __name__ == "__main__":
    sys.exit(main())
