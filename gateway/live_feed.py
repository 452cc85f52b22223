"""The live feed: readings as they are committed, for whoever is watching. It is not durable, and says what it skipped.

- one reader of the log for all followers, and none while nobody follows
- it reads so many readings a second and skips the rest, so that watching a busy gateway does not slow it
- a follower that takes too slowly loses what does not fit any more
- whoever has missed something is told how much with what comes next; of what was skipped unread it is not known
  whether the follower wanted it: then it is the most that can have been
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic_core import to_json

from gateway.metrics import Metrics
from gateway.model.reading import StoredReading, wire_reading
from gateway.storage.log import Log

_PAGE_READINGS = 200
_PAGE_BYTES = 256_000
_PAUSE_S = 0.05  # so 4,000 readings a second at most
_FAR_BEHIND_ROWS = 4_000
_WAITING_AT_MOST = 1_000  # messages of one follower
_WAITING_BYTES_AT_MOST = 1_000_000


@dataclass(slots=True, frozen=True)
class Wanted:
    """What a follower wants to see: readings of one organisation; an empty set means all."""

    organization_id: str
    device_ids: frozenset[str] = frozenset()
    sensors: frozenset[str] = frozenset()

    def __contains__(self, reading: StoredReading) -> bool:
        return (
            reading.organization_id == self.organization_id
            and (not self.device_ids or reading.device_id in self.device_ids)
            and (not self.sensors or not reading.body.get("sensors", {}).keys().isdisjoint(self.sensors))
        )


class Follower:
    """One who watches; what waits for them is bounded."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._missed = 0
        self._is_due = asyncio.Event()

    def put(self, message: bytes) -> bool:
        """Let a message wait; False, and it is counted, when there is no room."""
        if len(self._waiting) >= _WAITING_AT_MOST or self._bytes + len(message) > _WAITING_BYTES_AT_MOST:
            self._missed += 1
            return False
        self._waiting.append(message)
        self._bytes += len(message)
        self._is_due.set()
        return True

    def miss(self, readings: int) -> None:
        """Hear that so many were skipped."""
        self._missed += readings

    async def next(self) -> tuple[int, bytes]:
        """Wait for a message; returns it with how many before it were missed."""
        while not self._waiting:
            self._is_due.clear()
            await self._is_due.wait()
        message = self._waiting.popleft()
        self._bytes -= len(message)
        # What is missed now comes after all that waits, but for what was skipped before anything waited: told early, it
        # is told all the same.
        missed, self._missed = self._missed, 0
        return missed, message


class LiveFeed:
    """See the module's own words."""

    def __init__(self, log: Log, metrics: Metrics, gateway_id: str) -> None:
        self._log = log
        self._missed = metrics.events_dropped.labels("live", "slow_follower")
        self._skipped = metrics.events_dropped.labels("live", "too_many")
        self._gateway_id = gateway_id
        self._followers: set[Follower] = set()
        self._is_followed = asyncio.Event()

    @contextmanager
    def follow(self, wanted: Wanted) -> Iterator[Follower]:
        """Watch what is committed from now on."""
        follower = Follower(wanted)
        self._followers.add(follower)
        self._is_followed.set()
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self._is_followed.clear()

    async def run(self) -> None:
        """Read for the followers, for ever."""
        while True:
            await self._is_followed.wait()
            position = self._log.last_row
            while self._followers:
                await self._log.wait_beyond(position)
                position = await self._not_too_far(position)
                rows = await self._log.read(position, limit=_PAGE_READINGS, max_bytes=_PAGE_BYTES)
                if rows:
                    position = rows[-1].row
                    self._show(rows)
                await asyncio.sleep(_PAUSE_S)

    async def _not_too_far(self, position: int) -> int:
        if self._log.last_row - position <= _FAR_BEHIND_ROWS:
            return position
        newer = self._log.last_row - _PAGE_READINGS
        skipped = await self._log.count_between(position, newer)
        self._skipped.inc(skipped)
        for follower in self._followers:
            follower.miss(skipped)
        return newer

    def _show(self, rows: list[StoredReading]) -> None:
        for row in rows:
            followers = [one for one in self._followers if row in one.wanted]
            if not followers:
                continue
            wire = wire_reading(row, gateway_id=self._gateway_id, log_uuid=self._log.uuid)
            message = to_json({"type": "sensor-data", "data": wire}, inf_nan_mode="null")
            self._missed.inc(sum(not follower.put(message) for follower in followers))
