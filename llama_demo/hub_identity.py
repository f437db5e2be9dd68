"""Who somebody is at the Hub, by OAuth's code flow (RFC 6749, 4.1), with the application that a Space is given.

It asks the Hub alone, and decides nothing.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode

from llama_demo.errors import HubUnavailable
from llama_demo.space import SignIn

SCOPES = "openid profile gated-repos"
"""Who it is, and reading the gated repositories that they may read. The README's header asks for the same."""
CALLBACK = "/login/callback"
TIMEOUT_SECONDS = 10.0
_ANSWER_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Identity:
    """`token` acts for the account of that name, as far as `SCOPES` go."""

    name: str
    token: str = field(repr=False)


def where_to_ask(sign_in: SignIn, state: str) -> str:
    """The Hub's page that asks whether this Space may know who they are; it comes back to `CALLBACK` with `state`."""
    asked = {
        "client_id": sign_in.client_id,
        "redirect_uri": f"https://{sign_in.host}{CALLBACK}",
        "response_type": "code",
        "scope": SCOPES,
        "state": state,
    }
    return f"{sign_in.provider}/oauth/authorize?{urlencode(asked)}"


def identify(sign_in: SignIn, code: str) -> Identity:
    """Whose `code` that page sent along; blocks. Raises `HubUnavailable`, also where the Hub refuses the code."""
    secret = base64.b64encode(f"{sign_in.client_id}:{sign_in.client_secret}".encode()).decode()
    asked = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": f"https://{sign_in.host}{CALLBACK}",
        "client_id": sign_in.client_id,
    }
    token = _ask(f"{sign_in.provider}/oauth/token", f"Basic {secret}", urlencode(asked).encode()).get("access_token")
    who = _ask(f"{sign_in.provider}/oauth/userinfo", f"Bearer {token}")
    return Identity(str(who.get("preferred_username", "")), str(token))


def _ask(url: str, authorization: str, body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"authorization": authorization, "accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            said = json.loads(answer.read(_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        raise HubUnavailable("the Hub", f"it answered {error.code} to the sign-in") from None
    except (OSError, HTTPException, ValueError):
        raise HubUnavailable("the Hub", "the Hub cannot be reached") from None
    return said if isinstance(said, dict) else {}
