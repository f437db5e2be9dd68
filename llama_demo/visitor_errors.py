"""Why a visitor is refused, as types that carry data.

InvalidInput
├── OwnerOnly                something that only the owner may do
├── TooManyHeads             on one visitor's shelf
├── HeadTooLarge
├── WrongPassword
├── SignInBroken             the Hub's answer belongs to no sign-in of this browser
├── NotTheOwner              somebody else signed in
├── ForeignHost              a private server under a name that is not this machine's
├── NoHost                   what cannot be the name of a server
├── CrossSite                another site's page asks through a visitor's browser
├── BodyTooLarge             more bytes than any request needs
└── BodyTooSlow              bytes that come too slowly
Unavailable
├── TooManyAttempts          at the owner's password
├── NoRoomForUploads         the disk is nearly full
├── TooManyRequests          or tokens, of one visitor: HTTP 429
└── TookTooLong              one request, by this server's time limit
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_demo.errors import InvalidInput, Unavailable


@dataclass(eq=False)
class OwnerOnly(InvalidInput):
    pass


@dataclass(eq=False)
class TooManyHeads(InvalidInput):
    limit: int


@dataclass(eq=False)
class HeadTooLarge(InvalidInput):
    size_bytes: int
    limit_bytes: int


@dataclass(eq=False)
class WrongPassword(InvalidInput):
    pass


@dataclass(eq=False)
class SignInBroken(InvalidInput):
    pass


@dataclass(eq=False)
class NotTheOwner(InvalidInput):
    name: str
    owner: str


@dataclass(eq=False)
class ForeignHost(InvalidInput):
    host: str


@dataclass(eq=False)
class NoHost(InvalidInput):
    host: str


@dataclass(eq=False)
class CrossSite(InvalidInput):
    pass


@dataclass(eq=False)
class BodyTooLarge(InvalidInput):
    limit_bytes: int


@dataclass(eq=False)
class BodyTooSlow(InvalidInput):
    pass


@dataclass(eq=False)
class TooManyAttempts(Unavailable):
    seconds: float


@dataclass(eq=False)
class NoRoomForUploads(Unavailable):
    pass


@dataclass(eq=False)
class TooManyRequests(Unavailable):
    seconds: float


@dataclass(eq=False)
class TookTooLong(Unavailable):
    limit_seconds: float
