"""A batch as messages with topics: one for each reading, one for each of its sensors, or one for a topic's readings.

The body of the whole, which a retry must have byte for byte, is what the messages carry, a line each; none of them has
a line break in it, as they are compact JSON. Where a message may carry several readings, a line before them says how
many are in each. Messages are in the order of the batch; those with several readings, in the order of their first. A
reading without sensors is in none, where each sensor has its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from pydantic_core import from_json, to_json

from cloud_sync.contract import Batch
from cloud_sync.payload.in_parts import Part
from cloud_sync.payload.readings_batch import as_json
from cloud_sync.payload.template import Template
from cloud_sync.payload.topic_template import TopicTemplate
from gateway.model.reading import StoredReading, wire_reading

_Group = tuple[str, list[StoredReading]]


class Messages:
    """Writes batches for one destination. The key of a message is its topic."""

    def __init__(self, topic: TopicTemplate, template: Template | None, max_bytes: int) -> None:
        """Of what may carry several readings none has more than `max_bytes`, unless one reading has."""
        self._topic = topic
        self._template = template
        self._max_bytes = max_bytes
        self._by_sensor = topic.has("sensor")
        self._carries_several = template is not None and not template.is_for_one_reading

    def encode(self, batch: Batch) -> bytes:
        """Return the body of the whole."""
        groups = self._groups(batch)
        if not self._carries_several:
            return b"\n".join(self._payload(batch, readings) for _, readings in groups)
        written = [one for _, readings in groups for one in self._split(batch, readings)]
        payloads = [payload for _, payload in written]
        return payloads[0] if len(payloads) == 1 else b"\n".join([to_json([count for count, _ in written]), *payloads])

    def of(self, batch: Batch, body: bytes) -> list[Part]:
        """Return the messages that `encode` has made of this batch."""
        groups, lines = self._groups(batch), body.split(b"\n")
        if not groups:
            return []
        if not self._carries_several:
            return [
                Part((topic,), (readings[0].row,), line) for (topic, readings), line in zip(groups, lines, strict=True)
            ]
        flat = [(topic, reading.row) for topic, readings in groups for reading in readings]
        counts, payloads = (from_json(lines[0]), lines[1:]) if len(lines) > 1 else ([len(flat)], lines)
        rest = iter(flat)
        parts = []
        for count, payload in zip(counts, payloads, strict=True):
            taken = list(islice(rest, count))
            parts.append(Part((taken[0][0],), tuple(row for _, row in taken), payload))
        return parts

    def _groups(self, batch: Batch) -> list[_Group]:
        pairs = self._with_topics(batch)
        if not self._carries_several:
            return [(topic, [reading]) for topic, reading in pairs]
        groups: dict[str, list[StoredReading]] = {}
        for topic, reading in pairs:
            groups.setdefault(topic, []).append(reading)
        return list(groups.items())

    def _with_topics(self, batch: Batch) -> Iterator[tuple[str, StoredReading]]:
        fill = self._topic.filled
        for reading in batch.readings:
            if not self._by_sensor:
                yield fill(reading, batch.gateway_id), reading
                continue
            sensors = reading.body.get("sensors", {})
            for name, fields in sensors.items():
                yield (
                    fill(reading, batch.gateway_id, name),
                    replace(reading, body={**reading.body, "sensors": {name: fields}}),
                )

    def _split(self, batch: Batch, readings: Sequence[StoredReading]) -> Iterator[tuple[int, bytes]]:
        payload = self._payload(batch, readings)
        if len(payload) <= self._max_bytes or len(readings) == 1:
            yield len(readings), payload
            return
        middle = len(readings) // 2
        yield from self._split(batch, readings[:middle])
        yield from self._split(batch, readings[middle:])

    def _payload(self, batch: Batch, readings: Sequence[StoredReading]) -> bytes:
        if self._template is not None:
            return self._template.encode(Batch(batch.id, readings, batch.gateway_id, batch.log_uuid))
        return as_json(wire_reading(readings[0], gateway_id=batch.gateway_id, log_uuid=batch.log_uuid))
