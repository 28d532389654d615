"""What a study is expected to cost, in words."""

from __future__ import annotations

import math

from pretune.plan import costs, devices, lengths, memory
from pretune.plan.cells import Cell, Plan

GROUPS = (1, 8, 64)  # GPUs that hours are told for


def expected(plan: Plan, work: list[Cell]) -> str:
    """What `work` of a study is expected to cost, and what each number rests on."""
    jobs = memory.default_jobs(plan)
    cost, wall = costs.total(plan, work), costs.wall_seconds(plan, work, jobs)
    (written, kept), known = costs.tuned_gb(plan), lengths.basis(plan.study)
    rows, longest = memory.longest_batch(plan)
    basis = lengths.basis_of_longest(plan.study)
    batches = f"batches of {rows} rows of {longest:,} tokens, {basis}"
    return f"""
expected for what is missing
  tokens     {cost.trained_tokens:,} trained on, {cost.scored_tokens:,} scored
  operations {cost.flops:.3g} floating-point operations, {costs.parameters(plan):,} parameters
  time       {span(cost.seconds)} of one process, {span(wall)} with {jobs} \
processes, without pages
             (cells wait for their checkpoints; at rates measured on an AMD EPYC; \
row lengths: {known})
  on GPUs    hours: {_hours(plan, work, "H200")}; {_hours(plan, work, "A100")}
             (at {costs.REACHED:.1%} of their peak, as 1.2 B weights reach on short rows; \
row lengths: {known})
{_here(plan)}\
  download   {costs.download_gb(plan):.1f} GB
  memory     {memory.memory_gb(plan):.1f} GB a process ({batches if rows else "nothing is trained"})
             {memory.memory_gb(plan, 1):.1f} GB with one row at a time, \
which a process comes down to by itself
             (beside it what the C library keeps of what was freed: .2 to .8 of tensors)
  disk       {costs.disk_gb(plan, jobs):.2f} GB: \
checkpoints {costs.checkpoints_gb(plan):.2f}, tuned weights {kept:.2f}, \
states of running trainings {costs.states_gb(plan, jobs):.2f}
             {written:.2f} GB of tuned weights are written in all; \
the longest unused make room for others"""


def _hours(plan: Plan, work: list[Cell], gpu: str) -> str:
    """Hours of 1, 8 and 64 GPUs, on which no cell is divided."""
    hours, one = costs.gpu_hours(costs.total(plan, work), gpu), [0.0]
    one += [costs.gpu_hours(costs.cell_cost(plan, cell), gpu) for cell in work]
    told = (f"{max(hours / many, max(one)):.1f} on {many}" for many in GROUPS)
    return f"{', '.join(told)} {gpu}"


def _here(plan: Plan) -> str:
    """What fits the GPUs that are there."""
    there = devices.gpus()
    if not there or math.isnan(there[0].gb):
        return ""
    named = ", ".join(sorted({f"{gpu.name} of {gpu.gb:.0f} GB" for gpu in there}))
    lines = [f"  here       {len(there)} x {named}; batches of tuning, the longest rows:"]
    for words, names in memory.fits(plan, there).items():
        lines.append(f"             {words}: {', '.join(names)}")
    return "\n".join(lines) + "\n"


def span(seconds: float) -> str:
    """Seconds in minutes or hours."""
    return f"{seconds / 60:.1f} minutes" if seconds < 36_000 else f"{seconds / 3600:,.0f} hours"
