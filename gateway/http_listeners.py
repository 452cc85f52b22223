"""Every port that speaks HTTP: all of it on one, and on ports of their own what somebody wants apart."""

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from gateway.broker.door import Door
from gateway.broker.websocket import WebSockets
from gateway.config import Settings
from gateway.metrics import Metrics
from gateway.model.errors import PortInUse
from gateway.tls.site_tls import SiteTls
from gateway.web.document import Document
from gateway.web.health import Health
from gateway.web.limits import Limits
from gateway.web.live import Live
from gateway.web.routes import RawAnswer, Route, Routes
from gateway.web.server import WebServer

_MQTT_PATH = "/mqtt"
_CONNECTIONS_WITHOUT_MQTT = 100  # of a port, beside mqtt.max_connections where MQTT is spoken


@dataclass(slots=True, frozen=True)
class _Mqtt:
    """Routes of MQTT over WebSocket: the broker knows nothing of HTTP servers."""

    sockets: WebSockets

    def routes(self) -> Iterable[Route]:
        """Return them."""
        switched = {101: RawAnswer("From here on MQTT 3.1.1 is spoken.")}
        for path in self.sockets.paths:
            yield Route("GET", path, self.sockets.serve, errors=(400,), answers=switched, is_endless=True)


class HttpListeners:
    """See the module's own words."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        routes: Sequence[Routes],
        live: Live,
        health: Health,
        document: Document,
        tls: SiteTls | None,
        metrics: Metrics,
    ) -> None:
        mqtt, http = settings.mqtt, settings.http
        limits = partial(Limits, http=http, metrics=metrics)
        with_mqtt = limits(mqtt.max_connections + _CONNECTIONS_WITHOUT_MQTT)
        without = limits(_CONNECTIONS_WITHOUT_MQTT)
        self._http = http
        self._live = live
        self._mqtt = [WebSockets(door, _MQTT_PATH)]
        groups = [*routes, live, health, document, _Mqtt(self._mqtt[0])]
        self._main = WebServer("http.port", http.host, http.port, groups, with_mqtt)
        document.describe(self._main.routes)
        self._servers = [self._main]
        if mqtt.websocket_port:
            sockets = WebSockets(door, "/", _MQTT_PATH)
            self._mqtt.append(sockets)
            self._servers.append(
                WebServer("mqtt.websocket_port", mqtt.host, mqtt.websocket_port, [_Mqtt(sockets)], with_mqtt)
            )
        self._tls = tls
        self._https: WebServer | None = None
        if http.tls_port and tls is not None:
            over = partial(tls.over, "http")
            self._https = WebServer("http.tls_port", http.host, http.tls_port, groups, with_mqtt, over=over)
        if mqtt.websocket_tls_port and tls is not None:
            sockets = WebSockets(door, "/", _MQTT_PATH)
            self._mqtt.append(sockets)
            name, port, over = "mqtt.websocket_tls_port", mqtt.websocket_tls_port, partial(tls.over, "mqtt")
            self._servers.append(WebServer(name, mqtt.host, port, [_Mqtt(sockets)], with_mqtt, over=over))
        if http.websocket_port:
            self._servers.append(WebServer("http.websocket_port", http.host, http.websocket_port, [live], without))
        if http.metrics_port:
            self._servers.append(WebServer("http.metrics_port", http.host, http.metrics_port, [health], without))

    @property
    def port(self) -> int:
        """The port with everything."""
        return self._main.port

    @property
    def tls_port(self) -> int:
        """The port with everything over TLS; 0 when none is open."""
        return 0 if self._https is None else self._https.port

    async def start(self, stack: AsyncExitStack) -> None:
        """Open them; the stack closes them, and who is connected. Raises PortInUse."""
        for server in self._servers:
            await server.start()
            stack.push_async_callback(server.stop)
        await self._start_https(stack)
        stack.push_async_callback(self._live.stop)  # these end first: a server would wait for them
        for sockets in self._mqtt:
            stack.push_async_callback(sockets.stop)

    async def _start_https(self, stack: AsyncExitStack) -> None:
        if self._https is None or self._tls is None:
            return
        try:
            await self._https.start()
        except PortInUse as error:
            if "tls_port" in self._http.model_fields_set:
                raise
            self._tls.do_without("http.tls_port", error)
            self._https = None
        else:
            stack.push_async_callback(self._https.stop)
