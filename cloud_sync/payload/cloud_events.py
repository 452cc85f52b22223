"""Readings as CloudEvents 1.0 in JSON: one event is one reading.

Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, and formats/json-format.md and
bindings/http-protocol-binding.md beside it.

`source` and `id` together are the event's identity, the same whenever it is sent; `data` is the reading as every
destination sees it.
"""

from collections.abc import Iterator
from typing import Any

from cloud_sync.contract import Batch
from cloud_sync.payload.readings_batch import as_json, one_by_one, wire_readings

STRUCTURED = "application/cloudevents+json"
"""Media type of a body that is one event."""
BATCH = "application/cloudevents-batch+json"
"""Media type of a body that is a list of events."""

EVENT_TYPE = "com.netneural.reading.v1"


def structured(batch: Batch) -> bytes:
    """Return the body for a batch of one reading; several become lines, which nobody is sent (see `one_by_one`)."""
    return one_by_one(_events(batch))


def batched(batch: Batch) -> bytes:
    """Return the body for any batch."""
    return b"[%b]" % b",".join(_events(batch))


def _events(batch: Batch) -> Iterator[bytes]:
    return (as_json(_event(reading, batch.gateway_id)) for reading in wire_readings(batch))


def _event(reading: dict[str, Any], gateway_id: str) -> dict[str, Any]:
    return {
        "id": reading["id"],
        "source": f"/gateways/{gateway_id}",
        "type": EVENT_TYPE,
        "specversion": "1.0",
        "time": reading["time"],
        "subject": reading["device_id"],
        "datacontenttype": "application/json",
        "data": reading,
    }
