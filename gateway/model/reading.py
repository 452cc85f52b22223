"""A reading, on its way in and as it is stored."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

LATE_AFTER_MS = 60_000
"""A reading that arrives this long after it was taken is marked `late`.

Fixed, not configurable: a batch that is sent again after a restart must have the very same bytes."""


CLOCK_STEP_MS = 1_000
"""A clock that is wrong by less has drifted; only a step is worth a correction."""


class TimeSource(IntEnum):
    """Where a reading's time came from (stored as its number, shown as its lower-case name)."""

    DEVICE = 0
    """The device's own timestamp."""
    GATEWAY = 1
    """When the gateway received it: the device sent no usable time."""
    CORRECTED = 2
    """Worked out later: from how long ago the device measured (`age_ms`), or after the gateway's clock was set."""


@dataclass(slots=True)
class Stream:
    """One boot of one device: what (device, boot_id) is interned to.

    `seq` counts within a stream, so (stream, seq) is the key that makes a reading idempotent.
    `row` is filled in by the writer when the stream is first committed.
    """

    organization_id: str
    device_id: str
    boot_id: str
    """Empty when the device sends none."""
    row: int | None = None


class NewReading(NamedTuple):
    """A reading that has been validated and waits for its commit.

    A tuple, because tens of thousands are made per second and a frozen dataclass costs five times as much to make.
    """

    stream: Stream
    seq: int | None
    time_ms: int
    time_source: TimeSource
    received_at_ms: int
    monotonic_ms: int
    payload: bytes
    """The reading as a JSON object in the standard shape; what arrived, byte for byte, if it had that shape."""
    raw: bytes | None = None
    """What arrived, when `payload` is not it: a better parser may want to read it again."""
    metadata: str | None = None
    """The device's metadata at the moment of receipt, as JSON."""
    maybe_repeated: bool = False
    """MQTT's DUP flag on a reading without boot_id and seq: the writer compares payloads."""


class NewQuarantine(NamedTuple):
    """Input that could not be used. It is kept, shown and never forwarded."""

    organization_id: str
    device_id: str
    source: str
    """Where it came in: an MQTT topic, `http`, or `serial` and the port."""
    code: str
    reason: str
    received_at_ms: int
    payload: bytes


@dataclass(slots=True)
class StoredReading:
    """A reading as readers of the log see it; `body` is the payload's JSON object."""

    row: int
    organization_id: str
    device_id: str
    boot_id: str | None
    seq: int | None
    time_ms: int
    time_source: TimeSource
    received_at_ms: int
    body: dict[str, Any]
    device_metadata: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    """Length of the stored payload, for bounding batches."""
    gateway_boot: int = field(default=0, compare=False)
    epoch_ms: int | None = field(default=None, compare=False)
    """When the gateway's monotonic clock was 0 in that boot, as far as it was known when this was read."""
    monotonic_ms: int = field(default=0, compare=False)
    """The gateway's monotonic clock when it was received."""
    defect: str = ""
    """Why its content cannot be read any more; then `body` is empty."""
    historical: bool = field(default=False, compare=False)
    """Whether it goes out from a backlog, or again."""

    def correct_by(self, offset_ms: int) -> None:
        """Apply what was learned of the gateway's clock after receipt; a device's own time is its own."""
        if abs(offset_ms) < CLOCK_STEP_MS:
            return
        self.received_at_ms += offset_ms
        if self.time_source != TimeSource.DEVICE:
            self.time_ms += offset_ms
            self.time_source = TimeSource.CORRECTED

    @property
    def late(self) -> bool:
        """Whether it arrived long after it was taken."""
        return self.received_at_ms - self.time_ms > LATE_AFTER_MS


def rfc3339(unix_ms: int) -> str:
    """Format unix milliseconds as RFC 3339 in UTC with milliseconds: `2026-11-20T12:00:00.250Z`."""
    return f"{_to_the_second(unix_ms // 1000)}.{unix_ms % 1000:03d}Z"


def rfc3339_or_null(unix_ms: int | None) -> str | None:
    """Format a time as `rfc3339` does; one that there is not is null in JSON."""
    return None if unix_ms is None else rfc3339(unix_ms)


@lru_cache(maxsize=4096)  # neighbours share their second, and formatting a date is the dearest step
def _to_the_second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def wire_reading(reading: StoredReading, *, gateway_id: str, log_uuid: str) -> dict[str, Any]:
    """Return the reading as every destination sees it.

    `id` is stable for ever: `{gateway_id}:{log_uuid}:{row}`. What the device sent beyond the known fields is kept.
    `sensors`, `health` and `device_metadata` are objects always, empty where there is nothing.
    """
    body = reading.body
    wire: dict[str, Any] = {
        "id": f"{gateway_id}:{log_uuid}:{reading.row}",
        "organization_id": reading.organization_id,
        "device_id": reading.device_id,
        "time": rfc3339(reading.time_ms),
        "time_source": _SHOWN_AS[reading.time_source],
        "received_at": rfc3339(reading.received_at_ms),
        "late": reading.late,
        "historical": reading.historical,
        "boot_id": reading.boot_id,
        "seq": reading.seq,
        "sensors": body.get("sensors", {}),
        "health": body.get("health") or {},
        "device_metadata": reading.device_metadata,
    }
    if reading.defect:
        wire["defect"] = reading.defect
    for name, value in body.items():
        if name not in wire and name not in _CONSUMED:
            wire[name] = value
    return wire


_SHOWN_AS = tuple(source.name.lower() for source in TimeSource)
_CONSUMED = frozenset({"timestamp", "age_ms"})  # their meaning is in time and time_source
