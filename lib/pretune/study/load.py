"""Reading a file under `params/`: overrides, names of protocols, what is told of a mistake."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from pretune import paths, storage
from pretune.errors import StudyError
from pretune.strict import explain, keys, override, read_yaml
from pretune.study.config import PROTOCOLS, Study
from pretune.tasks.registry import GENERATED, REGISTRY, of_source

ENDINGS = (".yaml", ".yml")


def load_study(study: str, overrides: tuple[str, ...] = ()) -> Study:
    """The study of `params/<study>.yaml`, or of a YAML file; `overrides` are `a.b=value` texts.

    Raises StudyError, a line for each fault, for anything that is not a study.
    """
    file = _file(study)
    check_name(file.stem)
    shown = str(file.relative_to(paths.ROOT)) if file.is_relative_to(paths.ROOT) else str(file)
    raw = read_yaml(file, shown)
    if not isinstance(raw, dict):
        raise StudyError(
            f"{shown}: must be keys and values, allowed keys: {', '.join(keys(Study))}"
        )
    _name_protocol(raw)
    _anchor(raw, file.parent)
    for text in overrides:
        override(raw, text)
        _name_protocol(raw)
    _anchor(raw, Path.cwd())
    _read_tasks(raw, shown)
    _fill_datasets(raw)
    try:
        return Study.model_validate_json(
            json.dumps({**raw, "name": file.stem, "file": shown}, default=str)
        )
    except ValidationError as error:
        raise StudyError(explain(shown, error, Study)) from None


def check_name(name: str) -> None:
    """Raises StudyError for what cannot be the name of a study, and so of a folder."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in ("cache", "reference"):
        raise StudyError(
            f"{name}: a study is named by its file: small letters, digits, - and _, but not "
            "cache or reference"
        )


def known() -> dict[str, Path]:
    """Name to file of every study: ours, and before them a user's."""
    files = [*paths.PACKAGED.iterdir(), *(paths.PARAMS.iterdir() if paths.PARAMS.is_dir() else ())]
    return {file.stem: file for file in files if file.suffix in ENDINGS}


def _file(study: str) -> Path:
    """The file of a study, which is named as the file, or given. Raises StudyError."""
    file = Path(study) if study.endswith(ENDINGS) else known().get(study)
    if file is None or not file.is_file():
        there = sorted(known())
        near = difflib.get_close_matches(Path(study).stem, there, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise StudyError(
            f"{study}: no such study; {hint}known: {', '.join(there)}, or the path of a .yaml file"
        )
    return file


def resolved(study: Study) -> str:
    """Every value of the study, defaults included, as YAML."""
    return yaml.safe_dump(json.loads(study.model_dump_json()), sort_keys=False, allow_unicode=True)


def _anchor(raw: dict, place: Path) -> None:
    """A folder that is said without its root lies in `place`, wherever a study is read from: in
    that of its file, or where an override was typed.
    """
    points = raw.get("checkpoints")
    several = points.values() if isinstance(points, dict) and "source" not in points else [points]
    for source in (*several, raw.get("datasets")):
        if isinstance(source, dict) and isinstance(source.get("folder"), str):
            source["folder"] = str((place / source["folder"]).resolve())
    for task in _dicts(raw.get("tasks")):
        for key in ("dataset_path", "lm_eval"):  # a name that is no folder is one of the Hub
            if isinstance(task.get(key), str) and (place / task[key]).exists():
                task[key] = str((place / task[key]).resolve())


def _dicts(value: object) -> list[dict]:
    """What is keys and values among the values of a mapping, if it is one."""
    several = value.values() if isinstance(value, dict) else ()
    return [one for one in several if isinstance(one, dict)]


def _read_tasks(raw: dict, shown: str) -> None:
    """Put what a file of lm-evaluation-harness says in the place of its name; what is said beside
    it goes before. Raises StudyError.
    """
    for task in _dicts(raw.get("tasks")):
        if isinstance(task.get("lm_eval"), str):
            said = _lm_eval(Path(task.pop("lm_eval")), shown)
            task |= {key: value for key, value in said.items() if key not in task}


def _lm_eval(file: Path, shown: str) -> dict:
    """What a task file of lm-evaluation-harness says; a folder in it lies beside it."""
    if not file.is_file():
        raise StudyError(f"{shown}: tasks: lm_eval: {str(file)!r} is refused; no such file")
    said = read_yaml(file, f"{shown}: tasks: lm_eval: {file.name}")
    if not isinstance(said, dict):
        raise StudyError(f"{shown}: tasks: lm_eval: {file.name}: must be keys and values")
    _anchor({"tasks": {"": said}}, file.parent)
    return {key: value for key, value in said.items() if value is not None}


def _fill_datasets(raw: dict) -> None:
    """Where a file says nothing of datasets, they come from where the checkpoints do (of several
    models, those of the first), and all of that source are scored, or all that a folder holds.
    """
    points = raw.get("checkpoints")
    if isinstance(points, dict) and "source" not in points:
        points = next(iter(points.values()), None)
    if "datasets" not in raw and isinstance(points, dict):
        same = {key: value for key, value in points.items() if key in ("source", "world", "people")}
        raw |= {"datasets": same} if same.get("source") in (*GENERATED, "tables", "hub") else {}
    probing, data = raw.get("probing"), raw.get("datasets")
    if isinstance(probing, dict) and isinstance(data, dict) and "datasets" not in probing:
        there = [name for name in of_source(data.get("source")) if is_held(data, name)]
        own = [name for name in raw.get("tasks") or () if name not in there]
        raw["probing"] = probing | {"datasets": [*there, *own]}


def is_held(data: dict, name: str) -> bool:
    """Whether a folder of rows has those of a dataset, or others in their place."""
    if data.get("source") != "folder":
        return True
    held, dataset = Path(str(data.get("folder"))), REGISTRY[name]
    instead = data.get("stand_ins") or {}
    places = (f"{dataset.folder}/{split}" for split in (dataset.train, dataset.evaluation))
    return all(place in instead or storage.file_of(held / place) for place in places)


def _name_protocol(raw: dict) -> None:
    """Put the options in the place of a protocol's name, so that each can be overridden by
    itself.
    """
    if isinstance(raw.get("protocol"), str) and raw["protocol"] in PROTOCOLS:
        raw["protocol"] = PROTOCOLS[raw["protocol"]].model_dump()
