"""Ports for servers that must come back on the same one after they were killed."""

import random
import socket
from collections import deque
from pathlib import Path

_BOUNDS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS = range(10_000, 65_535, 2)
_REMEMBERED = 100
_ENOUGH = 10 * _REMEMBERED

_given: deque[socket.socket] = deque()
"""One for each port that was given last, with a name in this network namespace that nobody else can have meanwhile."""


def _is_here(address: str) -> bool:
    try:
        with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET):
            return True
    except OSError:
        return False


LOOPBACKS = tuple(filter(_is_here, ("127.0.0.1", "::1")))
"""This machine's addresses of itself: a container often has no IPv6."""


def free_port() -> int:
    """Return a port that is free, as is the next one, for TCP and for UDP.

    It is outside the range that outgoing connections take theirs from, if that leaves enough: inside it a client that
    knocks while the server is down may be given the very port it knocks at, talks to itself, and the server cannot come
    back. Nor is it one that another process was given here, which may not listen on it yet.
    """
    lowest, highest = map(int, _BOUNDS.read_text().split())
    ports = [port for port in _PORTS if port + 1 < lowest or port > highest]
    if len(ports) < _ENOUGH:
        ports = list(_PORTS)
    dice = random.SystemRandom()  # the other one begins anew with each test that hypothesis makes
    while True:
        port = dice.choice(ports)
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0neurogate-test-port-{port}")
            _bind_once(port)
            _bind_once(port + 1)
        except OSError:
            name.close()
            continue
        _given.append(name)
        if len(_given) > _REMEMBERED:
            _given.popleft().close()
        return port


def _bind_once(port: int) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            probe.bind(("127.0.0.1", port))
