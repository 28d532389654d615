"""Task files in the words of lm-evaluation-harness: its prompts and log-likelihoods, and ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import yaml
from datasets import Dataset as Table
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from benchmarks import scoring as scoring_of_items
from benchmarks import setting
from benchmarks.setting import Result
from pretune.models import scoring
from pretune.study.load import load_study
from pretune.tasks import prompts, rows
from pretune.tasks.registry import REGISTRY

FILES = Path(__file__).with_name("task_files")
COUNT = {"1 M": 24, "30 M": 8}
SHOTS = 2
STUDY = """
title: The task of a file
checkpoints: {{source: folder, folder: ., steps: all}}
datasets: {{source: folder, folder: .}}
tasks: {{own: {{lm_eval: {file}}}}}
recipes: {{base: {{}}}}
tuning: {{learning_rate: 1.0e-3, batch_size: 1, examples: 1}}
probing: {{datasets: [own]}}
"""


def run(name: str) -> list[Result]:
    """The first items of each file's dataset after its first training rows as examples."""
    tokenizer, model = setting.tokenizer(), setting.model(name)
    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=2048, device="cpu")
    return [_compared(file, name, tokenizer, model, peer) for file in sorted(FILES.glob("*.yaml"))]


def _compared(file: Path, name: str, tokenizer, model, peer: HFLM) -> Result:
    with tempfile.TemporaryDirectory() as place:
        folder, count = Path(place), COUNT[name]
        told = yaml.safe_load(file.read_text())
        _rows(folder / told["dataset_path"], told, count)
        (folder / file.name).write_text(file.read_text())
        (folder / "own.yaml").write_text(STUDY.format(file=file.name))
        load_study(str(folder / "own.yaml"))
        prefix, items = _ours(folder)
        instances = _theirs(folder / told["dataset_path"], told)
    asked = [(prefix + item.prompt, choice) for item in items for choice in item.choices]
    assert [one.args for one in instances] == asked, f"{file.name}: other prompts or answers"
    peer.batch_size_per_gpu = scoring_of_items.fastest(peer, instances[: len(instances) // 4])

    def ours():
        return scoring.log_likelihoods(model, setting.requests(tokenizer, prefix, items))

    def theirs():
        with torch.no_grad():
            return [value for value, _ in peer.loglikelihood(instances, disable_tqdm=True)]

    ours_s, peer_s, mine, other = setting.in_turn(setting.timed(ours), setting.timed(theirs))
    apart = setting.farthest(mine, [other])
    assert apart < 1e-3, f"{file.name}: log-likelihoods are {apart:g} nats apart"
    same = f"{len(asked)} prompts and answers, log-likelihoods within {apart:.0e} nats"
    what = f"task file {file.stem}, {SHOTS}-shot"
    return Result(what, name, "lm-evaluation-harness", ours_s, peer_s, same, 1.0)


def _rows(folder: Path, told: dict, count: int) -> None:
    """The first real rows of a dataset, as training rows and as items."""
    real = setting.ROWS / folder.name
    table = Table.from_json(str(next(iter(sorted(real.glob("*.jsonl"))))))
    scored = told.get("test_split") or told["validation_split"]
    folder.mkdir(parents=True)
    table.select(range(20)).to_json(folder / f"{told['training_split']}.jsonl")
    table.select(range(20, 20 + count)).to_json(folder / f"{scored}.jsonl")


def _ours(folder: Path) -> tuple[str, list]:
    dataset = REGISTRY["own"]
    items = rows.examples(folder, dataset, dataset.evaluation, "default", _every(folder, dataset))
    shots = rows.examples(folder, dataset, dataset.train, "default", list(range(SHOTS)))
    layout = prompts.lay_out(
        setting.tokenizer(), dataset.description, shots, dataset.between, items, 2048, 1
    )
    assert layout.shots == SHOTS, "the examples do not fit"
    return layout.prefix, items


def _every(folder: Path, dataset) -> list[int]:
    return list(range(len(rows.read(folder, dataset, dataset.evaluation))))


def _theirs(folder: Path, told: dict) -> list:
    """The harness on the same file and rows; its examples are the first training rows too."""
    files = {file.stem: str(file) for file in folder.glob("*.jsonl")}
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    first = {"fewshot_split": told["training_split"], "fewshot_config": {"sampler": "first_n"}}
    task = ConfigurableTask(config=told | data | first | {"num_fewshot": SHOTS})
    task.build_all_requests()
    return task.instances
