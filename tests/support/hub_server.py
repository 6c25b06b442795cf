"""A small Hub on 127.0.0.1: the resolve, api, LFS and commit calls that huggingface_hub makes, and faults on demand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

WRITER, READER = "hf_writer", "hf_reader"
LICENSES = {"apache-2.0", "mit", "openrail", "llama2", "cc0-1.0", "other"}
KIND = r"(?:models|datasets)"
REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"


@dataclass
class Fault:
    """What goes wrong with requests whose path holds `path`, as long as `times` are left."""

    path: str
    status: int = 0
    error_code: str = ""
    error_message: str = ""
    truncate_to: int | None = None
    """Bytes that are sent of the body before the connection closes."""
    shorten_to: int | None = None
    """Bytes of a file that is shorter than the Hub says."""
    corrupt: bool = False
    """Send other bytes, as many."""
    wait_s: float = 0.0
    method: str = "GET"
    times: int = 1_000


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make `files` all that the branch holds; returns the commit."""
        seed = json.dumps([len(self.commits), branch, sorted(files)]).encode()
        name = hashlib.sha1(seed).hexdigest()
        self.commits[name], self.refs[branch] = dict(files), name
        return name


class LocalHub:
    """The state of the server, and what it was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, str | None]] = []
        """(method, path, Range) of each request."""
        self.messages: list[str] = []
        """Of the commits made through the API."""
        self.endpoint = self.storage = ""

    def add(self, name: str, folder: Path, **options: bool) -> str:
        """Put a folder's files into a repository; returns the commit."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.commit(files)

    def paths(self, method: str = "GET") -> list[str]:
        """The paths asked for by a method, in order."""
        return [path for own, path, _ in self.requests if own == method]


@contextlib.contextmanager
def serving() -> Iterator[LocalHub]:
    """Serve a LocalHub from threads of this process, on a free port."""
    hub = LocalHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    hub.storage = f"http://localhost:{server.server_address[1]}/storage"  # another host, as the Hub's storage is
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stand_in(hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process take the server for the Hub, with its cache in `folder` and nobody logged in."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder / "cache"),
        "HF_TOKEN_PATH": str(folder / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)


class HubError(Exception):
    """An answer that is an error of the Hub's."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """One request."""

    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        path = parts.path
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, unquote(path), self.headers.get("Range")))
        self.fault = next((one for one in self.hub.faults if self.command == one.method and one.path in path), None)
        try:
            if self.fault is not None:
                self.fault.times -= 1
                if not self.fault.times:
                    self.hub.faults.remove(self.fault)
                threading.Event().wait(self.fault.wait_s)
                if self.fault.status:
                    raise HubError(self.fault.status, self.fault.error_code, self.fault.error_message)
            for method, pattern, call in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method:
                    call(self, **{key: unquote(value) if value else value for key, value in match.groupdict().items()})
                    return
            raise HubError(404, "", f"no such page: {self.command} {path}")
        except HubError as error:
            headers = {"X-Error-Code": error.code} if error.code else {}
            headers |= {"X-Error-Message": error.message} if error.message else {}
            self.send(json.dumps({"error": error.message}).encode(), error.status, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    # who may do what

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def repository(self, name: str) -> Repository:
        if self.token and self.token not in (WRITER, READER):
            raise HubError(401, "", "Invalid credentials in Authorization header")
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.token != WRITER):
            raise HubError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def written(self, name: str) -> Repository:
        repository = self.repository(name)
        if self.token != WRITER:
            raise HubError(403 if self.token else 401, "", "You don't have the rights to write")
        return repository

    def snapshot(self, name: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        repository = self.repository(name)
        commit = repository.refs.get(revision or "main", revision or "main")
        if commit not in repository.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    # reading

    def info(self, repository: str, revision: str | None = None) -> None:
        commit, files = self.snapshot(repository, revision)
        siblings = []
        for path, content in files.items():
            one: dict[str, object] = {"rfilename": path}
            if "blobs" in self.query:
                one |= {"size": len(content), "blobId": git_hash(content)}
                if is_large(path):
                    one["lfs"] = {"sha256": lfs_hash(content), "size": len(content), "pointerSize": 134}
            siblings.append(one)
        found = self.hub.repositories[repository]
        self.send_json(
            {
                "_id": "0",
                "id": repository,
                "modelId": repository,
                "sha": commit,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def tree(self, repository: str, revision: str, folder: str | None = None) -> None:
        _, files = self.snapshot(repository, revision)
        entries = []
        start = f"{folder}/" if folder else ""
        for path, content in ((path, content) for path, content in files.items() if path.startswith(start)):
            one: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            if is_large(path):
                one["lfs"] = {"oid": lfs_hash(content), "size": len(content), "pointerSize": 134}
            entries.append(one)
        self.send_json(entries)

    def resolve(self, repository: str, revision: str, path: str) -> None:
        commit, files = self.snapshot(repository, revision)
        if self.hub.repositories[repository].gated and self.token != WRITER:
            raise HubError(403 if self.token else 401, "GatedRepo", f"Access to model {repository} is restricted")
        if path not in files:
            raise HubError(404, "EntryNotFound", f"{path} does not exist")
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(content)}"'}
        if not is_large(path):
            self.send_content(content, headers)
            return
        digest = lfs_hash(content)
        self.hub.blobs[digest] = content
        location = f"{self.hub.storage}/{digest}"
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "Location": location}
        self.send(b"", 302, {"X-Repo-Commit": commit, **linked})

    def storage(self, digest: str) -> None:
        if self.token:
            raise HubError(400, "", "a token was sent to another host")
        self.send_content(self.hub.blobs[digest], {"ETag": f'"{digest}"'})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file or the range asked for, truncated or corrupted where a fault says so."""
        if self.fault is not None and self.fault.shorten_to is not None:
            content = content[: self.fault.shorten_to]
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            status, start = 206, int(asked[1])
            if start >= len(content):
                raise HubError(416)
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        if self.fault is not None and self.fault.corrupt:
            body = bytes(byte ^ 1 for byte in body)
        if self.fault is None or self.fault.truncate_to is None or self.command == "HEAD":
            self.send(body, status, headers)
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.fault.truncate_to])
        self.wfile.flush()
        self.close_connection = True

    # writing

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        if self.token != WRITER:
            raise HubError(403 if self.token else 401, "", "You don't have the rights to create a model")
        url = {"url": f"{self.hub.endpoint}/{name}"}
        if name in self.hub.repositories:
            self.send_json({"error": "You already created this model repo", **url}, 409)
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(private))
        self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.send_json({**url, "id": "0", "name": name})

    def branch(self, repository: str, branch: str) -> None:
        refs = self.written(repository).refs
        if branch in refs:
            raise HubError(409, "", "Reference already exists")
        refs[branch] = refs["main"]
        self.send_json({})

    def validate_yaml(self) -> None:
        text = json.loads(self.body)["content"]
        header = re.match(r"---\n(.*?)\n---\n", text, re.S)
        errors = []
        try:
            data = yaml.safe_load(header[1]) if header else {}
        except yaml.YAMLError as error:
            errors, data = [str(error)], {}
        if "license" in data and data["license"] not in LICENSES:
            errors.append(f'"license" must be one of {sorted(LICENSES)}')
        if not isinstance(data.get("tags", []), list):
            errors.append('"tags" must be an array')
        self.send_json({"errors": [{"message": one} for one in errors], "warnings": []}, 400 if errors else 200)

    def preupload(self, repository: str, revision: str) -> None:
        self.written(repository)
        _, files = self.snapshot(repository, revision)
        answers = []
        for one in json.loads(self.body)["files"]:
            path = one["path"]
            known = (lfs_hash if is_large(path) else git_hash)(files[path]) if path in files else None
            mode = "lfs" if is_large(path) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.send_json({"files": answers})

    def lfs_batch(self, repository: str) -> None:
        self.written(repository)
        objects = []
        for one in json.loads(self.body)["objects"]:
            if one["oid"] not in self.hub.blobs:
                verify = f"{self.hub.endpoint}/{repository}.git/info/lfs/objects/verify"
                links = {"upload": f"{self.hub.storage}/{one['oid']}", "verify": verify}
                one = {**one, "actions": {name: {"href": link} for name, link in links.items()}}
            objects.append(one)
        self.send_json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str) -> None:
        if lfs_hash(self.body) != digest:
            raise HubError(400, "", "the content does not match its hash")
        self.hub.blobs[digest] = self.body
        self.send(b"")

    def lfs_verify(self, repository: str) -> None:
        asked = json.loads(self.body)
        if len(self.hub.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise HubError(400, "", "not uploaded")
        self.send_json({})

    def commit(self, repository: str, revision: str) -> None:
        found = self.written(repository)
        _, held = self.snapshot(repository, revision)
        files = dict(held)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise HubError(400, "", f"unknown operation {entry['key']}")
        made = found.commit(files, revision)
        url = f"{self.hub.endpoint}/{repository}/commit/{made}"
        self.send_json({"success": True, "commitOid": made, "commitUrl": url})


ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), rf"/api/{KIND}/{REPOSITORY}", HubHandler.info),
    (("GET",), rf"/api/{KIND}/{REPOSITORY}/revision/(?P<revision>[^/]+)", HubHandler.info),
    (("GET",), rf"/api/{KIND}/{REPOSITORY}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?", HubHandler.tree),
    (("GET", "HEAD"), rf"(?:/datasets)?/{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubHandler.resolve),
    (("GET", "HEAD"), r"/storage/(?P<digest>[0-9a-f]{64})", HubHandler.storage),
    (("POST",), r"/api/repos/create", HubHandler.create),
    (("POST",), r"/api/validate-yaml", HubHandler.validate_yaml),
    (("POST",), rf"/api/models/{REPOSITORY}/branch/(?P<branch>[^/]+)", HubHandler.branch),
    (("POST",), rf"/api/models/{REPOSITORY}/preupload/(?P<revision>[^/]+)", HubHandler.preupload),
    (("POST",), rf"/{REPOSITORY}\.git/info/lfs/objects/batch", HubHandler.lfs_batch),
    (("POST",), rf"/{REPOSITORY}\.git/info/lfs/objects/verify", HubHandler.lfs_verify),
    (("PUT",), r"/storage/(?P<digest>[0-9a-f]{64})", HubHandler.upload),
    (("POST",), rf"/api/models/{REPOSITORY}/commit/(?P<revision>[^/]+)", HubHandler.commit),
]
