"""A port that nobody listens on."""

from __future__ import annotations

import random
import socket

_PORTS = range(20_000, 32_000)
"""Systems take the ports of outgoing connections, and of servers that leave the choice to them, from above these: until
the app that gets one listens, nothing else takes it."""


def free_port() -> int:
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
