"""A server that speaks the part of the Hub's protocol that we use, for local folders, and can
misbehave.

`GET /api/models/REPO/refs`, `GET /api/models/REPO/tree/COMMIT`, `HEAD` and `GET
/REPO/resolve/COMMIT/FILE` with ETag and ranges, and the same of datasets, which have one branch,
the Hub's conversion to parquet. `trouble` is asked before each answer: what it returns (status,
headers and perhaps a body) is sent in its place, or, if it can be called, answers itself.
"""

import hashlib
import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import pyarrow
import pyarrow.parquet

PARQUET = "refs/convert/parquet"


def commit_of(folder: Path) -> str:
    """A name of forty digits for the content of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha1(
        b"".join(path.name.encode() + path.read_bytes() for path in files)
    ).hexdigest()


def mnli(number, label=None):
    """A row of MNLI."""
    label = number % 3 if label is None else label
    return {
        "premise": f"Number {number} sleeps.",
        "hypothesis": f"Number {number} is awake.",
        "label": label,
        "idx": number,
    }


def write_parquet(folder, config, splits):
    """The Hub's conversion of a dataset: of each split its parts, which are lists of rows."""
    for split, parts in splits.items():
        for place, part in enumerate(parts):
            file = folder / config / split / f"{place:04}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), file)


class LocalHub:
    """`models` maps a repository to its branches, and those to folders; `datasets` a repository
    to the folder of its parquet.
    """

    def __init__(
        self, models: dict[str, dict[str, Path]], datasets: dict[str, Path] = MappingProxyType({})
    ):
        repositories = models | {
            f"datasets/{repo}": {PARQUET: folder} for repo, folder in datasets.items()
        }
        self.commits = {
            repo: {name: commit_of(folder) for name, folder in some.items()}
            for repo, some in repositories.items()
        }
        self.folders = {
            commit: repositories[repo][name]
            for repo, some in self.commits.items()
            for name, commit in some.items()
        }
        self.trouble: Callable[[str, str], tuple[int, dict] | None] = lambda method, path: None
        self.asked: list[tuple[str, str, dict]] = []

    def __enter__(self):
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.answer(self)

            do_GET = do_HEAD

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        path = unquote(urlsplit(request.path).path)
        self.asked.append((request.command, path, dict(request.headers)))
        found = self.trouble(request.command, path) or self.found(
            path, request.headers.get("Range")
        )
        if callable(found):
            found(request)
            return
        status, headers, *body = found
        content = body[0] if body else b""
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    def found(self, path: str, asked: str | None) -> tuple:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            repo = "/".join(parts[2:4]) if parts[1] == "models" else "/".join(parts[1:4])
            return self.about(repo, parts[4:])
        parts = ["/".join(parts[:2]), *parts[2:]] if parts[0] == "datasets" else parts
        if len(parts) >= 5 and parts[2] == "resolve" and parts[3] in self.folders:
            file = self.folders[parts[3]].joinpath(*parts[4:])
            if file.is_file():
                return self.file(file, parts[3], asked)
        return 404, {"X-Error-Code": "EntryNotFound"}

    def about(self, repo: str, what: list[str]) -> tuple:
        if repo not in self.commits:
            return 404, {"X-Error-Code": "RepoNotFound"}
        if what == ["refs"]:
            named = [
                {
                    "name": name.rpartition("/")[2],
                    "ref": name if "/" in name else f"refs/heads/{name}",
                    "targetCommit": commit,
                }
                for name, commit in self.commits[repo].items()
            ]
            kind = "converts" if repo.startswith("datasets/") else "branches"
            return self.as_json({"branches": [], "tags": [], "converts": []} | {kind: named})
        if what[0] == "tree" and what[1] in self.folders:
            folder = self.folders[what[1]]
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            return self.as_json([self.entry(file, folder) for file in files])
        return 404, {"X-Error-Code": "RevisionNotFound"}

    @staticmethod
    def entry(file: Path, folder: Path) -> dict:
        content = file.read_bytes()
        about = {"type": "file", "path": str(file.relative_to(folder)), "size": len(content)}
        about["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if file.suffix == ".safetensors":
            about["lfs"] = {
                "oid": hashlib.sha256(content).hexdigest(),
                "size": len(content),
                "pointerSize": 100,
            }
        return about

    @staticmethod
    def as_json(value) -> tuple:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    @staticmethod
    def file(file: Path, commit: str, asked: str | None) -> tuple:
        content = file.read_bytes()
        sum_ = hashlib.sha256 if file.suffix == ".safetensors" else hashlib.sha1
        headers = {
            "ETag": f'"{sum_(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            return (
                206,
                headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
                content[start:],
            )
        return 200, headers, content
