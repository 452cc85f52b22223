"""Which dead letters there are is found by the index, and many can be asked for without holding others up."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.reading import NewReading, TimeSource
from gateway.storage import dead_letters
from gateway.storage.dead_letters import CONFIRM
from gateway.storage.log import Log


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    """Of five readings, the last one of another organisation, two destinations have refused each."""
    async with Log.create(tmp_path / "log.db", StorageSettings(), clock=ManualClock(), metrics=Metrics()) as log:
        for row in range(1, 6):
            stream = log.stream("other" if row == 5 else "acme", "k", "b")
            await log.append([NewReading(stream, row, 7, TimeSource.DEVICE, 8, 0, b"{}")])
            (reading,) = await log.read(row - 1, limit=1)
            for destination in ("cloud", "archive"):
                await log.dead_letters.set_aside(destination, reading, "no", 9)
        await log.dead_letters._write((CONFIRM, [("cloud", 5), ("archive", 3)]))
        yield log


async def rows(log: Log, *which: str, **wanted: Any) -> list[int]:
    return sorted(row for _, row in await log.dead_letters.keys(*which, **wanted))


async def test_they_are_told_apart_by_destination_organisation_and_row(log: Log) -> None:
    assert await rows(log) == [1, 1, 2, 2, 3, 3, 4, 5]
    assert await rows(log, "archive") == [1, 2, 3], "the others are provisional"
    assert await rows(log, "cloud", organization_id="other") == [5]
    assert await rows(log, organization_id="acme", rows=[3, 4, 5, 6]) == [3, 3, 4]
    assert await rows(log, "cloud", rows=[4, 5]) == [4, 5]
    assert await rows(log, "cloud", rows=[]) == []


async def test_those_of_a_destination_are_found_by_the_index(log: Log, tmp_path: Path) -> None:
    asked: list[tuple[str, Any]] = []

    async def note(sql: str, parameters: Any) -> Any:
        asked.append((sql, parameters))
        return await log.fetch(sql, parameters)

    await dead_letters.DeadLetterReader(note).keys("cloud", organization_id="acme", rows=[3])
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        ((sql, parameters),) = asked
        plan = str(db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
    assert "SEARCH dead_letters USING" in plan
    assert "row=?" in plan


async def test_many_are_asked_for_in_several_commits_and_each_once(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_ASKED_AT_ONCE", 2)
    with closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute("CREATE TABLE asked (row INTEGER)")
        db.execute(
            "CREATE TRIGGER note AFTER UPDATE OF replay_requested ON dead_letters"
            " BEGIN INSERT INTO asked VALUES (new.row); END"
        )
    commits: list[int] = []
    write = log.dead_letters._write

    async def note(*statements: tuple[str, list[Any]]) -> None:
        commits.extend(len(parameters) for _, parameters in statements)
        await write(*statements)

    monkeypatch.setattr(log.dead_letters, "_write", note)
    everything = {("cloud", row) for row in range(1, 6)}
    await log.dead_letters.request_replay(everything)
    assert (commits, await log.dead_letters.requested_keys()) == ([2, 2, 1], everything)
    await log.dead_letters.request_replay([*everything, ("archive", 1), ("archive", 4)])
    assert await log.dead_letters.requested_keys() == {*everything, ("archive", 1)}
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert sorted(row for (row,) in db.execute("SELECT row FROM asked")) == [1, 1, 2, 3, 4, 5]
