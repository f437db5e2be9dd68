"""A stand-in for the Hub on loopback: one repository served as `huggingface_hub` asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repo: str, folder: Path) -> Iterator[str]:
    """The server's address while it serves `folder` as `repo`."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            file = folder / path.rsplit("/", 1)[-1]
            if path.startswith(f"/api/models/{repo}/tree/"):
                self.send(json.dumps([_entry(file) for file in sorted(folder.iterdir())]).encode(), body=True)
            elif path.startswith(f"/api/models/{repo}"):
                siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                self.send(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode(), body=True)
            elif path.startswith(f"/{repo}/resolve/") and file.is_file():
                self.send(file.read_bytes(), body=body)
            else:
                self.send_error(404)

        def send(self, content: bytes, *, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for a request log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _entry(file: Path) -> dict[str, object]:
    return {
        "type": "file",
        "path": file.name,
        "size": file.stat().st_size,
        "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
    }
