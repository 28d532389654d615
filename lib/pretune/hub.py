"""The Hugging Face Hub: which branches a repository has, and files of a commit, with patience and clear refusals.

Time-outs, 429 and 5xx are tried again with growing pauses, each with a line that says so. What a break left of a download
is taken up again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from pretune import storage
from pretune.errors import RunError

log = logging.getLogger(__name__)
MODEL = ("*.safetensors", "*.json", "tokenizer*", "*.model", "merges.txt", "vocab.txt")  # never code
TOKENIZER = MODEL[1:]
PICKLED = ("*.bin",)  # fetched only where a study allows it
PARQUET = "refs/convert/parquet"  # the Hub's own conversion of a dataset: CONFIG/SPLIT/NNNN.parquet
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further try
NETWORK = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")  # of the client's own library
Answer = TypeVar("Answer")


class HubError(RunError):
    """What the Hub did not give: one line naming the repository, the reason and what to do."""


def api() -> HfApi:
    """The Hub, or the server that HF_ENDPOINT names. A token, if there is one, goes to that host only."""
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def branches(repo: str) -> dict[str, str]:
    """Name to commit of every branch of a model repository. Raises HubError."""
    refs = _asked(repo, lambda: api().list_repo_refs(repo))
    return {branch.name: branch.target_commit for branch in refs.branches}


def parquet_commit(repo: str) -> str:
    """The commit of a dataset's conversion to parquet. Raises HubError where the Hub has made none."""
    refs = _asked(repo, lambda: api().list_repo_refs(repo, repo_type="dataset"))
    found = {one.ref: one.target_commit for one in refs.converts}
    if PARQUET not in found:
        raise HubError(f"{repo}: the Hub holds no {PARQUET} of it; put its rows into a folder and use datasets.source: folder")
    return found[PARQUET]


def files(repo: str, commit: str, patterns: tuple[str, ...] = MODEL, kind: str = "model") -> dict[str, int]:
    """Path to bytes of the files of a commit that one of `patterns` fits. Raises HubError."""
    return {one.path: one.size for one in _asked(repo, lambda: _tree(repo, commit, patterns, kind))}


def config(repo: str, commit: str) -> dict:
    """The configuration of a model. Raises HubError."""
    return json.loads(Path(_asked(repo, lambda: api().hf_hub_download(repo, "config.json", revision=commit))).read_text())


def fetch(repo: str, commit: str, partial: Path, patterns: tuple[str, ...] = MODEL, kind: str = "model") -> None:
    """Bring files of a commit to the folder `partial`, taking up what is there already. Each is held against the Hub's hash of
    it, and removed and fetched again where it differs. Raises HubError."""
    def fetched() -> None:
        api().snapshot_download(repo, revision=commit, repo_type=kind, local_dir=partial, allow_patterns=list(patterns))
        for one in _tree(repo, commit, patterns, kind):
            if _hash(partial / one.path, one.lfs) != (one.lfs.sha256 if one.lfs else one.blob_id):
                (partial / one.path).unlink()
                raise OSError(f"{one.path} that came is not the file that the Hub lists")

    _asked(repo, fetched)
    shutil.rmtree(partial / ".cache", ignore_errors=True)


def _tree(repo: str, commit: str, patterns: tuple[str, ...], kind: str) -> list[RepoFile]:
    """The files of a commit that one of `patterns` fits."""
    tree = api().list_repo_tree(repo, revision=commit, recursive=True, repo_type=kind)
    return [one for one in tree if isinstance(one, RepoFile) and any(fnmatch(one.path, wanted) for wanted in patterns)]


def _hash(file: Path, large: object) -> str:
    """SHA-256 of a large file; of others the SHA-1 that git gives them."""
    if large:
        return storage.sha256(file).hexdigest()
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _asked(repo: str, ask: Callable[[], Answer]) -> Answer:
    for pause in (*PAUSES, None):
        try:
            return ask()
        except GatedRepoError:
            raise HubError(f"{repo}: gated; accept its terms on the Hub and set HF_TOKEN") from None
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise HubError(f"{repo}: {reason}; is the name right, and if it is private, is HF_TOKEN set?") from None
        except ValueError as error:  # a name that leads out of its folder
            raise HubError(f"{repo}: {str(error).splitlines()[0]}") from None
        except (HfHubHTTPError, NETWORK, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status is None or status == 429 or status >= 500
            if pause is None or not passing:
                hint = "; is there a network?" if status is None else ""
                raise HubError(f"{repo}: {type(error).__name__}: {str(error).splitlines()[0]}{hint}") from None
            wait = max(pause, _retry_after(error))
            log.warning("%s: %s; trying again in %g s", repo, str(error).splitlines()[0], wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def _retry_after(error: Exception) -> float:
    """Seconds that a server asks to wait, 0 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return float(headers["Retry-After"]) if str(headers.get("Retry-After", "")).isdigit() else 0.0
