"""The Hugging Face Hub: which branches a repository has, and files of a commit, with patience and
clear refusals.

Time-outs, 429 and 5xx are tried again with growing pauses, each with a line that says so: for
half a minute where a user waits for the answer (seconds where no connection is made), for an hour
where a run fetches unattended. What a break left of a download is taken up again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple, TypeVar

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from pretune import paths, storage
from pretune.errors import HubError, Outage

log = logging.getLogger(__name__)
# it keeps chunks and logs in HF_HOME; we write under PRETUNE_OUTPUTS only
constants.HF_HUB_DISABLE_XET = True
constants.HF_HUB_DISABLE_TELEMETRY = True  # what it asks the Hub for it keeps there too
# never code
MODEL = ("*.safetensors", "*.json", "tokenizer*", "*.model", "merges.txt", "vocab.txt")
TOKENIZER = MODEL[1:]
PICKLED = ("*.bin",)  # fetched only where a study allows it
PARQUET = "refs/convert/parquet"  # the Hub's own conversion of a dataset: CONFIG/SPLIT/NNNN.parquet
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further try, where a user waits for the answer
UNREACHED = 3  # seconds of those after which a user is told that there is no connection at all
PATIENCE = (1, 2, 4, 8, 16, 32, *[60] * 59)  # the same of a run: an hour
# of the client's own library
NETWORK = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
Answer = TypeVar("Answer")


def api() -> HfApi:
    """The Hub, or the server that HF_ENDPOINT names. A token, if there is one, goes to that host
    only.
    """
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def branches(repo: str) -> dict[str, str]:
    """Name to commit of every branch of a model repository. Raises HubError."""
    refs = _asked(repo, PAUSES, lambda: api().list_repo_refs(repo))
    return {branch.name: branch.target_commit for branch in refs.branches}


def parquet_commit(repo: str) -> str:
    """The commit of a dataset's conversion to parquet. Raises HubError where the Hub has made
    none.
    """
    refs = _asked(repo, PAUSES, lambda: api().list_repo_refs(repo, repo_type="dataset"))
    found = {one.ref: one.target_commit for one in refs.converts}
    if PARQUET not in found:
        raise HubError(
            f"{repo}: the Hub holds no {PARQUET} of it; put its rows into a folder and use "
            "datasets.source: folder"
        )
    return found[PARQUET]


class Listed(NamedTuple):
    """A file as a listing has it: its bytes, and of a large one its SHA-256, else nothing; of one
    in a folder when it was written, in ns.
    """

    size: int
    sha256: str = ""
    changed: int = 0


def files(
    repo: str, commit: str, patterns: tuple[str, ...] = MODEL, kind: str = "model"
) -> dict[str, Listed]:
    """The files of a commit that one of `patterns` fits, by path. Raises HubError."""
    tree = _asked(repo, PAUSES, lambda: _tree(repo, commit, patterns, kind))
    return {one.path: Listed(one.size, one.lfs.sha256 if one.lfs else "") for one in tree}


def config(repo: str, commit: str) -> dict:
    """The configuration of a model. Raises HubError."""
    file = small(repo, commit, "configs", ("config.json",)) / "config.json"
    if not file.is_file():
        raise HubError(
            f"{repo}: commit {commit} holds no config.json: it is no model that can be loaded"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def small(repo: str, commit: str, place: str, patterns: tuple[str, ...]) -> Path:
    """A folder of the cache, under `place`, with the few small files of a commit that a user waits
    for; fetched once.

    Raises HubError.
    """
    folder = paths.CACHE / place / commit
    if not folder.is_dir():
        with storage.whole(folder) as partial:
            partial.mkdir()
            fetch(repo, commit, partial, patterns, pauses=PAUSES)
    return folder


def fetch(
    repo: str,
    commit: str,
    partial: Path,
    patterns: tuple[str, ...] = MODEL,
    kind: str = "model",
    pauses: Sequence[float] | None = None,
) -> None:
    """Bring files of a commit to the folder `partial`, taking up what is there already.

    Each is held against the Hub's hash of it, and removed and fetched again where it differs.
    Raises HubError; Outage where the Hub does not answer after `pauses` (seconds; left out: an
    hour) either.
    """

    def fetched() -> None:
        api().snapshot_download(
            repo, revision=commit, repo_type=kind, local_dir=partial, allow_patterns=list(patterns)
        )
        for one in _tree(repo, commit, patterns, kind):
            if _hash(partial / one.path, one.lfs) != (one.lfs.sha256 if one.lfs else one.blob_id):
                (partial / one.path).unlink()
                raise OSError(f"{one.path} that came is not the file that the Hub lists")

    _asked(repo, pauses or PATIENCE, fetched)
    shutil.rmtree(partial / ".cache", ignore_errors=True)


def _tree(repo: str, commit: str, patterns: tuple[str, ...], kind: str) -> list[RepoFile]:
    """The files of a commit that one of `patterns` fits."""
    tree = api().list_repo_tree(repo, revision=commit, recursive=True, repo_type=kind)
    return [one for one in tree if isinstance(one, RepoFile) and _fits(one.path, patterns)]


def _fits(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, wanted) for wanted in patterns)


def _hash(file: Path, large: object) -> str:
    """SHA-256 of a large file; of others the SHA-1 that git gives them."""
    if large:
        return storage.sha256(file).hexdigest()
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _asked(repo: str, pauses: Sequence[float], ask: Callable[[], Answer]) -> Answer:
    """What the Hub answers. Raises HubError, and Outage where it does not answer after all
    `pauses` (seconds) either.
    """
    odd, waited = 0, 0.0  # answers that were not what was asked for, and seconds
    for pause in (*pauses, None):
        try:
            return ask()
        except GatedRepoError:
            raise HubError(f"{repo}: gated; accept its terms on the Hub and set HF_TOKEN") from None
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise HubError(
                f"{repo}: {_line(error)}; is the name right, and if it is private, is HF_TOKEN set?"
            ) from None
        except ValueError as error:  # a name that leads out of its folder
            raise HubError(f"{repo}: {_line(error)}") from None
        except (HfHubHTTPError, NETWORK, OSError) as error:
            odd += not _is_silent(error)
            if not _may_pass(error) or odd > len(PAUSES):
                raise HubError(f"{repo}: {type(error).__name__}: {_line(error)}") from None
            wait = max(pause or 0, _retry_after(error))
            told_at = UNREACHED if pauses is PAUSES and _is_unreached(error) else sum(pauses)
            if pause is None or waited >= told_at or wait > sum(pauses):
                hint = "is there a network?" if _status(error) is None else "try again later"
                raise Outage(f"{repo}: {type(error).__name__}: {_line(error)}; {hint}") from None
            log.warning("%s: %s; trying again in %g s", repo, _line(error), wait)
            time.sleep(wait)
            waited += wait
    raise AssertionError("unreachable")


def _is_silent(error: Exception) -> bool:
    """Whether there was no answer, or only that there is none now."""
    network = (NETWORK, ConnectionError, TimeoutError)
    return isinstance(error, network) or isinstance(error.__cause__, network)


def _is_unreached(error: Exception) -> bool:
    """Whether no connection was made: no network, no such host, or nothing that listens there."""
    kinds = {type(one).__name__ for one in (error, error.__cause__)}
    return bool(kinds & {"ConnectError", "ConnectionError", "ConnectTimeout"})


def _may_pass(error: Exception) -> bool:
    """Whether trouble may pass by itself: not a refusal of the Hub, a file or a full disk of
    this machine, or being offline.
    """
    status = _status(error)
    if status is not None:
        return status == 429 or status >= 500
    offline = any(isinstance(one, OfflineModeIsEnabled) for one in (error, error.__cause__))
    return not (offline or getattr(error, "filename", None) or storage.is_full(error))


def _status(error: Exception) -> int | None:
    """The status of the answer, None where there was none."""
    answers = (getattr(one, "response", None) for one in (error, error.__cause__))
    return next((answer.status_code for answer in answers if answer is not None), None)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _retry_after(error: Exception) -> float:
    """Seconds that a server asks to wait, 0 where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return float(headers["Retry-After"]) if str(headers.get("Retry-After", "")).isdigit() else 0.0
