"""Having what cells need: datasets written or fetched, checkpoints fetched or pre-trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pretune import storage
from pretune.errors import StudyError
from pretune.models import memory, pretraining
from pretune.models.checkpoint import Checkpoint
from pretune.run import fetch, validate
from pretune.sources import checkpoints, corpus, datasets
from pretune.sources.microworld.datasets import write_datasets
from pretune.sources.microworld.text import documents
from pretune.sources.microworld.world import World, make_world
from pretune.study.config import Study
from pretune.study.sources import Corpus, Found, MicroworldData
from pretune.study.sources import World as WorldSize

Report = Callable[[str, float], None]  # what is being done, and the share of the whole that is done


def prepare_data(study: Study, report: Report = lambda phase, share: None) -> None:
    """Have the datasets there and held, once, against what they must be.

    Raises StudyError with a line for each dataset that cannot be scored or tuned on.
    """
    fetch_data(study, report)
    if datasets.are_ready(study):
        return
    if found := validate.faults(study):
        raise StudyError("\n".join(found))
    datasets.note_ready(study)


def fetch_data(study: Study, report: Report = lambda phase, share: None) -> None:
    """Write the datasets of a microworld, or fetch what is lacking of those of the Hub."""
    folder = datasets.data_folder(study)
    with storage.lock(folder.name):
        if not isinstance(study.datasets, MicroworldData):
            fetch.fetch_data(study, report)
        elif not folder.is_dir():
            with storage.whole(folder) as partial_folder:
                write_datasets(_world(study.datasets.world), partial_folder)


def prepare_checkpoint(
    study: Study, point: Checkpoint, report: Report = lambda phase, share: None
) -> None:
    """Fetch a checkpoint that is not there, or pre-train, which makes all of its model."""
    study = study.of(point.model)
    found = isinstance(study.checkpoints, Found)
    with storage.lock(point.revision if found else point.folder.parent.name):
        if found and not point.exists():
            report(f"fetching {point.name}", 0.0)
            fetch.fetch_checkpoint(study, point)
        elif not found:
            several = [one for one in checkpoints.checkpoints(study) if one.run == point.run]
            lacking = [one for one in several if not one.exists()]
            if lacking:
                _pretrain(study, lacking, report)


@memory.all_handed_back()
def _pretrain(study: Study, lacking: list[Checkpoint], report: Report) -> None:
    """The run that `lacking` are checkpoints of."""
    saved, total, run = study.checkpoints, study.checkpoints.steps[-1], lacking[0].run
    for point in lacking:
        # what is there without its notes is nothing, and would be kept
        storage.set_aside(point.folder)
    if isinstance(saved, Corpus):
        text = partial(corpus.documents, Path(saved.folder))
    else:
        text = partial(documents, _world(saved.world), run)
    pretraining.pretrain(
        text,
        saved.steps,
        saved.pretraining,
        lacking[0].folder.parent,
        run,
        lambda step: report(
            f"pre-training, step {step.step} of {total}, loss {step.loss:.2f}", step.step / total
        ),
    )


def _world(size: WorldSize) -> World:
    return make_world(size.seed, size.people, size.towns, size.countries, size.side)
