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
from pretune import models, paths, pretraining, prompts, records, scoring, training
from pretune.checkpoints import short_hash
from pretune.microworld.datasets import write_datasets
from pretune.microworld.text import documents
from pretune.microworld.world import World, make_world
from pretune.params import Corpus, MicroworldData, Study
from pretune.params import World as WorldSize
from pretune.plan import Cell, Model, Probe
from pretune.tasks import rows
from pretune.tasks.example import Example
from pretune.tasks.registry import REGISTRY, Dataset

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
    """Pre-train what is missing of the study's checkpoints."""
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
    table, texts, left_out = [], [], {}
    tokens = {"tune": log[-1][1] if log else 0, "score": 0}
    with _timed(seconds, "score"):
        for done, probe in enumerate(cell.probes):
            report(f"{model.name}: {probe.dataset}", 0.5 + 0.5 * done / len(cell.probes))
            made, said, dropped, read = _probe(study, model, network, tokenizer, probe)
            table, texts = table + made, texts + said
            tokens["score"] += read
            if dropped:
                left_out[probe.key] = dropped
    about = _provenance(network, tokenizer, study, model)
    about |= {"seconds": seconds, "tokens": tokens, "left_out": left_out, "training": log}
    records.write_record(records.record_folder(study, model), table, texts, about)
    return seconds, tokens


def _tuned(study: Study, model: Model, network, tokenizer, report: Report) -> tuple[torch.nn.Module, list]:
    """The model after its recipe, from the cache or by training, and the training log."""
    kept = models.load_tuned(model.key)
    if kept is not None:
        return kept, models.tuned_log(model.key)
    settings, examples = study.tuning_of(model.recipe), _training_rows(study, model, network, tokenizer)
    total = settings.epochs * -(-len(examples) // settings.batch_size)
    log = training.train(
        network, examples, settings, model.seed, models.TUNED / f"{model.key}.running.safetensors",
        after_step=lambda step: report(f"{model.name}: tuning, loss {step.loss:.2f}", 0.5 * step.step / total),
    )
    lines = [[step.step, step.tokens, step.loss, step.learning_rate] for step in log]
    models.keep_tuned(model.key, network, lines, study.cache.max_gb)
    return network, lines


def _training_rows(study: Study, model: Model, network, tokenizer) -> list[training.Row]:
    """The recipe's training subset for the model's seed; an example that does not fit the context is an error."""
    folder, dataset = points.data_folder(study), REGISTRY[study.recipes[model.recipe].dataset]
    wanted = study.tuning_of(model.recipe).examples
    indices = rows.chosen(folder, dataset, dataset.train, wanted, model.seed)
    if len(indices) < wanted:
        raise study.refuse(f"recipes.{model.recipe}.examples", wanted,
                           f"the {dataset.train} split of {dataset.name} has {len(indices)} rows")
    context = network.config.max_position_embeddings
    made = [prompts.training_row(tokenizer, example, context)
            for example in rows.examples(folder, dataset, dataset.train, "default", indices)]
    long = [index for index, row in zip(indices, made, strict=True) if row is None]
    if long:
        raise rows.RowError(f"{dataset.name}: {len(long)} training rows exceed {context} tokens, the first is {long[0]}")
    return made


def _probe(study: Study, model: Model, network, tokenizer, probe: Probe) -> tuple[list[dict], list[dict], list[int], int]:
    """Rows and texts of one probe, the items that do not fit the context, and the tokens of all sequences."""
    folder, dataset = points.data_folder(study), REGISTRY[probe.dataset]
    items = rows.chosen(folder, dataset, probe.split, probe.items, 0)
    asked = rows.examples(folder, dataset, probe.split, probe.format, items)
    shown = rows.chosen(folder, dataset, dataset.train, probe.shots, 1, probe.draw)
    shots = rows.examples(folder, dataset, dataset.train, probe.format, shown)
    layout = prompts.lay_out(tokenizer, shots, asked, network.config.max_position_embeddings, probe.new_tokens)
    kept = [asked[i] for i in layout.kept]
    if not kept:
        raise rows.RowError(f"{dataset.name}: no item fits {network.config.max_position_embeddings} tokens, even with no shots")
    measured = _measure(network, tokenizer, dataset, layout.prefix, kept, probe.new_tokens)
    point = model.checkpoint
    shared = {
        "run": point.run, "checkpoint": point.name, "revision": point.revision, "step": point.step,
        "tokens": point.tokens, "stage": point.stage, "late": point.late, "recipe": model.recipe, "seed": model.seed,
        "probe": probe.key, "dataset": dataset.name, "split": probe.split, "format": probe.format,
        "shots_asked": probe.shots, "shots": layout.shots, "draw": probe.draw,
    }
    table, texts, tokens = [], [], 0
    for place, example, base, (values, output, read) in zip(
        layout.kept, kept, rows.baseline(folder, dataset, kept), measured, strict=True
    ):
        table.append(shared | {"item": items[place], "gold": example.gold, "baseline": base} | values)
        tokens += read
        texts.append({"probe": probe.key, "item": items[place], "prompt": layout.prefix + example.prompt,
                      "choices": list(example.choices), "output": output})
    return table, texts, [items[place] for place in layout.left_out], tokens


def _measure(network, tokenizer, dataset: Dataset, prefix: str, items: list[Example], new_tokens: int):
    """Per item the measured columns of its row, the generated text or None, and the tokens of its sequences."""
    requests = [[prompts.split(tokenizer, prefix + item.prompt, choice) for choice in item.choices] for item in items]
    likelihoods = scoring.log_likelihoods(network, requests)
    blanks = _blank_likelihoods(network, tokenizer, prefix, items)
    outputs = [None] * len(items)
    if dataset.kind == "generation":
        asked = [request[0].ids[: request[0].start] for request in requests]
        outputs = scoring.generate(network, tokenizer, asked, new_tokens)
    for item, request, likelihood, blank, output in zip(items, requests, likelihoods, blanks, outputs, strict=True):
        values = {
            "log_likelihood": likelihood, "blank_log_likelihood": blank,
            "choice_tokens": [len(one.ids) - one.start for one in request],
            "choice_characters": [len(choice) - 1 for choice in item.choices],
        }
        if output is not None:
            values |= {"rouge_l": rows.rouge_l(output.text, item.completion), "length": output.length, "stop": output.stop}
        yield values, output.text if output is not None else None, sum(len(one.ids) for one in request)


def _blank_likelihoods(network, tokenizer, prefix: str, items: list[Example]) -> list[list[float]]:
    """Log-likelihoods of the completions after the content-free prompt; the same completion is scored once."""
    asked = list(dict.fromkeys((item.blank, choice) for item in items for choice in item.choices))
    requests = [[prompts.split(tokenizer, prefix + blank, choice)] for blank, choice in asked]
    values = dict(zip(asked, (found[0] for found in scoring.log_likelihoods(network, requests)), strict=True))
    return [[values[item.blank, choice] for choice in item.choices] for item in items]


def _world(size: WorldSize) -> World:
    return make_world(size.seed, size.people, size.towns, size.countries)


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
