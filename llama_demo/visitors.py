"""Who asks: one browser or program told from another, and the owner from everybody else.

It reads a request's cookies and its address, and knows no framework: Gradio's requests and Starlette's look alike here.
The address is the socket's, or what a trusted proxy says of it: the server has seen to that before.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from llama_demo.visitor_errors import OwnerOnly, TooManyAttempts, WrongPassword

VISITOR_COOKIE = "llama_demo_visitor"
"""Drawn at random by the server; nobody can know another's."""
OWNER_COOKIE = "llama_demo_owner"
"""Proof that the password was given to this very process: a restart asks for it again."""
CALLER = "caller"
"""Under this name a request's state has the key of a visitor who was let in by an API key or a password."""
ATTEMPTS = 5
"""At the password, by one address, before it must wait."""
ATTEMPT_SECONDS = 30.0
"""After which one more attempt is allowed."""
_ADDRESSES = 10_000
"""Whose attempts are remembered: the newest ones."""
_LINE_BITS = 64
"""Of an IPv6 address, those that tell one line from another."""
_OWN_ADDRESSES = ("", "127.0.0.1", "::1")
_COOKIE = re.compile(r"[0-9a-f]{32}")


class Role(StrEnum):
    OWNER = "owner"
    SIGNED_IN = "signed_in"
    ANONYMOUS = "anonymous"


_WEIGHTS = {Role.OWNER: 4, Role.SIGNED_IN: 2, Role.ANONYMOUS: 1}


@dataclass(frozen=True, slots=True)
class Visitor:
    """One browser, program or address. `key` is opaque, and stays the same for as long as the browser's cookie does;
    so is `address`, which others may share. It is empty where none is known but this machine's own."""

    key: str
    role: Role
    address: str = ""

    @property
    def is_owner(self) -> bool:
        return self.role is Role.OWNER

    @property
    def weight(self) -> int:
        """How many turns this visitor has while an anonymous one has one."""
        return _WEIGHTS[self.role]

    def check_owner(self) -> None:
        """Every owner's function begins with this. Raises `OwnerOnly`."""
        if not self.is_owner:
            raise OwnerOnly()


NOBODY = Visitor("", Role.ANONYMOUS)
"""For whoever cannot be told apart: all of them count as one."""


class Asked(Protocol):
    """What Gradio's and Starlette's requests have in common."""

    @property
    def cookies(self) -> Any: ...
    @property
    def client(self) -> Any: ...


class Visitors:
    """Reads visitors from requests, and lets the owner in."""

    def __init__(self, *, public: bool, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._everybody_owns = not public and not password
        self._password = password
        self._secret = secrets.token_bytes(32)
        self._clock = clock
        self._attempts: OrderedDict[str, float] = OrderedDict()
        """By address, when the last of its attempts will be forgotten."""
        self._lock = threading.Lock()

    @property
    def can_unlock(self) -> bool:
        """Whether there is a password to give."""
        return bool(self._password)

    def of(self, request: Asked | None) -> Visitor:
        """Who sent `request`. Somebody who signed in has a `username` there, as Gradio sets it, or a `CALLER` in its
        state, and is then one visitor wherever the requests come from."""
        if request is None:
            return Visitor("", Role.OWNER) if self._everybody_owns else NOBODY
        cookies, host = dict(request.cookies), address_of(request)
        address = visitor_key("address", host)
        key = visitor_key("cookie", cookies[VISITOR_COOKIE]) if self.knows(request) else address
        if (caller := getattr(getattr(request, "state", None), CALLER, None)) is not None:
            key = caller
        role = self._role(cookies, getattr(request, "username", None) or caller)
        return Visitor(key, role, "" if host in _OWN_ADDRESSES else address)

    def knows(self, request: Asked) -> bool:
        """Whether `request` has a visitor's cookie such as the server makes."""
        cookie = dict(request.cookies).get(VISITOR_COOKIE)
        return isinstance(cookie, str) and _COOKIE.fullmatch(cookie) is not None

    def new_cookie(self) -> str:
        """A value of `VISITOR_COOKIE` for a browser that has none."""
        return secrets.token_hex(16)

    def unlock(self, password: str, address: str) -> str:
        """The value of `OWNER_COOKIE` for whoever knows the password. Raises `WrongPassword`, `TooManyAttempts`."""
        self._count_attempt(address)
        given, wanted = (
            hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (password, self._password)
        )
        if not (hmac.compare_digest(given, wanted) and self._password):
            raise WrongPassword()
        with self._lock:
            self._attempts.pop(address, None)
        return self.owner_cookie()

    def owner_cookie(self) -> str:
        """The value of `OWNER_COOKIE` for whoever has proved otherwise to be the owner."""
        nonce = secrets.token_hex(16)
        return f"{nonce}.{self._sign(nonce)}"

    def _role(self, cookies: Mapping[str, Any], username: str | None) -> Role:
        if self._everybody_owns or self._is_owners(str(cookies.get(OWNER_COOKIE, ""))):
            return Role.OWNER
        return Role.SIGNED_IN if username else Role.ANONYMOUS

    def _is_owners(self, cookie: str) -> bool:
        nonce, _, signature = cookie.partition(".")
        return hmac.compare_digest(signature.encode(), self._sign(nonce).encode())

    def _sign(self, nonce: str) -> str:
        return hmac.new(self._secret, nonce.encode(), hashlib.sha256).hexdigest()

    def _count_attempt(self, address: str) -> None:
        """Each attempt is forgotten `ATTEMPT_SECONDS` after the one before it."""
        with self._lock:
            now = self._clock()
            forgotten = max(now, self._attempts.get(address, 0.0)) + ATTEMPT_SECONDS
            if (excess := forgotten - now - ATTEMPTS * ATTEMPT_SECONDS) > 0:
                raise TooManyAttempts(excess)
            self._attempts[address] = forgotten
            self._attempts.move_to_end(address)
            if len(self._attempts) > _ADDRESSES:
                self._attempts.popitem(last=False)


def visitor_key(kind: str, text: str) -> str:
    """An opaque key that tells `text` from others of its kind, and from those of other kinds."""
    return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:32]


def address_of(request: Asked) -> str:
    """Empty where the request came over no network. Of IPv6 it is the network, in which one line has any number of
    addresses; an IPv4 address in its form of IPv6 is that IPv4 address."""
    host = "" if request.client is None else str(request.client.host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback:
        return str(address)
    if (within := address.ipv4_mapped) is not None:
        return str(within)
    return str(ipaddress.IPv6Network((int(address), _LINE_BITS), strict=False))
