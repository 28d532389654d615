"""A params file for checkpoints that exist: what was found of them, and settings to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from pretune import paths
from pretune.errors import StudyError
from pretune.sources import found
from pretune.sources.revisions import Revision, RevisionError
from pretune.study.load import ENDINGS, check_name, is_held
from pretune.study.sources import Hub, Local

MOST = 12  # checkpoints of which all are taken
TUNED = ("xsum", "social_i_qa", "mnli", "paws", "arc_easy", "hellaswag")
FILE = Template("""\
# $seen
# Every key is explained in params/README.md. What it costs: pretune plan $study
title: "$name"
checkpoints:
  source: $source
  $place
  $which
  late: $late  # so many of the last are neighbours: their mean is "late", their spread the noise
  $tokens
datasets: $datasets
recipes:  # base is the checkpoint as it is, the others tune it on a dataset
  base: {}
$recipes
tuning:
  seeds: 1  # with fewer than 3 verdicts are provisional
  examples: 2000
  epochs: 3
  batch_size: 8
  learning_rate: 2.0e-5
probing: {shots: 4, items: 500, new_tokens: 60}
cache: {max_gb: 20.0}  # of tuned weights that are kept
""")


def write(study: str, source: Hub | Local, rows: str | None = None) -> tuple[Path, str]:
    """Write a file for `study` (a name of `params`, or a path) on all checkpoints of `source`, or
    some where there are many, with datasets from the folder `rows` or from the Hub; the file, and
    what was found.

    Raises StudyError where there is such a file, or no checkpoint, or one that does not say its
    tokens; HubError.
    """
    file = Path(study) if study.endswith(ENDINGS) else paths.PARAMS / f"{study}.yaml"
    check_name(file.stem)
    if file.exists():
        raise StudyError(f"{file} exists; give another name, or remove it")
    for folder in (getattr(source, "folder", None), rows):
        if folder and not Path(folder).is_dir():
            raise StudyError(f"{folder}: no such folder")
    data = {"source": "folder", "folder": rows} if rows else {"source": "hub"}
    about, seen = _about(source)
    tuned = [name for name in TUNED if is_held(data, name)]
    if not tuned:
        raise StudyError(f"{rows}: no dataset is there as <dataset>/<split>.jsonl or .parquet")
    text = FILE.substitute(
        about,
        name=file.stem,
        study=study,
        seen=seen,
        datasets=f"{{source: folder, folder: {json.dumps(rows)}}}" if rows else "{source: hub}",
        recipes="\n".join(f"  {name}: {{dataset: {name}}}" for name in tuned),
    )
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file, seen


def _about(source: Hub | Local) -> tuple[dict[str, object], str]:
    """What a file says of the checkpoints, and what was found, as a sentence."""
    key = "folder" if isinstance(source, Local) else "repo"
    place, size = getattr(source, key), source.tokens_per_step
    try:
        there = found.chosen(source, "")
        seen = _seen([one for one, _ in there], source, found.config(source, *there[0][1]))
    except RevisionError as error:
        said = str(error).replace("checkpoints.tokens_per_step", "--tokens-per-step")
        raise StudyError(f"{place}: {said}") from None
    return {
        "source": source.source,
        "place": f"{key}: {json.dumps(place)}",
        "which": "steps: all" if len(there) <= MOST else f"count: {MOST}  # of {len(there)}",
        "late": 3 if len(there) > 5 else 1,
        "tokens": f"tokens_per_step: {size}" if size else "# tokens are said by the names",
    }, seen


def _seen(there: list[Revision], source: Hub | Local, settings: dict) -> str:
    """What was found, as a sentence. Raises RevisionError where tokens are not said."""
    first, last = there[0], there[-1]
    context = settings.get("max_position_embeddings") or settings.get("n_positions")
    return (
        f"{len(there)} checkpoints of {settings.get('model_type')}: steps {first.step:,} to "
        f"{last.step:,}, {found.tokens(source, first):,} to {found.tokens(source, last):,} tokens, "
        f"context {context}"
    )
