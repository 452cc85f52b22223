"""A TCP or UDP socket that leads only to where egress allows: decided by the address, just before it is connected."""

import asyncio
import socket

from cloud_sync.egress import Egress
from cloud_sync.integrations.http.guarded_connector import NotAllowed
from gateway.daemon_thread import in_daemon_thread


async def open_socket(
    host: str, port: int, egress: Egress, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """Return a connected socket; has no time limit of its own. Raises OSError, NotAllowed among them, UnicodeError."""
    found = await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=kind))
    failure: OSError = NotAllowed(host)
    for family, _, protocol, _, address in found:
        if not egress.allows(host, str(address[0])):
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)  # noqa: FBT003 - its name in the standard library
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
