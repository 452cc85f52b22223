"""The log's invariants: what is acknowledged is on disk, once, in order, and nothing else is acknowledged."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.storage.append import Append
from gateway.storage.commit_thread import CommitThread
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log, Owner
from tests.site import PATIENCE_S, FailingDisk, until
from tests.storage.repair.damaged import corrupt_files


def opened(folder: Path, **settings: Any) -> AbstractAsyncContextManager[Log]:
    return Log.create(
        folder / "log.db", StorageSettings(**settings), clock=ManualClock(), metrics=Metrics(), tell=lambda _: None
    )


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with opened(tmp_path) as log:
        yield log


def new(
    log: Log, seq: int | None = None, *, device: str = "kitchen", boot: str = "b", metadata: str | None = None
) -> NewReading:
    payload = b'{"device_id":"%s","sensors":{},"n":%d}' % (device.encode(), seq or 0)
    return NewReading(
        log.stream("default", device, boot), seq, 1000, TimeSource.DEVICE, 2000, 0, payload, None, metadata
    )


def unusable(number: int) -> NewQuarantine:
    return NewQuarantine("default", "kitchen", "http", "invalid_json", "why", 2000, b"%d" % number)


def attempt(destination: str, after_row: int, last_row: int) -> Attempt:
    return Attempt(destination, f"batch-{last_row}", after_row, last_row, last_row - after_row, "00" * 32, 5)


def query(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the file itself, as after a crash."""
    db = sqlite3.connect(folder / "log.db", isolation_level=None)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def seqs(folder: Path) -> list[int]:
    return [seq for (seq,) in query(folder, "SELECT seq FROM device_telemetry_history ORDER BY id")]


def positions(folder: Path) -> dict[str, int]:
    return dict(query(folder, "SELECT name, position FROM cursors"))


class Listener:
    """An owner that notes what it hears, and how many rows were on disk then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.committed_at: list[tuple[int, int]] = []
        self.errors: list[StoreFailed] = []

    def committed(self, count: int) -> None:
        self.committed_at.append((count, len(seqs(self._folder))))

    def failed(self, error: StoreFailed) -> None:
        self.errors.append(error)

    @property
    def acknowledged(self) -> int:
        return sum(count for count, _ in self.committed_at)


class Commits:
    """Every transaction of readings, and a gate that holds the thread before the next one."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    commits = Commits()
    real = CommitThread._attempt

    def attempt(thread: CommitThread, transaction: Any) -> Exception | None:
        commits.waiting.set()
        assert commits.gate.wait(PATIENCE_S)
        if hasattr(transaction, "entries"):
            commits.sizes.append(len(transaction.entries))
        return real(thread, transaction)

    monkeypatch.setattr(CommitThread, "_attempt", attempt)
    return commits


# Ids and keys


async def test_an_id_is_never_given_again_even_after_the_newest_rows_are_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append([new(log, seq) for seq in range(5)])
        assert log.last_row == 5
    query(tmp_path, "DELETE FROM device_telemetry_history WHERE id > 2")
    async with opened(tmp_path) as log:
        await log.append([new(log, 10)])
        assert log.last_row == 6
    query(tmp_path, "DELETE FROM device_telemetry_history")
    async with opened(tmp_path) as log:
        await log.append([new(log, 11)])
        assert log.last_row == 7


async def test_a_key_is_stored_once_and_its_repeats_are_acknowledged(log: Log, tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    for entry in (new(log, 1), new(log, 1), new(log, 1, boot="c"), new(log, 1, device="hall"), new(log, 1)):
        log.submit(entry, listener)
    await until(lambda: listener.acknowledged == 5)
    await log.append([new(log, 1)])
    assert (log.stored, log.duplicates, len(seqs(tmp_path))) == (3, 3, 3)


async def test_a_repeat_after_a_restart_is_a_repeat(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(tmp_path) as log:
            await log.append([new(log, 1, metadata='{"a":1}')])
    assert seqs(tmp_path) == [1]
    assert query(tmp_path, "SELECT count(*) FROM streams") == [(1,)]
    assert query(tmp_path, "SELECT count(*) FROM device_metadata") == [(1,)]


async def test_the_log_keeps_its_identity_and_counts_its_boots(tmp_path: Path) -> None:
    uuids = set()
    for boot in (1, 2):
        async with opened(tmp_path) as log:
            await log.append([new(log, boot)])
            uuids.add(log.uuid)
    assert len(uuids) == 1
    assert query(tmp_path, "SELECT gateway_boot FROM device_telemetry_history") == [(1,), (2,)]


# Acknowledging


async def test_p1_an_owner_hears_when_its_messages_are_on_disk(log: Log, tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    for seq in range(50):
        log.submit(new(log, seq), listener)
        if seq % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: listener.acknowledged == 50)
    heard = 0
    for count, on_disk in listener.committed_at:
        heard += count
        assert heard <= on_disk


async def test_what_comes_while_a_commit_runs_is_the_next_one_and_order_is_kept(
    log: Log, tmp_path: Path, commits: Commits
) -> None:
    listeners = [Listener(tmp_path) for _ in range(3)]
    commits.gate.clear()
    log.submit(new(log, 0), listeners[0])
    await asyncio.to_thread(commits.waiting.wait, PATIENCE_S)
    for seq in range(1, 10):
        log.submit(new(log, seq), listeners[seq % 3])
        await asyncio.sleep(0)
    assert log.waiting == 9
    assert not any(listener.acknowledged for listener in listeners)
    commits.gate.set()
    await until(lambda: sum(listener.acknowledged for listener in listeners) == 10)
    assert commits.sizes == [1, 9]
    assert seqs(tmp_path) == list(range(10))
    assert [listener.committed_at for listener in listeners] == [[(1, 1), (3, 10)], [(3, 10)], [(3, 10)]]


async def test_a_message_of_several_entries_is_acknowledged_once(log: Log, tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    log.submit(unusable(1), None)
    log.submit(new(log, 1), listener)
    log.submit(unusable(2), listener)
    await until(lambda: listener.acknowledged == 2)
    assert [entry.payload for _, entry in await log.quarantined()] == [b"1", b"2"]


@pytest.mark.parametrize(
    "unstorable",
    [
        lambda log: new(log, 2)._replace(time_ms=2**70),
        lambda log: new(log, 2)._replace(stream=log.stream("default", "no-text-\ud800", "")),
        lambda _: unusable(2)._replace(reason="no text: \ud800", received_at_ms=2**70),
    ],
)
async def test_p4_an_entry_that_cannot_be_stored_costs_the_others_nothing(
    log: Log, tmp_path: Path, commits: Commits, unstorable: Callable[[Log], Any]
) -> None:
    listener = Listener(tmp_path)
    entries: list[Any] = [new(log, 1), unusable(1), unstorable(log), new(log, 3), new(log, 1)]
    for entry in entries:
        log.submit(entry, listener)
    await until(lambda: listener.acknowledged == len(entries))
    assert commits.sizes == [len(entries)]
    assert seqs(tmp_path) == [1, 3]
    assert (log.stored, log.duplicates) == (2, 1)
    assert [entry.code for _, entry in await log.quarantined()] == [unusable(1).code, "unstorable"]
    await log.append([new(log, 4)])
    assert seqs(tmp_path) == [1, 3, 4]


async def test_appending_nothing_is_nothing(log: Log, commits: Commits) -> None:
    await log.append([])
    assert commits.sizes == []


# Failing


async def test_p1_a_failed_commit_acknowledges_nothing_and_the_next_one_succeeds(
    log: Log, tmp_path: Path, disk: FailingDisk
) -> None:
    listeners = [Listener(tmp_path), Listener(tmp_path)]
    disk.failing = True
    for seq in range(4):
        log.submit(new(log, seq), listeners[seq % 2])
    await until(lambda: disk.failed == 1 and all(listener.errors for listener in listeners))
    assert [len(listener.errors) for listener in listeners] == [1, 1]
    with pytest.raises(StoreFailed, match="disk I/O error") as raised:
        await log.append([new(log, 5)])
    assert str(tmp_path) in raised.value.hint
    assert (log.failure, log.last_row, log.stored, seqs(tmp_path)) == (raised.value, 0, 0, [])
    disk.failing = False
    await log.append([new(log, 6)])
    assert (log.failure, log.last_row, seqs(tmp_path)) == (None, 1, [6])
    assert not any(listener.acknowledged for listener in listeners)


async def test_after_a_rollback_streams_and_metadata_are_those_that_were_meant(log: Log, disk: FailingDisk) -> None:
    """What the failed commit had interned must be forgotten: its rows may be another's now."""
    await log.append([new(log, 1, device="hall", metadata='{"room":"hall"}')])
    disk.failing = True
    for device in ("kitchen", "attic"):
        with pytest.raises(StoreFailed):
            await log.append([new(log, 1, device=device, metadata=f'{{"room":"{device}"}}')])
    disk.failing = False
    for device in ("attic", "cellar", "kitchen", "hall"):
        await log.append([new(log, 2, device=device, metadata=f'{{"room":"{device}"}}')])
    read = [(one.device_id, one.device_metadata["room"]) for one in await log.read(1, limit=10)]
    assert read == [(device, device) for device in ("attic", "cellar", "kitchen", "hall")]


async def test_p4_an_error_that_is_not_sqlites_is_reported_and_the_thread_lives_on(log: Log, tmp_path: Path) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Append, "write", defect)
        with pytest.raises(StoreFailed, match="a fault of ours"):
            await log.append([new(log, 1), new(log, 2)])
    await log.append([new(log, 3)])
    assert seqs(tmp_path) == [3]


async def test_p9_an_owner_with_a_defect_stops_nobody_else(log: Log, tmp_path: Path) -> None:
    class Defect:
        def committed(self, _: int) -> None:
            raise ZeroDivisionError

        def failed(self, error: StoreFailed) -> None:
            raise ZeroDivisionError from error

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    listener = Listener(tmp_path)
    defect: Owner = Defect()
    log.submit(new(log, 1), defect)
    log.submit(new(log, 2), listener)
    async with asyncio.timeout(2):
        await log.wait_beyond(1)
        await log.append([new(log, 3)])
    assert listener.acknowledged == 1


# The size and the delay of a commit


async def test_a_commit_takes_so_many_readings_but_never_a_part_of_a_message(tmp_path: Path, commits: Commits) -> None:
    async with opened(tmp_path, max_commit_readings=3) as log:
        listener = Listener(tmp_path)
        for seq in range(2):
            log.submit(new(log, seq), listener)
        for seq in range(2, 6):
            log.submit(new(log, seq), None)
        for seq in range(6, 12):
            log.submit(new(log, seq), listener)
        await until(lambda: listener.acknowledged == 8)
        assert commits.sizes == [7, 3, 2]
        assert seqs(tmp_path) == list(range(12))


async def test_a_message_whose_part_fails_fails_as_a_whole(tmp_path: Path, disk: FailingDisk) -> None:
    async with opened(tmp_path, max_commit_readings=1) as log:
        disk.failing = True
        with pytest.raises(StoreFailed):
            await log.append([new(log, 1), new(log, 2), new(log, 4)])
        disk.failing = False
        assert seqs(tmp_path) == []
        await log.append([new(log, 5)])
        assert seqs(tmp_path) == [5]


async def test_a_delay_gathers_what_comes_meanwhile_into_one_commit(tmp_path: Path, commits: Commits) -> None:
    async with opened(tmp_path, commit_max_delay_ms=300) as log:
        listener = Listener(tmp_path)
        started = time.monotonic()
        for seq in range(5):
            log.submit(new(log, seq), listener)
            await asyncio.sleep(0.02)
        assert listener.acknowledged == 0
        await until(lambda: listener.acknowledged == 5)
        assert 0.29 < time.monotonic() - started < 1
        assert commits.sizes == [5]


# Closing


async def test_p1_closing_commits_what_was_submitted_and_moved(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    async with opened(tmp_path, max_commit_readings=2) as log:
        await log.open_cursor("cloud", start="oldest")
        for seq in range(5):
            log.submit(new(log, seq), listener)
        log.move_cursor("cloud", 4)
    assert seqs(tmp_path) == list(range(5))
    assert positions(tmp_path) == {"cloud": 4}
    assert listener.acknowledged == 5


@pytest.mark.parametrize("most", [5_000, 1])
async def test_closing_waits_for_no_delay(tmp_path: Path, most: int) -> None:
    """`commit_max_delay_ms` may be 10 s, and whoever stops the gateway waits 10 s until it kills."""
    listener = Listener(tmp_path)
    async with opened(tmp_path, max_commit_readings=most, commit_max_delay_ms=600) as log:
        for seq in range(3):
            log.submit(new(log, seq), listener)
        started = time.monotonic()
    assert time.monotonic() - started < 0.5
    assert seqs(tmp_path) == [0, 1, 2]


async def test_what_is_more_than_one_commit_takes_waits_for_no_further_delay(tmp_path: Path) -> None:
    """Otherwise the delay is a rate: 5,000 readings every 10 s, whatever comes in."""
    async with opened(tmp_path, max_commit_readings=10, commit_max_delay_ms=100) as log:
        started = time.monotonic()
        await asyncio.gather(*(log.append([new(log, seq)]) for seq in range(100)))
        assert time.monotonic() - started < 0.5


async def test_closing_while_a_commit_runs_waits_for_it(tmp_path: Path, commits: Commits) -> None:
    async with opened(tmp_path) as log:
        await log.open_cursor("cloud", start="oldest")
        commits.gate.clear()
        listener = Listener(tmp_path)
        log.submit(new(log, 1), listener)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        log.submit(new(log, 2), listener)
        log.move_cursor("cloud", 1)
        asyncio.get_running_loop().call_later(0.05, commits.gate.set)
    assert (seqs(tmp_path), listener.acknowledged, positions(tmp_path)) == ([1, 2], 2, {"cloud": 1})


async def test_closing_on_a_broken_disk_ends_and_says_so(tmp_path: Path, disk: FailingDisk) -> None:
    listener = Listener(tmp_path)
    async with asyncio.timeout(PATIENCE_S), opened(tmp_path, max_commit_readings=1) as log:
        await log.open_cursor("cloud", start="oldest")
        disk.failing = True
        for seq in range(3):
            log.submit(new(log, seq), listener)
        freezing = asyncio.create_task(log.freeze(attempt("cloud", 0, 1)))
        await asyncio.sleep(0)
        log.move_cursor("cloud", 1)
    with pytest.raises(StoreFailed):
        await freezing
    assert listener.errors
    assert listener.acknowledged == 0


# Cursors


async def test_a_cursor_starts_now_or_at_the_oldest_row(log: Log) -> None:
    await log.append([new(log, 1), new(log, 2)])
    assert (await log.open_cursor("late", start="now")).position == 2
    assert (await log.open_cursor("all", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert (await log.open_cursor("late", start="now")).position == 2


async def test_a_move_rides_along_with_the_next_commit(log: Log, tmp_path: Path, commits: Commits) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1), new(log, 2)])
    log.move_cursor("cloud", 1)
    log.move_cursor("cloud", 2)
    assert positions(tmp_path) == {"cloud": 0}
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 2}
    assert commits.sizes == [2, 1]


async def test_a_move_that_nothing_takes_along_goes_alone_within_about_a_second(log: Log, tmp_path: Path) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1)])
    started = time.monotonic()
    log.move_cursor("cloud", 1)
    await until(lambda: positions(tmp_path) == {"cloud": 1}, "the move on disk")
    assert time.monotonic() - started < 1.5


async def test_a_move_survives_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.open_cursor("cloud", start="oldest")
        await log.append([new(log, 1)])
        log.move_cursor("cloud", 1)
    async with opened(tmp_path) as log:
        assert (await log.open_cursor("cloud", start="oldest")).position == 1


async def test_a_move_is_not_lost_by_a_failed_commit_nor_does_it_go_back(
    log: Log, tmp_path: Path, disk: FailingDisk
) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, seq) for seq in range(3)])
    disk.failing = True
    log.move_cursor("cloud", 1)
    failing = asyncio.create_task(log.append([new(log, 3)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    log.move_cursor("cloud", 2)  # while the commit with the first move is failing
    with pytest.raises(StoreFailed):
        await failing
    assert positions(tmp_path) == {"cloud": 0}
    disk.failing = False
    await log.append([new(log, 4)])
    assert positions(tmp_path) == {"cloud": 2}


async def test_a_move_that_failed_alone_is_tried_again(
    log: Log, tmp_path: Path, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.group_commit._MOVE_FLUSH_S", 0.02)
    await log.open_cursor("cloud", start="oldest")
    disk.failing = True
    log.move_cursor("cloud", 1)
    await until(lambda: disk.failed >= 2, "a second attempt")
    disk.failing = False
    await until(lambda: positions(tmp_path) == {"cloud": 1}, "the move on disk")


async def test_a_cursor_opened_again_is_where_its_reader_was_whatever_is_on_disk(log: Log, tmp_path: Path) -> None:
    """A crashed reader starts again within the gateway: it must not deliver twice."""
    await log.append([new(log, seq) for seq in range(4)])
    await log.open_cursor("cloud", start="oldest")
    await log.freeze(attempt("cloud", 0, 2))
    assert (await log.open_cursor("cloud", start="oldest")).attempt == attempt("cloud", 0, 2)
    log.move_cursor("cloud", 2)
    assert positions(tmp_path) == {"cloud": 0}
    again = await log.open_cursor("cloud", start="oldest")
    assert (again.position, again.attempt) == (2, None)


async def test_a_dropped_cursor_starts_anew(log: Log, tmp_path: Path) -> None:
    await log.append([new(log, 1), new(log, 2)])
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 2)
    await log.drop_cursor("cloud")
    assert positions(tmp_path) == {}
    for _ in range(2):
        assert (await log.open_cursor("cloud", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 0}


async def test_a_dropped_cursor_does_not_come_back_with_the_move_of_a_commit_that_fails(
    log: Log, tmp_path: Path
) -> None:
    await log.append([new(log, 1), new(log, 2)])
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 2)
    log.submit(new(log, 2**63), None)
    log._commit()
    await log.drop_cursor("cloud")
    assert (await log.open_cursor("cloud", start="oldest")).position == 0
    await log.append([new(log, 3)])
    assert positions(tmp_path) == {"cloud": 0}


async def test_a_cursor_that_cannot_be_written_is_no_cursor(log: Log, disk: FailingDisk) -> None:
    disk.failing = True
    with pytest.raises(StoreFailed):
        await log.open_cursor("cloud", start="oldest")
    disk.failing = False
    assert await log.cursors() == []
    await log.append([new(log, 1)])
    assert (await log.open_cursor("cloud", start="now")).position == 1


# Freezing


async def test_p2_an_attempt_is_on_disk_when_freeze_returns_and_survives_reopening(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append([new(log, seq) for seq in range(4)])
        await log.open_cursor("cloud", start="oldest")
        await log.freeze(attempt("cloud", 0, 3))
        assert query(tmp_path, "SELECT batch_id, after_row, last_row FROM cursors") == [("batch-3", 0, 3)]
    async with opened(tmp_path) as log:
        (cursor,) = await log.cursors()
        assert (cursor.position, cursor.attempt) == (0, attempt("cloud", 0, 3))


async def test_p2_a_freeze_belongs_to_the_position_after_the_move_before_it(log: Log) -> None:
    await log.append([new(log, seq) for seq in range(4)])
    for name in ("cloud", "other"):
        await log.open_cursor(name, start="oldest")
        await log.freeze(attempt(name, 0, 2))
    log.move_cursor("cloud", 2)
    await log.freeze(attempt("cloud", 2, 4))
    cloud, other = await log.cursors()
    assert (cloud.position, cloud.attempt) == (2, attempt("cloud", 2, 4))
    assert (other.position, other.attempt) == (0, attempt("other", 0, 2))


async def test_a_freeze_that_is_not_on_disk_raises_and_can_be_repeated(log: Log, disk: FailingDisk) -> None:
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 1)])
    disk.failing = True
    with pytest.raises(StoreFailed):
        await log.freeze(attempt("cloud", 0, 1))
    disk.failing = False
    (cursor,) = await log.cursors()
    assert cursor.attempt is None
    await log.freeze(attempt("cloud", 0, 1))
    (cursor,) = await log.cursors()
    assert cursor.attempt == attempt("cloud", 0, 1)


# Opening what is damaged


async def test_a_log_of_which_nothing_is_left_is_set_aside_and_the_gateway_starts(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.append([new(log, seq) for seq in range(100)])
    path = tmp_path / "log.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    async with opened(tmp_path) as log:
        await log.append([new(log, 100)])
        assert log.last_row or log.salvages
    assert corrupt_files(tmp_path)


async def test_a_log_cannot_be_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match=r"nowhere"):
        async with opened(tmp_path / "nowhere"):
            pass
