"""Stored readings of one organisation in buckets of time: what they amount to, the newest bucket first.

- of a number: the least, the greatest, the mean, the last, and how many there were
- of what is true or false: the last, how many there were, and `duty`, the share of the time that it was true. A reading
  speaks for the time until the next one of its device, but for no longer than `SPEAKS_FOR_MS`: of the time that nobody
  speaks for, nothing is known. A time that no reading speaks for any share of has the share of the readings
- other fields, and what lies deeper within a sensor, have no figures

A bucket begins at a multiple of its length since 1970 (UTC) and is always told whole, by the times of its readings as
they are known now; what lies outside `from_ms` to `to_ms` counts in none. A page holds the newest buckets that fit into
bounds of readings and of figures, and the next page the older ones. While it is worked out it takes the memory of its
figures, and eight bytes for each thing that was true or false.
"""

import asyncio
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from gateway.model.errors import BadInput
from gateway.model.reading import StoredReading, rfc3339
from gateway.operations.readings import cursor_of, number_of, opened_log
from gateway.operations.site import Site
from gateway.parsers.timestamp import LAST_CREDIBLE_MS
from gateway.storage.history import Wanted, look_back

BUCKETS_AT_MOST = 1_000
"""Of all devices, in one page; more only when they are of one time."""

SPEAKS_FOR_MS = 300_000

_READINGS = 20_000  # in a page of several buckets of time
_READINGS_AT_MOST = 100_000  # in one bucket of time
_FIGURES = 20_000
_FIGURES_AT_MOST = 100_000
_NEVER_MS = LAST_CREDIBLE_MS

_Field = tuple[str, str, str]
"""Device, sensor, field."""


@dataclass(slots=True, frozen=True)
class BucketsPage:
    """Buckets, each of one device."""

    buckets: list[dict[str, Any]]
    next_cursor: str | None
    """What asks for the page after this one; None when there is none."""


async def read_buckets(
    site: Site,
    *,
    organization_id: str,
    bucket_ms: int,
    from_ms: int,
    to_ms: int | None = None,
    device_id: str | None = None,
    sensor: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> BucketsPage:
    """Return the next page of buckets with readings in them. Raises as `read_readings`, and BadInput for too much."""
    log = await opened_log(site)
    if log is None:
        return BucketsPage([], None)
    until_ms = _NEVER_MS if to_ms is None else to_ms
    if cursor is not None:
        until_ms = min(until_ms, number_of(cursor, f"bucket:{bucket_ms}"))
    page = _Page(bucket_ms, from_ms, until_ms, sensor, limit)
    # Beyond the edges: what was true before the first bucket may still be so, and what ends it may be after the last.
    wanted = Wanted(organization_id, device_id, from_ms - SPEAKS_FOR_MS, until_ms + SPEAKS_FOR_MS)
    steps = look_back(log, wanted, await log.newest_row() + 1, skew_ms=site.settings.clock.max_skew_s * 1000)
    async with aclosing(steps):
        async for step in steps:
            await asyncio.to_thread(page.add, step.readings)
            wanted.from_ms = page.from_ms - SPEAKS_FOR_MS
    await log.require_whole()  # it may have been damaged meanwhile
    buckets = await asyncio.to_thread(page.told, site.clock.now_ms())
    has_more = page.from_ms > from_ms
    return BucketsPage(buckets, cursor_of(f"bucket:{bucket_ms}", page.from_ms) if has_more else None)


@dataclass(slots=True)
class _Numbers:
    """What is known of one field of a device in one bucket; true counts as 1."""

    count: int = 0
    mean: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    last: bool | float = 0.0
    last_at: tuple[int, int] = (-(2**63), 0)
    """Time and row."""

    def add(self, value: float, at: tuple[int, int]) -> None:
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.least, self.greatest = min(self.least, value), max(self.greatest, value)
        if at >= self.last_at:
            self.last, self.last_at = value, at


@dataclass(slots=True)
class _Share:
    """Of a bucket's time: how much was true, of how much that is known (ms)."""

    true_ms: int = 0
    known_ms: int = 0


@dataclass(slots=True)
class _Bucket:
    """One device in one bucket of time."""

    readings: int = 0
    fields: dict[tuple[str, str], _Numbers] = field(default_factory=dict)


class _Page:
    """Takes readings in, in any order, and keeps the newest buckets of time that fit."""

    def __init__(self, bucket_ms: int, from_ms: int, to_ms: int, sensor: str | None, limit: int) -> None:
        self.from_ms = from_ms
        """Nothing before this is in it; grows when there is too much."""
        self._to_ms = to_ms
        self._bucket_ms = bucket_ms
        self._sensor = sensor
        self._limit = limit
        self._times: dict[int, dict[str, _Bucket]] = {}
        """By their beginning, and by device."""
        self._truths: dict[_Field, array[int]] = {}
        """When what was true or false: twice the time, and one more if it was true."""
        self._readings = self._entries = self._figures = 0

    def add(self, readings: Iterable[StoredReading]) -> None:
        """Take readings in. Raises BadInput when one bucket of time is too much."""
        before_ms = self.from_ms
        for reading in readings:
            self._add(reading)
            while self._is_full and len(self._times) > 1:
                self._drop_oldest()
        if self._readings > _READINGS_AT_MOST or self._figures > _FIGURES_AT_MOST:
            raise BadInput(
                "too_much",
                "There is too much in one bucket.",
                hint="Name a device or a sensor, or ask for shorter buckets.",
            )
        if self.from_ms > before_ms:
            oldest = 2 * (self.from_ms - SPEAKS_FOR_MS)
            for key, truths in self._truths.items():
                self._truths[key] = array("q", [one for one in truths if one >= oldest])

    @property
    def _is_full(self) -> bool:
        return self._readings > _READINGS or self._entries > self._limit or self._figures > _FIGURES

    def _add(self, reading: StoredReading) -> None:
        sensors = reading.body.get("sensors", {})
        if self._sensor is not None:
            sensors = {self._sensor: sensors[self._sensor]} if self._sensor in sensors else {}
        bucket = self._bucket_of(reading) if sensors else None
        for sensor, fields in sensors.items():
            for name, value in fields.items() if isinstance(fields, dict) else ():
                if not _is_number(value):
                    continue
                if isinstance(value, bool):
                    truths = self._truths.setdefault((reading.device_id, sensor, name), array("q"))
                    truths.append(2 * reading.time_ms + value)
                if bucket is not None:
                    numbers = bucket.fields.get((sensor, name))
                    if numbers is None:
                        numbers = bucket.fields[sensor, name] = _Numbers()
                        self._figures += 1
                    numbers.add(value, (reading.time_ms, reading.row))

    def _bucket_of(self, reading: StoredReading) -> _Bucket | None:
        """Return the bucket that a reading counts in; None for one that is only near."""
        if not self.from_ms <= reading.time_ms < self._to_ms:
            return None
        devices = self._times.setdefault(self._start(reading.time_ms), {})
        bucket = devices.get(reading.device_id)
        if bucket is None:
            bucket = devices[reading.device_id] = _Bucket()
            self._entries += 1
        bucket.readings += 1
        self._readings += 1
        return bucket

    def _start(self, time_ms: int) -> int:
        return time_ms // self._bucket_ms * self._bucket_ms

    def _drop_oldest(self) -> None:
        start = min(self._times)
        for bucket in self._times.pop(start).values():
            self._readings -= bucket.readings
            self._figures -= len(bucket.fields)
            self._entries -= 1
        self.from_ms = start + self._bucket_ms

    def told(self, now_ms: int) -> list[dict[str, Any]]:
        """Return the buckets, newest first, and of one time by device."""
        shares = self._shares(now_ms)
        told: list[dict[str, Any]] = []
        for start in sorted(self._times, reverse=True):
            for device, bucket in sorted(self._times[start].items()):
                sensors: dict[str, dict[str, Any]] = {}
                for (sensor, name), numbers in sorted(bucket.fields.items()):
                    share = shares.get((start, (device, sensor, name)))
                    sensors.setdefault(sensor, {})[name] = _told(numbers, share)
                told.append(
                    {
                        "device_id": device,
                        "start": rfc3339(start),
                        "end": rfc3339(start + self._bucket_ms),
                        "readings": bucket.readings,
                        "sensors": sensors,
                    }
                )
        return told

    def _shares(self, now_ms: int) -> dict[tuple[int, _Field], _Share]:
        """Return how long each thing was true, by the beginning of the bucket."""
        shares: defaultdict[tuple[int, _Field], _Share] = defaultdict(_Share)
        for key, truths in self._truths.items():
            ordered = sorted(truths)
            for one, following in zip_longest(ordered, ordered[1:]):
                time_ms, is_true = divmod(one, 2)
                until_ms = now_ms if following is None else following // 2
                at = max(time_ms, self.from_ms)
                end = min(until_ms, time_ms + SPEAKS_FOR_MS, self._to_ms)
                while at < end:
                    start = self._start(at)
                    length = min(end, start + self._bucket_ms) - at
                    share = shares[start, key]
                    share.known_ms += length
                    share.true_ms += length * is_true
                    at += length
        return shares


def _is_number(value: object) -> bool:
    """Whether it has figures; a whole number can be too large for any."""
    try:
        return isinstance(value, bool | int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _told(numbers: _Numbers, share: _Share | None) -> dict[str, Any]:
    if isinstance(numbers.last, bool):
        duty = share.true_ms / share.known_ms if share is not None and share.known_ms else numbers.mean
        return {"duty": round(duty, 6), "last": numbers.last, "count": numbers.count}
    return {
        "min": numbers.least,
        "max": numbers.greatest,
        "mean": numbers.mean,
        "last": numbers.last,
        "count": numbers.count,
    }
