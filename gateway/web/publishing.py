"""What routes that publish have in common."""

from collections.abc import Coroutine
from typing import Any, Protocol

from gateway.ingest import Verdict


class Publishes(Protocol):
    """What publishes in the name of an organisation: (organisation, topic, payload, QoS, retain)."""

    def __call__(
        self, organization_id: str, topic: str, payload: bytes, qos: int, *, retain: bool
    ) -> Coroutine[Any, Any, Verdict | None]:
        """Return what became of it as a reading, None if it is none. Raises NeurogateError."""
        ...


def as_reading(verdict: Verdict | None) -> dict[str, object]:
    """Say what became of a message as a reading: it is published either way, as one of MQTT is."""
    if verdict is None:
        return {}
    words = {"code": verdict.code, "message": verdict.message, "hint": verdict.hint} if verdict.code else {}
    return {"reading": "stored" if verdict.stored else "quarantined", **words}
