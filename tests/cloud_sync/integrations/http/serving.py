"""An HTTP server of a test, with or without TLS, and a proxy that leads there."""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app, scheme="http" if tls is None else "https")
    await server.start_server(ssl=tls)
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()


async def takes(_: web.Request) -> web.Response:
    return web.Response(status=204)


class Proxy:
    """Knows names that no resolver knows, and who may ask."""

    def __init__(self, port: int, credentials: str | None = None) -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._credentials = credentials

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # somebody has only looked whether it is there
            writer.close()
            return
        self.asked.append(head.partition(b"\r\n")[0])
        expected = b"" if self._credentials is None else b"Basic " + b64encode(self._credentials.encode())
        if expected not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            inner.write(head)
        await asyncio.gather(self._pump(reader, inner), self._pump(inner_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def proxy(to: str, credentials: str | None = None) -> AsyncIterator[tuple[Proxy, str]]:
    found = Proxy(URL(to).port or 0, credentials)
    async with await asyncio.start_server(found.handle, "127.0.0.1", 0) as server:
        yield found, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
