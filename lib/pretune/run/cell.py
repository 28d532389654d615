"""Running one cell: load, tune, look, leave a record.

Running a cell loads its checkpoint once, trains once or takes the cached weights, scores every
probe it lacks and leaves one record. What is random follows from seeds in the study, so the same
cell gives the same rows.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from pretune import paths, records, storage
from pretune.measures.base import Subject
from pretune.models import (
    adapters,
    device,
    group,
    learned,
    loading,
    memory,
    scoring,
    states,
    training,
    tuned,
)
from pretune.plan.cells import Cell, Model
from pretune.recipes.base import Asking, TrainingRows
from pretune.recipes.optimisation import Tuning
from pretune.run.prepare import Report
from pretune.run.probe import Seen, look
from pretune.sources import datasets
from pretune.storage import short_hash
from pretune.study.config import Study
from pretune.tasks.prompts import Request, Row


@memory.all_handed_back()
def run_cell(
    study: Study, cell: Cell, report: Report = lambda phase, share: None
) -> tuple[dict, dict]:
    """Train if need be, score the cell's probes, leave the record; wall seconds and tokens per
    phase.

    Tokens scored are those of all sequences, as if each were read alone. Raises TrainingFailed,
    ScoringFailed, CheckpointError, RowError or NotFinite with the reason when it cannot be done.
    """
    model, seconds = cell.model, {}
    with _timed(seconds, "load"):
        network, tokenizer = loading.load_checkpoint(model.checkpoint)
    tuning = {"training": [], "passed_over": []}
    if model.recipe != "base":
        with _timed(seconds, "tune"), storage.lock(model.key):
            network, tuning = _tuned(study, model, network, tokenizer, report)
    seen, subject = Seen(), Subject(network, tokenizer, model.checkpoint, model.recipe != "base")
    with _timed(seconds, "score"):
        for done, probe in enumerate(cell.probes):
            report(f"{model.name}: {probe.dataset}", 0.5 + 0.5 * done / len(cell.probes))
            look(study, model, subject, probe, seen)
    tokens = {"tune": tuning["training"][-1][1] if tuning["training"] else 0, "score": seen.tokens}
    about = _provenance(network, tokenizer, study, model)
    about |= {"seconds": seconds, "tokens": tokens, "left_out": seen.left_out} | tuning
    records.write_record(records.record_folder(study, model), seen.tables, seen.texts, about)
    return seconds, tokens


def _tuned(
    study: Study, model: Model, network, tokenizer, report: Report
) -> tuple[torch.nn.Module, dict]:
    """The model after its recipe, from the cache or by training; its training log and the rows
    that were passed over.
    """
    recipe = study.recipe(model.recipe)
    is_whole = recipe.trainable is None and tuned.is_kept(model.key)
    if model.before and not is_whole:
        network = _first(study, model.before, network, tokenizer, report)
    kept = tuned.load_tuned(model.key, network, recipe.trainable)
    if kept is not None:
        return kept, tuned.tuning_of(model.key)
    rows, long = _training_rows(study, model, learned.context(network), tokenizer)
    asking = _asking(study, model, network, tokenizer, report)
    rows = recipe.finished(rows, study.tuning_of(model.recipe), asking)
    return network, _train(study, model, network, rows, report, {"passed_over": long})


def _train(
    study: Study, model: Model, network, rows: list[Row], report: Report, about: dict
) -> dict:
    """Train in place and keep what was trained; `about` with the log, seconds and sizes."""
    recipe, settings = study.recipe(model.recipe), study.tuning_of(model.recipe)
    total = settings.steps_on(len(rows))

    def after(step: states.Step) -> None:
        report(f"{model.name}: tuning, loss {step.loss:.2f}", 0.5 * step.step / total)

    state, size = tuned.home() / f"{model.key}.running.safetensors", group.size(settings.sharding)
    with (
        _start(model, network, size) as start,
        group.apart(network, size),
        adapters.part(network, recipe.trainable, model.seed) as part,
    ):
        begun = time.perf_counter()
        if size > 1:
            task = group.Task(start, recipe, rows, settings, model.seed, state)
            log = group.train(part.model, task, size, after)
        else:
            log = training.train(
                part.model, rows, settings, model.seed, state, after_step=after, loss=recipe.loss
            )
        about |= {
            "training": [[step.step, step.tokens, step.loss, step.learning_rate] for step in log],
            "training_seconds": round(time.perf_counter() - begun, 3),
            "processes": size,
            "wrong_rows": sum(row.is_wrong for row in rows),
            "trained_weights": sum(
                one.numel() for one in part.model.parameters() if one.requires_grad
            ),
        }
        return tuned.keep_tuned(model.key, part.save, about, study.cache.max_gb)


@contextmanager
def _start(model: Model, network, size: int) -> Iterator[Path]:
    """The folder that a group reads what is tuned from: that of the checkpoint, or one that is
    written for it.
    """
    if size == 1 or model.before is None:
        yield model.checkpoint.folder
        return
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        yield Path(folder)


def _training_rows(study: Study, model: Model, context: int, tokenizer) -> TrainingRows:
    """The recipe's training rows for the model's seed, none longer than the context and its
    `max_length`: what is is passed over, or cut by the published protocol. Raises StudyError.
    """
    recipe, settings = study.recipe(model.recipe), study.tuning_of(model.recipe)
    folder, cut = datasets.data_folder(study), study.protocol.too_long == "flag"
    longest = _longest(settings, context)
    made = recipe.rows(folder, tokenizer, settings, model.seed, longest, cut)
    drawn = recipe.drawn(settings.examples)
    if len(made.rows) == sum(drawn.values()):
        return made
    raise study.refuse(
        f"recipes.{model.recipe}.examples",
        settings.examples,
        f"of {sum(drawn.values())} that are drawn {' and '.join(drawn)} has {len(made.rows)} rows "
        f"that fit {longest} tokens beside those reserved to choose rates on",
    )


def _asking(study: Study, model: Model, network, tokenizer, report: Report) -> Asking:
    """What the checkpoint, and the teacher where there is one, say of training rows."""

    def losses(rows: list[Row]) -> list[float]:
        starts = [int(row.counted.argmax()) for row in rows]
        asked = [[Request(row.ids, at)] for row, at in zip(rows, starts, strict=True)]
        found = scoring.log_likelihoods(network, asked)
        sizes = [len(row.ids) - at for row, at in zip(rows, starts, strict=True)]
        return [-one / size for (one,), size in zip(found, sizes, strict=True)]

    def answers(starts: list[np.ndarray]) -> list[np.ndarray]:
        """With the end token where the teacher ended by itself; cut to what a row may have."""
        teacher, newline = _teacher(study, model.teacher, report), study.protocol.stop == "newline"
        most = _longest(study.tuning_of(model.recipe), learned.context(network))
        written = scoring.generate(
            teacher, tokenizer, starts, study.probing.new_tokens, newline=newline
        )
        end, found = tokenizer.eos_token_id, []
        for start, one in zip(starts, written, strict=True):
            whole = one.ids if one.stop == "length" else (*one.ids[:-1], end)
            found.append(np.array(whole[: most - len(start)]))
        return found

    return Asking(losses, answers)


def _longest(settings: Tuning, context: int) -> int:
    """Tokens of the longest row that is tuned on."""
    return min(context, settings.max_length or context)


def _teacher(study: Study, teacher: Model, report: Report) -> torch.nn.Module:
    """A model that was tuned elsewhere, or is so first."""
    network, tokenizer = loading.load_checkpoint(teacher.checkpoint)
    return _first(study, teacher, network, tokenizer, report).eval()


def _first(study: Study, model: Model, network, tokenizer, report: Report) -> torch.nn.Module:
    """Another model that is there, or is made first."""
    with storage.lock(model.key):
        return _tuned(study, model, network, tokenizer, report)[0]


def _commit() -> str | None:
    """The commit of a checkout, the version of an installed package."""
    if not paths.IS_CHECKOUT:
        return f"v{importlib.metadata.version('pretune')}"
    said = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=paths.ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or None


def _provenance(network, tokenizer, study: Study, model: Model) -> dict:
    """Who measured this, with what."""
    where = device.pick_device()
    packages = ("torch", "transformers", "tokenizers", "datasets", "numpy", "rouge-score")
    weights = json.loads(model.checkpoint.about.read_text())["sha256"]
    return {
        "model": model.name,
        "key": model.key,
        "checkpoint_sha256": weights,
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name()
        if where.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "training_precision": device.resolve_precision(study.tuning.precision, where),
        "scoring_precision": device.resolve_precision(study.probing.precision, where),
        "batch_tokens": scoring.BATCH_TOKENS,
        "tokenizer": short_hash(sorted(tokenizer.get_vocab().items())),
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "dropout": loading.dropout(model.checkpoint.folder),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "peak_gpu_memory_gb": device.peak_memory_gb(),
    }


@contextmanager
def _timed(seconds: dict[str, float], phase: str):
    start = time.perf_counter()
    yield
    seconds[phase] = round(time.perf_counter() - start, 3)
