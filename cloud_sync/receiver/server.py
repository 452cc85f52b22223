"""The receiver's HTTP side: `POST` batches to any path, `GET /stats` for the counts."""

from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from aiohttp import web
from pydantic_core import from_json, to_json

from cloud_sync.receiver.seen import SeenIds
from cloud_sync.signing import body_hmac, standard_webhooks
from gateway.clock import Clock

_BIGGEST_BODY_BYTES = 64_000_000
_BATCHES_REMEMBERED = 100_000
_RECORDED = ("id", "device_id", "boot_id", "seq", "time", "time_source", "received_at")


@dataclass(slots=True)
class Stats:
    """What came since the start."""

    requests: int = 0
    """With good signatures."""
    readings: int = 0
    """As they came, repeats included."""
    unique: int = 0
    """Different reading ids."""
    redeliveries: int = 0
    """Requests whose webhook-id had come before."""
    changed: int = 0
    """Redeliveries with another body than before; a gateway never makes one."""
    signature_failures: int = 0
    untimely: int = 0
    """With good signatures, refused as they were sent by a clock that is wrong, or long ago."""
    malformed: int = 0


class Receiver:
    """Checks, recognises and counts; with `record`, each batch is a JSON line there before it is answered."""

    def __init__(self, secret: str, clock: Clock, record: BinaryIO | None = None) -> None:
        self.stats = Stats()
        self._secret = secret
        self._key = standard_webhooks.parse_secret(secret)
        self._clock = clock
        self._record = record
        self._batches: dict[str, str] = {}  # webhook-id to the signature of its body
        self._ids = SeenIds()

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=_BIGGEST_BODY_BYTES)
        app.router.add_get("/stats", self._show_stats)
        app.router.add_post("/{path:.*}", self._receive)
        return app

    async def _show_stats(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(self.stats))

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        body_signature = request.headers.get(body_hmac.HEADER, "")
        if not self._is_genuine(request, body, self._clock.now_ms() // 1000):
            if self._is_genuine(request, body, _sent_at_s(request)):
                self.stats.untimely += 1
                return web.Response(status=401, text="The timestamp is not of now.")
            self.stats.signature_failures += 1
            return web.Response(status=401, text="The signature does not match.")
        try:
            readings: list[dict[str, Any]] = from_json(body)["readings"]
            fresh = sum([self._ids.add(reading["id"]) for reading in readings])
        except (ValueError, KeyError, TypeError, AttributeError):
            self.stats.malformed += 1
            return web.Response(status=400, text="This is no batch of readings.")
        message_id = request.headers["webhook-id"]
        self._count(message_id, body_signature, len(readings), fresh)
        if self._record is not None:
            self._record.write(_line(message_id, readings))
            self._record.flush()
        return web.Response(status=204)

    def _is_genuine(self, request: web.Request, body: bytes, now_s: int) -> bool:
        return standard_webhooks.verify(self._key, request.headers, body, now_s=now_s) and body_hmac.verify(
            self._secret, request.headers.get(body_hmac.HEADER, ""), body
        )

    def _count(self, message_id: str, body_signature: str, readings: int, fresh: int) -> None:
        self.stats.requests += 1
        self.stats.readings += readings
        self.stats.unique += fresh
        before = self._batches.get(message_id)
        if before is None:
            self._batches[message_id] = body_signature
            if len(self._batches) > _BATCHES_REMEMBERED:
                del self._batches[next(iter(self._batches))]
        else:
            self.stats.redeliveries += 1
            self.stats.changed += before != body_signature


def _sent_at_s(request: web.Request) -> int:
    try:
        return int(request.headers["webhook-timestamp"])
    except (KeyError, ValueError):
        return 0


def _line(message_id: str, readings: list[dict[str, Any]]) -> bytes:
    rows = [{name: reading.get(name) for name in _RECORDED} for reading in readings]
    return to_json({"webhook_id": message_id, "readings": rows}) + b"\n"
