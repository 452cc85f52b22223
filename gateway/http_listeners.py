"""Every port that speaks HTTP: all of it on one, and on ports of their own what somebody wants apart."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from gateway.broker.door import Door
from gateway.broker.websocket import WebSockets
from gateway.config import Settings
from gateway.web.health import Health
from gateway.web.live import Live
from gateway.web.server import Routes, WebServer

_MQTT_PATH = "/mqtt"
_CONNECTIONS_WITHOUT_MQTT = 100  # of a port, beside mqtt.max_connections where MQTT is spoken


class HttpListeners:
    """See the module's own words."""

    def __init__(self, settings: Settings, door: Door, routes: Sequence[Routes], live: Live, health: Health) -> None:
        mqtt, http = settings.mqtt, settings.http
        most = mqtt.max_connections + _CONNECTIONS_WITHOUT_MQTT
        self._live = live
        self._mqtt = [WebSockets(door, _MQTT_PATH)]
        body = http.max_body_bytes
        server = partial(WebServer, trusted_proxies=http.trusted_proxies)
        self._main = server(
            "http.port",
            http.host,
            http.port,
            [*routes, live, health, *self._mqtt],
            max_connections=most,
            max_body_bytes=body,
        )
        self._servers = [self._main]
        apart = partial(server, max_connections=_CONNECTIONS_WITHOUT_MQTT)
        if mqtt.websocket_port:
            sockets = WebSockets(door, "/", _MQTT_PATH)
            self._mqtt.append(sockets)
            self._servers.append(
                server("mqtt.websocket_port", mqtt.host, mqtt.websocket_port, [sockets], max_connections=most)
            )
        if http.websocket_port:
            self._servers.append(apart("http.websocket_port", http.host, http.websocket_port, [live]))
        if http.metrics_port:
            self._servers.append(apart("http.metrics_port", http.host, http.metrics_port, [health]))

    @property
    def port(self) -> int:
        """The port with everything."""
        return self._main.port

    async def start(self, stack: AsyncExitStack) -> None:
        """Open them; the stack closes them, and who is connected. Raises PortInUse."""
        for server in self._servers:
            await server.start()
            stack.push_async_callback(server.stop)
        stack.push_async_callback(self._live.stop)  # these end first: a server would wait for them
        for sockets in self._mqtt:
            stack.push_async_callback(sockets.stop)
