"""An HTTP listener."""

import asyncio
import os
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway.model.errors import PortInUse
from gateway.web.errors import error_middleware
from gateway.web.proxies import TrustedProxies

_REQUEST_TIMEOUT_S = 30.0  # for the first request, and between requests
_SHUTDOWN_S = 2.0


class Routes(Protocol):
    """A group of routes."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        ...


class WebServer:
    """Serves groups of routes on one port. `setting` is the one that names the port."""

    def __init__(
        self,
        setting: str,
        host: str,
        port: int,
        routes: Sequence[Routes],
        *,
        max_connections: int,
        max_body_bytes: int = 0,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._setting = setting
        self._host = host
        self._port = port
        self._max_connections = max_connections
        proxies = TrustedProxies(trusted_proxies)
        app = web.Application(middlewares=[error_middleware, proxies.middleware()], client_max_size=max_body_bytes)
        for group in routes:
            group.add_to(app.router)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_REQUEST_TIMEOUT_S, shutdown_timeout=_SHUTDOWN_S
        )
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Open the port. Raises PortInUse."""
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept, self._host, self._port, backlog=128
            )
        except OSError as error:
            await self._runner.cleanup()
            raise PortInUse(
                f"Port {self._port} on {self._host} cannot be listened on: {os.strerror(error.errno or 0)}.",
                hint=f"Stop what uses it, or set {self._setting}.",
            ) from error

    async def stop(self) -> None:
        """Close the port; requests under way have a moment to finish."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        return _TurnedAway() if len(server.connections) >= self._max_connections else server()


class _TurnedAway(asyncio.Protocol):
    """A connection that is one too many: the files that it would take belong to others."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()
