"""Cookies that only the server reads. In a frame of another site's page, as on a Space, they belong to that page."""

from __future__ import annotations


def cookie(name: str, value: str, max_age_seconds: int | None, *, framed: bool, secure: bool) -> str:
    """A `Set-Cookie` header. `max_age_seconds` None is until the browser closes, and 0 takes it away.

    Starlette's own knows `Partitioned` with the newest Python only.
    """
    parts = [f"{name}={value}", "Path=/", "HttpOnly"]
    if max_age_seconds is not None:
        parts.append(f"Max-Age={max_age_seconds}")
    parts.extend(["SameSite=None", "Secure", "Partitioned"] if framed else ["SameSite=Lax"])
    if secure and not framed:
        parts.append("Secure")
    return "; ".join(parts)
