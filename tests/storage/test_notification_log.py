"""The outbox of notifications: its bounds, whose is whose, and what is removed with a device or an organisation."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config import NotificationSettings
from gateway.model.errors import NotFound, StoreFailed, StoreFull
from gateway.storage.notification_log import NotificationLog
from gateway.storage.notification_rows import NewNotification
from gateway.storage.organizations import Organizations
from gateway.storage.state import State

KEY = b"k" * 32


def new(message: str = "hello", **fields: Any) -> NewNotification:
    base = {"organization_id": "default", "integration_id": "chat", "integration_type": "slack"}
    return NewNotification(message=message, **{**base, **fields})


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[tuple[NotificationLog, State, ManualClock]]:
    clock = ManualClock()
    async with State.open(folder / "state.db", KEY, clock=clock) as state:
        yield NotificationLog(state, NotificationSettings.model_validate(settings)), state, clock


async def settle(log: NotificationLog, count: int) -> None:
    for _ in range(count):
        ((row),) = await log.freeze("chat")
        await log.sent(row.message_id or "")


async def test_p1_it_is_on_disk_when_it_was_taken(tmp_path: Path) -> None:
    async with opened(tmp_path) as (log, _, _):
        names = {(await log.add(new(f"{n}"))).id for n in range(3)}
        names |= {added.id for added in await asyncio.gather(*(log.add(new(f"more {n}")) for n in range(20)))}
        other = sqlite3.connect(tmp_path / "state.db")
        assert {name for (name,) in other.execute("SELECT id FROM notification_log")} == names
        other.close()


async def test_what_waits_is_bounded_for_each_organisation_and_never_leaves(tmp_path: Path) -> None:
    async with opened(tmp_path, log_max_count=100) as (log, _, _):
        answers = await asyncio.gather(*(log.add(new(f"{n}")) for n in range(110)), return_exceptions=True)
        assert [type(answer) for answer in answers[100:]] == [StoreFull] * 10
        assert not any(isinstance(answer, BaseException) for answer in answers[:100])
        await log.add(new(organization_id="other"))
        await log.trim()
        assert len(await log.page("default", limit=1_000)) == 100


async def test_what_waits_stays_however_large_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path, log_max_bytes=100_000) as (log, _, clock):
        for _ in range(20):
            await log.add(new("x" * 8_000))
        clock.advance(90 * 86_400_000)
        await log.trim()
        assert len(await log.page("default", limit=1_000)) == 20


async def test_what_is_over_leaves_by_number_size_and_age(tmp_path: Path) -> None:
    async with opened(tmp_path, log_max_count=100, log_max_bytes=100_000, log_max_age_days=1) as (log, _, clock):
        for n in range(100):
            await log.add(new(f"{n}"))
        await settle(log, 100)
        kept = [(await log.add(new(f"kept {n}"))).id for n in range(10)]
        await log.trim()
        rows = await log.page("default", limit=1_000)
        assert len(rows) == 100
        assert [row.id for row in rows[:10]] == kept[::-1]

        for _ in range(20):
            await log.add(new("x" * 8_000))
        await settle(log, 30)
        await log.trim()
        assert len(await log.page("default", limit=1_000)) == 12  # of 8,300 bytes and a bit

        clock.advance(2 * 86_400_000)
        waits = (await log.add(new("still waits"))).id
        await log.trim()
        assert [row.id for row in await log.page("default", limit=1_000)] == [waits]


async def test_pages_follow_each_other_and_are_one_organisations(tmp_path: Path) -> None:
    async with opened(tmp_path) as (log, _, _):
        for n in range(5):
            await log.add(new(f"{n}", integration_id="chat" if n % 2 else "mail"))
        foreign = (await log.add(new(organization_id="other"))).id
        first = await log.page("default", limit=2)
        second = await log.page("default", before=first[-1].seq, limit=10)
        assert [row.message for row in first + second] == ["4", "3", "2", "1", "0"]
        assert [row.message for row in await log.page("default", integration_id="chat", limit=9)] == ["3", "1"]
        assert await log.page("default", status="sent", limit=9) == []
        with pytest.raises(NotFound):
            await log.get("default", foreign)


async def test_what_is_about_a_device_is_erased_with_it_also_what_waits(tmp_path: Path) -> None:
    secret = "somebody is in the kitchen"
    async with opened(tmp_path) as (log, state, _):
        await log.add(new(secret, data={"device_id": "kitchen"}))
        await log.add(new("about the shed", data={"device_id": "shed"}))
        await log.add(new("about another kitchen", organization_id="other", data={"device_id": "kitchen"}))
        assert await log.erase("default", "kitchen") == 1
        await state.empty_wal()
        assert [row.message for row in await log.page("default", limit=9)] == ["about the shed"]
        assert len(await log.page("other", limit=9)) == 1
    files = list(tmp_path.iterdir())  # noqa: ASYNC240 - nobody else is there to wait
    assert not any(secret.encode() in file.read_bytes() for file in files)


async def test_an_organisation_takes_its_notifications_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as (log, state, _):
        await log.add(new(organization_id="acme"))
        await log.add(new())
        assert {one.id for one in await Organizations(state).all()} == {"acme", "default"}
        await Organizations(state).remove("acme", by="cli")
        assert await log.page("acme", limit=9) == []
        assert len(await log.page("default", limit=9)) == 1


async def test_a_disk_that_fails_is_told_to_everybody_who_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as (log, state, _):
        await state._db.execute("PRAGMA query_only = on")
        answers = await asyncio.gather(*(log.add(new(f"{n}")) for n in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreFailed] * 3
        await state._db.execute("PRAGMA query_only = off")
        await log.add(new("afterwards"))
        assert [row.message for row in await log.page("default", limit=9)] == ["afterwards"]
