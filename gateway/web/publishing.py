"""What routes that publish have in common."""

from collections.abc import Coroutine
from typing import Any, Literal, NotRequired, Protocol

from typing_extensions import TypedDict

from gateway.ingest import Verdict


class Publishes(Protocol):
    """What publishes in the name of an organisation: (organisation, topic, payload, QoS, retain)."""

    def __call__(
        self, organization_id: str, topic: str, payload: bytes, qos: int, *, retain: bool
    ) -> Coroutine[Any, Any, Verdict | None]:
        """Return what became of it as a reading, None if it is none. Raises NeurogateError."""
        ...


class AsReading(TypedDict):
    """What became of a message as a reading; nothing is said of one that is none."""

    reading: NotRequired[Literal["stored", "quarantined"]]
    code: NotRequired[str]
    message: NotRequired[str]
    hint: NotRequired[str]


def as_reading(verdict: Verdict | None) -> AsReading:
    """Say what became of a message as a reading: it is published either way, as one of MQTT is."""
    if verdict is None:
        return {}
    said: AsReading = {"reading": "stored" if verdict.stored else "quarantined"}
    if verdict.code:
        said |= {"code": verdict.code, "message": verdict.message, "hint": verdict.hint}
    return said
