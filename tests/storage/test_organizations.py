"""Organisations: whoever has anything is in one, also what a release before this had."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists, BadInput, Conflict, NotFound, StoreFailed
from gateway.storage.activity_log import read_activity
from gateway.storage.credentials import Credentials
from gateway.storage.migrations import migrate
from gateway.storage.mqtt_subscriptions import MqttSubscriptions
from gateway.storage.organizations import Organizations
from gateway.storage.state import SeenDevice, State
from gateway.storage.state_schema import STATE_MIGRATIONS
from gateway.storage.tokens import Tokens

KEY = bytes(range(32))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


async def ids(state: State) -> list[str]:
    return [one.id for one in await Organizations(state).all()]


async def test_what_release_0_1_0_had_is_in_an_organisation_and_stays_good(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, STATE_MIGRATIONS[:1], path)
        db.execute("INSERT INTO devices (organization_id, id, created_at) VALUES ('d', 'kitchen', 3), ('d', 'hall', 2)")
        db.execute(
            """INSERT INTO mqtt_credentials (username, organization_id, password_hash, topic_prefix, created_at)
            VALUES ('hub', 'c', x'01', '', 4), ('site', NULL, x'02', '#', 4)"""
        )
        db.execute("INSERT INTO mqtt_subscriptions VALUES ('sub', 's', '[]', NULL, 0, 5)")
        db.execute("INSERT INTO tokens VALUES ('alice', 't', 'owner', x'03', 6), ('bob', 'd', 'member', x'04', 1)")
    async with State.open(path, KEY, clock=ManualClock()) as state:
        known = [(one.id, one.created_at_ms, one.devices) for one in await Organizations(state).all()]
        assert known == [("c", 4, 0), ("d", 1, 2), ("s", 5, 0), ("t", 6, 0)]
        tokens = await Tokens(state).all()
        assert [(one.name, one.organization_id, one.role, one.token_hash) for one in tokens] == [
            ("bob", "d", "member", b"\4"),
            ("alice", "t", "owner", b"\3"),
        ]
        assert len({one.id for one in tokens}) == 2
        assert [one.username for one in await Credentials(state).all()] == ["site", "hub"]


async def test_whoever_is_written_of_an_organisation_is_in_one(state: State) -> None:
    await state.add_device("a", "kitchen")
    await state.discover_devices([SeenDevice("b", "x"), SeenDevice("b", "y"), SeenDevice("a", "z")])
    await Credentials(state).add("hub", "c")
    await Credentials(state).add("site", None)
    await Tokens(state).add("alice", "d", "member")
    await Tokens(state).add("alice", None, "owner")
    await MqttSubscriptions(state).add("e", ("#",), None, 0)
    assert await ids(state) == ["a", "b", "c", "d", "e"]


async def test_one_is_added_renamed_and_removed(state: State) -> None:
    organizations = Organizations(state)
    await organizations.ensure(["default"])
    await organizations.add("acme", "Acme", by="cli")
    with pytest.raises(AlreadyExists):
        await organizations.add("acme", "", by="cli")
    for name in ("a/b", "", "#"):
        with pytest.raises(BadInput):
            await organizations.add(name, "", by="cli")
    with pytest.raises(BadInput):
        await organizations.rename("acme", "a\nb", by="cli")
    await organizations.rename("acme", "Acme Ltd.", by="cli")
    assert (await organizations.get("acme")).name == "Acme Ltd."
    await Tokens(state).add("alice", "acme", "owner")
    await organizations.remove("acme", by="cli")
    rename, remove = organizations.rename("acme", "", by="cli"), organizations.remove("acme", by="cli")
    for gone in (organizations.get("acme"), remove, rename):
        with pytest.raises(NotFound):
            await gone
    assert await Tokens(state).all() == []
    actions = [(one.actor, one.action) for one in await read_activity(state.fetch, None, limit=10)]
    assert actions[::-1] == [
        ("gateway", "organization.add"),
        ("cli", "organization.add"),
        ("cli", "organization.update"),
        ("gateway", "token.create"),
        ("cli", "organization.remove"),
    ]


async def test_one_that_has_something_stays(state: State) -> None:
    organizations = Organizations(state)
    await state.add_device("acme", "kitchen")
    with pytest.raises(Conflict, match=r"1 devices: kitchen\..*Revoke"):
        await organizations.remove("acme", by="cli")
    await state.revoke_device("acme", "kitchen")
    await Credentials(state).add("hub", "acme")
    with pytest.raises(Conflict, match=r"hub@acme is of acme.*credential revoke hub@acme"):
        await organizations.remove("acme", by="cli")
    await Credentials(state).revoke("hub@acme")
    row = await MqttSubscriptions(state).add("acme", ("#",), None, 0)
    with pytest.raises(Conflict, match="subscriptions"):
        await organizations.remove("acme", by="cli")
    await MqttSubscriptions(state).remove("acme", row.id)
    await organizations.remove("acme", by="cli")
    assert await ids(state) == []
    assert await state.devices() == []


async def test_p6_a_full_disk_keeps_no_gateway_from_starting(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreFailed("no room")

    with monkeypatch.context() as disk:
        disk.setattr(state, "change", full)
        await Organizations(state).ensure(["default"])
    assert await ids(state) == []
    await Organizations(state).ensure(["default"])
    assert await ids(state) == ["default"]
