"""Checkpoints on the Hugging Face Hub: which branches there are, pinned to commits, and fetched.

- Branches are listed once for a study and pinned: `outputs/<study>/checkpoints.json` holds step, tokens and commit of each,
  so that a rerun takes the same weights whatever happens to the branch. Another choice of checkpoints is pinned anew.
- A checkpoint is fetched into a folder beside its place, verified, and renamed; what a break left is taken up again.
- Time-outs, 429 and 5xx are tried again with growing pauses, each with a line that says so.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from pretune import paths, revisions
from pretune.checkpoints import Checkpoint
from pretune.params import Hub, Study
from pretune.revisions import Revision

log = logging.getLogger(__name__)
WANTED = ["*.safetensors", "*.json", "tokenizer*", "*.model", "merges.txt", "vocab.txt"]  # never pickles, never code
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further try
NETWORK = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")  # of the client's own library
Answer = TypeVar("Answer")


class HubError(RuntimeError):
    """What the Hub did not give: one line naming the repository, the reason and what to do."""


def api() -> HfApi:
    """The Hub, or the server that HF_ENDPOINT names. A token, if there is one, goes to that host only."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def branches(repo: str) -> dict[str, str]:
    """Name to commit of every branch of a repository. Raises HubError."""
    refs = _asked(repo, lambda: api().list_repo_refs(repo))
    return {branch.name: branch.target_commit for branch in refs.branches}


def chosen(source: Hub, names: list[str]) -> list[Revision]:
    """The branches that a study takes, of those there are. Raises RevisionError."""
    there = revisions.points(names, source.stage, source.run)
    if source.count is not None:
        return revisions.spread(there, source.count, source.spacing)
    return there if source.steps == "all" else revisions.by_step(there, source.steps)


def pinned(study: Study) -> dict:
    """What a study takes, as pinned when it was first asked for: `checkpoints`, each with name, step, tokens, stage, commit
    and bytes, and the `config` of the model.

    Raises HubError and RevisionError.
    """
    source, file = study.checkpoints, paths.study_folder(study.name) / "checkpoints.json"
    asked = source.model_dump(mode="json")
    if file.is_file() and (kept := json.loads(file.read_text()))["asked"] == asked:
        return kept
    commits = branches(source.repo)
    found = [{"name": one.name, "step": one.step, "tokens": tokens(source, one), "stage": one.stage or "pretraining",
              "commit": commits[one.name], "bytes": _size(source.repo, commits[one.name])}
             for one in chosen(source, list(commits))]
    config = _asked(source.repo, lambda: api().hf_hub_download(source.repo, "config.json", revision=found[0]["commit"]))
    kept = {"asked": asked, "checkpoints": found, "config": json.loads(Path(config).read_text())}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=1))
    partial.replace(file)
    return kept


def _size(repo: str, commit: str) -> int:
    """Bytes of what is fetched of a commit."""
    files = _asked(repo, lambda: list(api().list_repo_tree(repo, revision=commit)))
    return sum(file.size for file in files if any(fnmatch(file.path, pattern) for pattern in WANTED))


def tokens(source: Hub, one: Revision) -> int:
    """Tokens read up to a checkpoint: from the size of a step where the study gives it, else from the name of the branch.

    Raises HubError where neither says.
    """
    if source.tokens_per_step is not None:
        return one.step * source.tokens_per_step
    if one.tokens is None:
        raise HubError(f"{source.repo}: {one.name} does not say how many tokens it has read; give checkpoints.tokens_per_step")
    return one.tokens * 10**9


def fetch(repo: str, commit: str, partial: Path) -> None:
    """Bring the files of a commit to the folder `partial`, taking up what is there already. Raises HubError."""
    _asked(repo, lambda: api().snapshot_download(repo, revision=commit, local_dir=partial, allow_patterns=WANTED))
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    if not list(partial.glob("*.safetensors")):
        shutil.rmtree(partial)
        raise HubError(f"{repo} at {commit[:10]}: no *.safetensors there; weights in other forms are refused")


def _kept_bytes() -> int:
    """Bytes of the checkpoints in the folder of the Hub, without those being fetched."""
    kept = (folder for folder in (paths.CACHE / "hub").glob("*/*") if folder.suffix != ".partial")
    return sum(file.stat().st_size for folder in kept for file in folder.iterdir())


def make_room(study: Study, needed: Collection[str]) -> None:
    """Remove checkpoints that earlier runs left, but not the commits `needed`, until the largest has room in the cache."""
    largest = max(one["bytes"] for one in pinned(study)["checkpoints"])
    for folder in sorted((paths.CACHE / "hub").glob("*/*"), key=lambda one: one.stat().st_mtime):
        if folder.name.removesuffix(".partial") not in needed and _kept_bytes() + largest > study.cache.max_gb * 1e9:
            shutil.rmtree(folder)


def wait_for_room(study: Study, point: Checkpoint) -> None:
    """Return when a checkpoint fits beside those that are there, or none is. Raises HubError when the disk cannot hold it."""
    home = paths.CACHE / "hub"
    home.mkdir(parents=True, exist_ok=True)
    size = next(one["bytes"] for one in pinned(study)["checkpoints"] if one["commit"] == point.revision)
    while (there := _kept_bytes()) and there + size > study.cache.max_gb * 1e9:
        time.sleep(0.5)
    free = shutil.disk_usage(home).free
    if free < size:
        raise HubError(f"{point.name} needs {size / 1e9:.1f} GB in {home}, {free / 1e9:.1f} GB are free; lower cache.max_gb "
                       "or set PRETUNE_OUTPUTS to a larger disk")


def release(study: Study, point: Checkpoint) -> None:
    """Remove a checkpoint that no cell waits for, if the cache is over its size or another waits for room."""
    largest = max(one["bytes"] for one in pinned(study)["checkpoints"])
    if _kept_bytes() + largest > study.cache.max_gb * 1e9:
        shutil.rmtree(point.folder, ignore_errors=True)


def remember(study: Study, point: Checkpoint, checksum: str) -> None:
    """Write down the weights of a checkpoint. Raises HubError where another checkpoint of the study has the same."""
    kept, file = pinned(study), paths.study_folder(study.name) / "checkpoints.json"
    for one in kept["checkpoints"]:
        if one["commit"] != point.revision and one.get("sha256") == checksum:
            raise HubError(f"{point.name} has the very weights of step {one['step']} ({one['name']}): one branch is wrong")
        if one["commit"] == point.revision:
            one["sha256"] = checksum
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(kept, indent=1))
    partial.replace(file)


def _asked(repo: str, ask: Callable[[], Answer]) -> Answer:
    for pause in (*PAUSES, None):
        try:
            return ask()
        except GatedRepoError:
            raise HubError(f"{repo}: gated; accept its terms on the Hub and set HF_TOKEN") from None
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise HubError(f"{repo}: {reason}; is the name right, and if it is private, is HF_TOKEN set?") from None
        except (HfHubHTTPError, NETWORK, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status is None or status == 429 or status >= 500
            if pause is None or not passing:
                raise HubError(f"{repo}: {type(error).__name__}: {str(error).splitlines()[0]}") from None
            wait = max(pause, _retry_after(error))
            log.warning("%s: %s; trying again in %g s", repo, str(error).splitlines()[0], wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _retry_after(error: Exception) -> float:
    """Seconds that a server asks to wait, 0 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return float(headers["Retry-After"]) if str(headers.get("Retry-After", "")).isdigit() else 0.0
