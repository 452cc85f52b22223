"""Connections to one host, and only to addresses that egress allows.

The check is made where a socket is about to be opened, once more for each connection: by then a name has become
addresses, and nothing can change them. A resolver of our own would not do, as aiohttp asks none for an address.
"""

import socket
import ssl
from errno import EACCES

import aiohttp

from cloud_sync.egress import Egress


class NotAllowed(OSError):
    """Egress does not allow the address."""

    def __init__(self, host: str) -> None:
        # The host only, and not what it resolves to: so all addresses of a name fail alike, aiohttp hands on this very
        # error, and nobody learns our resolver's answers from it.
        super().__init__(EACCES, f"{host} is not allowed by egress")


def guarded_connector(
    egress: Egress, host: str, *, keepalive_s: float, connections: int, tls: ssl.SSLContext | None = None
) -> aiohttp.TCPConnector:
    """Return a connector for requests to this host, with so many connections at most."""

    def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not egress.allows(host, str(address[0])):
            raise NotAllowed(host)
        return socket.socket(family, kind, protocol)

    return aiohttp.TCPConnector(
        socket_factory=open_socket, keepalive_timeout=keepalive_s, limit=connections, ssl=tls or True
    )
