"""Readings and batches as the tests use them."""

from dataclasses import replace
from typing import Any

from cloud_sync.contract import Batch, Notification, Outcome
from cloud_sync.egress import Egress
from gateway.config import EgressSettings
from gateway.model.reading import NewReading, StoredReading, TimeSource
from gateway.storage.log import Log

ANYWHERE = Egress(EgressSettings(policy="any"))
NOW_MS = 1_795_176_000_250
PLAIN_SECRET = "a plain secret of 32 characters."
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def stored(row: int = 1, body: dict[str, Any] | None = None, device_id: str = "esp32-kitchen") -> StoredReading:
    return StoredReading(
        row=row,
        organization_id="default",
        device_id=device_id,
        boot_id="9f3a61c2",
        seq=row,
        time_ms=NOW_MS,
        time_source=TimeSource.DEVICE,
        received_at_ms=NOW_MS + 20,
        body={"sensors": {"pir": {"motion_detected": True}}} if body is None else body,
        device_metadata={"location": "kitchen"},
    )


def batch(readings: int = 3, message_id: str = "msg_1") -> Batch:
    return Batch(message_id, [stored(row) for row in range(1, readings + 1)], "site-1", "log-1")


def notification(**fields: Any) -> Notification:
    base = Notification("6f1c", "site-1", "default", "message", "Pump", "The pump is off.", "high", NOW_MS)
    return replace(base, **fields)


def batch_of(*devices: str, message_id: str = "msg_1", first_row: int = 1) -> Batch:
    """A batch with a reading of each of these devices, in this order."""
    readings = [stored(row, device_id=device) for row, device in enumerate(devices, first_row)]
    return Batch(message_id, readings, "site-1", "log-1")


async def sent(it: Any, given: Batch) -> Outcome:
    """What comes of one attempt to deliver a batch."""
    outcome: Outcome = await it.send(given, it.encode(given))
    return outcome


async def append_of(log: Log, *devices: str) -> None:
    """Store a reading of each of these devices, in this order; `acme/d1` is one of another organisation's."""
    payload = b'{"sensors":{"pir":{"motion_detected":true}}}'
    names = [device.rpartition("/")[::2] for device in devices]
    streams = {name: log.stream(name[0] or "default", name[1], "boot-1") for name in names}
    await log.append(
        [
            NewReading(streams[name], seq, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, payload)
            for seq, name in enumerate(names)
        ]
    )


async def append(log: Log, count: int, *, first_seq: int = 0) -> None:
    """Store `count` readings of one device, each a little over 500 bytes and received at NOW_MS."""
    stream = log.stream("default", "esp32-kitchen", "boot-1")
    payload = b'{"sensors":{"pir":{"motion_detected":true}},"note":"%b"}' % (b"x" * 500)
    seqs = range(first_seq, first_seq + count)
    await log.append([NewReading(stream, seq, NOW_MS, TimeSource.DEVICE, NOW_MS, 0, payload) for seq in seqs])
