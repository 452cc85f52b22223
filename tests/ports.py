"""Ports for servers that must come back on the same one after they were killed."""

import random
import socket
from pathlib import Path

_BOUNDS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000


def free_port() -> int:
    """Return a free port outside the range that outgoing connections take theirs from.

    Inside it a client that knocks while the server is down may be given the very port it knocks at, talks to itself,
    and the server cannot come back.
    """
    highest = int(_BOUNDS.read_text().split()[0]) - 1
    while True:
        port = random.randint(_LOWEST, highest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
