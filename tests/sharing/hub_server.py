"""A Hub on this machine: the part of its HTTP API that pushing and pulling speak, over real sockets and real files.

Uploads go by LFS or inside the commit, as the real Hub decides by the kind of file; the client's other way, Xet, is a
library with a protocol of its own and is switched off in these tests (HF_HUB_DISABLE_XET).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

BY_LFS = (".safetensors", ".npz", ".parquet", ".png")


@dataclass
class Repository:
    """A repository: its commits, each a table of paths and digests, and the names of some of them."""

    private: bool
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str, files: dict[str, str]) -> str:
        number = len(self.commits)
        sha = hashlib.sha1(json.dumps([number, sorted(files.items())]).encode()).hexdigest()
        self.commits[sha] = files
        self.revisions[revision] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


@dataclass
class Hub:
    """What the server keeps, and what a test may look at or break.

    Attributes:
        folder: where contents are stored, by their SHA-256.
        tokens: token -> whether it may write.
        repositories: by kind and name, such as ("model", "ann/annotator").
        requests: method and path of all requests so far.
        uploads: digests of the contents that came by LFS, each time they came.
        uploads_allowed: how many of these are taken before the server fails; None for all.
        tampered: path -> what is sent in place of a file.
    """

    folder: Path
    tokens: dict[str, bool] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    uploads_allowed: int | None = None
    tampered: dict[str, bytes] = field(default_factory=dict)
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return digest

    def has(self, digest: str) -> bool:
        return (self.folder / digest).is_file()

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The content of each file of a revision."""
        repository = self.repositories[kind, name]
        sha = repository.find(revision)
        assert sha is not None
        return {path: (self.folder / digest).read_bytes() for path, digest in repository.commits[sha].items()}


class RefusalError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        url = urlparse(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        body = self._body()
        self.hub.requests.append((self.command, path))
        try:
            for pattern, method in ROUTES:
                match = re.fullmatch(pattern, path)
                if match:
                    with self.hub.lock:
                        answer = getattr(self, method)(match, query, body)
                    if answer is not None:
                        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
                    return
            raise RefusalError(404, f"no such address: {path}")
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    do_GET = do_POST = do_HEAD = do_PUT = answer  # noqa: N815

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _may_write(self) -> bool | None:
        """Whether the token that came along may write; None if none came."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def _repository(self, kind: str, name: str, *, to_write: bool = False) -> Repository:
        may_write = self._may_write()
        repository = self.hub.repositories.get((kind, name))
        if repository is None or (repository.private and may_write is None):
            raise RefusalError(401 if may_write is None else 404, "Repository not found", "RepoNotFound")
        if to_write and not may_write:
            raise RefusalError(403, "Forbidden: you must use a write token")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        sha = repository.find(revision)
        if sha is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def create(self, match: Any, query: Any, body: bytes) -> Any:
        asked = json.loads(body)
        if not self._may_write():
            raise RefusalError(403 if self._may_write() is False else 401, "Forbidden: you must use a write token")
        name = asked["name"] if not asked.get("organization") else f"{asked['organization']}/{asked['name']}"
        key = (asked.get("type") or "model", name)
        if key in self.hub.repositories:
            raise RefusalError(409, "You already created this repo")
        private = asked.get("private", asked.get("visibility") == "private")
        repository = self.hub.repositories[key] = Repository(private=bool(private))
        repository.commit("main", {".gitattributes": self.hub.store(b"*.safetensors filter=lfs\n")})
        return {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name}

    def validate(self, match: Any, query: Any, body: bytes) -> Any:
        return {"errors": [], "warnings": []}

    def info(self, match: Any, query: Any, body: bytes) -> Any:
        kind, name, revision = match["kind"], match["name"], match["revision"] or "main"
        repository = self._repository(kind, name)
        sha = self._commit(repository, revision)
        return {
            "_id": "1",
            "id": name,
            "sha": sha,
            "private": repository.private,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in repository.commits[sha]],
        }

    def tree(self, match: Any, query: Any, body: bytes) -> Any:
        repository = self._repository(match["kind"], match["name"])
        files = repository.commits[self._commit(repository, match["revision"])]
        place = (match["path"] or "").strip("/")
        start = f"{place}/" if place else ""
        below = {path: digest for path, digest in files.items() if path.startswith(start)}
        if place and not below:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        folders = {str(folder) for path in below for folder in PurePosixPath(path).parents} - {"."}
        folders = {folder for folder in folders if folder.startswith(start)}
        entries = [*map(_folder, sorted(folders)), *(self._entry(path, digest) for path, digest in below.items())]
        is_deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        return [entry for entry in entries if is_deep or "/" not in entry["path"].removeprefix(start)]

    def paths_info(self, match: Any, query: Any, body: bytes) -> Any:
        repository = self._repository(match["kind"], match["name"])
        files = repository.commits[self._commit(repository, match["revision"])]
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(body)["paths"]
        else:
            wanted = parse_qs(body.decode())["paths"]
        found = [self._entry(path, files[path]) for path in wanted if path in files]
        folders = {path for path in wanted if any(name.startswith(f"{path}/") for name in files)}
        return [*found, *map(_folder, folders)]

    def _entry(self, path: str, digest: str) -> dict[str, Any]:
        content = (self.hub.folder / digest).read_bytes()
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
        if path.endswith(BY_LFS):
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        return entry

    def branch(self, match: Any, query: Any, body: bytes) -> Any:
        repository = self._repository(match["kind"], match["name"], to_write=True)
        if match["revision"] in repository.revisions:
            raise RefusalError(409, "Reference already exists")
        repository.revisions[match["revision"]] = repository.revisions["main"]
        return {}

    def preupload(self, match: Any, query: Any, body: bytes) -> Any:
        repository = self._repository(match["kind"], match["name"], to_write=True)
        files = repository.commits[self._commit(repository, match["revision"])]
        return {
            "files": [
                {
                    "path": asked["path"],
                    "uploadMode": "lfs" if asked["path"].endswith(BY_LFS) else "regular",
                    "shouldIgnore": False,
                    "oid": self._remote_oid(files, asked["path"]),
                }
                for asked in json.loads(body)["files"]
            ]
        }

    def _remote_oid(self, files: dict[str, str], path: str) -> str | None:
        if path not in files:
            return None
        return files[path] if path.endswith(BY_LFS) else _git_oid((self.hub.folder / files[path]).read_bytes())

    def lfs_batch(self, match: Any, query: Any, body: bytes) -> Any:
        self._repository("dataset" if match["kind"] else "model", match["name"], to_write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            known = {"oid": asked["oid"], "size": asked["size"]}
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}
            objects.append(known if self.hub.has(asked["oid"]) else {**known, "actions": upload})
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, match: Any, query: Any, body: bytes) -> Any:
        if self.hub.uploads_allowed is not None and len(self.hub.uploads) >= self.hub.uploads_allowed:
            raise RefusalError(400, "the line was cut")
        digest = self.hub.store(body)
        if digest != match["oid"]:
            raise RefusalError(422, "the content has another digest")
        self.hub.uploads.append(digest)
        return {}

    def commit(self, match: Any, query: Any, body: bytes) -> Any:
        repository = self._repository(match["kind"], match["name"], to_write=True)
        revision = match["revision"]
        files = dict(repository.commits[self._commit(repository, revision)])
        for line in body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                if not self.hub.has(value["oid"]):
                    raise RefusalError(400, "an object of this commit was never uploaded")
                files[value["path"]] = value["oid"]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        is_pr = query.get("create_pr") == ["1"]
        sha = repository.commit("refs/pr/1" if is_pr else revision, files)
        answer = {"commitUrl": f"{self.hub.endpoint}/{match['name']}/commit/{sha}", "commitOid": sha}
        return answer | ({"pullRequestUrl": f"{self.hub.endpoint}/{match['name']}/discussions/1"} if is_pr else {})

    def resolve(self, match: Any, query: Any, body: bytes) -> None:
        repository = self._repository("dataset" if match["kind"] else "model", match["name"])
        sha = self._commit(repository, match["revision"])
        digest = repository.commits[sha].get(match["path"])
        if digest is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        content = self.hub.tampered.get(match["path"], (self.hub.folder / digest).read_bytes())
        etag = digest if match["path"].endswith(BY_LFS) else _git_oid((self.hub.folder / digest).read_bytes())
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if ranged:
            start, stop = int(ranged[1]), int(ranged[2] or len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self._send(206, content[start:stop], headers)
        else:
            self._send(200, content, headers)


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


REPO = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/pr/\d+|[^/]+)"
ROUTES = [
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate"),
    (rf"{REPO}(?:/revision/{REVISION})?", "info"),
    (rf"{REPO}/tree/{REVISION}(?P<path>/.*)?", "tree"),
    (rf"{REPO}/paths-info/{REVISION}", "paths_info"),
    (rf"{REPO}/branch/{REVISION}", "branch"),
    (rf"{REPO}/preupload/{REVISION}", "preupload"),
    (rf"{REPO}/commit/{REVISION}", "commit"),
    (r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    (rf"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/{REVISION}/(?P<path>.+)", "resolve"),
]


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """Run a Hub on a free port of this machine."""
    hub = Hub(folder)
    handler = type("BoundHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
