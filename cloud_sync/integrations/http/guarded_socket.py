"""A TCP or UDP socket that leads only to where egress allows: decided by the address, just before it is connected."""

import asyncio
import socket

from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import NotAllowed
from gateway.daemon_thread import in_daemon_thread

_EACH_S = 3.0
"""How long an address may take that is not the last: a network may have addresses that lead nowhere, often IPv6."""


async def open_socket(
    host: str, port: int, egress: Egress, kind: socket.SocketKind = socket.SOCK_STREAM, *, turn: int = 0
) -> socket.socket:
    """Return a connected socket; has no time limit of its own. Raises OSError, NotAllowed among them, UnicodeError.

    `turn` says with which of the addresses to begin, counted around.
    """
    found = await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=kind))
    allowed = [one for one in found if egress.allows(host, str(one[4][0]))]
    first = turn % max(len(allowed), 1)
    allowed = allowed[first:] + allowed[:first]
    failure: OSError = NotAllowed(host)
    for left, (family, _, protocol, _, address) in zip(range(len(allowed) - 1, -1, -1), allowed, strict=True):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)  # noqa: FBT003 - its name in the standard library
            async with asyncio.timeout(_EACH_S if left else None):
                await asyncio.get_running_loop().sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure
