"""The HTTP listener."""

import os
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway.model.errors import PortInUse
from gateway.web.errors import error_middleware

_REQUEST_TIMEOUT_S = 30.0  # keep-alive between requests
_SHUTDOWN_S = 2.0


class Routes(Protocol):
    """A group of routes."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        ...


class WebServer:
    """Serves groups of routes on one port."""

    def __init__(self, host: str, port: int, max_body_bytes: int, routes: Sequence[Routes]) -> None:
        self._host = host
        self._port = port
        app = web.Application(middlewares=[error_middleware], client_max_size=max_body_bytes)
        for group in routes:
            group.add_to(app.router)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_REQUEST_TIMEOUT_S, shutdown_timeout=_SHUTDOWN_S
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._runner.addresses[0][1]
        return port

    async def start(self) -> None:
        """Open the port. Raises PortInUse."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortInUse(
                f"Port {self._port} on {self._host} cannot be listened on: {os.strerror(error.errno or 0)}.",
                hint="Stop what uses it, or set http.port.",
            ) from error

    async def stop(self) -> None:
        """Close the port; requests under way have a moment to finish."""
        await self._runner.cleanup()
