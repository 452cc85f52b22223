"""What one client may take of an HTTP port: time, connections, room. Whoever takes more is counted, with the reason.

Each bound is a setting of `[http]`, or stands here with why it is none. What MQTT clients and `/ws` may is their own
affair from the moment on that they have switched protocols.
"""

from dataclasses import dataclass

from gateway.config import HttpSettings
from gateway.metrics import Metrics
from gateway.model.errors import NeurogateError

MAX_HEADER_LINES = 64
MAX_HEADER_LINE_BYTES = 8_190
"""No client of ours comes near these, and nobody gains by more: together half a megabyte, for `headers_timeout_s`."""


class BodyTooSlow(NeurogateError):
    """The rest of a body did not come in time."""

    code = "too_slow"
    http_status = 408


class TookTooLong(NeurogateError):
    """The gateway did not finish in time: a disk that hangs, for example. What was asked may still be done."""

    code = "took_too_long"
    http_status = 503
    retry_after_s = 5


@dataclass(slots=True, frozen=True)
class Limits:
    """The bounds of one port."""

    max_connections: int
    """All of them, those that have switched protocols too."""
    http: HttpSettings
    metrics: Metrics

    def count(self, reason: str) -> None:
        """Count who was refused or closed."""
        self.metrics.refused.labels(reason).inc()
