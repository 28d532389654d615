"""Which of the checkpoints that exist a study takes: found by name, and pinned by content.

- Checkpoints are found by the steps in the names of branches, repositories or folders, and pinned
  when a study first asks for them: `outputs/<study>/checkpoints.json` holds name, step, tokens and
  commit of each (of a local folder, the checksum of its weights), so that a rerun takes the same
  ones whatever happens to the branch. Another choice is pinned anew.
- A folder of this machine is listed each time: what is new in it is pinned too, what is gone is
  dropped, with a line.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from pathlib import Path

from filelock import FileLock

from pretune import paths, storage
from pretune.errors import HubError
from pretune.models.checkpoint import Checkpoint, weights_checksum
from pretune.sources import hub, revisions
from pretune.sources.revisions import Revision, RevisionError
from pretune.study.config import Study
from pretune.study.sources import Hub, Local

log = logging.getLogger(__name__)
WEIGHTS = re.compile(r".+\.safetensors|pytorch_model.*\.bin")


def pinned(study: Study) -> dict:
    """Of a study of one model: `checkpoints`, each with run, name, step, tokens, stage, repo,
    commit and bytes, and the `config` of the model.

    Raises HubError, and StudyError for a checkpoint that is not there or cannot be one.
    """
    kept = _kept(study)
    if kept.get("asked") == _asked(study) and isinstance(study.checkpoints, Hub):
        return kept
    with _held(study):
        return _listed(study)


def _listed(study: Study) -> dict:
    """What there is now, written down where it is not what was pinned. Weights that are pinned
    are not read again.
    """
    source, kept, asked = study.checkpoints, _kept(study), _asked(study)
    old = kept.get("checkpoints", ()) if isinstance(source, Local) else ()
    known = {(one["repo"], one["bytes"], one.get("changed")): one for one in old}
    try:
        found = []
        for number, run in enumerate(getattr(source, "runs", ("",))):
            there = chosen(source, run)
            found += [_entry(source, known, number, one, *place) for one, place in there]
        _refuse_twins(source, found)
        for why in sorted(set(_same_weights(found).values())):
            log.warning("%s", why)
        settings = config(source, found[0]["repo"], found[0]["commit"])
        now = {"asked": asked, "checkpoints": found, "config": settings}
    except RevisionError as error:
        raise study.refuse(
            "checkpoints", asked.get("repo") or asked.get("folder") or "repos", str(error)
        ) from None
    for one in old:
        if not Path(one["repo"]).is_dir():
            log.warning(
                "%s is gone: step %d is no part of %s any more",
                one["repo"],
                one["step"],
                study.name,
            )
    if now != kept:
        storage.write(_file(study), json.dumps(now, indent=1))
    return now


def _refuse_twins(source: Hub | Local, found: list[dict]) -> None:
    """Raises RevisionError for two folders with the same weights, or two branches of one commit."""
    seen: dict[tuple, dict] = {}
    for one in found:
        repo = "" if isinstance(source, Local) else one["repo"]
        other = seen.setdefault((one["commit"], repo), one)
        if other is not one:
            raise RevisionError(
                f"{other['name']} and {one['name']} hold the same weights; one of them is wrong: "
                "take it out"
            )


def _same_weights(found: list[dict]) -> dict[str, str]:
    """Of commits that share a file of weights with another, why they cannot both be right, by
    listings alone: before anything is fetched.
    """
    owners, why = defaultdict(dict), {}
    for one in found:
        for file, sha in one.get("weights", {}).items():
            owners[sha].setdefault(one["commit"], (file, one))
    for several in (list(some.values()) for some in owners.values() if len(some) > 1):
        named = " and ".join(f"step {one['step']} ({one['name']})" for _, one in several)
        for file, one in several:
            why[one["commit"]] = f"{named} have the very same {file}: one branch is wrong"
    return why


def check_listed(study: Study, point: Checkpoint) -> None:
    """Raises HubError for a checkpoint that shares a file of weights with another of the study."""
    found = pinned(study.of(point.model))["checkpoints"]
    if why := _same_weights(found).get(point.revision):
        raise HubError(f"{point.name}: {why}")


def _file(study: Study) -> Path:
    name = f"checkpoints.{study.model}.json" if study.model else "checkpoints.json"
    return paths.study_folder(study.name) / name


def _asked(study: Study) -> dict:
    return study.checkpoints.model_dump(mode="json")


def _kept(study: Study) -> dict:
    """What was written down last, for whatever choice of checkpoints."""
    return json.loads(_file(study).read_text()) if _file(study).is_file() else {}


def _held(study: Study) -> FileLock:
    """As long as it is held no other process writes down the checkpoints of the study."""
    return storage.lock(f"{study.name}.pins")


def entry_of(study: Study, point: Checkpoint) -> dict:
    """What is pinned of a checkpoint."""
    there = pinned(study.of(point.model))["checkpoints"]
    return next(one for one in there if one["commit"] == point.revision)


def chosen(source: Hub | Local, run: str) -> list[tuple[Revision, tuple[str, str]]]:
    """The checkpoints of a run that a study takes, each with repository and commit (or folder
    and nothing).
    """
    places = _places(source, run)
    own = "" if "{run}" in (getattr(source, "repo", None) or "") else run
    forms = revisions.FORMS + (revisions.OWN if isinstance(source, Local) else ())
    there = revisions.points(places, source.stage, own, forms)
    if source.count is not None:
        there = revisions.spread(there, source.count, source.spacing, source.late)
    elif source.steps != "all":
        there = revisions.by_step(there, source.steps)
    return [(one, places[one.name]) for one in there]


def _places(source: Hub | Local, run: str) -> dict[str, tuple[str, str]]:
    """Name to (repository, commit) of all that could be checkpoints; of a folder, name to
    (folder, nothing).
    """
    if isinstance(source, Local):
        return {
            folder.name: (str(folder.resolve()), "")
            for folder in Path(source.folder).iterdir()
            if folder.is_dir()
        }
    if source.repos:
        return {repo.partition("/")[2]: (repo, hub.branches(repo)["main"]) for repo in source.repos}
    repo = source.repo.replace("{run}", run)
    return {name: (repo, commit) for name, commit in hub.branches(repo).items()}


def _entry(
    source: Hub | Local, known: dict[tuple, dict], run: int, one: Revision, repo: str, commit: str
) -> dict:
    """What is pinned of a checkpoint. `known` are those of folders that were pinned, by folder
    and bytes.
    """
    there = _files(source, repo, commit)
    pickled = not any(name.endswith(".safetensors") for name in there)
    has_pickled = any(name.endswith(".bin") for name in there)
    if pickled and not (has_pickled and source.allow_pickle_weights):
        raise RevisionError(
            f"{one.name} holds no *.safetensors; pickled weights are refused unless they are of "
            "the Hub and checkpoints.allow_pickle_weights is true"
        )
    taken = {name: one for name, one in there.items() if pickled or not name.endswith(".bin")}
    size = sum(file.size for file in taken.values())
    listed = {name: file.sha256 for name, file in taken.items() if file.sha256}
    changed = max((file.changed for file in taken.values()), default=0)
    old = known.get((repo, size, changed), {})
    commit = commit or old.get("commit") or weights_checksum(Path(repo))
    return old | {
        "run": run,
        "name": one.name,
        "step": one.step,
        "tokens": tokens(source, one),
        "bytes": size,
        "changed": changed,
        "stage": one.stage or "pretraining",
        "repo": repo,
        "commit": commit,
        "pickled": pickled,
        "weights": {name: sha for name, sha in listed.items() if WEIGHTS.fullmatch(name)},
    }


def _files(source: Hub | Local, repo: str, commit: str) -> dict[str, hub.Listed]:
    """What a checkpoint consists of, by name."""
    if isinstance(source, Local):
        return {
            file.name: hub.Listed(file.stat().st_size, changed=file.stat().st_mtime_ns)
            for file in Path(repo).iterdir()
            if file.is_file() and file.suffix != ".bin"
        }
    return hub.files(repo, commit, hub.MODEL + hub.PICKLED)


def config(source: Hub | Local, repo: str, commit: str) -> dict:
    """The configuration of a model, which costs are reckoned from. Raises RevisionError where it
    cannot be read.
    """
    try:
        if isinstance(source, Local):
            return json.loads((Path(repo) / "config.json").read_text())
        return hub.config(repo, commit)
    except (OSError, ValueError) as error:
        raise RevisionError(f"{repo}: its config.json cannot be read: {error}") from None


def tokens(source: Hub | Local, one: Revision) -> int:
    """Tokens read up to a checkpoint: from the size of a step where the study gives it, else from
    its name.

    Raises RevisionError where neither says.
    """
    if source.tokens_per_step is not None:
        return one.step * source.tokens_per_step
    if one.tokens is None:
        raise RevisionError(
            f"{one.name} does not say how many tokens it has read; give "
            "checkpoints.tokens_per_step (sequences of a step x their length): results are drawn "
            "over tokens"
        )
    return one.tokens * 10**9


def remember(study: Study, point: Checkpoint, checksum: str) -> None:
    """Write down the weights of a checkpoint. Raises HubError where another checkpoint of the
    study has the same.
    """
    study = study.of(point.model)
    with _held(study):
        kept = _kept(study)
        for one in kept["checkpoints"]:
            own = one["commit"] == point.revision
            if not own and one.get("sha256") == checksum:
                raise HubError(
                    f"{point.name} has the very weights of step {one['step']} ({one['name']}): "
                    "one branch is wrong"
                )
            if own:
                one["sha256"] = checksum
        storage.write(_file(study), json.dumps(kept, indent=1))


def forget(study: Study, point: Checkpoint) -> None:
    """Take back what is pinned of a folder: it is read anew when the study asks next."""
    study = study.of(point.model)
    with _held(study):
        kept = _kept(study)
        kept["checkpoints"] = [
            one for one in kept["checkpoints"] if one["commit"] != point.revision
        ]
        storage.write(_file(study), json.dumps(kept, indent=1))
