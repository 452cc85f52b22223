"""What can be done to the log under test, one thing at a time: each waits until all is quiet and compares.

In which order is up to `test_log_model.py`.
"""

import asyncio
import contextlib
import json
import sqlite3
from itertools import takewhile
from pathlib import Path
from typing import cast

from hypothesis import note

from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading, StoredReading, TimeSource
from gateway.storage.cursors import Attempt, Cursor
from tests.storage.log_at_rest import COUNTED, Freezing, LogAtRest, Sent
from tests.storage.log_model import (
    CLOCK_STEP_MS,
    HIGH_WATER_ROWS,
    LOW_WATER_ROWS,
    Entry,
    Frozen,
    Reader,
)
from tests.storage.tampered_disk import Files, Plan, PowerCut, State

_SOURCES = {"g": TimeSource.GATEWAY, "c": TimeSource.CORRECTED}


class LogUnderTest(LogAtRest):
    """What one can do to a log; each ends when the log is at rest, and is as the model says."""

    def _readings(self, message: str) -> list[Entry]:
        return [self._reading(words) for words in message.split()]

    def _reading(self, words: str) -> NewReading:
        self.number += 1
        seq = int("".join(filter(str.isdigit, words)) or -1)
        device, boot = words[0].lower(), "b1" if words[0].islower() else "b2"
        source = _SOURCES.get(words[-1], TimeSource.DEVICE)
        now = self.clock.now_ms()
        reading = NewReading(
            stream=self.log.stream("o", device, boot if seq >= 0 else ""),
            seq=seq if seq >= 0 else None,
            time_ms=now - 500,
            time_source=source,
            received_at_ms=now,
            monotonic_ms=self.clock.monotonic_ms(),
            payload=b'{"n":%d}' % self.number,
            raw=b"n = %d" % self.number if words.endswith("r") else None,
            metadata=f'{{"room":"{words[-1]}"}}' if words[-1] in "mn" else None,
        )
        self.ever.append(reading)
        return reading

    async def _send(self, entries: list[Entry]) -> None:
        places = {name: reader.position for name, reader in self.model.readers.items()}
        sent = self._submit(entries)
        await asyncio.sleep(0)
        await self._settle()
        if sent.task.done() and sent.task.exception() is None and not self.hangs:
            for name, place in places.items():  # their moves rode along
                self.model.readers[name].on_disk = place

    async def _send_all(self, several: list[list[Entry]]) -> None:
        for entries in several:
            self._submit(entries)
        await asyncio.sleep(0)
        await self._settle()

    def _submit(self, entries: list[Entry]) -> Sent:
        sent = Sent(entries, self.log.bounds.full is not None, asyncio.create_task(self.log.append(entries)))
        self.sent.append(sent)
        return sent

    async def _send_until(self, plan: Plan, entries: list[Entry]) -> bool:
        """Send until the power goes; False when it did not, as the log had less to do."""
        self._submit(entries)
        await asyncio.sleep(0)
        await self._be_quiet()
        states = self.disk.take_history()
        if plan.left is None:
            self.disk.history = states
            await self._settle()
            return False
        acknowledged = self._outcomes()
        await self._abandon()
        left = self._new_folder()
        plan.left.write(left)
        found = await asyncio.to_thread(self._look_into, plan.left)
        before = states[plan.before - 1] if plan.before else self.model.state
        survived = plan.before + (found != before)
        assert found in (before, states[plan.before]), f"half a commit: {found}"
        assert plan.when is not PowerCut.AFTER_COMMIT or found == states[plan.before], "a commit is gone"
        note(f"{survived} of {len(states)} transactions survived")
        self.model.disturbed = self.disk.faults > self.faults
        self.model.follow(states[:survived], acknowledged if survived else [])
        self._forget()
        await self._start(left, reboot=True)
        return True

    async def _open_reader(self, name: str, start: str) -> None:
        self.log.bounds.readers.setdefault(name, 0)
        stored = self.model.state.cursors.get(name)
        try:
            cursor = await self.log.open_cursor(name, start=start)
        except StoreFailed:
            self.log.bounds.readers.pop(name, None)
            assert self.disk.faults > self.faults, "for no reason"
        else:
            known = self.model.readers.get(name)
            self._check_opened(cursor, stored, known, start)
            if known is None:
                reader = self.model.readers[name] = Reader(cursor.position, cursor.position, {cursor.position})
                reader.batch = cursor.attempt.batch_id if cursor.attempt else ""
        await self._settle()

    def _check_opened(self, cursor: Cursor, stored: Cursor | None, known: Reader | None, start: str) -> None:
        if known is not None:
            assert cursor.position == known.position, f"{cursor} was at {known.position}"
            attempt = self.model.attempts[known.batch].attempt if known.batch else None
            assert cursor.attempt == attempt
        elif stored is not None:
            assert cursor == stored
        elif start == "oldest":
            assert cursor == Cursor(cursor.name, 0, None)
        else:
            assert max(self.model.state.rows, default=0) <= cursor.position <= self.model.newest
            assert cursor.attempt is None

    async def _freeze(self, name: str, limit: int) -> None:
        reader = self.model.readers[name]
        readings = await self._read(reader.position, limit)
        if not readings:
            return
        self.number += 1
        epochs = {one.gateway_boot: one.epoch_ms for one in readings if one.epoch_ms is not None}
        attempt = Attempt(
            name,
            f"batch-{self.number}",
            reader.position,
            readings[-1].row,
            len(readings),
            "00",
            self.clock.now_ms(),
            json.dumps(epochs),
        )
        frozen = self.model.attempts[attempt.batch_id] = Frozen(attempt, readings)
        self.freezing[name] = Freezing(frozen, asyncio.create_task(self.log.freeze(attempt)))
        await asyncio.sleep(0)
        await self._settle()

    async def _drop(self, name: str) -> None:
        self.dropping.append(asyncio.create_task(self.log.drop_cursor(name)))
        await asyncio.sleep(0)
        await self._settle()

    async def _read(self, after: int, limit: int, *, until: int = 2**60, max_bytes: int = 2**60) -> list[StoredReading]:
        found = await self.log.read(after, until=until, limit=limit, max_bytes=max_bytes)
        assert found == self.model.read(after, until, limit, max_bytes), "the log answers something else"
        return found

    async def _tick(self) -> None:
        model = self.model
        if self.clock.synced:
            before = self.clock.now_ms() - model.retention_ms
            model.retains_before_ms = max(before, model.retains_before_ms or before)
        aged = set(takewhile(model.is_old, sorted(model.passed())))
        is_known = self.log.bounds._pages.page_bytes == COUNTED  # not before the first commit after a start
        had_room = (model.room >= LOW_WATER_ROWS or not is_known) and self.log.bounds.full is None
        faults = self.disk.faults
        self.log.bounds.tick()
        await self._settle()
        if self.hangs or self.disk.faults > faults:
            return
        if had_room:
            assert not aged or aged - model.state.rows.keys(), "delivered long ago, and still there"
        else:
            assert model.room >= HIGH_WATER_ROWS or not model.may_leave(), "no room was made"
        if is_known and model.room >= HIGH_WATER_ROWS:
            assert self.log.bounds.full is None, "there is room, and nothing is taken in"

    async def _tick_and_hang(self, transactions: int) -> None:
        """Let the log look after itself, and the disk hang in the middle of that."""
        self.hangs = True
        self.disk.hang(transactions)
        await self._tick()
        while not self.disk.waits:
            done = self._barrier()
            while not (done.done() or self.disk.waits):  # noqa: ASYNC110 - it is another thread that waits
                await asyncio.sleep(0.001)
            await asyncio.sleep(0)
            if not (self.disk.waits or self.log.bounds._making_room):
                break
        self.disk.hang()
        self.model.follow(self.disk.take_history(), [])

    async def _flush(self) -> None:
        if self.log._flush_due is not None:
            self.log._flush_due.cancel()
            self.log._flush_moves()
        faults = self.disk.faults
        await self._settle()
        if not self.hangs and self.disk.faults == faults:
            for reader in self.model.readers.values():
                reader.on_disk = reader.position

    async def _learn_clock(self) -> None:
        faults = self.disk.faults
        try:
            await self.log.learn_clock()
        except StoreFailed:
            assert self.disk.faults > faults, "for no reason"
        before = self.model.state.epochs[self.model.boot]
        await self._settle()
        now = self.model.state.epochs[self.model.boot]
        if not self.clock.synced:
            assert now == before, "a clock that is not synchronised is believed"
        elif self.disk.faults == faults:
            assert now is not None
            assert abs(now - (self.clock.now_ms() - self.clock.monotonic_ms())) < CLOCK_STEP_MS

    # Stops

    def _look_into(self, files: Files) -> State:
        folder = self._new_folder()
        files.write(folder)
        with contextlib.closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return State.of(db)

    def _let_go_on(self) -> None:
        self.hangs = False
        self.disk.go_on()

    async def _close(self) -> None:
        faults = self.disk.faults
        await self.log._drain()  # as leaving does; room that is then made would end at any moment
        await self._be_quiet()
        await self.stack.aclose()
        for _ in range(3):
            await asyncio.sleep(0)
        self.model.disturbed = self.disk.faults > faults
        self.model.follow(self.disk.take_history(), self._outcomes())
        if not self.model.disturbed:
            for reader in self.model.readers.values():
                reader.on_disk = reader.position

    def _kill(self, left: Files, *, reboot: bool) -> None:
        folder = self._new_folder()
        left.write(folder)
        self._let_go_on()
        self._run(self._abandon())
        self._forget()
        self._restart(folder, reboot=reboot)

    def _restart(self, folder: Path, *, reboot: bool) -> None:
        self._run(self._start(folder, reboot=reboot))

    async def _start(self, folder: Path, *, reboot: bool) -> None:
        self.folder = folder
        if reboot:
            self.clock.monotonic = 0
            self.clock.synced = False
        self.model.tightest, self.model.disturbed, self.model.retains_before_ms = self.model.capacity, False, None
        await self._open()
        self.faults, self.model.was_full, self.hangs = 0, False, False
        self.model.restart(State.of(cast("sqlite3.Connection", self.disk)), self.log._gateway_boot)
        for name, reader in self.model.readers.items():
            self.log.bounds.readers[name] = 0
            cursor = await self.log.open_cursor(name, start="now")
            attempt = self.model.attempts[reader.batch].attempt if reader.batch else None
            assert cursor == Cursor(name, reader.position, attempt), "a reader does not go on where it was"
        await self._settle()
