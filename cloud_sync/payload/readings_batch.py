"""The body that is sent unless another is asked for: `{"type":"readings.batch","gateway_id":…,"readings":[…]}`."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import to_json

from cloud_sync.contract import Batch
from gateway.model.reading import wire_reading


def wire_readings(batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield the readings as every destination sees them."""
    for reading in batch.readings:
        yield wire_reading(reading, gateway_id=batch.gateway_id, log_uuid=batch.log_uuid)


def as_json(value: object) -> bytes:
    """Write JSON. An infinity, which JSON cannot express, becomes null.

    A batch is written reading by reading: no other thread gets on while a call into the encoder lasts.
    """
    return to_json(value, inf_nan_mode="null")


def one_by_one(items: Iterable[bytes]) -> bytes:
    """Return the body of a request that carries one reading.

    More than one is there only when a batch from before a change of the configuration is made again, to see whether it
    is still the same. It must not be, and a list might: lines are no JSON.
    """
    return b"\n".join(items)


def readings_batch(batch: Batch) -> bytes:
    """Return the body."""
    readings = b",".join(map(as_json, wire_readings(batch)))
    frame = as_json({"type": "readings.batch", "gateway_id": batch.gateway_id, "readings": []})
    return b"".join((frame.removesuffix(b"]}"), readings, b"]}"))
