"""Destinations that never take anything."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from tests.faulty_link import closing


@dataclass(slots=True)
class Silence:
    """A server that accepts connections, reads, and never answers."""

    port: int = 0
    requests: int = 0


@asynccontextmanager
async def silent_server() -> AsyncIterator[Silence]:
    """Run one."""
    silence = Silence()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with closing(writer):
            while data := await reader.read(65_536):
                silence.requests += data.startswith(b"POST ")

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    silence.port = server.sockets[0].getsockname()[1]
    try:
        yield silence
    finally:
        server.close()


@contextmanager
def refusing_port() -> Iterator[int]:
    """Hold a port that nobody listens on: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
