"""What a Hugging Face Space has of its own: storage that outlives it, if it was given some, the files that were fetched
when it was built, and an OAuth application. It asks nobody."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SPACE = "SPACE_ID"
ZERO_GPU = "SPACES_ZERO_GPU"
STORAGE = Path("/data")
"""Where a Space's persistent storage is, if it has any."""
_HUB_CACHES = ("HF_HUB_CACHE", "HF_HOME")
"""With either of them set, the owner has chosen where downloads go."""


def storage(environment: Mapping[str, str]) -> Path | None:
    """The storage that outlives a restart; None elsewhere, and on a Space that has none or may not write there."""
    if not environment.get(SPACE) or not STORAGE.is_dir() or not os.access(STORAGE, os.R_OK | os.W_OK | os.X_OK):
        return None
    return STORAGE


def keep_downloads(environment: MutableMapping[str, str]) -> None:
    """Lets `huggingface_hub`, which reads its settings when it is first imported, keep downloads in the storage.

    What was fetched when the Space was built lies in its home, and is linked into there.
    """
    kept = storage(environment)
    if kept is None or any(environment.get(name) for name in _HUB_CACHES):
        return
    cache = kept / "huggingface" / "hub"
    with suppress(OSError):  # a full disk: downloads go where they would without the storage
        cache.mkdir(parents=True, exist_ok=True)
        for built in sorted(Path("~/.cache/huggingface/hub").expanduser().glob("models--*")):
            link = cache / built.name
            if not link.exists():
                link.unlink(missing_ok=True)  # left by a start with other files
                link.symlink_to(built)
        environment["HF_HUB_CACHE"] = str(cache)


@dataclass(frozen=True, slots=True)
class SignIn:
    """The OAuth application of a Space at `host`, and the account that the Space belongs to."""

    provider: str
    client_id: str
    client_secret: str = field(repr=False)
    host: str
    owner: str


def sign_in(environment: Mapping[str, str]) -> SignIn | None:
    """None where the Space's header did not ask for one, and elsewhere."""
    names = ("OPENID_PROVIDER_URL", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "SPACE_HOST", "SPACE_AUTHOR_NAME")
    provider, client, secret, hosts, owner = (environment.get(name, "") for name in names)
    if not (environment.get(SPACE) and provider and client and secret and hosts and owner):
        return None
    return SignIn(provider.rstrip("/"), client, secret, hosts.split(",")[0], owner)
