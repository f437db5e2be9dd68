"""A stand-in for the Hub on loopback: one repository served as `huggingface_hub` asks for it, with its hashes, ranges
and refusals; and a connection that can be cut, held or damaged."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
    """What happens to the bodies of large files, and who is let in; `ranges` is what was asked for."""

    cuts: list[int] = field(default_factory=list)
    """The next answers end after so many bytes."""
    held: threading.Event | None = None
    """Answers stop after half of their bytes until this is set."""
    damage: bool = False
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By a repository's name."""
    ranges: list[str] = field(default_factory=list)


@contextmanager
def serving(repo: str, folder: Path, behaviour: Behaviour | None = None) -> Iterator[str]:
    """The server's address while it serves `folder` as `repo`."""
    acts = behaviour or Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            file = folder / path.rsplit("/", 1)[-1]
            for name, refusal in acts.refusals.items():
                # The Hub tells everybody what a gated repository is, and refuses its files.
                if f"/{name}/resolve/" in path or path == f"/api/models/{name}/auth-check":
                    self.refuse(refusal)
                    return
            if re.fullmatch(r"/api/models/[\w.-]+/[\w.-]+/auth-check", path):
                self.send(b"OK", body=True)
            elif f"/api/models/{repo}/tree/" in path or "/tree/" in path:
                self.send(json.dumps([_entry(file) for file in sorted(folder.iterdir())]).encode(), body=True)
            elif path.startswith("/api/models/"):
                name = "/".join(path.split("/")[3:5])
                siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), body=True)
            elif "/resolve/" in path and file.is_file():
                self.send(file.read_bytes(), body=body, is_file=True)
            else:
                self.send_error(404)

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
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    entry: dict[str, object] = {"type": "file", "path": file.name, "size": len(content), "oid": _git_hash(content)}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
