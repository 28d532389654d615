"""The command line: `pretune plan | run | status | report | publish | checkpoints | new | data`.

Exit codes: 0 all done, 1 something failed and is listed, 2 the study or the call is not
possible, 130 interrupted.

A command imports what it alone needs when it is called: torch, pandas and papermill take seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pretune import paths, records, storage
from pretune.errors import RunError, StudyError
from pretune.plan import costs, told
from pretune.plan.cells import Plan
from pretune.plan.check import check_names
from pretune.plan.devices import default_jobs
from pretune.report.open import open_plan
from pretune.run import queue, status
from pretune.run.outcome import write_run
from pretune.study.load import load_study, resolved

SHOWN = 800  # characters of a prompt that `data` prints


def main(arguments: list[str] | None = None) -> int:
    """Run one command; what it returns is the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    given = _parser().parse_args(arguments)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return given.command(given)
    except (StudyError, RunError) as error:
        for line in str(error).splitlines():
            print(f"pretune: {line}", file=sys.stderr)
        return 2 if isinstance(error, StudyError) else 1
    except BrokenPipeError:  # what it was piped to has read enough
        sys.stdout = None
        return 0
    except OSError as error:
        if error.filename is None and not storage.is_full(error):
            raise
        print(
            f"pretune: {error}; make room or give access, and run again. PRETUNE_OUTPUTS names "
            "another folder to write to",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        again = (
            f"; what is done is kept. Continue with: pretune run {given.study}"
            if "study" in given
            else ""
        )
        print(f"\npretune: interrupted{again}", file=sys.stderr)
        return 130


def _interrupt(*_: object) -> None:
    """The first Ctrl-C ends a run in order, the second at once: workers and kernels end when
    they see their parent gone.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pretune", description="How pre-training and fine-tuning depend on each other."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, _plan, "print the resolved study, its cells and what it costs")
    _add_run(commands)
    _add(commands, _status, "say what is done, missing and stale").add_argument(
        "--json", action="store_true", help="for programs"
    )
    _add(
        commands, _report, "execute stale notebooks and render pages, measure nothing"
    ).add_argument(
        "--keep",
        action="store_true",
        help="also copy the pages for all checkpoints to outputs/reference",
    )
    _add(commands, _data, "fetch the datasets and print what they hold, and prompts").add_argument(
        "--tokenizer",
        metavar="FOLDER",
        help="measure prompts with this model's tokenizer and context",
    )
    said = "list what a repository of the Hub has, with tokens and gaps"
    _add(commands, _checkpoints, said, study=False).add_argument("repo", help="owner/name")
    _add_new(commands)
    said = "render every study kept in outputs/reference as one site"
    publish = _add(commands, _publish, said, study=False)
    publish.add_argument("folder", type=Path, help="where to")
    return parser


def _add(commands, command: Callable, said: str, study: bool = True) -> argparse.ArgumentParser:
    """A command, named as the function that does it; most take a study."""
    parser = commands.add_parser(command.__name__.strip("_"), help=said)
    parser.set_defaults(command=command)
    if study:
        parser.add_argument("study", help="a name under params/, or the path of a .yaml file")
        parser.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="override one value, for example tuning.seeds=3; may be given often",
        )
    return parser


def _add_new(commands) -> None:
    said = "write params/NAME.yaml for checkpoints of your own, or of the Hub"
    new = _add(commands, _new, said, study=False)
    new.add_argument(
        "study", help="of the study, and so of its file under params/; or the path of a .yaml file"
    )
    where = new.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--folder", type=_whole, help="a folder of this machine, with one for each checkpoint"
    )
    where.add_argument(
        "--repo", type=_repository, help="owner/name on the Hub, with a branch for each checkpoint"
    )
    new.add_argument(
        "--tokens-per-step",
        type=_positive,
        metavar="N",
        help="sequences of a step x their length, where the names do not say tokens",
    )
    new.add_argument(
        "--rows", type=_whole, metavar="FOLDER", help="datasets from here (default: the Hub)"
    )


def _add_run(commands) -> None:
    run = _add(commands, _run, "measure what is missing, execute notebooks, render pages")
    run.add_argument(
        "--only", nargs="+", default=[], metavar="CHECKPOINT", help="these checkpoints only"
    )
    run.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="processes at once (default: one per core, or one per GPU)",
    )
    run.add_argument(
        "--on",
        metavar="SCHEDULER",
        help="measure on the workers of a Dask cluster: its scheduler's file or address",
    )
    run.add_argument("--no-notebooks", action="store_true", help="measure only")
    run.add_argument(
        "--sweep",
        action="store_true",
        help="only the grid of learning rates; prints and keeps its table",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is refused; it must be a number such as 1 or 2")
    return int(text)


def _whole(folder: str) -> str:
    """A folder as it is found from anywhere."""
    return str(Path(folder).resolve())


def _repository(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text} is refused; it must be owner/name")
    return text


def _planned(given: argparse.Namespace) -> Plan:
    """The plan of the study asked for. With overrides the study is written down resolved, so that
    notebooks read the same one.
    """
    plan = open_plan(load_study(given.study, tuple(given.overrides)))
    if not given.overrides or given.command is _plan:
        return plan
    file = paths.study_folder(plan.study.name) / f"{plan.study.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "# resolved, with overrides: " + " ".join(given.overrides) + "\n" + resolved(plan.study)
    )
    return replace(plan, study=load_study(str(file)))


def _plan(given: argparse.Namespace) -> int:
    plan = _planned(given)
    lacking = status.missing(plan)
    print(resolved(plan.study))
    if plan.study.tables:
        print(f"nothing to measure: scores are read from {plan.study.tables}")
        return 0
    probes = sum(len(cell.probes) for cell in plan.cells)
    print(f"{len(plan.cells)} cells, {probes} probes; missing {len(lacking)} cells:")
    for cell in lacking:
        cost = costs.cell_cost(plan, cell)
        print(f"  {cell.model.name:<24} {len(cell.probes):>3} probes  {cost.seconds:>7.1f} s")
    print(told.expected(plan, lacking))
    return 0


def _run(given: argparse.Namespace) -> int:
    if given.sweep and given.only:
        raise StudyError(
            "--sweep takes no --only: a rate is chosen from all checkpoints of the grid "
            "(grid.steps)"
        )
    plan, only, jobs = _planned(given), tuple(given.only), given.jobs
    if given.sweep:
        return _sweep(plan, jobs, given.on)
    start, wall = time.perf_counter(), {}
    outcome = queue.measure(plan.of(only=only), jobs, given.on)
    wall["measure"] = time.perf_counter() - start
    failed, made = dict(outcome.failed), 0
    if not given.no_notebooks:
        from pretune.report import build

        failed_pages, made = build.build(plan, only, jobs or default_jobs(), wall)
        failed |= failed_pages
    wall["total"] = time.perf_counter() - start
    if outcome.seconds or made:
        write_run(plan.study, outcome, wall)
    return _told(failed)


def _sweep(plan: Plan, jobs: int | None, on: str | None) -> int:
    """Run the grid of learning rates, print its table and leave it as a file."""
    from pretune.report import rates

    if plan.study.grid is None:
        needed = "a sweep needs a grid: grid: {learning_rate: [...], steps: [...]}"
        raise plan.study.refuse("grid", None, needed)
    outcome = queue.measure(plan.sweep(), jobs, on)
    if not outcome.failed:
        file = paths.study_folder(plan.study.name) / "rates.csv"
        table = rates.table(plan)
        table.to_csv(file, index=False, float_format="%.4g")
        print(table.to_string(index=False, float_format="%.4g"))
        print(*rates.advice(plan.study, table), file, sep="\n")
    return _told(outcome.failed)


def _report(given: argparse.Namespace) -> int:
    from pretune.report import build, pages, reference

    plan = _planned(given)
    if lacking := status.missing(plan):
        raise RunError(
            f"{len(lacking)} cells are missing, the first is {lacking[0].model.name}; pretune run "
            f"{given.study}"
        )
    failed, _ = build.build(plan, (), default_jobs(), {})
    if given.keep and not failed:
        try:
            for file in reference.keep_reference(plan):
                print(file)
        except pages.PageError as error:
            raise RunError(str(error)) from None
    return _told(failed)


def _publish(given: argparse.Namespace) -> int:
    from pretune.report import site

    print(site.publish(given.folder))
    return 0


def _data(given: argparse.Namespace) -> int:
    from pretune.run import prepare, validate

    study = _planned(given).study if given.overrides else load_study(given.study)
    check_names(study)
    prepare.fetch_data(study)
    found = validate.table(study, *prepare.tokenizer_of(study, given.tokenizer))
    print(found.to_string(index=False))
    for heading, text in validate.rendered(study):
        short = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} [...] {text[-SHOWN // 2 :]}"
        print(f"\n--- {heading}\n{short}")
    wrong = validate.faults(study)
    for line in wrong:
        print(f"pretune: {line}", file=sys.stderr)
    return 2 if wrong else 0


def _checkpoints(given: argparse.Namespace) -> int:
    from pretune.sources import hub, revisions

    print(*revisions.listed(hub.branches(given.repo)), sep="\n")
    return 0


def _new(given: argparse.Namespace) -> int:
    from pretune.plan import new
    from pretune.study.sources import Hub, Local

    about = {"steps": "all", "tokens_per_step": given.tokens_per_step}
    if given.folder:
        source = Local(source="folder", folder=given.folder, **about)
    else:
        source = Hub(source="hub", repo=given.repo, **about)
    file, seen = new.write(given.study, source, given.rows)
    print(f"{file}: {seen}\nnext: pretune plan {given.study}, then: pretune run {given.study}")
    return 0


def _status(given: argparse.Namespace) -> int:
    from pretune.report import pages

    plan = _planned(given)
    work, wanted = plan.cells, pages.pages(plan)
    with records.unchanging():
        lacking = [cell.model.name for cell in status.missing(plan)]
        stale = [page.stem for page in pages.stale(plan, wanted)]
    state = {
        "study": plan.study.name,
        "checkpoints": list(dict.fromkeys(cell.model.checkpoint.name for cell in work)),
        "cells": {"total": len(work), "done": len(work) - len(lacking), "missing": lacking},
        "pages": {"total": len(wanted), "done": len(wanted) - len(stale), "stale": stale},
    }
    if given.json:
        print(json.dumps(state, indent=1))
        return 0
    for kind, rest in (("cells", "missing"), ("pages", "stale")):
        part = state[kind]
        print(f"{plan.study.name}: {part['done']} of {part['total']} {kind} done")
        for one in part[rest]:
            print(f"  {rest}: {one}")
    return 0


def _told(failed: dict[str, str]) -> int:
    for name, why in failed.items():
        print(f"pretune: {name} failed: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
