"""What MQTT clients are owed, on disk: in order, in few commits, through failures and damage."""

import asyncio
import random
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from gateway.model.errors import StoreFailed
from gateway.storage import mqtt_store
from gateway.storage.commit_thread import CommitThread, Transaction
from gateway.storage.mqtt_store import Change, Kept, KeptMessage, MqttStore
from tests.site import FailingDisk
from tests.storage.repair.damaged import PAGE, corrupt_files, fill, opened

CLIENT = "default/kitchen|phone"


def message(position: int, *, payload: bytes = b"on", qos: int = 1) -> KeptMessage:
    return KeptMessage(
        position, position, "default/t", payload, qos, retain=False, queued_at_ms=5, sent=False, released=False
    )


def everything() -> list[Change]:
    """One of each kind."""
    return [
        *mqtt_store.begin_session(1, CLIENT, "default/"),
        *mqtt_store.begin_session(2, "other|x", "other/"),
        mqtt_store.subscribe(1, "default/a/#", 1),
        mqtt_store.subscribe(1, "default/b", 2),
        mqtt_store.subscribe(1, "default/b", 0),
        mqtt_store.take_id(1, 7),
        mqtt_store.take_id(1, 8),
        mqtt_store.release_id(1, 7),
        *(mqtt_store.queue_message(1, message(number, qos=2)) for number in range(1, 4)),
        mqtt_store.mark_sent(1),
        mqtt_store.mark_released(1, 2),
        mqtt_store.forget_message(1, 1),
        mqtt_store.queue_message(1, message(4)),
        mqtt_store.retain("default/t", b"old", 0),
        mqtt_store.retain("default/t", b"new", 1),
        mqtt_store.retain("default/u", b"x", 1),
        mqtt_store.retain("default/u", b"", 1),
        *mqtt_store.leave_session(1, 1_000),
    ]


def check(kept: Kept) -> None:
    assert [one.client for one in kept.sessions.values()] == ["other|x", CLIENT]  # as they left
    session = kept.sessions[1]
    assert (session.namespace, session.subscriptions, session.received) == (
        "default/",
        {"default/a/#": 1, "default/b": 0},
        [8],
    )
    outbox = [(one.position, one.payload, one.sent, one.released) for one in session.outbox]
    assert outbox == [(2, b"", True, True), (3, b"on", True, False), (4, b"on", False, False)]
    assert kept.retained == [("default/t", b"new", 1)]


async def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        await store.written(everything())
        await store.close()
    async with opened(tmp_path / "log.db") as log:
        check(await MqttStore(log).load())


async def test_a_session_that_ends_takes_along_all_that_is_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        await store.written([*everything(), *mqtt_store.end_session(1)])
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        for table, left in (
            ("mqtt_sessions", 1),
            ("session_subscriptions", 0),
            ("session_received", 0),
            ("session_outbox", 0),
        ):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (left,)


async def test_what_belongs_to_no_session_is_removed(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        await store.written([change for change in everything() if "INTO mqtt_sessions" not in change[0]])
        assert not (await store.load()).sessions
        await store.written(mqtt_store.begin_session(1, CLIENT, "default/"))
        (session,) = (await store.load()).sessions.values()
        assert (session.subscriptions, session.received, session.outbox) == ({}, [], [])


async def test_what_arrives_during_a_commit_forms_the_next_and_everybody_hears_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    real = CommitThread._attempt

    def attempt(thread: CommitThread, transaction: Transaction) -> Exception | None:
        nonlocal commits
        commits += isinstance(transaction, mqtt_store._Batch)
        return real(thread, transaction)

    monkeypatch.setattr(CommitThread, "_attempt", attempt)
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        heard: list[int] = []
        for number in range(1_000):
            changes = [mqtt_store.retain(f"default/{number}", b"x", 0)] if number % 3 else []
            store.write(changes, lambda _, number=number: heard.append(number))  # type: ignore[misc]
        await store.written()
        assert heard == list(range(1_000))
        assert commits <= 2


async def test_what_can_wait_is_written_within_a_second_or_when_it_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        store.later([mqtt_store.retain("a", b"x", 0)])
        assert (await store.load()).retained == []
        async with asyncio.timeout(20):
            while not (await store.load()).retained:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        store.later([mqtt_store.retain("b", b"x", 0)])
        await store.close()
        assert len((await store.load()).retained) == 2
        refused: list[StoreFailed | None] = []
        store.write([mqtt_store.retain("c", b"x", 0)], refused.append)
        store.later([mqtt_store.retain("d", b"x", 0)])
        assert isinstance(refused[0], StoreFailed)


async def test_whoever_waits_for_a_commit_that_fails_hears_it(tmp_path: Path, disk: FailingDisk) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        disk.failing = True
        with pytest.raises(StoreFailed):
            await store.written([mqtt_store.retain("a", b"x", 0)])
        disk.failing = False
        await store.written([mqtt_store.retain("b", b"x", 0)])
        assert [topic for topic, *_ in (await store.load()).retained] == ["b"]


async def test_a_fault_of_one_that_waited_stops_no_other(tmp_path: Path) -> None:
    async with opened(tmp_path / "log.db") as log:
        store = MqttStore(log)
        store.write([mqtt_store.retain("a", b"x", 0)], lambda _: 1 // 0)  # type: ignore[arg-type]
        await store.written([mqtt_store.retain("b", b"x", 0)])


async def test_damage_costs_no_promise_and_a_fresh_log_has_what_is_owed(tmp_path: Path) -> None:
    """A commit that meets damage is made in the log that takes its place, where the tables are already."""
    path = tmp_path / "log.db"
    await fill(path, 20_000)
    async with opened(path) as log:
        await MqttStore(log).written(everything())
    async with opened(path) as log:
        log.care.report("so says the test")
        store = MqttStore(log)
        await store.written([mqtt_store.queue_message(1, message(5))])
        async with asyncio.timeout(10):
            while not corrupt_files(tmp_path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        kept = await store.load()
        assert kept.sessions[1].outbox.pop().position == 5
        check(kept)


async def test_a_commit_that_fails_by_damage_is_tried_again_in_the_fresh_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.db"
    damage = sqlite3.DatabaseError("database disk image is malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    real, failures = CommitThread._attempt, [damage]

    def attempt(thread: CommitThread, transaction: Transaction) -> Exception | None:
        if isinstance(transaction, mqtt_store._Batch) and failures:
            return failures.pop()
        return real(thread, transaction)

    async with opened(path) as log:
        store = MqttStore(log)
        await store.written(everything())
        monkeypatch.setattr(CommitThread, "_attempt", attempt)
        await store.written([mqtt_store.retain("new", b"x", 0)])
        assert not failures
        assert len(corrupt_files(tmp_path)) == 1
        kept = await store.load()
        kept.retained.remove(("new", b"x", 0))
        check(kept)


async def test_an_outbox_on_broken_pages_costs_nobody_else(tmp_path: Path) -> None:
    """The exchange copies what can be reached; what is left of a session whose row is gone, goes."""
    path = tmp_path / "log.db"
    async with opened(path) as log:
        store = MqttStore(log)
        await store.written(everything())
        await store.written(
            [mqtt_store.queue_message(2, message(number, payload=bytes(3_000))) for number in range(1, 500)]
        )
    await asyncio.to_thread(partial(_spoil_the_end, path))
    async with opened(path) as log:
        log.care.report("so says the test")
        kept = await MqttStore(log).load()
        assert len(kept.sessions[2].outbox) < 499
        assert kept.sessions[1].subscriptions == {"default/a/#": 1, "default/b": 0}


def _spoil_the_end(path: Path) -> None:
    pages = path.stat().st_size // PAGE
    with path.open("r+b") as file:
        file.seek((pages - 100) * PAGE)
        file.write(random.Random(1).randbytes(50 * PAGE))
