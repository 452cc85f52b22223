"""A link to a server that, while told so, hangs, is cut, or lets requests pass and loses the answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, Self

Fault = Literal["hangs", "is cut", "loses answers"]
"""Nothing passes; whoever sends is cut off; what is sent arrives, and whoever waits for an answer is cut off."""

_PIECE = 65_536
_LAST_WORD_S = 5.0


class FaultyLink:
    """An async context manager: forwards connections to `port` of this machine."""

    def __init__(self, port: int) -> None:
        self._far_port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.fault: Fault | None = None
        self.lost = 0
        """Answers."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_LAST_WORD_S)

    @property
    def port(self) -> int:
        """The near end."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._connect(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with closing(writer):
            with suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far_port)
                async with closing(far_writer):
                    requests = asyncio.create_task(self._pass_on(reader, far_writer, writer))
                    try:
                        await self._answer(far_reader, writer)
                    finally:
                        requests.cancel()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                if self.fault == "is cut":
                    back.transport.abort()
                    break
                if self.fault == "hangs":
                    continue
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(_PIECE):
            if self.fault == "loses answers":
                self.lost += 1
                return
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close it at the end, and wait until it is."""
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
