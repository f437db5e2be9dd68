"""A stand-in for the Hub on loopback: one repository served as `huggingface_hub` asks for it, with its hashes, ranges
and refusals, and others made and committed to; and a connection that can be cut, held or damaged."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 500_000
"""Files from this size on have a SHA-256, as those in the Hub's store for large files."""


@dataclass(frozen=True)
class Refusal:
    """An answer of the Hub that lets nobody in."""

    status: int
    code: str = ""
    message: str = ""


@dataclass
class Behaviour:
    """What happens to the bodies of large files, and who is let in; `ranges` is what was asked for, `pushed` the files
    that were committed to a repository, `private` whether one is, and `tokens` those that came with a commit."""

    cuts: list[int] = field(default_factory=list)
    """The next answers end after so many bytes."""
    held: threading.Event | None = None
    """Answers stop after half of their bytes until this is set."""
    damage: bool = False
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By a repository's name."""
    knows_everybody: bool = True
    """Else a token that is nobody's is refused whatever is asked, as the Hub does for what is open to all, too."""
    ranges: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    """Whose each token is."""
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)


@contextmanager
def serving(repo: str, folder: Path, behaviour: Behaviour | None = None) -> Iterator[str]:
    """The server's address while it serves `folder` as `repo`."""
    acts = behaviour or Behaviour()
    uploaded: dict[str, bytes] = {}

    def address() -> str:
        return f"http://127.0.0.1:{server.server_address[1]}"

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def do_PUT(self) -> None:
            uploaded[self.path.rsplit("/", 1)[-1]] = self.read()
            self.send(b"", body=False)

        def do_POST(self) -> None:
            content, path = self.read(), self.path.split("?")[0]
            asked = {} if path.endswith("/commit/main") else json.loads(content)
            name = f"{asked.get('organization')}/{asked.get('name')}" if path == "/api/repos/create" else path
            for refused, refusal in acts.refusals.items():
                if refused in name:
                    self.refuse(refusal)
                    return
            if path == "/api/repos/create":
                acts.private.setdefault(name, asked.get("private", asked.get("visibility") == "private"))
                made: object = {"url": f"{address()}/{name}"}
            elif path.endswith("/preupload/main"):
                made = {"files": [_upload_mode(file) for file in asked["files"]]}
            elif path.endswith("/info/lfs/objects/batch"):
                made = {"transfer": "basic", "objects": [_upload(address(), each) for each in asked["objects"]]}
            elif path.endswith("/commit/main"):
                acts.tokens.append(self.headers.get("Authorization", ""))
                repository = "/".join(path.split("/")[3:5])
                acts.pushed.setdefault(repository, {}).update(_committed(content, uploaded))
                made = {"commitUrl": f"{address()}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
            else:
                made = {"errors": [], "warnings": []}
            self.send(json.dumps(made).encode(), body=True)

        def read(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            file = folder / path.rsplit("/", 1)[-1]
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if given and not acts.knows_everybody and given not in acts.owners:
                self.refuse(Refusal(401, message="Invalid credentials in Authorization header"))
                return
            for name, refusal in acts.refusals.items():
                # The Hub tells everybody what a gated repository is, and refuses its files.
                if f"/{name}/resolve/" in path or path == f"/api/models/{name}/auth-check":
                    self.refuse(refusal)
                    return
            if path == "/api/whoami-v2":
                self.say_who()
            elif re.fullmatch(r"/api/models/[\w.-]+/[\w.-]+/auth-check", path):
                self.send(b"OK", body=True)
            elif f"/api/models/{repo}/tree/" in path or "/tree/" in path:
                self.send(json.dumps([_entry(file) for file in sorted(folder.iterdir())]).encode(), body=True)
            elif path.startswith("/api/models/"):
                name = "/".join(path.split("/")[3:5])
                siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                facts = {"id": name, "sha": COMMIT, "siblings": siblings, "private": acts.private.get(name, False)}
                self.send(json.dumps(facts).encode(), body=True)
            elif "/resolve/" in path and file.is_file():
                self.send(file.read_bytes(), body=body, is_file=True)
            else:
                self.send_error(404)

        def say_who(self) -> None:
            name = acts.owners.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
            if name is None:
                self.refuse(Refusal(401, message="Invalid username or password."))
            else:
                self.send(json.dumps({"type": "user", "name": name}).encode(), body=True)

        def refuse(self, refusal: Refusal) -> None:
            self.send_response(refusal.status)
            if refusal.code:
                self.send_header("X-Error-Code", refusal.code)
            self.send_header("X-Error-Message", refusal.message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content: bytes, *, body: bool, is_file: bool = False) -> None:
            start = 0
            if is_file and body and (asked := self.headers.get("Range")):
                acts.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{_git_hash(content)}"')
            if is_file and len(content) >= LARGE_BYTES:
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.write(content[start:], is_large=is_file and len(content) >= LARGE_BYTES)

        def write(self, content: bytes, *, is_large: bool) -> None:
            if is_large and acts.damage:
                content = content[:-1] + bytes([content[-1] ^ 1])
            if is_large and acts.cuts:
                content = content[: acts.cuts.pop(0)]
            if is_large and acts.held is not None:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                acts.held.wait(60)
                content = content[len(content) // 2 :]
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for a request log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed closes its connection: that is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield address()
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def pushing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """What this process pushes goes to a stand-in, with a token of its own."""
    from huggingface_hub import constants

    behaviour = Behaviour()
    with serving("somebody/else", folder, behaviour) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield behaviour


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    entry: dict[str, object] = {"type": "file", "path": file.name, "size": len(content), "oid": _git_hash(content)}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _upload_mode(file: dict[str, str]) -> dict[str, object]:
    is_large = file["path"].endswith(".safetensors")
    return {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}


def _upload(address: str, file: dict[str, object]) -> dict[str, object]:
    return {**file, "actions": {"upload": {"href": f"{address}/lfs/{file['oid']}", "header": {}}}}


def _committed(content: bytes, uploaded: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a commit, by name: small ones are in it, large ones were put up before."""
    files: dict[str, bytes] = {}
    for line in content.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = uploaded[value["oid"]]
    return files
