"""Which of the checkpoints and datasets that exist a study takes: found by name, and pinned by content.

- Checkpoints are found by the steps in the names of branches, repositories or folders, and pinned when a study first asks
  for them: `outputs/<study>/checkpoints.json` holds name, step, tokens and commit of each (of a local folder, the checksum
  of its weights), so that a rerun takes the same ones whatever happens to the branch. Another choice is pinned anew.
- Datasets of the Hub are pinned in `datasets.json` in the same way, by the commits of their parquet branches.
"""

from __future__ import annotations

import json
from pathlib import Path

from pretune import hub, paths, revisions, storage
from pretune.checkpoints import Checkpoint, weights_checksum
from pretune.params import Hub, Local, Study
from pretune.plan import used_datasets
from pretune.revisions import Revision, RevisionError
from pretune.tasks.registry import REGISTRY


def pinned(study: Study) -> dict:
    """`checkpoints`, each with run, name, step, tokens, stage, repo, commit and bytes, and the `config` of the model.

    Raises HubError, and StudyError for a checkpoint that is not there.
    """
    source, file = study.checkpoints, paths.study_folder(study.name) / "checkpoints.json"
    asked = source.model_dump(mode="json")
    if file.is_file() and (kept := json.loads(file.read_text()))["asked"] == asked:
        return kept
    try:
        found = [_entry(source, number, one, *place) for number, run in enumerate(getattr(source, "runs", ("",)))
                 for one, place in chosen(source, run)]
    except RevisionError as error:
        raise study.refuse("checkpoints", asked.get("repo") or asked.get("folder") or "repos", str(error)) from None
    kept = {"asked": asked, "checkpoints": found, "config": _config(source, found[0])}
    _write(file, kept)
    return kept


def entry_of(study: Study, point: Checkpoint) -> dict:
    """What is pinned of a checkpoint."""
    return next(one for one in pinned(study)["checkpoints"] if one["commit"] == point.revision)


def chosen(source: Hub | Local, run: str) -> list[tuple[Revision, tuple[str, str]]]:
    """The checkpoints of a run that a study takes, each with repository and commit (or folder and nothing)."""
    places = _places(source, run)
    own = "" if "{run}" in (getattr(source, "repo", None) or "") else run
    there = revisions.points(places, source.stage, own)
    if source.count is not None:
        there = revisions.spread(there, source.count, source.spacing, source.late)
    elif source.steps != "all":
        there = revisions.by_step(there, source.steps)
    return [(one, places[one.name]) for one in there]


def _places(source: Hub | Local, run: str) -> dict[str, tuple[str, str]]:
    """Name to (repository, commit) of all that could be checkpoints; of a folder, name to (folder, nothing)."""
    if isinstance(source, Local):
        return {folder.name: (str(folder.resolve()), "") for folder in Path(source.folder).iterdir() if folder.is_dir()}
    if source.repos:
        return {repo.partition("/")[2]: (repo, hub.branches(repo)["main"]) for repo in source.repos}
    repo = source.repo.replace("{run}", run)
    return {name: (repo, commit) for name, commit in hub.branches(repo).items()}


def _entry(source: Hub | Local, run: int, one: Revision, repo: str, commit: str) -> dict:
    there = _files(source, repo, commit)
    pickled = not any(name.endswith(".safetensors") for name in there)
    if pickled and not (any(name.endswith(".bin") for name in there) and source.allow_pickle_weights):
        raise RevisionError(f"{one.name} holds no *.safetensors; pickled weights are refused unless they are of the Hub and "
                            "checkpoints.allow_pickle_weights is true")
    size = sum(size for name, size in there.items() if pickled or not name.endswith(".bin"))
    return {"run": run, "name": one.name, "step": one.step, "tokens": tokens(source, one), "stage": one.stage or "pretraining",
            "repo": repo, "commit": commit or weights_checksum(Path(repo)), "bytes": size, "pickled": pickled}


def _files(source: Hub | Local, repo: str, commit: str) -> dict[str, int]:
    """Name to bytes of what a checkpoint consists of."""
    if isinstance(source, Local):
        return {file.name: file.stat().st_size for file in Path(repo).iterdir() if file.suffix != ".bin"}
    return hub.files(repo, commit, hub.MODEL + hub.PICKLED)


def _config(source: Hub | Local, first: dict) -> dict:
    if isinstance(source, Local):
        return json.loads((Path(first["repo"]) / "config.json").read_text())
    return hub.config(first["repo"], first["commit"])


def tokens(source: Hub | Local, one: Revision) -> int:
    """Tokens read up to a checkpoint: from the size of a step where the study gives it, else from its name.

    Raises RevisionError where neither says.
    """
    if source.tokens_per_step is not None:
        return one.step * source.tokens_per_step
    if one.tokens is None:
        raise RevisionError(f"{one.name} does not say how many tokens it has read; give checkpoints.tokens_per_step")
    return one.tokens * 10**9


def remember(study: Study, point: Checkpoint, checksum: str) -> None:
    """Write down the weights of a checkpoint. Raises HubError where another checkpoint of the study has the same."""
    kept, file = pinned(study), paths.study_folder(study.name) / "checkpoints.json"
    for one in kept["checkpoints"]:
        if one["commit"] != point.revision and one.get("sha256") == checksum:
            raise hub.HubError(f"{point.name} has the very weights of step {one['step']} ({one['name']}): one branch is wrong")
        if one["commit"] == point.revision:
            one["sha256"] = checksum
    _write(file, kept)


def pinned_data(study: Study) -> dict[str, dict]:
    """Dataset to repository, configuration and commit. Raises HubError."""
    file, used = paths.study_folder(study.name) / "datasets.json", used_datasets(study)
    kept = json.loads(file.read_text()) if file.is_file() else {}
    said = study.datasets.commits
    if set(kept) >= set(used) and all(kept[name]["commit"] == commit for name, commit in said.items() if name in kept):
        return {name: kept[name] for name in used}
    found = {}
    for name in used:
        repo, config = REGISTRY[name].hub
        commit = said.get(name) or kept.get(name, {}).get("commit") or hub.parquet_commit(repo)
        found[name] = {"repo": repo, "config": config, "commit": commit}
    _write(file, found)
    return found


def _write(file: Path, content: dict) -> None:
    storage.write(file, json.dumps(content, indent=1))
