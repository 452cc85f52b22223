"""What a commit writes, and in how many statements."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import StoreFailed
from gateway.model.reading import NewReading
from gateway.storage import group_commit
from gateway.storage.log import Log
from gateway.storage.space import HIGH_WATER_BYTES, Space
from tests.storage.small_log import attempt, new, positions, seqs, unusable


@contextmanager
def statements(log: Log) -> Iterator[list[str]]:
    """Hear of every statement of the writing thread, by its first word."""
    seen: list[str] = []
    db = log._files._db
    assert db is not None
    db.set_trace_callback(lambda sql: seen.append(sql.split()[0]))
    yield seen
    db.set_trace_callback(None)


async def ready(log: Log) -> None:
    """Let the board and its metadata be known, and how much room there is."""
    await log.append([new(log, seq, metadata="{}") for seq in range(2)])
    await log.append([new(log, 2, metadata="{}")])


async def test_readings_of_known_boards_are_one_statement(log: Log, tmp_path: Path) -> None:
    """Each costs a turn of the interpreter, which the event loop would rather keep."""
    await ready(log)
    with statements(log) as seen:
        await log.append([new(log, seq, metadata="{}") for seq in (3, 1, 4, 4)])
    assert seen == ["INSERT"]
    assert seqs(tmp_path) == [0, 1, 2, 3, 4]
    assert (log.stored, log.duplicates, log.last_row) == (5, 2, 6)  # a repeat uses an id up
    with statements(log) as seen:
        await log.append([new(log, 4, metadata="{}")])
    assert seen == ["INSERT"]
    assert (log.stored, log.duplicates, log.last_row) == (5, 3, 6)


@pytest.mark.parametrize(
    "entries",
    [
        lambda log: [new(log, 3), unusable(1)],
        lambda log: [new(log, 3), new(log, 4, device="hall")],
        lambda log: [new(log, 3, metadata='{"room":"hall"}')],
        lambda log: [new(log)._replace(maybe_repeated=True)],
        lambda log: [new(log, 3)._replace(raw=b"3")],
        lambda log: [new(log, seq) for seq in range(3, 68)],
        lambda log: [new(log, seq)._replace(payload=b"%200000d" % seq) for seq in (3, 4)],
    ],
    ids=["quarantine", "new board", "new metadata", "perhaps repeated", "as it came", "many", "large"],
)
async def test_whatever_is_more_takes_a_transaction(
    log: Log, tmp_path: Path, entries: Callable[[Log], list[Any]]
) -> None:
    await ready(log)
    made = entries(log)
    with statements(log) as seen:
        await log.append(made)
    assert (seen[0], seen[-1]) == ("BEGIN", "COMMIT")
    assert len(seqs(tmp_path)) == 3 + sum(type(entry) is NewReading for entry in made)


async def test_statements_keep_little_of_what_they_have_inserted(log: Log, tmp_path: Path) -> None:
    """There is one for each number of rows, and SQLite keeps what each was given last."""
    await ready(log)
    with statements(log) as seen:
        await log.append(
            [new(log, seq)._replace(payload=b"%24000d" % seq, raw=b"%25000d" % seq) for seq in range(3, 9)]
        )
        await log.append([new(log, 9)._replace(payload=b"%200000d" % 9), new(log, 10), new(log, 11)])
    assert seen.count("INSERT") == 3 + 2
    assert seqs(tmp_path) == list(range(12))


async def test_a_move_and_a_freeze_ride_along_with_readings(log: Log, tmp_path: Path) -> None:
    await ready(log)
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 1)
    with statements(log) as seen:
        await log.append([new(log, 3)])
    assert (seen[0], seen[-1]) == ("BEGIN", "COMMIT")
    assert positions(tmp_path) == {"cloud": 1}
    freezing = asyncio.create_task(log.freeze(attempt("cloud", 1, 2)))
    await asyncio.sleep(0)
    await log.append([new(log, 4)])
    assert await freezing


async def test_p4_one_that_cannot_be_stored_costs_those_beside_it_nothing(log: Log, tmp_path: Path) -> None:
    await ready(log)
    await log.append([new(log, 3), new(log, 4)._replace(time_ms=2**70), new(log, 5)])
    assert seqs(tmp_path) == [0, 1, 2, 3, 5]
    assert [entry.code for _, entry in await log.quarantined()] == ["unstorable"]
    assert (log.stored, log.duplicates, log.last_row) == (5, 0, 5)
    assert latencies(log) == 5
    await log.append([new(log, 6), new(log, 7)._replace(time_ms=2**70), new(log, 6)])
    assert (log.stored, log.duplicates, log.last_row) == (6, 1, 6)
    await log.append([*(new(log, seq) for seq in range(8, 108)), new(log, 108)._replace(time_ms=2**70)])
    assert (log.stored, log.duplicates) == (106, 1)
    assert latencies(log) == 5 + 2 + 100


async def test_only_one_that_may_be_a_repeat_is_looked_for(log: Log, tmp_path: Path) -> None:
    await ready(log)
    again, other = new(log), new(log)._replace(payload=b"other")
    await log.append([other, other, again, again._replace(maybe_repeated=True), other])
    assert (len(seqs(tmp_path)), log.stored, log.duplicates) == (3 + 4, 7, 1)
    assert latencies(log) == 3 + 5


def latencies(log: Log) -> float:
    """Return how many have been counted."""
    (family,) = log._metrics.latency.collect()
    return next(sample.value for sample in family.samples if sample.name.endswith("_count"))


@contextmanager
def locked_by_another_program(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("PRAGMA busy_timeout = 20").fetchall()
    ((_, _, path),) = db.execute("PRAGMA database_list")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("trouble", [locked_by_another_program])
async def test_p1_of_one_statement_that_fails_nothing_is_stored_nor_acknowledged(
    log: Log, tmp_path: Path, trouble: Callable[[sqlite3.Connection], AbstractContextManager[None]]
) -> None:
    await ready(log)
    db = log._files._db
    assert db is not None
    with trouble(db), statements(log) as seen, pytest.raises(StoreFailed):
        await log.append([new(log, seq)._replace(payload=b"%50000d" % seq) for seq in (3, 4)])
    assert (seen[0], seqs(tmp_path)) == ("INSERT", [0, 1, 2])
    await log.append([new(log, 5)])
    assert (seqs(tmp_path), log.stored, log.duplicates) == ([0, 1, 2, 5], 4, 0)


async def test_of_texts_of_metadata_no_more_than_so_many_are_known(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "_METADATA_IN_MEMORY", 3)
    for room in range(10):
        await log.append([new(log, room, metadata=f'{{"room":{room}}}')])
        assert len(log.bounds.interned_metadata) <= 4
    assert [one.device_metadata["room"] for one in await log.read(0, limit=10)] == list(range(10))


async def test_an_erased_board_is_known_no_more(log: Log, tmp_path: Path) -> None:
    await ready(log)
    log.erased_streams.add(1)
    with statements(log) as seen:
        await log.append([new(log, 3)])
    assert seen[0] == "BEGIN"
    assert seqs(tmp_path)[-1] == 3


async def test_each_second_a_commit_says_how_the_file_is_used(log: Log) -> None:
    await ready(log)
    log.bounds.tick()
    with statements(log) as seen:
        await log.append([new(log, 3)])
    assert (seen[0], seen[-1]) == ("BEGIN", "COMMIT")
    with statements(log) as seen:
        await log.append([new(log, 4)])
    assert seen == ["INSERT"]


async def test_readings_that_came_without_a_look_are_counted(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimated, and rather too much: whoever has little room looks."""
    await ready(log)
    bounds = log.bounds
    monkeypatch.setattr(Space, "room_bytes", lambda _space, _pages: HIGH_WATER_BYTES + 10_000)
    before = bounds._used_bytes
    assert bounds.has_plenty(8_000)
    await log.append([new(log, 3)._replace(payload=b"%1000d" % 3)])
    assert before + 2_000 < bounds._used_bytes < before + 3_000
    assert not bounds.has_plenty(8_000)
    await log.append([new(log, 4)._replace(payload=b"%1000d" % 4)])
    bounds._room_bytes()
    await log.append([new(log, 5)._replace(payload=b"%1000d" % 5)])
    assert not bounds.must_see_pages()
    await log.append([new(log, 6)._replace(payload=b"%1000d" % 6)])
    assert bounds.must_see_pages(), "when it was looked 5,600 bytes were left of the 10,000, and half of them are used"
    bounds.tick()
    await log.append([new(log, 7)])
    assert bounds._used_bytes == bounds._pages.live_bytes
