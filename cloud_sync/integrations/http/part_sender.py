"""Sends a batch as several requests, so that to the engine it is one: tried, retried, split and acknowledged.

- One after the other, and in the order of the batch: a device's readings never overtake each other.
- When the other side fails in the middle (away, throttling, refusing who we are), nothing more is sent, and that is the
  batch's outcome. The retry goes on with the request that failed: what was taken is remembered, reading by reading,
  until the batch is done. So a throttled batch gets on at each attempt, and repeats nothing.
- When it refuses one request's content, the others are sent all the same, but those that it holds up (RefusedParts).
  Which readings were refused is the outcome; the engine cuts them out, and what was taken is not sent again.
- This memory does not outlive the gateway, or a change of the settings. Then everything of the batch in flight is sent
  again, and each reading is known by its id, as after any answer that was lost.

Every request counts against the rate limit, which the engine applies to whole batches.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from cloud_sync.contract import NotConnected, Ok, Outcome, Rejected, TooLarge
from cloud_sync.payload.in_parts import Part
from cloud_sync.payload.refused_parts import RefusedParts
from cloud_sync.rate_limit import RateLimit
from gateway.clock import Clock


class PartSender:
    """See the module's own words; for one destination."""

    def __init__(
        self,
        clock: Clock,
        *,
        per_minute: int,
        max_bytes: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """A request with more than `max_bytes` is not sent: it holds one reading, which is too large."""
        self._rate = RateLimit(clock, sleep, per_minute=per_minute)
        self._max_bytes = max_bytes
        self._taken: set[int] = set()
        """Rows that the other side has, of batches that are not done."""

    async def send(self, parts: Sequence[Part], send_one: Callable[[Part], Awaitable[Outcome]]) -> Outcome:
        """Send what it has not taken yet; `send_one` tries one request."""
        refused = RefusedParts()
        for part in parts:
            if self._taken.issuperset(part.rows) or refused.is_held_up(part):
                continue
            if len(part.body) > self._max_bytes:
                words = f"a reading has {len(part.body):,} bytes as it is sent, and {self._max_bytes:,} are the most"
                refused.add(part, TooLarge(words))
                continue
            await self._rate.take()
            outcome = await send_one(part)
            if isinstance(outcome, Rejected | TooLarge):
                refused.add(part, outcome)
            elif not isinstance(outcome, Ok):
                return self._as_of_all(outcome, parts)
            else:
                self._taken.update(part.rows)
        if refused:
            return refused.outcome(parts)
        for part in parts:
            self._taken.difference_update(part.rows)
        return Ok()

    def _as_of_all(self, outcome: Outcome, parts: Sequence[Part]) -> Outcome:
        """Some of the batch may have left, although this request has not."""
        if isinstance(outcome, NotConnected) and any(not self._taken.isdisjoint(part.rows) for part in parts):
            return replace(outcome, sent=True)
        return outcome
