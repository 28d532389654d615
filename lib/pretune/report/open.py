"""From the name of a study to its plan, and to the results of one of its findings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from IPython import get_ipython

from pretune import findings, measures, records
from pretune.analysis.results import Results, marked
from pretune.errors import RunError
from pretune.plan import cells, check
from pretune.plan.cells import Plan
from pretune.report.pages import assigned, check_parameters, source_of
from pretune.run import queue, status
from pretune.sources import checkpoints, datasets, released
from pretune.study.config import Study
from pretune.study.load import load_study
from pretune.tasks.dataset import RESERVE


def open_plan(study: Study) -> Plan:
    """The plan of a study, made from what there is now: checkpoints are listed and data is pinned.

    Raises StudyError for an unknown dataset, finding, folder or checkpoint of the grid, and, with
    a line for each dataset, where rows are lacking.
    """
    check.check_names(study)
    needs = {name: findings.find(name).needs for name in _findings(study)}
    study = study.model_copy(update={"findings": tuple(needs)})
    check.check_files(study)
    points, configs = checkpoints.listed(study)
    check.check_grid(study, points)
    return cells.make(study, points, datasets.data_key(study), needs, configs)


def _findings(study: Study) -> list[str]:
    """The findings of a study: those it names, or all that have something to look at."""
    for place, name in enumerate(study.findings):
        if name not in findings.names():
            allowed = f"allowed findings: {', '.join(findings.names())}"
            raise study.refuse(f"findings.{place}", name, allowed)
        if findings.is_of_tables(findings.find(name)) and not study.tables:
            why = "it is about released tables: a study with `tables`"
            raise study.refuse("findings", name, why)
        if len(study.models) > 1 and not findings.compares_models(findings.find(name)):
            why = "it is about one model, and the study has several (checkpoints)"
            raise study.refuse("findings", name, why)
        if not any(findings.find(name).needs(study, recipe) for recipe in study.recipes):
            why = "it has nothing to look at in the datasets and recipes of the study"
            raise study.refuse(f"findings.{place}", name, why)
    return list(study.findings) or [name for name in findings.names() if _applies(study, name)]


def _applies(study: Study, name: str) -> bool:
    """Whether a finding has something to look at after some recipe."""
    finding = findings.find(name)
    if findings.is_asked_by_name(finding) or findings.is_of_tables(finding) and not study.tables:
        return False
    if len(study.models) > 1 and not findings.compares_models(finding):
        return False
    return any(finding.needs(study, recipe) for recipe in study.recipes if recipe != "base")


def open_results(
    study: str,
    finding: str,
    checkpoint: str,
    margin: float | None = None,
    sets: Sequence[str] = (),
) -> Results:
    """Measure what a page lacks, nothing else, and read what it needs; `margin` and `sets` are
    those of `Results.otherwise`.

    Raises RunError when something cannot be measured, StudyError for an unknown study or
    checkpoint, PageError for a parameter that the notebook was given and does not have.
    """
    refuse_unknown(finding)
    return results_of(open_plan(load_study(study)), finding, checkpoint).otherwise(margin, sets)


def refuse_unknown(finding: str) -> None:
    """Hold the parameters that papermill put into this kernel against those of the notebook:
    papermill only warns of others, and the page would be of something else than was asked for.
    """
    shell = get_ipython()
    told = shell.user_ns.get("In", []) if shell else []
    for cell in (one for one in told if one.startswith("# Parameters\n")):
        check_parameters(source_of(finding), assigned(cell))


def results_of(whole: Plan, finding: str, checkpoint: str = "all") -> Results:
    """`open_results` of a study that is planned already."""
    plan = whole.of(finding, () if checkpoint == "all" else (checkpoint,))
    queue.need(plan)
    if plan.study.tables:
        rows, absent = _released(plan, finding)
        return Results(plan, finding, checkpoint, marked(plan.study, rows), {}, absent)
    lacking = _lacking(plan, checkpoint)
    rows = records.load(plan)
    rows = measures.scored(rows[rows["split"] != RESERVE], plan.study.protocol.normalisation)
    return Results(plan, finding, checkpoint, marked(plan.study, rows), lacking)


def _lacking(plan: Plan, checkpoint: str) -> dict[str, str]:
    """Names of models that lack rows, and why. Raises RunError where no untuned model has any."""
    noted = status.failed(plan)
    missing = [cell.model.name for cell in status.missing(plan)]
    lacking = {name: noted.get(name, "not measured") for name in missing}
    bases = [cell.model.name for cell in plan.cells if cell.model.recipe == "base"]
    if all(name in lacking for name in bases):
        raise RunError(
            f"{checkpoint}: no untuned model was measured, nothing can be compared; {bases[0]}: "
            f"{lacking[bases[0]]}"
        )
    return lacking


def _released(plan: Plan, finding: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The summary rows that a plan asks for, and what it asks for and released tables lack.

    Scores that rest on hidden labels stand only where the tables themselves are looked at.
    """
    keys, asked = ["step", "recipe", "dataset", "format", "shots_asked"], []
    for cell in plan.cells:
        model = (cell.model.checkpoint.step, cell.model.recipe)
        asked += [(*model, probe.dataset, probe.format, probe.shots) for probe in cell.probes]
    asked = pd.DataFrame(asked, columns=keys).drop_duplicates()
    there = released.rows(plan.study.tables)
    if not findings.is_of_tables(findings.find(finding)):
        there, asked = (some[~some["dataset"].isin(released.HIDDEN)] for some in (there, asked))
    found = asked.merge(there, how="left", on=keys)
    here = found["score"].notna()
    held = found[here].astype({"shots": int, "n": int, "late": bool}).reset_index(drop=True)
    return held, found.loc[~here, keys]


def summary(plan: Plan) -> pd.DataFrame:
    """One row per model and probe: mean score and its standard error over items, the same
    calibrated, score without a skill.

    What is reserved for the choice of rates is left out.
    """
    rows = records.load(plan)
    rows = measures.scored(rows[rows["split"] != RESERVE], plan.study.protocol.normalisation)
    rows = rows.assign(calibrated=measures.scored(rows, "calibrated")["score"])
    model = ["model", "run", "checkpoint", "step", "tokens", "late", "recipe", "seed"]
    probe = ["dataset", "split", "format", "shots_asked", "shots", "draw"]
    return rows.groupby(model + probe, as_index=False).agg(
        n=("score", "size"),
        score=("score", "mean"),
        standard_error=("score", "sem"),
        calibrated=("calibrated", "mean"),
        baseline=("baseline", "mean"),
    )
