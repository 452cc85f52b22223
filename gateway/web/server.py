"""An HTTP listener: routes, and the bounds within which anybody may ask (`connections.py`)."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus

from aiohttp import hdrs, web

from gateway.model.errors import PortInUse
from gateway.web.connections import Connection, Connections
from gateway.web.errors import Handler, error_middleware
from gateway.web.handling import handler_of
from gateway.web.limits import MAX_HEADER_LINE_BYTES, MAX_HEADER_LINES, Limits, TookTooLong
from gateway.web.proxies import TrustedProxies
from gateway.web.routes import Route, Routes
from gateway.web.security import add_headers

logger = logging.getLogger(__name__)

_SHUTDOWN_S = 2.0
_LINGERING_S = 5.0  # how long the rest of a body is read that nobody wants, so that its sender finds the answer
_ABANDONED_AT_MOST = 100  # each holds what it was asked

Over = Callable[[Callable[[], asyncio.Protocol]], asyncio.Protocol]
"""Puts what it is given on top of something, such as TLS."""


class WebServer:
    """Serves groups of routes on one port. `setting` is the one that names the port."""

    def __init__(
        self,
        setting: str,
        host: str,
        port: int,
        groups: Sequence[Routes],
        limits: Limits,
        *,
        over: Over | None = None,
    ) -> None:
        self._setting = setting
        self._host = host
        self._port = port
        self._limits = limits
        self._over = over
        http = limits.http
        self._proxies = TrustedProxies(http.trusted_proxies)
        self._abandoned: set[asyncio.Task[web.StreamResponse]] = set()
        """Of requests that were answered for taking too long."""
        app = web.Application(
            middlewares=[self._begin, error_middleware, self._proxies.middleware(), self._in_time],
            client_max_size=http.max_body_bytes,
        )
        app.on_response_prepare.append(_before_it_leaves)
        self.routes = tuple(route for group in groups for route in group.routes())
        for route in self.routes:
            self._add(app, route)
        self._endless = {path for route in self.routes if route.is_endless for path in route.paths}
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        self._connections = Connections(limits, self._proxies)
        self._server: asyncio.Server | None = None

    @staticmethod
    def _add(app: web.Application, route: Route) -> None:
        handler = handler_of(route)
        for path in route.paths:
            if route.method == hdrs.METH_GET:  # HEAD too, RFC 9110, 9.3.2; a WebSocket has none
                app.router.add_get(path, handler, allow_head=not route.is_endless)
            else:
                app.router.add_route(route.method, path, handler)

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
            accept = self._accept if self._over is None else partial(self._over, self._accept)
            self._server = await asyncio.get_running_loop().create_server(accept, self._host, self._port, backlog=128)
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
        for task in self._abandoned:
            task.cancel()
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=_SHUTDOWN_S)

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        return Connection(
            self._connections,
            server,
            access_log=None,
            keepalive_timeout=self._limits.http.keepalive_timeout_s,
            lingering_time=_LINGERING_S,
            max_headers=MAX_HEADER_LINES,
            max_line_size=MAX_HEADER_LINE_BYTES,
            max_field_size=MAX_HEADER_LINE_BYTES,
            auto_decompress=False,
        )

    @web.middleware
    async def _begin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Tell the connection what it carries."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin(request)
        return await handler(request)

    @web.middleware
    async def _in_time(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer in time. What takes too long goes on: a change that is broken off would be half of one."""
        if request.path in self._endless:
            return await handler(request)
        if len(self._abandoned) >= _ABANDONED_AT_MOST:
            raise TookTooLong("The gateway is busy with what was asked before.", hint="Try again later; see its log.")
        task = asyncio.ensure_future(handler(request))
        try:
            await asyncio.wait([task], timeout=self._limits.http.request_timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        self._limits.count("took_too_long")
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        raise TookTooLong("The gateway did not finish in time.", hint="Ask what has become of it, or try again later.")

    def _forget(self, task: "asyncio.Task[web.StreamResponse]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("what took too long has failed: %s", error)


async def _before_it_leaves(request: web.Request, response: web.StreamResponse) -> None:
    add_headers(response, is_secure=request.secure)
    if response.status == HTTPStatus.SWITCHING_PROTOCOLS and isinstance(request.protocol, Connection):
        request.protocol.switched()
