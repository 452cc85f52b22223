"""The broker's own ports: MQTT by TCP, and over TLS. Those for WebSocket are HTTP's (http_listeners)."""

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from gateway.config import MqttSettings
from gateway.model.errors import PortInUse
from gateway.tls.site_tls import SiteTls

_SPARE_FILES = 500
_PORTS = 6  # each takes so many connections before it knows what they want


class Ports:
    """See the module's own words."""

    def __init__(self, settings: MqttSettings, tls: SiteTls | None) -> None:
        self._settings = settings
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tls_server: asyncio.Server | None = None

    @property
    def mqtt(self) -> int:
        """The port that is listened on."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def mqtt_tls(self) -> int:
        """The port for TLS that is listened on; 0 when none is."""
        return 0 if self._tls_server is None else int(self._tls_server.sockets[0].getsockname()[1])

    @property
    def address(self) -> tuple[str, int]:
        """Where a client on this machine reaches the broker."""
        assert self._server is not None
        host, port, *_ = self._server.sockets[0].getsockname()
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - it is listened on, not here

    async def open(self, accept: Callable[[], asyncio.Protocol]) -> None:
        """Listen; `accept` makes what a new connection speaks to. Raises PortInUse, and then none is open."""
        _allow_open_files(_PORTS * self._settings.max_connections + _SPARE_FILES)
        self._server = await self._listen("mqtt.port", self._settings.port, accept)
        if self._tls is not None and self._settings.tls_port:
            await self._open_tls(self._tls, accept)

    async def _open_tls(self, tls: SiteTls, accept: Callable[[], asyncio.Protocol]) -> None:
        over = partial(tls.over, "mqtt", accept)
        try:
            self._tls_server = await self._listen("mqtt.tls_port", self._settings.tls_port, over)
        except PortInUse as error:
            if "tls_port" in self._settings.model_fields_set:
                self.close()
                raise
            tls.do_without("mqtt.tls_port", error)

    async def _listen(self, setting: str, port: int, accept: Callable[[], asyncio.Protocol]) -> asyncio.Server:
        host = self._settings.host
        try:
            return await asyncio.get_running_loop().create_server(accept, host, port, backlog=1024)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise PortInUse(
                f"Port {port} on {host} cannot be listened on: {why}.",
                hint=f"Stop what uses it (perhaps: systemctl stop mosquitto), or set {setting}.",
            ) from error

    def close(self) -> None:
        """Take no new connection; those that are there stay."""
        for server in (self._server, self._tls_server):
            if server is not None:
                server.close()


def _allow_open_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
