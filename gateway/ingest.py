"""What arrives becomes entries of the log: parsed, checked, with an honest time, enriched, and never lost.

What cannot be used goes to quarantine and is committed and acknowledged like a reading; otherwise the board would send
it for ever. It does not: decide who may send (access), or open sockets.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import to_json

from gateway.access import Device, Routed
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.errors import BadInput
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.parsers.contract import MAX_READINGS, Found, in_standard_shape
from gateway.parsers.standard import Parsed, load_json, parse_object, parse_standard
from gateway.parsers.timestamp import unix_ms
from gateway.storage.log import Entry, Log, Owner

logger = logging.getLogger(__name__)

_MAX_AGE_MS = 10 * 366 * 24 * 3600 * 1000  # older than the product: not an age


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


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Return what is told of a message with several readings."""
    nothing = Verdict(stored=False, code="no_readings", message="There is no reading in it.", hint="Send at least one.")
    return min(verdicts, key=lambda one: (one.stored, not one.code), default=nothing)


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
    def log_uuid(self) -> str:
        """What the ids of the readings that are stored now begin with, behind the gateway's."""
        return self._log.uuid

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the disk."""
        return self._log.waiting_bytes

    def hurry(self) -> None:
        """Put on disk soon what has been taken in."""
        self._log.hurry()

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

    def take_routed(
        self, routed: Routed, data: bytes, owner: Owner, *, source: str, maybe_repeated: bool = False
    ) -> None:
        """Take one message in that a route's parser reads; its owner hears once, when all of it is on disk."""
        (*others, last), _ = self._read(routed, data, source, maybe_repeated)
        for entry in others:
            self._log.submit(entry, None)
        self._log.submit(last, owner)

    def put_aside(self, organization_id: str, data: bytes, problem: BadInput, owner: Owner, *, source: str) -> None:
        """Quarantine one message that nobody is to read; its owner hears when that is on disk."""
        self._log.submit(self._quarantine(Device(organization_id, ""), data, problem, source), owner)

    async def refuse(self, organization_id: str, data: bytes, problem: BadInput, *, source: str) -> Verdict:
        """Quarantine what names no device; returns what is told of it, when that is on disk. Raises StoreFailed."""
        await self._log.append([self._quarantine(Device(organization_id, ""), data, problem, source)])
        return _refused(problem)

    async def take_message(self, routed: Routed, data: bytes, *, source: str) -> list[Verdict]:
        """Take one message in that a parser reads; returns one verdict for each reading, when all is on disk.

        Raises StoreFailed.
        """
        entries, verdicts = self._read(routed, data, source, maybe_repeated=False)
        await self._log.append(entries)
        return verdicts

    def _read(
        self, routed: Routed, data: bytes, source: str, maybe_repeated: bool
    ) -> tuple[list[Entry], list[Verdict]]:
        """Return what becomes of a message, at least one entry: what cannot be used is quarantined."""
        try:
            readings = routed.parser.parse(data, source)
        except Exception as fault:  # noqa: BLE001 - as in `take`
            error = _as_bad_input(fault)
            sender = routed.sender or Device(routed.organization_id, "")
            return [self._quarantine(sender, data, error, source)], [_refused(error)]
        devices = [_device_of(routed, found) for found in readings]
        # The message itself is kept once, and only if it is about one device: erasing that one's readings erases it.
        names = {None if isinstance(device, BadInput) else device.device_id for device in devices}
        raw = data if len(names) == 1 and (None not in names or len(readings) == 1) else None
        entries: list[Entry] = []
        verdicts: list[Verdict] = []
        for device, found in zip(devices, readings, strict=True):
            made, verdict = self._entries_of(routed, device, found, raw, source, maybe_repeated)
            entries += made
            verdicts.append(verdict)
            raw = None
        return entries, verdicts

    def _entries_of(
        self,
        routed: Routed,
        device: Device | BadInput,
        found: Found,
        raw: bytes | None,
        source: str,
        maybe_repeated: bool,
    ) -> tuple[Sequence[Entry], Verdict]:
        def parse() -> Parsed:
            if isinstance(device, BadInput):
                raise device
            parsed = in_standard_shape(found, device.device_id)
            return parsed if raw is None or raw == parsed.payload else parsed._replace(raw=raw)

        whose = routed.sender or Device(routed.organization_id, "") if isinstance(device, BadInput) else device
        said = found.fields if found.problem is None else found.piece
        return self._entries(whose, parse, lambda: raw or to_json(said), source, maybe_repeated=maybe_repeated)

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
            whole = None if several else data
            made, verdict = self._entries(
                device, partial(parse_object, value, whole), partial(_as_it_came, value, whole), source
            )
            entries += made
            verdicts.append(verdict)
        await self._log.append(entries)
        return verdicts

    def _entries(
        self,
        device: Device,
        parse: Callable[[], Parsed],
        as_it_came: Callable[[], bytes],
        source: str,
        *,
        maybe_repeated: bool = False,
    ) -> tuple[Sequence[Entry], Verdict]:
        """Return what becomes of one reading among others."""
        try:
            parsed = parse()
            reading = self._reading(device, parsed, maybe_repeated)
        except Exception as fault:  # noqa: BLE001 - as in `take`
            error = _as_bad_input(fault)
            return [self._quarantine(device, as_it_came(), error, source)], _refused(error)
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


def _device_of(routed: Routed, found: Found) -> Device | BadInput:
    """Return whose reading it is, or why it is nobody's."""
    if found.problem is not None:
        return found.problem
    try:
        return routed.device_of(found)
    except BadInput as error:
        return error


def _as_it_came(value: Any, data: bytes | None) -> bytes:
    return to_json(value) if data is None else data


def _refused(error: BadInput) -> Verdict:
    return Verdict(stored=False, code=error.code, message=error.message, hint=error.hint)


def _as_bad_input(error: Exception) -> BadInput:
    """Return what is wrong with the input; a defect of ours is logged, and the input is kept for its repair."""
    if isinstance(error, BadInput):
        return error
    logger.error("input could not be read, by a fault of ours", exc_info=error)
    return BadInput("internal_error", "The gateway could not read this.", hint="Its log says more.")
