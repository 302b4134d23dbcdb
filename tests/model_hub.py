"""A model hub on this machine: what huggingface_hub asks to create, commit to and read repositories.

Large files go by git LFS (`HF_HUB_DISABLE_XET=1`): Xet's protocol is the real hub's alone.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import yaml
from faults import Web, serving

LFS_SUFFIXES = (".safetensors", ".bin", ".npz", ".npy")
WRITER, READER = "hf_writer", "hf_reader"
"""Tokens."""
FIRST = "0" * 40


@dataclass
class Repository:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=lambda: [(FIRST, {})])
    """Commit and files, the newest last."""

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def oid(name: str, content: bytes) -> str:
    """As a hub names contents: sha256 of large files, git's sha1 of others."""
    if name.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class ModelHub(Web):
    """Repositories by name; every request needs a token except to read what is public."""

    def __init__(self) -> None:
        super().__init__()
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        """sha256 of every large file that was sent."""
        self.refusals: dict[str, int] = {}
        """Status by path, or by the folder it is in: what is asked there is refused."""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.partition("?")[0]
        self.requests.append((request.command, path, dict(request.headers)))
        headers: dict[str, str] = {}
        try:
            for refused in {path, path.rpartition("/")[0]} & self.refusals.keys():
                raise Refusal(self.refusals[refused], "refused")
            status, content = 200, self._route(request.command, path, body, request, headers)
        except Refusal as refusal:
            status, content = refusal.status, json.dumps({"error": str(refusal)}).encode()
            headers = {"X-Error-Message": str(refusal), "X-Error-Code": refusal.code}
        request.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _route(
        self, method: str, path: str, body: bytes, request: BaseHTTPRequestHandler, headers: dict[str, str]
    ) -> bytes:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", WRITER, READER):
            raise Refusal(401, "Invalid credentials in Authorization header")
        payload = json.loads(body) if body.startswith(b"{") and b"\n" not in body.strip() else {}
        if path == "/api/validate-yaml":
            return json.dumps(self._validated(payload["content"])).encode()
        if method == "PUT":
            self.objects[path.removeprefix("/lfs/")] = body
            self.uploads.append(hashlib.sha256(body).hexdigest())
            assert path == f"/lfs/{self.uploads[-1]}"
            return b""
        if path == "/api/repos/create":
            return self._create(token, payload)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)(?:/([^/]+))?)?", path):
            name, what, revision = match.groups()
            repository = self._repository(name, token)
            if what in ("preupload", "commit"):
                self._check_writer(token)
            return json.dumps(self._about(name, repository, what, revision, body, payload)).encode()
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._repository(match[1], token)
            self._check_writer(token)
            return json.dumps({"transfer": "basic", "objects": list(self._batch(payload))}).encode()
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            commit, files = self._at(self._repository(match[1], token), match[2])
            if match[3] not in files:
                raise Refusal(404, "Entry not found", "EntryNotFound")
            content = files[match[3]]
            headers |= {"X-Repo-Commit": commit, "ETag": f'"{oid(match[3], content)}"'}
            return content
        raise Refusal(404, f"There is nothing at {path}")

    def _repository(self, name: str, token: str) -> Repository:
        found = self.repositories.get(name)
        if found is None or (found.private and not token):
            raise Refusal(404 if token else 401, "Repository not found", "RepoNotFound")
        return found

    def _check_writer(self, token: str) -> None:
        if token != WRITER:
            raise Refusal(403, "You have no write permission")

    def _create(self, token: str, payload: dict[str, Any]) -> bytes:
        self._check_writer(token)
        name = f"{payload['organization']}/{payload['name']}"
        if name in self.repositories:
            raise Refusal(409, "You already created this model repo")
        self.repositories[name] = Repository(private=payload.get("visibility") == "private")
        return json.dumps({"url": f"{self.url}/{name}"}).encode()

    def _about(
        self,
        name: str,
        repository: Repository,
        what: str | None,
        revision: str | None,
        body: bytes,
        payload: dict[str, Any],
    ) -> Any:
        commit, files = self._at(repository, revision or "main")
        if what in (None, "revision"):
            siblings = [{"rfilename": one} for one in files]
            return {
                "id": name,
                "sha": commit,
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
            }
        if what == "tree":
            return [
                {"type": "file", "path": one, "size": len(content), "oid": oid(one, content)}
                | (
                    {"lfs": {"oid": oid(one, content), "size": len(content), "pointerSize": 134}}
                    if one.endswith(LFS_SUFFIXES)
                    else {}
                )
                for one, content in files.items()
            ]
        if what == "preupload":
            return {
                "files": [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(LFS_SUFFIXES) else "regular",
                        "shouldIgnore": False,
                        "oid": oid(one["path"], files[one["path"]]) if one["path"] in files else None,
                    }
                    for one in payload["files"]
                ]
            }
        if what == "commit":
            return self._commit(name, repository, body)
        raise Refusal(404, f"There is no {what}")

    def _batch(self, payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for one in payload["objects"]:
            there = one["oid"] in self.objects
            upload = {} if there else {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}}
            yield {"oid": one["oid"], "size": one["size"], **upload}

    def _commit(self, name: str, repository: Repository, body: bytes) -> dict[str, str]:
        files = dict(repository.files)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") != repository.commits[-1][0]:
                raise Refusal(412, "A commit has happened since.")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = hashlib.sha1(body + repository.commits[-1][0].encode()).hexdigest()
        repository.commits.append((commit, files))
        return {"commitUrl": f"{self.url}/{name}/commit/{commit}", "commitOid": commit}

    def _at(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        if revision == "main":
            return repository.commits[-1]
        for commit, files in repository.commits:
            if commit == revision:
                return commit, files
        raise Refusal(404, "Revision not found", "RevisionNotFound")

    def _validated(self, card: str) -> dict[str, Any]:
        payload = yaml.safe_load(card.split("---")[1])
        for model in payload.get("model-index", []):
            for result in model["results"]:
                assert {"task", "dataset", "metrics"} <= result.keys()
        return {"errors": [], "warnings": []}


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """An empty hub on a free port, until the end of the block."""
    hub = ModelHub()
    with serving(hub):
        yield hub
