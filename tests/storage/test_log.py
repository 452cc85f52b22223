"""The log's invariants: what is acknowledged is on disk, once, in order, and nothing else is acknowledged."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import StoreFailed
from gateway.storage.append import Append
from gateway.storage.log import Log, Owner
from tests.site import PATIENCE_S, FailingDisk, until
from tests.storage.repair.damaged import corrupt_files
from tests.storage.small_log import Commits, Listener, attempt, new, opened, positions, query, seqs, unusable

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
    assert [[count for count, _ in listener.committed_at] for listener in listeners] == [[1, 3], [3], [3]]


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


async def test_a_commit_writes_to_the_write_ahead_log_and_nowhere_else(log: Log, tmp_path: Path) -> None:
    """Not to a temporary file either, as SQLite does for savepoints: an SD card wears out by what is written."""
    boards = [f"board-{number}" for number in range(100)]
    for seq in range(60):
        await log.append([new(log, seq, device=board) for board in boards])
    wal = tmp_path / "log.db-wal"
    size, before = wal.stat().st_size, written_bytes()
    await log.append([new(log, 60, device=board) for board in boards])
    in_wal = wal.stat().st_size - size
    assert in_wal > 100_000
    assert written_bytes() - before < 1.2 * in_wal


def written_bytes() -> int:
    """Return what this process has given to `write` and the like."""
    counted = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counted["wchar"])


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
    async with asyncio.timeout(PATIENCE_S):
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
    async with opened(tmp_path, commit_max_delay_ms=1_000) as log:
        listener = Listener(tmp_path)
        started = time.monotonic()
        for seq in range(5):
            log.submit(new(log, seq), listener)
            await asyncio.sleep(0.02)
        assert listener.acknowledged == 0
        await until(lambda: listener.acknowledged == 5)
        assert time.monotonic() - started > 0.99
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
    async with opened(tmp_path, max_commit_readings=most, commit_max_delay_ms=10_000) as log:
        for seq in range(3):
            log.submit(new(log, seq), listener)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert seqs(tmp_path) == [0, 1, 2]


async def test_what_is_more_than_one_commit_takes_waits_for_no_further_delay(tmp_path: Path) -> None:
    """Otherwise the delay is a rate: 5,000 readings every 10 s, whatever comes in."""
    async with opened(tmp_path, max_commit_readings=10, commit_max_delay_ms=1_000) as log:
        started = time.monotonic()
        await asyncio.gather(*(log.append([new(log, seq)]) for seq in range(100)))
        assert time.monotonic() - started < 5


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
