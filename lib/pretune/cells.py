"""Doing the work: prepare checkpoints, and run one cell.

Running a cell loads its checkpoint once, trains once or takes the cached weights, scores every probe it lacks and
leaves one record. What is random follows from seeds in the study, so the same cell gives the same rows.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from pretune import checkpoints as points
from pretune import hub, models, paths, pretraining, probing, prompts, records, scoring, training
from pretune.checkpoints import short_hash
from pretune.microworld.datasets import write_datasets
from pretune.microworld.text import documents
from pretune.microworld.world import World, make_world
from pretune.params import Corpus, Hub, MicroworldData, Study
from pretune.params import World as WorldSize
from pretune.plan import Cell, Model
from pretune.tasks import rows
from pretune.tasks.registry import REGISTRY

Report = Callable[[str, float], None]  # what is being done, and the share of the whole that is done


def prepare_data(study: Study) -> None:
    """Write the datasets of a microworld; a folder that exists is whole."""
    folder = points.data_folder(study)
    if isinstance(study.datasets, MicroworldData) and not folder.is_dir():
        partial_folder = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial_folder, ignore_errors=True)
        write_datasets(_world(study.datasets.world), partial_folder)
        partial_folder.replace(folder)


def prepare_checkpoints(study: Study, report: Report = lambda phase, share: None) -> None:
    """Pre-train, or fetch, what is missing of the study's checkpoints."""
    if isinstance(study.checkpoints, Hub):
        _fetch_checkpoints(study, report)
        return
    if all(point.exists() for point in points.checkpoints(study)):
        return
    saved, total = study.checkpoints, study.checkpoints.steps[-1]
    if isinstance(saved, Corpus):
        text = partial(pretraining.corpus_documents, Path(saved.folder))
    else:
        text = partial(documents, _world(saved.world), saved.pretraining.run)
    pretraining.pretrain(
        text, saved.steps, saved.pretraining, points.run_folder(study),
        lambda step: report(f"pre-training, step {step.step} of {total}, loss {step.loss:.2f}", step.step / total),
    )


def _fetch_checkpoints(study: Study, report: Report) -> None:
    """Fetch the checkpoints that cells wait for, one after the other, as long as the cache has room: a checkpoint whose last
    cell is done makes some (`batch`). Each is checked before it appears."""
    waiting = list(dict.fromkeys(cell.model.checkpoint for cell in records.missing(study)))
    for done, point in enumerate(waiting):
        if not point.exists():
            report(f"fetching {point.name}", done / len(waiting))
            hub.wait_for_room(study, point)
            partial_folder = point.folder.with_name(point.folder.name + ".partial")
            hub.fetch(study.checkpoints.repo, point.revision, partial_folder)
            checksum = models.check(partial_folder, point)
            hub.remember(study, point, checksum)
            about = {"step": point.step, "tokens": point.tokens, "sha256": checksum}
            (partial_folder / "checkpoint.json").write_text(json.dumps(about))
            partial_folder.replace(point.folder)


def run_cell(study: Study, cell: Cell, report: Report = lambda phase, share: None) -> tuple[dict, dict]:
    """Train if need be, score the cell's probes, leave the record; wall seconds and tokens per phase.

    Tokens scored are those of all sequences, as if each were read alone.
    Raises TrainingFailed, CheckpointError or RowError with the reason when the cell cannot be done.
    """
    model, seconds = cell.model, {}
    with _timed(seconds, "load"):
        network, tokenizer = models.load_checkpoint(model.checkpoint)
    log = []
    if model.recipe != "base":
        with _timed(seconds, "tune"):
            network, log = _tuned(study, model, network, tokenizer, report)
    seen = probing.Seen()
    with _timed(seconds, "score"):
        for done, probe in enumerate(cell.probes):
            report(f"{model.name}: {probe.dataset}", 0.5 + 0.5 * done / len(cell.probes))
            probing.look(study, model, network, tokenizer, probe, seen)
    tokens = {"tune": log[-1][1] if log else 0, "score": seen.tokens}
    about = _provenance(network, tokenizer, study, model)
    about |= {"seconds": seconds, "tokens": tokens, "left_out": seen.left_out, "training": log}
    records.write_record(records.record_folder(study, model), seen.rows, seen.texts, about)
    return seconds, tokens


def _tuned(study: Study, model: Model, network, tokenizer, report: Report) -> tuple[torch.nn.Module, list]:
    """The model after its recipe, from the cache or by training, and the training log."""
    kept = models.load_tuned(model.key)
    if kept is not None:
        return kept, models.tuned_log(model.key)
    settings, lora = study.tuning_of(model.recipe), study.recipe(model.recipe).lora
    examples = _training_rows(study, model, network.config.max_position_embeddings, tokenizer)
    total = settings.epochs * -(-len(examples) // settings.batch_size)
    with models.adapted(network, lora, model.seed) as trained:
        log = training.train(
            trained, examples, settings, model.seed, models.TUNED / f"{model.key}.running.safetensors",
            after_step=lambda step: report(f"{model.name}: tuning, loss {step.loss:.2f}", 0.5 * step.step / total),
        )
    lines = [[step.step, step.tokens, step.loss, step.learning_rate] for step in log]
    models.keep_tuned(model.key, network, lines, study.cache.max_gb)
    return network, lines


def _training_rows(study: Study, model: Model, context: int, tokenizer) -> list[training.Row]:
    """The recipe's training subset for the model's seed.

    An example that does not fit the context is an error; the published protocol cuts it.
    """
    folder, dataset = points.data_folder(study), REGISTRY[study.recipe(model.recipe).dataset]
    wanted = study.tuning_of(model.recipe).examples
    indices = rows.chosen(folder, dataset, dataset.train, wanted, model.seed)
    if len(indices) < wanted:
        raise study.refuse(f"recipes.{model.recipe}.examples", wanted, f"the {dataset.train} split of {dataset.name} has "
                           f"{len(indices)} rows beside those reserved to choose rates on")
    if dataset.kind == "chat":
        made = [prompts.chat_row(tokenizer, turns) for turns in rows.conversations(folder, dataset, indices)]
    else:
        examples = rows.examples(folder, dataset, dataset.train, "default", indices)
        made = [prompts.training_row(tokenizer, example) for example in examples]
    long = [index for index, row in zip(indices, made, strict=True) if len(row.ids) > context]
    if long and study.protocol.too_long == "refuse":
        raise rows.RowError(f"{dataset.name}: {len(long)} training rows exceed {context} tokens, the first is {long[0]}")
    return [training.Row(row.ids[:context], row.counted[:context]) for row in made]


def _world(size: WorldSize) -> World:
    return make_world(size.seed, size.people, size.towns, size.countries, size.side)


def _provenance(network, tokenizer, study: Study, model: Model) -> dict:
    """Who measured this, with what."""
    device = training.pick_device()
    packages = ("torch", "transformers", "tokenizers", "datasets", "numpy", "rouge-score")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=paths.ROOT, capture_output=True, text=True, check=False)
    weights = json.loads((model.checkpoint.folder / "checkpoint.json").read_text())["sha256"]
    return {
        "model": model.name, "key": model.key, "checkpoint_sha256": weights,
        "commit": commit.stdout.strip() or None,
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "training_precision": training.resolve_precision(study.tuning.precision, device),
        "scoring_precision": "float32", "batch_tokens": scoring.BATCH_TOKENS,
        "tokenizer": short_hash(sorted(tokenizer.get_vocab().items())),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
    }


@contextmanager
def _timed(seconds: dict[str, float], phase: str):
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 3)
