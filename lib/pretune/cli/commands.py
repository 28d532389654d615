"""What each command of the line does. Each takes what the line gave and returns the exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace

from pretune import paths, records
from pretune.errors import RunError, StudyError
from pretune.plan import costs, memory, several, told
from pretune.plan.cells import Plan
from pretune.plan.check import check_names
from pretune.plan.devices import default_jobs
from pretune.report.open import open_plan
from pretune.run import queue, status
from pretune.run.outcome import write_run
from pretune.study.load import load_study, resolved

SHOWN = 800  # characters of a prompt that `data` prints


def refused(error: StudyError | RunError) -> int:
    """Print a line for each fault."""
    for line in str(error).splitlines():
        print(f"pretune: {line}", file=sys.stderr)
    return 2 if isinstance(error, StudyError) else 1


def _planned(given: argparse.Namespace, study: str = "") -> Plan:
    """The plan of the study asked for, or of one of several. With overrides the study is written
    down resolved, so that notebooks read the same one.
    """
    plan = open_plan(load_study(study or given.study, tuple(given.overrides)))
    if not given.overrides or given.command is do_plan:
        return plan
    file = paths.study_folder(plan.study.name) / f"{plan.study.name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        "# resolved, with overrides: " + " ".join(given.overrides) + "\n" + resolved(plan.study)
    )
    return replace(plan, study=load_study(str(file)))


def do_plan(given: argparse.Namespace) -> int:
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


def do_run(given: argparse.Namespace) -> int:
    if given.sweep and given.only:
        raise StudyError(
            "--sweep takes no --only: a rate is chosen from all checkpoints of the grid "
            "(grid.steps)"
        )
    names = several.named(given.studies)
    if len(names) == 1:
        return _run_study(given, names[0])
    return max([_heard(given, name) for name in _in_order(given, names)], default=0)


def _in_order(given: argparse.Namespace, names: list[str]) -> list[str]:
    """Several studies in the order in which they are run; says how long they will take."""
    seconds = {name: _expected(_planned(given, name), given.jobs) for name in names}
    order = several.in_order(given.studies, seconds)
    for name in (one for one in names if one not in order):
        print(f"{name} is left out: {told.span(seconds[name])} here; pretune run {name}")
    each = ", ".join(f"{name} {told.span(seconds[name])}" for name in order)
    whole = told.span(sum(seconds[name] for name in order))
    print(f"{len(order)} studies, {whole} for what is missing, without pages: {each}", flush=True)
    return order


def _expected(plan: Plan, jobs: int | None) -> float:
    """Seconds that what is missing of a study will take."""
    if plan.study.tables:
        return 0.0
    return costs.wall_seconds(plan, status.missing(plan), jobs or memory.default_jobs(plan))


def _heard(given: argparse.Namespace, name: str) -> int:
    """Run one of several studies: what stops it does not stop the others."""
    print(f"--- {name}", flush=True)
    try:
        return _run_study(given, name)
    except (StudyError, RunError) as error:
        return refused(error)


def _run_study(given: argparse.Namespace, name: str) -> int:
    plan, only, jobs = _planned(given, name), tuple(given.only), given.jobs
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


def do_report(given: argparse.Namespace) -> int:
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


def do_publish(given: argparse.Namespace) -> int:
    from pretune.report import site

    print(site.publish(given.folder))
    return 0


def do_data(given: argparse.Namespace) -> int:
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


def do_checkpoints(given: argparse.Namespace) -> int:
    from pretune.sources import hub, revisions

    print(*revisions.listed(hub.branches(given.repo)), sep="\n")
    return 0


def do_new(given: argparse.Namespace) -> int:
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


def do_status(given: argparse.Namespace) -> int:
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
