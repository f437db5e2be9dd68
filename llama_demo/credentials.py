"""API keys and passwords: two files that hold hashes alone, and checks that tell nothing by the time they take.

Keys are drawn at random, so one round of SHA-256 keeps them: there is nothing to guess. Passwords are people's own, and
are hashed with scrypt (RFC 7914) and a salt each, at the cost that OWASP's password storage cheat sheet gives.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from llama_demo.api_errors import BadCredentialFile
from llama_demo.errors import InvalidParameter
from llama_demo.reasons import Reason

_KEY_LINE = re.compile(r"sha256\$([0-9a-f]{64})(?:\s+\S.*)?")
_USER_LINE = re.compile(r"([^:\s]+):scrypt\$(\d+)\$(\d+)\$(\d+)\$([0-9a-f]+)\$([0-9a-f]+)")
_N, _R, _P = 2**14, 8, 5
_SCRYPT_BYTES = 64_000_000
_SIDE_BY_SIDE = 2
"""Each takes 16 MB and a core for a tenth of a second: strangers' guesses are not to take all there is."""
_PATIENCE_SECONDS = 10.0
_REMEMBERED = 1_000


def new_key(name: str) -> tuple[str, str]:
    """A fresh API key, and the line for the file of keys; `name` is a note for people."""
    key = "sk-" + secrets.token_urlsafe(32)
    return key, f"sha256${hashlib.sha256(key.encode()).hexdigest()} {name}".rstrip()


def password_line(name: str, password: str) -> str:
    """The line for the file of users. Raises `InvalidParameter` for a name that cannot stand in it, and
    without a password."""
    if not password:
        raise InvalidParameter("password", "empty", Reason("expected.not_empty"))
    salt = secrets.token_bytes(16)
    line = f"{name}:scrypt${_N}${_R}${_P}${salt.hex()}${_scrypt(password, salt, _N, _R, _P).hex()}"
    if not _USER_LINE.fullmatch(line):
        raise InvalidParameter("name", name, Reason("expected.user_name"))
    return line


class ApiKeys:
    """The keys of one file."""

    def __init__(self, path: Path) -> None:
        """Raises `BadCredentialFile`, with the line at fault."""
        self._hashes = [bytes.fromhex(found[1]) for found in _lines(path, _KEY_LINE)]

    def check(self, key: str) -> str | None:
        """What stands for `key`, opaque and always the same, where it is one of them."""
        given = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        known = False
        for one in self._hashes:
            known |= hmac.compare_digest(given, one)
        return given.hex() if known else None


class Users:
    """The names and passwords of one file. `check` may be called from any thread, and blocks; `checked` does not."""

    def __init__(self, path: Path) -> None:
        """Raises `BadCredentialFile`, with the line at fault."""
        self._users = {found[1]: found.groups()[1:] for found in _lines(path, _USER_LINE)}
        self._nobody = (str(_N), str(_R), str(_P), secrets.token_hex(16), secrets.token_hex(64))
        self._secret = secrets.token_bytes(32)
        self._verified: set[bytes] = set()
        self._turns = threading.BoundedSemaphore(_SIDE_BY_SIDE)

    async def checked(self, name: str, password: str) -> bool:
        """As `check`, while the loop goes on with others."""
        return await asyncio.to_thread(self.check, name, password)

    def check(self, name: str, password: str) -> bool:
        """An unknown name takes as long as a wrong password; what was right once is known again at once."""
        seen = hmac.new(self._secret, f"{name}\n{password}".encode("utf-8", "replace"), hashlib.sha256).digest()
        if seen in self._verified:
            return True
        if not self._turns.acquire(timeout=_PATIENCE_SECONDS):
            return False
        try:
            n, r, p, salt, wanted = self._users.get(name, self._nobody)
            made = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
        finally:
            self._turns.release()
        if not (hmac.compare_digest(made, bytes.fromhex(wanted)) and name in self._users):
            return False
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified.add(seen)
        return True


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_BYTES)


def _lines(path: Path, form: re.Pattern[str]) -> Iterator[re.Match[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BadCredentialFile(str(path), 0) from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = form.fullmatch(line.strip())
        if found is None:
            raise BadCredentialFile(str(path), number)
        yield found
