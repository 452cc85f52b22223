"""`/health` (the process answers), `/ready` (it does its work) and `/metrics` (Prometheus). No token is asked."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from gateway.metrics import Metrics
from gateway.model.status import GatewayStatus


class Health:
    """The routes and their handlers."""

    def __init__(self, status: Callable[[], Awaitable[GatewayStatus]], metrics: Metrics) -> None:
        self._status = status
        self._metrics = metrics

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        router.add_get("/health", self.health)
        router.add_get("/ready", self.ready)
        router.add_get("/metrics", self.metrics)

    async def health(self, _: web.Request) -> web.Response:
        """Answer as long as the event loop turns."""
        return web.json_response({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """Say whether everything works, and what does not; 503 if readings cannot be taken in.

        A destination that is away is no reason for 503: keeping readings for it is the gateway's work.
        """
        status = await self._status()
        body = {
            "status": "not ready" if status.problems else "ready",
            "problems": status.problems,
            "notices": status.notices,
            "gateway_id": status.gateway_id,
            "version": status.version,
            "uptime_seconds": round(status.uptime_seconds, 1),
            "buffer": asdict(status.buffer),
            "destinations": [asdict(destination) for destination in status.destinations],
        }
        return web.json_response(body, status=503 if status.problems else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        """Return every metric in Prometheus' text format."""
        await self._status()  # brings the gauges up to date
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
