"""What arrives becomes entries of the log: parsed, checked, with an honest time, enriched, and never lost.

What cannot be used goes to quarantine and is committed and acknowledged like a reading; otherwise the board would send
it for ever. It does not: decide who may send (access), or open sockets.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from gateway.access import Device
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.errors import BadInput
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.parsers.standard import Parsed, load_json, parse_object, parse_standard
from gateway.parsers.timestamp import unix_ms
from gateway.storage.log import Entry, Log, Owner

logger = logging.getLogger(__name__)

_MAX_AGE_MS = 10 * 366 * 24 * 3600 * 1000  # older than the product: not an age


MAX_READINGS = 1_000
"""In one document: while it is validated, nobody else is served."""


class TooManyReadings(BadInput):
    """A document holds more readings than are taken at once; none was."""

    http_status = 413


@dataclass(slots=True, frozen=True)
class Verdict:
    """What became of one reading that was handed in with others."""

    stored: bool
    code: str = ""
    message: str = ""
    hint: str = ""


class Ingest:
    """See the module's own words."""

    def __init__(self, log: Log, clock: Clock, metrics: Metrics, *, max_skew_ms: int) -> None:
        self._log = log
        self._clock = clock
        self._metrics = metrics
        self._max_skew_ms = max_skew_ms

    @property
    def is_full(self) -> bool:
        """Whether there is no room for anything more."""
        return self._log.bounds.full is not None

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the disk."""
        return self._log.waiting_bytes

    def take(self, device: Device, data: bytes, owner: Owner, *, source: str, maybe_repeated: bool = False) -> None:
        """Take one message in; its owner hears when what became of it, reading or quarantine, is on disk."""
        try:
            parsed = parse_standard(data)
            reading = self._reading(device, parsed, maybe_repeated)
        except Exception as fault:  # noqa: BLE001 - a defect of ours costs one message, not the connection it came by
            self._log.submit(self._quarantine(device, data, _as_bad_input(fault), source), owner)
            return
        if parsed.bad_sensors:
            self._log.submit(self._quarantine_sensors(device, parsed, source), None)
        self._log.submit(reading, owner)

    async def take_document(self, device: Device, data: bytes, *, source: str) -> list[Verdict]:
        """Take in one reading, or `{"readings": […]}`; returns one verdict each, when everything is on disk.

        Raises BadInput when the document itself is not JSON, after putting it into quarantine; TooManyReadings, and
        StoreFailed.
        """
        try:
            document = load_json(data)
        except BadInput as error:
            await self._log.append([self._quarantine(device, data, error, source)])
            raise
        entries: list[Entry] = []
        verdicts: list[Verdict] = []
        several = isinstance(document, dict) and isinstance(document.get("readings"), list)
        values = document["readings"] if several else [document]
        if len(values) > MAX_READINGS:
            raise TooManyReadings(
                "too_many_readings", f"{len(values)} readings in one request.", hint=f"Send at most {MAX_READINGS}."
            )
        for value in values:
            made, verdict = self._entries(device, value, None if several else data, source)
            entries += made
            verdicts.append(verdict)
        await self._log.append(entries)
        return verdicts

    def _entries(self, device: Device, value: Any, data: bytes | None, source: str) -> tuple[Sequence[Entry], Verdict]:
        try:
            parsed = parse_object(value, data)
            reading = self._reading(device, parsed, maybe_repeated=False)
        except Exception as fault:  # noqa: BLE001 - as in `take`
            error = _as_bad_input(fault)
            raw = to_json(value) if data is None else data
            return [self._quarantine(device, raw, error, source)], Verdict(
                stored=False, code=error.code, message=error.message, hint=error.hint
            )
        if parsed.bad_sensors:
            bad = self._quarantine_sensors(device, parsed, source)
            return [bad, reading], Verdict(stored=True, code=bad.code, message=bad.reason)
        return [reading], Verdict(stored=True)

    def _reading(self, device: Device, parsed: Parsed, maybe_repeated: bool) -> NewReading:
        body = parsed.body
        if body["device_id"] != device.device_id:
            raise BadInput(
                "foreign_device",
                f"The payload says it is from {body['device_id'][:100]!r}, but it was sent as {device.device_id}.",
                hint="Use one device_id in the payload, the topic and the credential.",
            )
        now = self._clock.now_ms()
        time_ms, time_source = self._honest_time(body, now)
        # seq counts within a boot: without boot_id it would call the first readings after a restart duplicates.
        boot_id, seq = body.get("boot_id") or "", body.get("seq")
        keyed = boot_id != "" and seq is not None
        device.readings += 1
        device.last_seen_ms = now
        return NewReading(
            self._log.stream(device.organization_id, device.device_id, boot_id),
            seq if keyed else None,
            time_ms,
            time_source,
            now,
            self._clock.monotonic_ms(),
            parsed.payload,
            parsed.raw,
            device.metadata,
            maybe_repeated and not keyed,
        )

    def _honest_time(self, body: dict[str, Any], now_ms: int) -> tuple[int, TimeSource]:
        """Choose the reading's time: the device's, unless it is missing, incredible or surely in the future."""
        time_ms = unix_ms(body.get("timestamp"))
        if time_ms is not None and not self._is_surely_in_future(time_ms, now_ms):
            return time_ms, TimeSource.DEVICE
        age_ms = body.get("age_ms")
        if age_ms is not None and 0 <= age_ms <= _MAX_AGE_MS:
            return now_ms - round(age_ms), TimeSource.CORRECTED
        return now_ms, TimeSource.GATEWAY

    def _is_surely_in_future(self, time_ms: int, now_ms: int) -> bool:
        return (
            time_ms > now_ms + self._max_skew_ms
            and self._clock.is_synced()
            and time_ms > self._clock.now_ms() + self._max_skew_ms  # it may have become right since `now_ms`
        )

    def _quarantine(self, device: Device, data: bytes, error: BadInput, source: str) -> NewQuarantine:
        self._metrics.errors.labels(error.code).inc()
        logger.warning(
            "input quarantined: %s",
            error.code,
            extra={"device_id": device.device_id, "source": source, "reason": error.message},
        )
        return NewQuarantine(
            device.organization_id,
            device.device_id,
            source,
            error.code,
            error.message,
            self._clock.now_ms(),
            data,
        )

    def _quarantine_sensors(self, device: Device, parsed: Parsed, source: str) -> NewQuarantine:
        reasons = "; ".join(sensor.reason for sensor in parsed.bad_sensors)
        names = ", ".join(sensor.name for sensor in parsed.bad_sensors)
        error = BadInput("invalid_sensor", f"Stored without {names}: {reasons}")
        assert parsed.raw is not None
        return self._quarantine(device, parsed.raw, error, source)


def _as_bad_input(error: Exception) -> BadInput:
    """Return what is wrong with the input; a defect of ours is logged, and the input is kept for its repair."""
    if isinstance(error, BadInput):
        return error
    logger.error("input could not be read, by a fault of ours", exc_info=error)
    return BadInput("internal_error", "The gateway could not read this.", hint="Its log says more.")
