"""What a study is expected to cost, in words."""

from __future__ import annotations

from pretune.plan import costs, lengths
from pretune.plan.cells import Cell, Plan


def expected(plan: Plan, work: list[Cell], jobs: int) -> str:
    """What `work` of a study is expected to cost, and what each number rests on."""
    cost, wall = costs.total(plan, work), costs.wall_seconds(plan, work, jobs)
    (written, kept), known = costs.tuned_gb(plan), lengths.basis(plan.study)
    rows, longest = costs.longest_batch(plan)
    basis = lengths.basis_of_longest(plan.study)
    batches = f"batches of {rows} rows of {longest:,} tokens, {basis}"
    return f"""
expected for what is missing
  tokens     {cost.trained_tokens:,} trained on, {cost.scored_tokens:,} scored
  operations {cost.flops:.3g} floating-point operations, {costs.parameters(plan):,} parameters
  time       {_span(cost.seconds)} of one process, {_span(wall)} with {jobs} \
processes, without pages
             (cells wait for their checkpoints; at rates measured on an AMD EPYC; \
row lengths: {known})
  on a GPU   {costs.gpu_hours(cost, "H200"):.1f} hours of one H200, \
{costs.gpu_hours(cost, "A100"):.1f} of one A100
             (at {costs.REACHED:.1%} of their peak, as 6.9 B weights reach on short rows; \
row lengths: {known})
  download   {costs.download_gb(plan):.1f} GB
  memory     {costs.memory_gb(plan):.1f} GB a process ({batches if rows else "nothing is trained"})
             {costs.memory_gb(plan, 1):.1f} GB with one row at a time, \
which a process comes down to by itself
  disk       {costs.disk_gb(plan, jobs):.2f} GB: \
checkpoints {costs.checkpoints_gb(plan):.2f}, tuned weights {kept:.2f}, \
states of running trainings {costs.states_gb(plan, jobs):.2f}
             {written:.2f} GB of tuned weights are written in all; \
the longest unused make room for others"""


def _span(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds < 36_000 else f"{seconds / 3600:,.0f} hours"
