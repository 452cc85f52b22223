"""What a commit writes, and in how many statements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.model.reading import NewReading
from gateway.storage.log import Log
from tests.storage.small_log import new, seqs, unusable


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


async def test_a_move_and_a_freeze_ride_along_with_readings(log: Log) -> None:
    await ready(log)
    await log.open_cursor("cloud", start="oldest")
    log.move_cursor("cloud", 1)
    with statements(log) as seen:
        await log.append([new(log, 3)])
    assert (seen[0], seen[-1]) == ("BEGIN", "COMMIT")


async def test_p4_one_that_cannot_be_stored_costs_those_beside_it_nothing(log: Log, tmp_path: Path) -> None:
    await ready(log)
    await log.append([new(log, 3), new(log, 4)._replace(time_ms=2**70), new(log, 5)])
    assert seqs(tmp_path) == [0, 1, 2, 3, 5]
    assert [entry.code for _, entry in await log.quarantined()] == ["unstorable"]
    assert (log.stored, log.duplicates, log.last_row) == (5, 0, 5)


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


async def test_readings_that_came_without_a_look_are_counted(log: Log) -> None:
    """Estimated, and rather too much: whoever has little room looks."""
    await ready(log)
    before = log.bounds._used_bytes
    await log.append([new(log, 3)._replace(payload=b"%1000d" % 3)])
    assert before + 2_000 < log.bounds._used_bytes < before + 3_000
    log.bounds.tick()
    await log.append([new(log, 4)])
    assert log.bounds._used_bytes == log.bounds._pages.live_bytes
