"""Delivers the log to one destination, in order and at least once; repeats are known by their id.

Promises
- The cursor moves only on the destination's own acknowledgement; whatever fails, it keeps its place.
- One batch is in flight. It is frozen on disk before its first byte leaves, so a retry is the same batch with
  the same id and bytes, also after a restart. A batch that cannot be made again (readings were erased, or a
  new release writes them differently) is replaced by a new one with a new id; so is one that has certainly not
  arrived, when the clock was set meanwhile.
- Forwarders share nothing: a dead or hanging destination delays no other.
- One bad record blocks nothing. A refused batch is split until the culprit is alone; that one goes to the dead
  letters. A wrong address is not a bad record: ten lone rejections in a row dead-letter nothing.

What is on disk, at every moment of a split
- A part of a refused batch is an attempt like any other: a new id, frozen in place of the attempt before it. That
  one was answered, so nothing of it is known to the destination under its id.
- A reading that is refused alone is *provisional*: a row among the dead letters, written in the commit that ends its
  attempt. The cursor stands before it. Sending goes on after it (`_reach`), so later readings never overtake it: it
  has had its answer.
- The next success moves the cursor, and in the same commit that confirms what it passes. The tenth rejection without
  a success withdraws them all instead: the cursor has not moved, and everything from there on is sent again, one by
  one until something succeeds.

Why on disk, and not in memory until the success: the batch after a provisional rejection may have arrived although its
answer did not. After a crash it must be sent again under its own id, and it begins behind the rejected reading; were
that forgotten, the success would move the cursor over a reading that is nowhere.

The newest reading, if it is refused, stays provisional until something succeeds, and the state is `error`.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from cloud_sync.backoff import LONGEST_WAIT_S, Backoff
from cloud_sync.contract import (
    Forwards,
    Gone,
    IntegrationConfig,
    NotConnected,
    Ok,
    Outcome,
    Rejected,
    RetryAfter,
    TooLarge,
)
from cloud_sync.frozen_batches import FrozenBatches, OutdatedTimes
from cloud_sync.rate_limit import RateLimit
from cloud_sync.replay import Replay
from cloud_sync.sender import OUTCOME_LABELS, Encoded, ReadingsErased, Sender
from cloud_sync.splitting import BatchSize, Splitting
from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.status import DestinationStatus
from gateway.storage.log import Log
from gateway.storage.log_reader import Page

_LOOK_AGAIN_S = 0.05
_STORE_WAIT_S = 5.0  # until a log that could not be written is tried again

LONE_REJECTIONS = 10
"""So many readings in a row, refused one by one, are the destination's error and not theirs."""


class Destination(Forwards, Protocol):
    """An integration that delivers readings, while it is entered."""

    @property
    def config(self) -> IntegrationConfig:
        """Its settings."""
        ...

    async def __aenter__(self) -> object:
        """Open what is needed to talk to the other side."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        ...


class Forwarder:
    """The engine behind one destination; every destination runs its own, in its own task."""

    def __init__(
        self,
        integration: Destination,
        log: Log,
        clock: Clock,
        metrics: Metrics,
        gateway_id: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        config = integration.config
        # A logger of its own: equal warnings are counted by logger, and two destinations may fail at once.
        self._logger = logging.getLogger(f"{__name__}.{config.name}")
        self._integration = integration
        self._config = config
        self._log = log
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(random)
        self._rate = RateLimit(
            clock, sleep, per_minute=config.rate_limit_per_minute, min_interval_s=config.min_interval_s
        )
        self._sender = Sender(
            config.name, integration, self._rate, clock, metrics, gateway_id=gateway_id, log_uuid=log.uuid
        )
        self._selection = config.selection
        self._batches = FrozenBatches(config.name, self._selection, log, self._sender, clock, self._logger)
        self._replay = Replay(config, log.dead_letters, self._sender, self._backoff, clock, self._logger)
        self._dead_letters = metrics.dead_letters.labels(config.name)
        metrics.buffer_oldest.labels(config.name).set_function(self._oldest_seconds)

        self._position = 0  # what is acknowledged, or a dead letter
        self._reach = 0  # and what was refused provisionally
        self._provisional = 0
        self._at_fault = False
        self._parts = Splitting()
        self._size = BatchSize(config.batch_max_readings)
        self._oldest_ms: int | None = None
        self._state = "idle"
        self._delivered = 0
        self._failures = 0
        self._failing_since_ms: int | None = None
        self._last_error = ""

    async def run(self) -> None:
        """Deliver until cancelled. What the other side or the disk does never ends it; a defect of ours does."""
        async with self._integration:
            while True:
                try:
                    await self._work()
                except ReadingsErased:  # what is in memory is not what is on disk any more: take that up
                    continue
                except StoreFailed as error:  # nothing is sent that could not be frozen; what is on disk still holds
                    self._state, self._last_error = "retrying", error.message
                    self._logger.warning("the log cannot note what is sent: %s", error.message)
                    await self._sleep(_STORE_WAIT_S)

    async def _work(self) -> None:
        """Take up what is on disk, and go on from there."""
        thawed = await self._open()
        if thawed is not None:
            await self._deliver(thawed)
        while True:
            await self._wait_for_work()
            if self._log.last_row > self._reach and (batch := await self._next_batch()) is not None:
                await self._deliver(batch)
            if self._replay.is_due:
                await self._take_replay_turn()

    def replay(self) -> None:
        """Send again the dead letters whose replay was requested."""
        self._replay.wake()

    async def status(self) -> DestinationStatus:
        """Count what is still to be delivered, and say how it goes."""
        position = self._position
        undelivered, oldest_ms = await self._log.count_after(position, self._selection)
        if self._oldest_ms is not None and position == self._position:
            self._oldest_ms = oldest_ms  # the clock may have been set since it was noted
        dead_letters = (await self._log.dead_letters.counts()).get(self._config.name, 0)
        self._dead_letters.set(dead_letters)
        return DestinationStatus(
            name=self._config.name,
            type=self._config.type,
            state=self._state,
            position=self._position,
            undelivered=undelivered,
            oldest_seconds=self._seconds_since(oldest_ms),
            delivered=self._delivered,
            failures=self._failures,
            dead_letters=dead_letters,
            last_error=self._last_error,
            lost=await self._log.loss(self._config.name),
            dead_letters_lost=await self._log.dead_letters.loss(self._config.name),
        )

    # What goes out next

    async def _open(self) -> Encoded | None:
        """Take up what is on disk; returns the batch that was under way."""
        name = self._config.name
        cursor = await self._log.open_cursor(name, start=self._config.start, selection=self._selection)
        provisional = [
            letter for letter in await self._log.dead_letters.provisional(name) if letter.reading.row > cursor.position
        ]
        self._position = self._reach = cursor.position
        self._provisional = len(provisional)
        self._at_fault = False
        self._parts.clear()
        if provisional:
            self._reach = provisional[-1].reading.row
            self._oldest_ms = provisional[0].reading.received_at_ms
            self._state, self._last_error = "error", provisional[-1].reason
        await self._replay.open()
        return await self._batches.thaw(cursor.attempt) if cursor.attempt else None

    async def _wait_for_work(self) -> None:
        """Wait until there are readings, or a replay is due."""
        if self._log.last_row > self._reach or self._replay.is_due:
            return
        if not self._provisional:
            self._state, self._oldest_ms = "idle", None
        await _first_of(self._log.wait_beyond(self._reach), self._wait_for_replay())

    async def _wait_for_replay(self) -> None:
        await self._replay.wait_wanted()
        while self._replay.waits_s:
            await self._sleep(self._replay.waits_s)

    async def _next_batch(self) -> Encoded | None:
        """Wait for the rate limit, then freeze what there is; None when that has been erased."""
        if self._rate.delay_s() > 0:
            first = await self._select(self._log.last_row, limit=1)
            if first.readings:
                self._note_oldest(first.readings[0].received_at_ms)
            await self._rate.ready()
        await self._batches.begin()
        until = self._log.last_row if self._parts.end is None else self._parts.end
        page = await self._select(until, limit=1 if self._at_fault else self._size.readings)
        rows = [reading.row for reading in page.readings]
        if (part := self._parts.cut(rows)) < len(rows):
            page = await self._select(rows[part - 1], limit=part)
        if page.readings:
            return await self._batches.freeze(self._reach, page)
        self._parts.passed(page.last_row, clean=False)
        if self._provisional:  # only a success may confirm them
            self._reach = page.last_row
        else:
            self._pass(page.last_row)
        if self._reach >= self._log.last_row and not self._selection.is_everything:
            await self._sleep(_LOOK_AGAIN_S)  # each commit wakes it, and its readings seldom want anything of it
        return None

    async def _select(self, until: int, *, limit: int) -> Page:
        """Read what is wanted of what comes next."""
        return await self._log.select(
            self._reach,
            until=max(until, self._reach),  # while a damaged log is salvaged, its last row is behind
            selection=self._selection,
            limit=limit,
            max_bytes=self._config.batch_max_bytes,
        )

    # Sending, and what follows from the answer

    async def _deliver(self, batch: Encoded) -> None:
        """Send until the destination has said what becomes of it."""
        self._note_oldest(batch.received_at_ms)
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda outcome: not isinstance(outcome, Ok | TooLarge | Rejected)),
            wait=self._backoff,
            sleep=self._wait_to_try_again,
            before_sleep=self._note_failure,
        )
        try:
            outcome: Outcome = await retrying(self._attempt, batch)
        except OutdatedTimes:
            return
        rows = batch.rows
        match outcome:
            case TooLarge() if len(rows) > 1:
                self._size.too_large(len(rows))
                self._logger.debug("a batch is halved: %s", outcome.reason, extra={"readings": len(rows)})
            case Rejected() if len(rows) > 1:
                self._parts.refused(rows, outcome.rows)
                self._logger.debug("a batch is split: %s", outcome.reason, extra={"readings": len(rows)})
            case TooLarge() | Rejected():
                await self._refused(batch, outcome)
            case _:
                self._size.accepted()
                self._parts.passed(batch.last_row, clean=True)
                self._delivered += len(rows)
                await self._succeeded(batch.last_row)

    async def _wait_to_try_again(self, seconds: float) -> None:
        """Wait, but not when the clock turns out to have been wrong: that may have been why it was refused."""
        await _first_of(self._sleep(seconds), self._log.wait_clock_learned(self._log.clock_learned))

    async def _attempt(self, batch: Encoded) -> Outcome:
        if not self._failures:
            self._state = "sending"
        outcome = await self._batches.send(batch)
        if isinstance(outcome, Gone):
            await self._end(outcome)
        return outcome

    async def _take_replay_turn(self) -> None:
        outcome = await self._replay.turn()
        if isinstance(outcome, Gone):
            await self._end(outcome)
        elif isinstance(outcome, Ok) and self._provisional:
            await self._succeeded(self._reach)

    async def _end(self, outcome: Gone) -> None:
        """Keep the place and send no more: it asked us not to come back."""
        self._failed(outcome, next_attempt_s=None)
        await asyncio.get_running_loop().create_future()

    async def _refused(self, batch: Encoded, outcome: TooLarge | Rejected) -> None:
        """Set one reading aside; the tenth in a row is too many."""
        name, reading = self._config.name, batch.batch.readings[0]
        if self._provisional + 1 < LONE_REJECTIONS:
            await self._log.dead_letters.set_aside(name, reading, outcome.reason, self._clock.now_ms())
            self._provisional += 1
            self._reach = batch.last_row
            self._parts.passed(batch.last_row, clean=False)
            self._failures += 1
            if not self._at_fault:
                self._state, self._last_error = "error", outcome.reason
                self._logger.warning(
                    "a reading was refused and is set aside: %s", outcome.reason, extra={"row": reading.row}
                )
            return
        await self._log.dead_letters.withdraw(name)
        self._provisional = 0
        self._reach = self._position
        self._parts.clear()
        self._at_fault = True
        words = f"{LONE_REJECTIONS} readings in a row were refused one by one, so nothing is dead-lettered"
        self._failed(Rejected(f"{words}: {outcome.reason}"), next_attempt_s=LONGEST_WAIT_S)
        await self._sleep(LONGEST_WAIT_S)

    async def _succeeded(self, row: int) -> None:
        """Move the cursor, which confirms what was refused before, and leave the error behind."""
        self._pass(row)
        if self._provisional:
            self._logger.warning(
                "refused readings are dead letters now; see: neurogate buffer dead-letters",
                extra={"readings": self._provisional, "reason": self._last_error},
            )
        if self._failing_since_ms is not None:
            down_s = (self._clock.monotonic_ms() - self._failing_since_ms) / 1000
            waiting, _ = await self._log.count_after(row, self._selection)
            self._logger.info("delivery works again", extra={"down_s": round(down_s, 1), "undelivered": waiting})
        self._provisional = self._failures = 0
        self._at_fault = False
        self._failing_since_ms = None
        self._last_error = ""

    def _pass(self, row: int) -> None:
        self._log.move_cursor(self._config.name, row)
        self._position = self._reach = row

    def _note_failure(self, retry_state: RetryCallState) -> None:
        assert retry_state.outcome is not None
        self._failed(retry_state.outcome.result(), next_attempt_s=round(retry_state.upcoming_sleep, 1))

    def _failed(self, outcome: Outcome, *, next_attempt_s: float | None) -> None:
        """Remember a failure, and log it unless it only goes on; without a next attempt it is for good."""
        assert not isinstance(outcome, Ok)
        goes_on = self._failing_since_ms is not None
        before = self._state
        self._state = "retrying" if isinstance(outcome, NotConnected | RetryAfter) else "error"
        if not goes_on:
            self._failing_since_ms = self._clock.monotonic_ms()
        self._failures += 1
        self._last_error = outcome.reason
        self._logger.log(
            logging.DEBUG if goes_on and self._state == before else logging.WARNING,
            "delivery failed: %s",
            outcome.reason,
            extra={"outcome": OUTCOME_LABELS[type(outcome)], "next_attempt_s": next_attempt_s},
        )

    def _note_oldest(self, received_at_ms: int) -> None:
        if not self._provisional:  # else the first of those is the oldest
            self._oldest_ms = received_at_ms

    def _oldest_seconds(self) -> float:
        return self._seconds_since(self._oldest_ms)

    def _seconds_since(self, unix_ms: int | None) -> float:
        return 0.0 if unix_ms is None else max(0.0, (self._clock.now_ms() - unix_ms) / 1000)


async def _first_of(*waits: Awaitable[None]) -> None:
    """Return when one of them has; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
