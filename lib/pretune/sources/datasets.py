"""The datasets of a study: where they lie, what pins them, which files are needed or lacking.

Reads no row and loads neither torch nor, unless datasets of the Hub are to be pinned, its client.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

from pretune import paths, storage
from pretune.sources import hub
from pretune.sources.microworld import world
from pretune.sources.register import people
from pretune.storage import listing, short_hash
from pretune.study.config import Study
from pretune.study.sources import FolderData, HubData, MicroworldData, RegisterData
from pretune.study.sources import World as WorldSize
from pretune.tasks.dataset import Dataset
from pretune.tasks.registry import REGISTRY

STAND_IN = r"(\w[\w/-]*)(?:\[(\d*):(\d*)\])?"  # a file, without ending, or lines a to b of it


def data_folder(study: Study) -> Path:
    """Where the datasets of `study` lie as FOLDER/<dataset>/<split>.jsonl, or .parquet."""
    data = study.datasets
    if isinstance(data, FolderData) and not data.stand_ins:
        return Path(data.folder).resolve()
    if isinstance(data, MicroworldData):
        return world_folder(data.world)
    if isinstance(data, RegisterData):
        return paths.CACHE / "register" / data_key(study)
    return paths.CACHE / "datasets" / data_key(study)


def data_key(study: Study) -> str:
    """What pins the datasets: the world, the commits on the Hub, or names and sizes of the files
    in the folder.
    """
    data = study.datasets
    if isinstance(data, FolderData):
        stand_ins = [data.stand_ins] if data.stand_ins else []
        return short_hash("folder", *listing(Path(data.folder)), *stand_ins)
    if isinstance(data, HubData):
        return short_hash("hub", pinned_data(study))
    if isinstance(data, MicroworldData):
        return short_hash("microworld", world.VERSION, data.world.model_dump())
    if isinstance(data, RegisterData):
        return short_hash("register", people.VERSION, data.people.model_dump())
    return "released"


def key_of(study: Study, name: str, data: str) -> str:
    """What pins the rows of a dataset: `data`, which pins all, or of one of the user's own what is
    said of it, and the files in its folder.
    """
    if name not in study.tasks:
        return data
    said, folder = study.tasks[name].determining(), Path(REGISTRY[name].rows)
    return short_hash(said, *(listing(folder) if folder.is_absolute() else [data]))


def world_folder(size: WorldSize) -> Path:
    return paths.CACHE / "microworld" / short_hash(world.VERSION, size.model_dump())


def pinned_data(study: Study) -> dict[str, dict]:
    """Dataset to repository, configuration and commit. Raises HubError."""
    file, wanted = paths.study_folder(study.name) / "datasets.json", used(study)
    kept = json.loads(file.read_text()) if file.is_file() else {}
    said = study.datasets.commits
    wanted = [name for name in wanted if REGISTRY[name].hub[0]]
    as_said = all(kept[name]["commit"] == said[name] for name in said if name in kept)
    if as_said and set(kept) >= set(wanted):
        return {name: kept[name] for name in wanted}
    found = {}
    for name in wanted:
        repo, config = REGISTRY[name].hub
        commit = said.get(name) or kept.get(name, {}).get("commit") or hub.parquet_commit(repo)
        found[name] = {"repo": repo, "config": config, "commit": commit}
    # one that is left out for once keeps its pin
    storage.write(file, json.dumps(kept | found, indent=1))
    return found


def evaluation_split(study: Study, dataset: Dataset) -> str:
    """The split that is scored, which the published protocol chooses otherwise for some
    datasets.
    """
    published = study.protocol.splits == "published" and dataset.published
    return dataset.published if published else dataset.evaluation


def used(study: Study) -> list[str]:
    """The datasets that a study scores or tunes on."""
    tuned = chain.from_iterable(recipe.drawn(1) for recipe in study.recipes.values())
    return list(dict.fromkeys([*study.probing.datasets, *tuned]))


def drawn(study: Study, name: str) -> dict[str, int]:
    """How many rows of a dataset each recipe draws, and each variant of one."""
    found = {}
    for which in study.variants:
        count = study.recipe(which).drawn(study.tuning_of(which).examples).get(name)
        found |= {which: count} if count else {}
    return found


def places(study: Study, name: str) -> dict[str, str]:
    """Where the splits of a dataset that the study needs stand in a folder of data:
    <dataset>/<split> to split.
    """
    dataset = REGISTRY[name]
    scored = [evaluation_split(study, dataset)] if name in study.probing.datasets else []
    return {f"{dataset.folder}/{split}": split for split in [dataset.train, *scored]}


def _needed(study: Study) -> list[str]:
    """Where all splits that the study needs stand in a folder of data."""
    return list(chain.from_iterable(places(study, name) for name in used(study)))


def source(data: FolderData, place: str) -> tuple[Path, slice] | None:
    """The file of the user's folder that a split is taken from, and which of its lines; None
    where there is none.
    """
    if Path(place).is_absolute():  # a folder of its own
        file = storage.file_of(Path(place))
        return (file, slice(None)) if file else None
    found = re.fullmatch(STAND_IN, data.stand_ins.get(place, place))
    file = storage.file_of(Path(data.folder) / found[1]) if found else None
    if file is None:
        return None
    first, end = (int(part) if part else None for part in found.groups()[1:])
    return file, slice(first, end)


def refused(study: Study) -> list[str]:
    """What the user's folder of data lacks, a line for each dataset, and stand-ins for nothing;
    empty for other sources.
    """
    if not isinstance(study.datasets, FolderData):
        return []
    needed = {name: places(study, name) for name in used(study)}
    known = set(_needed(study))
    lines = [_lacking(study, name, some) for name, some in needed.items()]
    odd = [
        str(study.refuse("datasets.stand_ins", place, f"allowed: {', '.join(sorted(known))}"))
        for place in study.datasets.stand_ins
        if place not in known
    ]
    return [line for line in lines if line] + odd


def _lacking(study: Study, name: str, needed: dict[str, str]) -> str:
    """Which files of a dataset are not there, or hold nothing; empty where all do."""
    data = study.datasets
    absent = []
    for place in (one for one in needed if source(data, one) is None):
        other = data.stand_ins.get(place)
        absent.append(place if other is None else f"{other} (in the place of {place})")
    if not absent:
        return ""
    why = (
        f"{name} needs rows in {' and '.join(absent)}, .jsonl or .parquet; or "
        "datasets.stand_ins that name others there"
    )
    return str(study.refuse("datasets.folder", data.folder, why))


def are_ready(study: Study) -> bool:
    """Whether the datasets are there and need no check, or passed it as they are. Those of a
    microworld are right, the user's own beside them need not be.
    """
    folder = data_folder(study)
    if not all(storage.file_of(folder / place) for place in _needed(study)):
        return False
    if isinstance(study.datasets, MicroworldData) and not study.tasks:
        return True
    return _noted(study).is_file() and json.loads(_noted(study).read_text()) == _mark(study)


def note_ready(study: Study) -> None:
    """Write down that the datasets, as they are, passed the check."""
    storage.write(_noted(study), json.dumps(_mark(study)))


def _noted(study: Study) -> Path:
    return paths.study_folder(study.name) / "data.json"


def _mark(study: Study) -> str:
    """What the result of the check depends on: the files, as far as names, sizes and times tell,
    and what is asked of them.
    """
    folder = data_folder(study)
    files = [storage.file_of(folder / place) for place in _needed(study)]
    times = [(str(file), file.stat().st_mtime_ns) for file in files if file]
    asked = [study.probing.model_dump(), study.protocol.model_dump()]
    tuned = [drawn(study, name) for name in used(study)] + [study.tuning.seeds * study.runs]
    tuned += [recipe.determining() for recipe in study.recipes.values()]
    own = [task.determining() for task in study.tasks.values()]
    return short_hash(data_key(study), times, asked, tuned, *own)
