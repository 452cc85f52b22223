"""The log between its model and a disk, a clock and room of ours: does one thing, waits until all is quiet, compares.

What is done, and in which order, is up to `test_log_model.py`.
"""

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import note
from hypothesis.stateful import RuleBasedStateMachine

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed, StoreFull
from gateway.model.reading import NewReading, StoredReading, TimeSource
from gateway.storage import append as append_module
from gateway.storage import bounds as bounds_module
from gateway.storage import log as log_module
from gateway.storage import reclaim as reclaim_module
from gateway.storage import space as space_module
from gateway.storage.cursors import Attempt, Cursor
from gateway.storage.log import Log
from gateway.storage.space import Pages
from tests.storage.log_model import (
    CLOCK_STEP_MS,
    DEDUPE_WINDOW_MS,
    HIGH_WATER_ROWS,
    LOW_WATER_ROWS,
    Entry,
    Frozen,
    LogModel,
    Reader,
)
from tests.storage.tampered_disk import Disk, Files, Plan, PowerCut, State

T = TypeVar("T")

_PATIENCE_S = 20.0
_MEMORY = Path("/dev/shm")  # what a power cut leaves is our own doing, so no disk need be waited for
_COUNTED = 1
_SOURCES = {"g": TimeSource.GATEWAY, "c": TimeSource.CORRECTED}
_ROW_BYTES = space_module.LOW_WATER_BYTES // LOW_WATER_ROWS  # what a row counts for, so that few rows fill the store


@dataclass(slots=True)
class Sent:
    """A message on its way into the log."""

    entries: list[Entry]
    was_full: bool
    task: asyncio.Task[None]


@dataclass(slots=True)
class Freezing:
    """An attempt on its way to the disk."""

    frozen: Frozen
    task: asyncio.Task[bool]


class LogUnderTest(RuleBasedStateMachine):
    """One log, over all its restarts; its disk, its clock and the room it has are ours."""

    model: LogModel
    log: Log
    disk: Disk
    folder: Path
    settings: StorageSettings

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.tmp = tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.exists() else None)
        self.folders = iter(range(sys.maxsize))
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.clock = ManualClock(synced=False)
        self.complaints: list[str] = []
        self.hangs = False
        self.sent: list[Sent] = []
        self.freezing: dict[str, Freezing] = {}
        self.dropping: list[asyncio.Task[Any]] = []
        self.given_up: set[str] = set()
        """Attempts that were acknowledged, or whose reader is gone."""
        self.ever: list[NewReading] = []
        self.number = 0
        self.faults = 0

    def teardown(self) -> None:
        self.disk.go_on()
        with contextlib.suppress(TimeoutError, StoreFailed):
            self._run(self._abandon())
        self.runner.close()
        self.patches.undo()
        self.tmp.cleanup()

    def _patch(self) -> None:
        patch = self.patches.setattr
        patch(log_module, "_MOVE_FLUSH_S", 3600.0)  # a second passes when we say so
        patch(log_module, "_COMMIT_BYTES", 60)
        patch(log_module, "WAL_PAGES", 12)
        patch(log_module, "_METADATA_IN_MEMORY", 1)
        patch(log_module, "_STREAMS_IN_MEMORY", 2)
        patch(bounds_module, "_ROWS_PER_STEP", 2)
        patch(bounds_module, "_ROWS_PER_STEP_AT_MOST", 3)
        patch(space_module, "BALLAST_BYTES", 4096)
        patch(append_module, "read_pages", _count_rows)
        patch(reclaim_module, "read_pages", _count_rows)
        patch(space_module.Space, "room_bytes", lambda _, pages: (self.model.capacity - pages.live_bytes) * _ROW_BYTES)
        patch(bounds_module, "_SHRINK_FROM_BYTES", 0)
        connect = log_module._connect

        def tamper(path: Path, settings: StorageSettings) -> Disk:
            return Disk(connect(path, settings), path.parent)

        patch(log_module, "_connect", tamper)

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        async def within_bounds() -> T:
            asyncio.get_running_loop().set_exception_handler(lambda _, about: self.complaints.append(str(about)))
            async with asyncio.timeout(_PATIENCE_S):
                return await what

        return self.runner.run(within_bounds())

    def _new_folder(self) -> Path:
        folder = Path(self.tmp.name) / str(next(self.folders))
        folder.mkdir()
        return folder

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

    async def _open(self) -> None:
        log = Log.create(
            self.folder / "log.db",
            self.settings,
            dedupe_window_ms=DEDUPE_WINDOW_MS,
            clock=self.clock,
            metrics=Metrics(),
        )
        self.log = await self.stack.enter_async_context(log)
        self.disk = cast("Disk", self.log._files._db)

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
        is_known = self.log.bounds._pages.page_bytes == _COUNTED  # not before the first commit after a start
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

    # Until nothing happens any more

    async def _settle(self) -> None:
        """Wait until the log has done what it was asked, and compare; while the disk hangs, that is nothing."""
        if self.hangs:
            for _ in range(5):
                await asyncio.sleep(0)
            return
        await self._be_quiet()
        self.model.disturbed = self.disk.faults > self.faults
        self.model.follow(self.disk.take_history(), self._outcomes())
        self._check_freezes()
        self._check_full()
        await self._check_attempts()
        await self._check_figures()
        self.model.tightest = self.model.capacity
        self.model.retains_before_ms = None
        self.model.disturbed = False
        self.faults = self.disk.faults

    async def _be_quiet(self) -> None:
        for _ in range(1_000):
            done = self._barrier()
            await done
            for _ in range(3):
                await asyncio.sleep(0)
            log = self.log
            if not (log._committing or log._entries or log._freezes or log._due or log.bounds._making_room):
                break
        else:
            raise AssertionError("the log is never done")
        await asyncio.sleep(0)
        assert not self.complaints, self.complaints

    def _barrier(self) -> asyncio.Future[None]:
        """Return what is done when the writing thread has done what it has to do now."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self.log._files.writer._jobs.put(partial(loop.call_soon_threadsafe, done.set_result, None))  # type: ignore[arg-type]
        return done

    def _outcomes(self) -> list[Entry]:
        """Return what was acknowledged; whatever was not must have its reason."""
        acknowledged: list[Entry] = []
        disturbed = self.disk.faults > self.faults
        for sent in self.sent:
            assert sent.task.done(), "neither acknowledged nor refused"
            match sent.task.exception():
                case None:
                    acknowledged += sent.entries
                case StoreFull():
                    assert sent.was_full, "refused for want of room, but the store was not full"
                case StoreFailed():
                    assert disturbed, "refused for no reason"
                case error:
                    raise AssertionError(error)
        for drop in self.dropping:
            assert drop.exception() is None or disturbed
        self.sent, self.dropping = [], []
        return acknowledged

    def _check_freezes(self) -> None:
        for name, freezing in self.freezing.items():
            attempt = freezing.frozen.attempt
            assert freezing.task.done(), "neither frozen nor refused"
            if freezing.task.exception() is not None:
                assert self.model.disturbed, "not frozen for no reason"
            elif freezing.task.result():
                assert self.model.state.cursors[name].attempt == attempt, "frozen, but not on disk"
                self.model.readers[name].batch = attempt.batch_id
            else:
                there = [row for row in self.model.state.rows if attempt.after_row < row <= attempt.last_row]
                assert len(there) != attempt.readings, "not frozen, though all of it is there"
        self.freezing = {}

    def _check_full(self) -> None:
        is_full = self.log.bounds.full is not None
        if is_full and not self.model.was_full and not self.model.disturbed:
            assert self.model.tightest - len(self.model.state.rows) < HIGH_WATER_ROWS, "full, though there is room"
            if self.model.room < LOW_WATER_ROWS:  # otherwise the next tick finds out
                assert not self.model.may_leave(), "full, though rows may leave"
        self.model.was_full = is_full

    async def _check_attempts(self) -> None:
        """An attempt is made of the same readings whenever it is read again."""
        for reader in self.model.readers.values():
            if not reader.batch:
                continue
            attempt = self.model.attempts[reader.batch].attempt
            frozen = self.model.thaws(attempt)
            if frozen is None:
                assert reader.batch in self.given_up, "rows of an attempt under way have left"
                continue
            epochs = {int(boot): epoch for boot, epoch in json.loads(attempt.epochs).items()}
            again = await self.log.read(
                attempt.after_row, until=attempt.last_row, limit=attempt.readings, max_bytes=sys.maxsize, epochs=epochs
            )
            assert again == frozen.readings, "an attempt has changed"

    async def _check_figures(self) -> None:
        rows = self.model.state.rows
        buffer = await self.log.buffer()
        assert (buffer.readings, buffer.quarantined) == (len(rows), len(self.model.state.quarantine))
        assert max(rows, default=0) <= self.log.last_row <= self.model.newest
        for name, lost in self.model.lost.items():
            loss = await self.log.loss(name)
            assert (loss.readings if loss else 0) == len(lost)
        for name, reader in self.model.readers.items():
            if self.log._moves.get(name, self.model.state.cursors[name].position) != reader.position:
                raise AssertionError(f"the move of {name} to {reader.position} is forgotten")

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

    async def _abandon(self) -> None:
        """What a dead process does no longer: it may write to files that nobody will read."""
        self.disk.fail_at(0, "io")
        with contextlib.suppress(StoreFailed):
            await self.stack.aclose()
        tasks = [sent.task for sent in self.sent] + [freezing.task for freezing in self.freezing.values()]
        await asyncio.gather(*tasks, *self.dropping, return_exceptions=True)

    def _forget(self) -> None:
        self.sent, self.freezing, self.dropping = [], {}, []

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


def _count_rows(db: sqlite3.Connection) -> Pages:
    """Stand in for `read_pages`: a row is a page of one byte, and enough is free for every tick to give some back."""
    (rows,) = db.execute("SELECT count(*) FROM device_telemetry_history").fetchone()
    return Pages(_COUNTED, 2 * rows + 1, rows + 1)
