"""Quarantine and dead letters page by page: the newest first, each once, and at a bounded cost."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.metrics import Metrics
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.storage import newest_first
from gateway.storage.log import Log
from gateway.storage.newest_first import dead_letter_page, quarantine_page


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    async with Log.create(tmp_path / "log.db", StorageSettings(), clock=ManualClock(), metrics=Metrics()) as log:
        yield log


def bad(number: int, organization_id: str = "acme", device_id: str = "k", code: str = "c") -> NewQuarantine:
    return NewQuarantine(organization_id, device_id, "http", code, "why", number, b"%d" % number)


async def refuse(log: Log, *destinations: str, organization_id: str = "acme", device_id: str = "k") -> None:
    """Let these refuse one more reading."""
    stream = log.stream(organization_id, device_id, "b")
    payload = to_json({"sensors": {}, "note": "x" * 100})
    await log.append([NewReading(stream, log.last_row, 7, TimeSource.DEVICE, 8, 0, payload)])
    (reading,) = await log.read(log.last_row - 1, limit=1)
    for destination in destinations:
        await log.dead_letters.set_aside(destination, reading, f"{destination} says no", 9)


async def quarantined(log: Log, limit: int = 100, **wanted: Any) -> list[list[int]]:
    """Return what each page has, by what came in; each is as it is alone."""
    pages, before = [], None
    while True:
        page = await quarantine_page(log, before=before, limit=limit, **wanted)
        pages.append([int(entry.payload) for _, entry in page.found])
        if (before := page.before) is None:
            return pages


async def refused(log: Log, limit: int = 100, **wanted: Any) -> list[list[tuple[int, str]]]:
    pages, before = [], None
    while True:
        page = await dead_letter_page(log, before=before, limit=limit, **wanted)
        pages.append([(letter.reading.row, letter.destination) for letter in page.found])
        if (before := page.before) is None:
            return pages


async def test_pages_go_on_below_the_last_and_the_last_one_says_so(log: Log) -> None:
    assert await quarantined(log) == [[]]
    await log.append([bad(number) for number in range(1, 6)])
    assert await quarantined(log, 2) == [[5, 4], [3, 2], [1]]
    assert await quarantined(log, 5) == [[5, 4, 3, 2, 1]]


async def test_what_comes_or_leaves_meanwhile_is_shown_once_or_not(log: Log, tmp_path: Path) -> None:
    await log.append([bad(number) for number in range(1, 6)])
    first = await quarantine_page(log, limit=2)
    await log.append([bad(6)])
    with closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        db.execute("DELETE FROM quarantine WHERE id IN (2, 4)")
    rest = await quarantine_page(log, before=first.before, limit=9)
    assert [row for row, _ in first.found + rest.found] == [5, 4, 3, 1]


async def test_only_what_is_wanted_comes(log: Log) -> None:
    await log.append([bad(1), bad(2, "other"), bad(3, device_id=""), bad(4, code="d"), bad(5)])
    assert await quarantined(log) == [[5, 4, 3, 2, 1]]
    assert await quarantined(log, organization_id="other") == [[2]]
    assert await quarantined(log, organization_id="acme", device_id="k") == [[5, 4, 1]]
    assert await quarantined(log, 1, organization_id="acme", device_id="k", code="c") == [[5], [1]]
    assert await quarantined(log, organization_id="nobody") == [[]]


async def test_a_question_looks_at_so_many_rows_and_no_more(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_first, "_LOOKED_AT", 3)
    await log.append([bad(number, "acme" if number in (1, 2, 9) else "other") for number in range(1, 11)])
    assert await quarantined(log, organization_id="acme") == [[9], [], [2], [1]]
    assert await quarantined(log, 1, organization_id="acme") == [[9], [], [2], [1]]
    assert await quarantined(log, 2) == [[10, 9], [8, 7], [6, 5], [4, 3], [2, 1]]


async def test_a_page_holds_so_many_bytes_but_always_one(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_first, "_PAGE_BYTES", 4)
    await log.append([bad(number) for number in (11_111, 2, 33, 44, 55)])
    assert await quarantined(log) == [[55, 44], [33, 2], [11_111]]


async def test_dead_letters_begin_with_the_one_that_was_refused_last(log: Log) -> None:
    await refuse(log, "cloud", "archive")
    await refuse(log, "cloud")
    await refuse(log, "cloud", organization_id="other")
    await refuse(log, "cloud", device_id="l")
    everything = [(4, "cloud"), (3, "cloud"), (2, "cloud"), (1, "archive"), (1, "cloud")]
    assert await refused(log) == [everything]
    assert await refused(log, 2) == [everything[:2], everything[2:4], everything[4:]]
    assert await refused(log, organization_id="acme", destination="cloud") == [
        [(4, "cloud"), (2, "cloud"), (1, "cloud")]
    ]
    assert await refused(log, 1, organization_id="acme", device_id="k", destination="archive") == [[(1, "archive")]]
    (letter,) = (await dead_letter_page(log, organization_id="other", limit=9)).found
    assert (letter.reason, letter.provisional, letter.reading.device_id) == ("cloud says no", True, "k")


async def test_no_page_reads_and_sorts_all_that_there_is(log: Log, tmp_path: Path) -> None:
    asked: list[str] = []

    async def note(sql: str, parameters: Any = (), **how: Any) -> Any:
        asked.append(sql)
        return await fetch(sql, parameters, **how)

    await log.append([bad(1)])
    await refuse(log, "cloud")
    fetch, log.fetch = log.fetch, note  # type: ignore[method-assign]
    await quarantine_page(log, organization_id="acme", device_id="k", code="c", limit=1)
    await dead_letter_page(log, organization_id="acme", device_id="k", destination="cloud", limit=1)
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        for sql in asked:
            plan = db.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?")).fetchall()
            assert "USING INTEGER PRIMARY KEY" in plan[0][-1], (sql, plan)
            assert "TEMP B-TREE" not in str(plan), (sql, plan)
    assert len(asked) == 6
