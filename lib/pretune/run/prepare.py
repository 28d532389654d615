"""Having what cells need: datasets written or fetched, checkpoints fetched or pre-trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from pretune import storage
from pretune.errors import StudyError
from pretune.models import memory, pretraining
from pretune.models.checkpoint import Checkpoint
from pretune.run import fetch, validate
from pretune.sources import checkpoints, corpus, datasets, hub
from pretune.sources.found import pinned
from pretune.sources.microworld.datasets import write_datasets
from pretune.sources.microworld.text import documents
from pretune.sources.microworld.world import World, make_world
from pretune.sources.register import datasets as asked_of_register
from pretune.sources.register import people, text
from pretune.study.config import Study
from pretune.study.sources import (
    Corpus,
    Found,
    Hub,
    MicroworldData,
    Register,
    RegisterData,
    Saved,
)
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
    """Write the datasets of a generated world, or fetch what is lacking of those of the Hub."""
    folder = datasets.data_folder(study)
    with storage.lock(folder.name):
        if not isinstance(study.datasets, MicroworldData | RegisterData):
            fetch.fetch_data(study, report)
        elif isinstance(study.datasets, MicroworldData):
            write_datasets(_world(study.datasets.world), folder)
        elif not folder.is_dir():
            register = people.make_register(study.datasets.people)
            with storage.whole(folder) as partial_folder:
                asked_of_register.write_datasets(register, partial_folder)


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
    pretraining.pretrain(
        _text(saved, run),
        saved.steps,
        saved.pretraining,
        lacking[0].folder.parent,
        run,
        lambda step: report(
            f"pre-training, step {step.step} of {total}, loss {step.loss:.2f}", step.step / total
        ),
    )


def _text(saved: Saved, run: int) -> Callable[[], Iterator[str]]:
    """What gives the documents of a run, anew at each call."""
    if isinstance(saved, Corpus):
        return partial(corpus.documents, Path(saved.folder))
    if isinstance(saved, Register):
        return partial(_of_register, saved, run)
    return partial(documents, _world(saved.world), run)


def tokenizer_of(study: Study, folder: str | None) -> tuple[PreTrainedTokenizerBase, int]:
    """Tokenizer and context of the study's (first) model, or of one in `folder`. Of a model that
    is pre-trained here the tokenizer is trained anew, which takes seconds.

    Raises StudyError where `folder` holds none; HubError.
    """
    model, source = next(iter(study.models.items()))
    if folder is None and isinstance(source, Saved):
        text = _text(source, source.runs[0])()
        tokenizer = pretraining.tokenizer_of(text, source.pretraining)
        return tokenizer, source.pretraining.architecture.context
    if folder is None and isinstance(source, Hub):
        first = pinned(study.of(model))["checkpoints"][0]
        folder = hub.small(first["repo"], first["commit"], "tokenizers", hub.TOKENIZER)
    elif folder is None:
        folder = checkpoints.checkpoints(study)[0].folder
    # as the name of a repository it would be fetched, into a cache that is not ours
    if not Path(folder).is_dir():
        raise StudyError(
            f"--tokenizer {folder}: it must be a folder with the files of a model's tokenizer"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return tokenizer, AutoConfig.from_pretrained(folder).max_position_embeddings
    except (OSError, ValueError, AttributeError) as error:
        said = str(error).partition("\n")[0]
        raise StudyError(
            f"{folder} holds no tokenizer with a config.json that can be read: {said}"
        ) from None


def _world(size: WorldSize) -> World:
    return make_world(size.seed, size.people, size.towns, size.countries, size.side)


def _of_register(saved: Register, run: int) -> Iterator[str]:
    return text.documents(people.make_register(saved.people), saved.told, run)
