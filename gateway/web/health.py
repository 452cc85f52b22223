"""`/health` (the process answers), `/ready` (it does its work) and `/metrics` (Prometheus). No token is asked.

`/metrics` tells names of destinations and how much there is: only `http.metrics_from` may ask for it.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Literal, TypeVar

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from typing_extensions import TypedDict

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.status import BufferStatus, DestinationStatus, GatewayStatus, ReceivingStatus
from gateway.web.authorization import Forbidden
from gateway.web.routes import RawAnswer, Route, Unavailable


class Alive(TypedDict):
    """It turns; and what time it is, for boards that have no clock."""

    status: Literal["ok"]
    time_ms: int
    """Unix milliseconds."""
    time_is_right: bool
    """Whether the machine's clock is kept by NTP or the like; else nobody should date anything by it."""


class Readiness(TypedDict):
    """Whether everything works, and what does not."""

    status: Literal["ready", "not ready"]
    problems: list[str]
    notices: list[str]
    gateway_id: str
    version: str
    uptime_seconds: float
    buffer: BufferStatus
    destinations: list[DestinationStatus]
    receiving: list[ReceivingStatus]


class Health:
    """The routes and their handlers. `/metrics` is for the networks in `metrics_from`."""

    def __init__(
        self,
        status: Callable[[], Awaitable[GatewayStatus]],
        metrics: Metrics,
        clock: Clock,
        *,
        metrics_from: Sequence[str],
    ) -> None:
        self._status = status
        self._clock = clock
        self._metrics = metrics
        self._metrics_from = tuple(ip_network(one, strict=False) for one in metrics_from)

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        text = RawAnswer("Every metric, in Prometheus' text format.", "text/plain", str)
        yield Route("GET", "/health", self.health)
        yield Route("GET", "/ready", self.ready)
        yield Route("GET", "/metrics", self.metrics, errors=(403,), answers={200: text})

    async def health(self) -> Alive:
        """Answer as long as the event loop turns, and say what time it is."""
        return {"status": "ok", "time_ms": self._clock.now_ms(), "time_is_right": self._clock.is_synced()}

    async def ready(self) -> Readiness | Unavailable[Readiness]:
        """Say whether everything works, and what does not; 503 if readings cannot be taken in.

        A destination that is away is no reason for 503: keeping readings for it is the gateway's work.
        """
        status = await self._status()
        body: Readiness = {
            "status": "not ready" if status.problems else "ready",
            "problems": status.problems,
            "notices": status.notices,
            "gateway_id": status.gateway_id,
            "version": status.version,
            "uptime_seconds": round(status.uptime_seconds, 1),
            "buffer": status.buffer,
            "destinations": [_for_everybody(one) for one in status.destinations],
            "receiving": [_for_everybody(one) for one in status.receiving],
        }
        return Unavailable(body) if status.problems else body

    async def metrics(self, request: web.Request) -> web.Response:
        """Return every metric in Prometheus' text format."""
        if not self._may_have_metrics(request.remote or ""):
            raise Forbidden("The metrics are not for this address.", hint="Add it to http.metrics_from.")
        await self._status()  # brings the gauges up to date
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _may_have_metrics(self, address: str) -> bool:
        try:
            client = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        client = getattr(client, "ipv4_mapped", None) or client
        return any(client in network for network in self._metrics_from)


_Status = TypeVar("_Status", DestinationStatus, ReceivingStatus)


def _for_everybody(one: _Status) -> _Status:
    """Leave out what is an organisation's own: what it calls its integration, and what the other side has said.

    Its label is then its id, by which the owner finds it.
    """
    return replace(one, label=one.name, last_error="" if one.label else one.last_error)
