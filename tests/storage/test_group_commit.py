"""One commit after another: the writing thread goes on by itself, whatever the event loop does meanwhile."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.model.errors import StoreFailed
from gateway.storage import group_commit
from gateway.storage.append import Append
from gateway.storage.log import Log
from tests.site import PATIENCE_S, FailingDisk, until
from tests.storage.small_log import Commits, Listener, attempt, new, opened, positions, query, seqs


async def hold(log: Log, commits: Commits, listener: Listener) -> None:
    """Have a commit begin, and hold it."""
    await log.append([new(log, 0)])
    commits.waiting.clear()
    commits.gate.clear()
    log.submit(new(log, 1), listener)
    await asyncio.to_thread(commits.waiting.wait, PATIENCE_S)


def block_until(holds: Callable[[], bool]) -> None:
    """Keep the event loop from doing anything until that holds."""
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends, "nobody went on"
        time.sleep(0.005)


def block_for_a_while() -> None:
    """Keep the event loop from doing anything while the writing thread might do what it must not."""
    ends = time.monotonic() + 0.05
    block_until(lambda: time.monotonic() > ends)


def block_until_stored(folder: Path, number: int) -> None:
    """Keep the event loop from doing anything until so many readings are on disk."""
    block_until(lambda: len(seqs(folder)) == number)


async def test_what_waits_is_committed_without_the_event_loop(log: Log, tmp_path: Path, commits: Commits) -> None:
    listener = Listener(tmp_path)
    await log.open_cursor("cloud", start="oldest")
    await hold(log, commits, listener)
    for seq in (2, 3):
        log.submit(new(log, seq), listener)
    log.move_cursor("cloud", 1)
    freezing = asyncio.create_task(log.freeze(attempt("cloud", 1, 2)))
    await asyncio.sleep(0)
    commits.gate.set()
    block_until_stored(tmp_path, 4)
    assert listener.acknowledged == 0
    await until(lambda: listener.acknowledged == 3)
    assert commits.sizes[-2:] == [1, 2]
    assert await freezing
    assert positions(tmp_path) == {"cloud": 1}


async def test_of_a_message_that_is_still_growing_nothing_is_committed(
    log: Log, tmp_path: Path, commits: Commits
) -> None:
    listener = Listener(tmp_path)
    await hold(log, commits, listener)
    log.submit(new(log, 2), listener)
    log.submit(new(log, 3), None)
    commits.gate.set()
    block_until_stored(tmp_path, 3)
    log.submit(new(log, 4), listener)
    assert seqs(tmp_path) == [0, 1, 2]
    await until(lambda: listener.acknowledged == 3)
    assert commits.sizes[-3:] == [1, 1, 2]


async def test_after_a_failure_nothing_is_begun_before_it_is_known(
    log: Log, tmp_path: Path, disk: FailingDisk, commits: Commits
) -> None:
    """Who waits behind must not be stored before it is decided what becomes of those before."""
    listeners = [Listener(tmp_path), Listener(tmp_path)]
    await hold(log, commits, listeners[0])
    log.submit(new(log, 2), listeners[1])
    disk.failing = True
    begun = len(commits.sizes)
    commits.gate.set()
    block_until(lambda: disk.failed == 1)
    disk.failing = False
    block_for_a_while()
    assert len(commits.sizes) == begun + 1
    await until(lambda: listeners[1].acknowledged == 1)
    assert [len(listener.errors) for listener in listeners] == [1, 0]
    assert seqs(tmp_path) == [0, 2]


async def test_while_the_writing_thread_goes_on_by_itself_the_event_loop_begins_nothing(
    log: Log, tmp_path: Path, disk: FailingDisk, commits: Commits
) -> None:
    """Or it would be committed though what was before it failed."""
    listeners = [Listener(tmp_path) for _ in range(3)]
    await hold(log, commits, listeners[0])
    log.submit(new(log, 2), listeners[1])
    commits.let_one_pass()
    await until(lambda: listeners[0].acknowledged == 1)
    log.submit(new(log, 3), listeners[2])
    for _ in range(3):
        await asyncio.sleep(0)
    disk.failing = True
    commits.gate.set()
    block_until(lambda: disk.failed == 1)
    disk.failing = False
    block_for_a_while()
    assert seqs(tmp_path) == [0, 1]
    await until(lambda: listeners[2].acknowledged == 1)
    assert seqs(tmp_path) == [0, 1, 3]


async def test_when_it_is_time_to_look_how_much_room_there_is_nothing_is_begun_before(
    tmp_path: Path, commits: Commits
) -> None:
    """A commit at most is more than there was room for."""
    async with opened(tmp_path, retention_days=0) as log:
        log.bounds.tick()  # later ones give the writing thread nothing else to do
        listener = Listener(tmp_path)
        await hold(log, commits, listener)
        log.submit(new(log, 2), listener)
        log.bounds.tick()
        assert log._files.writer._jobs.empty()
        commits.gate.set()
        block_until_stored(tmp_path, 2)
        block_for_a_while()
        assert seqs(tmp_path) == [0, 1]
        await until(lambda: listener.acknowledged == 2)


async def test_p5_no_more_is_begun_than_there_was_room_for(tmp_path: Path, commits: Commits) -> None:
    """However long the event loop does not hear of what has been committed."""
    async with opened(tmp_path, max_commit_readings=1) as log:
        listener = Listener(tmp_path)
        await hold(log, commits, listener)
        for seq in range(2, 12):
            log.submit(new(log, seq)._replace(payload=b"%100000d" % seq), listener)
        log.bounds._enough_for = log.bounds._used_bytes + 500_000  # two of these take no more than 400,000
        commits.gate.set()
        block_until_stored(tmp_path, 5)
        block_for_a_while()
        assert seqs(tmp_path) == [0, 1, 2, 3, 4]
        await until(lambda: listener.acknowledged == 11)


async def test_what_is_to_wait_for_company_does(tmp_path: Path, commits: Commits) -> None:
    async with opened(tmp_path, commit_max_delay_ms=50) as log:
        listener = Listener(tmp_path)
        await hold(log, commits, listener)
        log.submit(new(log, 2), listener)
        commits.gate.set()
        await until(lambda: listener.acknowledged == 1)
        assert seqs(tmp_path) == [0, 1]
        await until(lambda: listener.acknowledged == 2)


async def test_whoever_is_in_a_hurry_waits_for_the_commit_that_runs_and_no_longer(
    tmp_path: Path, commits: Commits
) -> None:
    async with opened(tmp_path, commit_max_delay_ms=10_000) as log:
        listener = Listener(tmp_path)
        commits.gate.clear()
        log.submit(new(log, 0), listener)
        log.hurry()
        await asyncio.to_thread(commits.waiting.wait, PATIENCE_S)
        log.submit(new(log, 1), listener)
        log.hurry()
        started = time.monotonic()
        commits.gate.set()
        await until(lambda: listener.acknowledged == 2)
        assert time.monotonic() - started < 5
        log.submit(new(log, 2), listener)
        assert log._due is not None, "what comes later waits again"


async def test_whoever_else_needs_the_writing_thread_has_its_turn(log: Log, tmp_path: Path, commits: Commits) -> None:
    listener = Listener(tmp_path)
    await hold(log, commits, listener)
    log.submit(new(log, 2), listener)
    seen: list[int] = []
    asked = asyncio.create_task(log.outside_transaction(lambda _: seen.append(len(seqs(tmp_path)))))
    await asyncio.sleep(0)
    commits.gate.set()
    await until(lambda: listener.acknowledged == 2)
    await asked
    assert seen == [2]


async def test_while_a_damaged_log_is_exchanged_nothing_is_begun(log: Log, tmp_path: Path, commits: Commits) -> None:
    listener = Listener(tmp_path)
    await hold(log, commits, listener)
    log.submit(new(log, 2), listener)
    log.halt()
    commits.gate.set()
    async with asyncio.timeout(PATIENCE_S):
        await log._quiet.wait()
    assert seqs(tmp_path) == [0, 1]
    log._resume(1)
    await until(lambda: listener.acknowledged == 2)


async def test_what_a_damaged_log_did_not_take_goes_into_the_fresh_one(
    log: Log, tmp_path: Path, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, by the boards that sent it, and with the newest place of each cursor."""
    write = Append.write

    def damaged_once(append: Append, db: sqlite3.Connection) -> None:
        monkeypatch.setattr(Append, "write", write)
        write(append, db)
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(group_commit, "_STREAMS_IN_MEMORY", 1)
    listener = Listener(tmp_path)
    await log.open_cursor("cloud", start="oldest")
    await log.append([new(log, 0, device="hall"), new(log, 1)])
    commits.waiting.clear()
    commits.gate.clear()
    log.move_cursor("cloud", 1)
    log.submit(new(log, 2), listener)
    await asyncio.to_thread(commits.waiting.wait, PATIENCE_S)
    log.move_cursor("cloud", 2)
    log.submit(new(log, 3), listener)
    log.submit(new(log, 4, device="attic"), listener)
    monkeypatch.setattr(Append, "write", damaged_once)
    commits.gate.set()
    await until(lambda: listener.acknowledged == 3)
    await until(lambda: not log.salvages)
    assert query(
        tmp_path,
        "SELECT device_id, seq FROM device_telemetry_history h JOIN streams s ON s.id = h.stream ORDER BY h.id",
    ) == [("hall", 0), ("kitchen", 1), ("kitchen", 2), ("kitchen", 3), ("attic", 4)]
    assert positions(tmp_path) == {"cloud": 2}


async def test_a_commit_that_waits_when_the_log_is_closed_is_carried_out(tmp_path: Path, commits: Commits) -> None:
    listener = Listener(tmp_path)
    async with opened(tmp_path) as log:
        await hold(log, commits, listener)
        log.submit(new(log, 2), listener)
        asyncio.get_running_loop().call_later(0.02, commits.gate.set)
    assert listener.acknowledged == 2
    assert query(tmp_path, "SELECT count(*) FROM device_telemetry_history") == [(3,)]


async def test_a_broken_disk_fails_everybody_who_waits(
    log: Log, tmp_path: Path, disk: FailingDisk, commits: Commits
) -> None:
    await hold(log, commits, Listener(tmp_path))
    appending = asyncio.create_task(log.append([new(log, 2)]))
    await asyncio.sleep(0)
    disk.failing = True
    commits.gate.set()
    with pytest.raises(StoreFailed):
        await appending
    assert seqs(tmp_path) == [0]


async def test_closing_on_a_broken_disk_everybody_hears_also_who_came_last(tmp_path: Path, disk: FailingDisk) -> None:
    async with asyncio.timeout(PATIENCE_S), opened(tmp_path, max_commit_readings=1) as log:
        late = [Listener(tmp_path), Listener(tmp_path)]

        class First(Listener):
            def failed(self, error: StoreFailed) -> None:
                super().failed(error)
                asyncio.get_running_loop().call_soon(come_late)

        def come_late() -> None:
            for seq, listener in enumerate(late, 1):
                log.submit(new(log, seq), listener)
            log._waiting.freeze((attempt("cloud", 0, 1), frozen))

        frozen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        disk.failing = True
        log.submit(new(log, 0), First(tmp_path))
    assert [len(listener.errors) for listener in late] == [1, 1]
    with pytest.raises(StoreFailed):
        await frozen
