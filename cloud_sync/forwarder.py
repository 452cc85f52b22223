"""Delivers the log to one destination, in order and at least once; repeats are known by their id.

Promises
- The cursor moves only on the destination's own acknowledgement; whatever fails, it keeps its place.
- One batch is in flight. It is frozen on disk before its first byte leaves, so a retry is the same batch with
  the same id and bytes, also after a restart. A batch that cannot be made again (readings were erased, or a
  new release writes them differently) is replaced by a new one with a new id; so is one that has certainly not
  arrived, when the clock was set meanwhile.
- Forwarders share nothing: a dead or hanging destination delays no other.
- One bad record blocks nothing. A refused batch is split until the culprit is alone; that one goes to the dead
  letters. A wrong address is not a bad record: ten lone rejections in a row dead-letter nothing, unless the
  destination is known to work (`Rejected.is_certain`).

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

Newest first: when more than one batch is to be caught up with, and its first reading is old, all that there is becomes
a backlog with a cursor of its own, in one commit (`_split`). What comes from then on goes first; whenever nothing of it
is left, the backlog has a turn of one batch, so neither waits for ever. Each is in order, no reading is in both, and
one batch is in flight all the same. While there is a backlog there is no second one. A success in either confirms what
was refused in both. When the setting is oldest first again, a backlog that is still there goes first until it ends.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from cloud_sync.backoff import LONGEST_WAIT_S, Backoff
from cloud_sync.changes import Changes
from cloud_sync.contract import (
    Forwards,
    Gone,
    IntegrationConfig,
    Ok,
    Outcome,
    Rejected,
    TooLarge,
)
from cloud_sync.frozen_batches import FrozenBatches, OutdatedTimes
from cloud_sync.health import Health
from cloud_sync.log_range import LogRange
from cloud_sync.rate_limit import RateLimit
from cloud_sync.replay import Replay
from cloud_sync.sender import Encoded, ReadingsErased, Sender
from cloud_sync.splitting import BatchSize
from cloud_sync.standing import Standing
from gateway.clock import Clock
from gateway.first_of import first_of
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.status import DestinationStatus
from gateway.storage.cursors import Cursor, backlog_of
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
        health: Health | None = None,
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
        self.health = health or Health(config.name, clock, metrics)
        self._sender = Sender(
            config.name,
            integration,
            self._rate,
            clock,
            metrics,
            gateway_id=gateway_id,
            log_uuid=log.uuid,
            health=self.health,
        )
        self._selection = config.selection
        self._replay = Replay(config, log.dead_letters, self._sender, self._backoff, clock, self._logger)
        self._dead_letters = metrics.dead_letters.labels(config.name)
        metrics.buffer_oldest.labels(config.name).set_function(self._oldest_seconds)

        self._live = self._range(Cursor(config.name, 0, None))
        self._backlog: LogRange | None = None
        self._is_backlogs_turn = False
        self._provisional = 0
        self._at_fault = False
        self._size = BatchSize(config.batch_max_readings)
        self._standing = Standing(config.name, clock, metrics, self._logger)
        self._delivered = 0

    async def run(self) -> None:
        """Enter the integration and deliver, until cancelled."""
        async with self._integration:
            await self.deliver()

    async def deliver(self) -> None:
        """Deliver until cancelled, while somebody else has entered the integration.

        What the other side or the disk does never ends it; a defect of ours does.
        """
        while True:
            try:
                await self._work()
            except ReadingsErased:  # what is in memory is not what is on disk any more: take that up
                continue
            except StoreFailed as error:  # nothing is sent that could not be frozen; what is on disk still holds
                self._standing.err("retrying", error.message)
                self._logger.warning("the log cannot note what is sent: %s", error.message)
                await self._sleep(_STORE_WAIT_S)

    async def _work(self) -> None:
        """Take up what is on disk, and go on from there."""
        for part, batch in await self._open():
            if not self._at_fault:  # else everything is taken up from its place, and this began behind that
                await self._deliver(part, batch)
        while True:
            await self._wait_for_work()
            if (next_part := self._next_range()) is not None:
                next_batch = await self._next_batch(next_part)
                if next_batch is not None:
                    await self._deliver(next_part, next_batch)
            if self._replay.is_due:
                await self._take_replay_turn()

    def replay(self) -> None:
        """Send again the dead letters whose replay was requested."""
        self._replay.wake()

    def forget(self) -> None:
        """Let go of its logger, which would stay for ever; for one that has ended."""
        logging.Logger.manager.loggerDict.pop(self._logger.name, None)

    @property
    def error(self) -> str:
        """What its owner must mend; empty when nothing."""
        return self._standing.last_error if self._standing.state == "error" else ""

    async def status(self) -> DestinationStatus:
        """Count what is still to be delivered, and say how it goes."""
        parts = self._ranges
        counts = [await self._count(part) for part in parts]
        oldest_ms = next((oldest for undelivered, oldest in counts if undelivered), None)
        dead_letters = (await self._log.dead_letters.counts()).get(self._config.name, 0)
        self._dead_letters.set(dead_letters)
        return DestinationStatus(
            name=self._config.name,
            type=self._config.type,
            state=self._standing.state,
            position=parts[0].position,
            undelivered=sum(undelivered for undelivered, _ in counts),
            delivery=self._standing.delivery,
            next_attempt_s=self._standing.next_attempt_s,
            backlog=counts[0][0] if len(parts) > 1 else 0,
            oldest_seconds=self._seconds_since(oldest_ms),
            delivered=self._delivered,
            failures=self._standing.failures,
            dead_letters=dead_letters,
            last_error=self._standing.last_error,
            lost=await self._log.loss(self._config.name),
            dead_letters_lost=await self._log.dead_letters.loss(self._config.name),
            health=self.health.figures(),
        )

    async def _count(self, part: LogRange) -> tuple[int, int | None]:
        """Return how much of that is still to be delivered, and when the first of it was received."""
        position = part.position
        # What is beyond comes first: it grows meanwhile, and the rest of a range does not.
        beyond = 0 if part.until is None else (await self._log.count_after(part.until, self._selection))[0]
        undelivered, oldest_ms = await self._log.count_after(position, self._selection)
        undelivered -= beyond
        if part.until is not None:
            undelivered = min(undelivered, part.until - position)
        if part.oldest_ms is not None and position == part.position:
            part.oldest_ms = oldest_ms  # the clock may have been set since it was noted
        return undelivered, oldest_ms

    # What goes out next

    @property
    def _ranges(self) -> list[LogRange]:
        """What it is still to get, the oldest first."""
        return [self._live] if self._backlog is None else [self._backlog, self._live]

    def _range(self, cursor: Cursor) -> LogRange:
        batches = FrozenBatches(
            cursor.name,
            self._selection,
            self._log,
            self._sender,
            self._clock,
            self._logger,
            min_interval_s=self._config.min_interval_s,
        )
        return LogRange(cursor, self._log, self._selection, self._new_changes(), batches)

    def _new_changes(self) -> Changes | None:
        report, events = self._config.report, frozenset(self._config.events)
        if not (report.on_change or events):
            return None
        return Changes(report.dead_band, report.heartbeat_s * 1000 if report.on_change else inf, events)

    async def _open(self) -> list[tuple[LogRange, Encoded]]:
        """Take up what is on disk; returns the batches that were under way."""
        name = self._config.name
        cursor = await self._log.open_cursor(name, start=self._config.start, selection=self._selection)
        backlog = await self._log.open_backlog(name)
        self._live = self._range(cursor)
        self._backlog = None if backlog is None else self._range(backlog)
        self._is_backlogs_turn = False
        self._provisional = 0
        self._at_fault = False
        for letter in await self._log.dead_letters.provisional(name):
            part = next(one for one in self._ranges if letter.reading.row <= (one.until or letter.reading.row))
            if letter.reading.row > part.position:
                part.note_oldest(letter.reading)
                part.reach = letter.reading.row
                self._provisional += 1
                self._standing.err("error", letter.reason)
        await self._replay.open()
        cursors = [cursor] if backlog is None else [backlog, cursor]
        thawed = [(part, await part.thaw(one)) for part, one in zip(self._ranges, cursors, strict=True)]
        await self._end_backlog()
        return [(part, batch) for part, batch in thawed if batch is not None]

    def _next_range(self) -> LogRange | None:
        """Return where the next batch comes from; None when nothing waits."""
        waiting = [part for part in self._ranges if part.has_more]
        if len(waiting) > 1 and self._config.catch_up == "newest_first" and not self._is_backlogs_turn:
            return self._live
        return waiting[0] if waiting else None

    async def _wait_for_work(self) -> None:
        """Wait until there are readings, or a replay is due."""
        if self._next_range() is not None or self._replay.is_due:
            return
        if not self._provisional and self._backlog is None:
            self._standing.state, self._live.oldest_ms = "idle", None
        beyond = min(part.reach for part in self._ranges if not part.is_read)
        await first_of(self._log.wait_beyond(beyond), self._wait_for_replay())

    async def _wait_for_replay(self) -> None:
        await self._replay.wait_wanted()
        while self._replay.waits_s:
            await self._sleep(self._replay.waits_s)

    async def _next_batch(self, part: LogRange) -> Encoded | None:
        """Wait for the rate limit, then freeze what there is; None when nothing of it is wanted, or it was erased."""
        max_bytes = self._config.batch_max_bytes
        if self._rate.delay_s() > 0:
            first = await part.select(limit=1, max_bytes=max_bytes)
            if first.readings:
                part.note_oldest(first.readings[0])
            await self._rate.ready()
        await part.batches.begin()
        end, limit = part.end, self._size.readings
        if self._at_fault and part.changes is None:
            limit = 1
        page = await part.select(limit=limit, max_bytes=max_bytes, until=part.parts.end)
        if page.last_row < end and self._may_split(part, page):
            await self._split(part, end, page)
            return None
        rows = [reading.row for reading in page.readings]
        first_rows = min(part.parts.cut(rows), 1 if self._at_fault else len(rows))
        if first_rows < len(rows):
            page = await part.select(limit=self._size.readings, max_bytes=max_bytes, until=rows[first_rows - 1])
        self._is_backlogs_turn = part is self._live and page.last_row >= end
        if page.readings:
            return await part.batches.freeze(part.reach, page)
        await self._leave_out(part, page.last_row)
        return None

    async def _leave_out(self, part: LogRange, row: int) -> None:
        """Go on behind rows of which nothing is wanted."""
        part.parts.passed(row, clean=False)
        if self._provisional:  # only a success may confirm them
            part.reach = row
        else:
            part.pass_over(row)
            await self._end_backlog()
        if self._next_range() is None:
            await self._sleep(_LOOK_AGAIN_S)  # each commit wakes it, and its readings seldom want anything of it

    def _may_split(self, part: LogRange, page: Page) -> bool:
        """Whether what has waited long may be overtaken by what comes now."""
        return (
            self._config.catch_up == "newest_first"
            and self._backlog is None
            and not self._provisional
            and not self._at_fault
            and part.parts.end is None
            and bool(page.readings)
            and part.batches.is_old(page.readings[0])
        )

    async def _split(self, part: LogRange, at: int, page: Page) -> None:
        """Make a backlog of everything up to row `at`. Nothing is under way; what was frozen has had its answer."""
        await self._log.split_cursor(part.cursor, at)
        self._backlog = self._range(Cursor(backlog_of(part.cursor), part.position, None, at))
        self._backlog.note_oldest(page.readings[0])
        self._backlog.changes, part.changes = part.changes, self._new_changes()
        part.position = part.reach = at
        part.oldest_ms = None
        self._is_backlogs_turn = False
        self._logger.info("a backlog is delivered beside what comes now", extra={"last_row": at})

    async def _end_backlog(self) -> None:
        """Forget the backlog, if all of it is dealt with."""
        if self._backlog is not None and self._backlog.until == self._backlog.position:
            await self._log.end_backlog(self._config.name)
            self._backlog = None

    # Sending, and what follows from the answer

    async def _deliver(self, part: LogRange, batch: Encoded) -> None:
        """Send until the destination has said what becomes of it."""
        part.note_oldest(batch.batch.readings[0])
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda outcome: not isinstance(outcome, Ok | TooLarge | Rejected)),
            wait=self._backoff,
            sleep=self._wait_to_try_again,
            before_sleep=self._note_failure,
        )
        try:
            outcome: Outcome = await retrying(self._attempt, part, batch)
        except OutdatedTimes:
            return
        rows = batch.rows
        match outcome:
            case TooLarge() if len(rows) > 1:
                self._size.too_large(len(rows))
                self._logger.debug("a batch is halved: %s", outcome.reason, extra={"readings": len(rows)})
            case Rejected() if len(rows) > 1:
                part.parts.refused(rows, outcome.rows)
                self._logger.debug("a batch is split: %s", outcome.reason, extra={"readings": len(rows)})
            case TooLarge() | Rejected():
                await self._refused(part, batch, outcome)
            case _:
                self._size.accepted()
                part.parts.passed(batch.last_row, clean=True)
                self._delivered += len(rows)
                part.reach = batch.last_row
                if part.changes is not None:
                    part.changes.sent(batch.batch.readings)
                await self._succeeded()

    async def _wait_to_try_again(self, seconds: float) -> None:
        """Wait, but not when the clock turns out to have been wrong: that may have been why it was refused."""
        await first_of(self._sleep(seconds), self._log.wait_clock_learned(self._log.clock_learned))

    async def _attempt(self, part: LogRange, batch: Encoded) -> Outcome:
        self._standing.tries()
        try:
            outcome = await part.batches.send(batch)
        finally:
            self._standing.tried()
        if isinstance(outcome, Gone):
            await self._end(outcome)
        return outcome

    async def _take_replay_turn(self) -> None:
        outcome = await self._replay.turn()
        if isinstance(outcome, Gone):
            await self._end(outcome)
        elif isinstance(outcome, Ok) and self._provisional:
            await self._succeeded()

    async def _end(self, outcome: Gone) -> None:
        """Keep the place and send no more: it asked us not to come back."""
        self._standing.failed(outcome, next_attempt_s=None)
        await asyncio.get_running_loop().create_future()

    async def _refused(self, part: LogRange, batch: Encoded, outcome: TooLarge | Rejected) -> None:
        """Set one reading aside; the tenth in a row is too many, unless it is certain that it is the reading."""
        name, reading = self._config.name, batch.batch.readings[0]
        is_certain = isinstance(outcome, Rejected) and outcome.is_certain
        if is_certain or self._provisional + 1 < LONE_REJECTIONS:
            await self._log.dead_letters.set_aside(part.cursor, reading, outcome.reason, self._clock.now_ms())
            self._provisional += 1
            part.reach = reading.row  # what was left out behind it may have been so for its sake
            part.parts.passed(reading.row, clean=False)
            self._standing.failures += 1
            if not self._at_fault:
                self._standing.err("error", outcome.reason)
                self._logger.warning(
                    "a reading was refused and is set aside: %s", outcome.reason, extra={"row": reading.row}
                )
            if is_certain:  # as good as a success: the destination works
                await self._succeeded()
            return
        await self._log.dead_letters.withdraw(name)
        self._provisional = 0
        for one in self._ranges:
            one.withdraw()
        self._at_fault = True
        words = f"{LONE_REJECTIONS} readings in a row were refused one by one, so nothing is dead-lettered"
        self._standing.failed(Rejected(f"{words}: {outcome.reason}"), next_attempt_s=LONGEST_WAIT_S)
        await self._sleep(LONGEST_WAIT_S)

    async def _succeeded(self) -> None:
        """Move the cursors, which confirms what was refused before, and leave the error behind."""
        for part in self._ranges:  # in one commit
            part.pass_over(part.reach)
        await self._end_backlog()
        if self._provisional:
            self._logger.warning(
                "refused readings are dead letters now; see: neurogate buffer dead-letters",
                extra={"readings": self._provisional, "reason": self._standing.last_error},
            )
        if (down_s := self._standing.down_s) is not None:
            waiting = sum([(await self._count(part))[0] for part in self._ranges])
            self._logger.info("delivery works again", extra={"down_s": round(down_s, 1), "undelivered": waiting})
        self._provisional = 0
        self._at_fault = False
        self._standing.succeeded()

    def _note_failure(self, retry_state: RetryCallState) -> None:
        assert retry_state.outcome is not None
        self._standing.failed(retry_state.outcome.result(), next_attempt_s=round(retry_state.upcoming_sleep, 1))

    def _oldest_seconds(self) -> float:
        return max(self._seconds_since(part.oldest_ms) for part in self._ranges)

    def _seconds_since(self, unix_ms: int | None) -> float:
        return 0.0 if unix_ms is None else max(0.0, (self._clock.now_ms() - unix_ms) / 1000)
