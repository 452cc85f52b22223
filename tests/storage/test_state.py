"""Devices and their credentials: one way in for each, gone when revoked, seen by every connection."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists, BadInput, NotFound, StoreFailed
from gateway.storage.credentials import Credentials
from gateway.storage.passwords import hash_password
from gateway.storage.state import State

KEY = bytes(range(32))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_a_new_device_has_a_credential_whose_password_is_nowhere_on_disk(state: State, tmp_path: Path) -> None:
    made = await state.add_device("acme", "kitchen", {"room": "Küche"})
    (device,), (login,) = await state.devices(), await Credentials(state).all()
    assert (device.organization_id, device.device_id, device.metadata) == ("acme", "kitchen", {"room": "Küche"})
    assert (device.status, device.created_at_ms) == ("active", ManualClock().now)
    assert (login.username, login.device_id, made.username) == ("acme/kitchen", "kitchen", "acme/kitchen")
    assert login.password_hash == hash_password(KEY, made.password)
    assert made.password not in repr(made)
    assert not any(made.password.encode() in content for content in contents(tmp_path))


async def test_only_the_gateways_user_may_read_the_state(state: State, tmp_path: Path) -> None:
    await state.add_device("acme", "kitchen")
    await state.copy_to(tmp_path / "copy.db")
    assert modes(tmp_path) == {0o600}


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "a+", "#", "ä", "a\n", "-a", ".a", "a\0", "x" * 101, "\ud800"])
async def test_an_id_that_cannot_be_part_of_a_topic_is_refused(state: State, name: str) -> None:
    with pytest.raises(BadInput) as raised:
        await state.add_device("acme", name)
    assert raised.value.code == "invalid_device_id"
    with pytest.raises(BadInput) as raised:
        await state.add_device(name, "kitchen")
    assert raised.value.code == "invalid_organization_id"
    assert await state.devices() == []


@pytest.mark.parametrize("name", ["a", "A9", "sensor_1.b:c-d", "x" * 100])
async def test_usable_ids_are_used(state: State, name: str) -> None:
    made = await state.add_device("acme", name)
    assert made.topics[0] == f"neurobuild/sensors/{name}/data"


@pytest.mark.parametrize("value", ["\ud800", "\x7f", "\x9b", "\0", "\x1b[31m"], ids=ascii)
@pytest.mark.parametrize("place", ["key", "value"])
async def test_metadata_that_is_not_text_is_refused(state: State, place: str, value: str) -> None:
    """It is shown on terminals, and forwarded."""
    with pytest.raises(BadInput) as raised:
        await state.add_device("acme", "kitchen", {"room": value} if place == "value" else {value: "room"})
    assert raised.value.code == "invalid_metadata"
    assert await state.devices() == []


@pytest.mark.parametrize(
    "value", ["", "Küche", "台所", "🌡", '"\\', "3\u00a0m", "\u0646\u200c\u0641", "👩\u200d🍳"], ids=ascii
)
async def test_metadata_is_any_text(state: State, value: str) -> None:
    await state.add_device("acme", "kitchen", {"room": value})
    (device,) = await state.devices()
    assert device.metadata == {"room": value}


async def test_a_device_has_one_credential(state: State) -> None:
    await state.add_device("acme", "kitchen", {"room": "old"})
    before = await Credentials(state).all()
    with pytest.raises(AlreadyExists, match="kitchen of acme") as raised:
        await state.add_device("acme", "kitchen", {"room": "new"})
    assert "rotate" in raised.value.hint
    assert await Credentials(state).all() == before
    assert [device.metadata for device in await state.devices()] == [{"room": "old"}]


async def test_p8_equal_ids_of_two_organisations_are_two_devices(state: State) -> None:
    await state.add_device("acme", "kitchen")
    await state.add_device("other", "kitchen")
    await state.revoke_device("acme", "kitchen")
    assert [login.username for login in await Credentials(state).all()] == ["other/kitchen"]


async def test_revoked_and_added_again_is_the_same_device_with_a_new_password(state: State) -> None:
    old = await state.add_device("acme", "kitchen", {"room": "old"})
    await state.revoke_device("acme", "kitchen")
    assert await Credentials(state).all() == []
    assert [device.status for device in await state.devices()] == ["revoked"]
    new = await state.add_device("acme", "kitchen", {"room": "new"})
    assert new.password != old.password
    assert [login.password_hash for login in await Credentials(state).all()] == [hash_password(KEY, new.password)]
    assert [(device.status, device.metadata) for device in await state.devices()] == [("active", {"room": "new"})]


async def test_what_is_not_there_or_not_active_cannot_be_revoked(state: State) -> None:
    await state.add_device("acme", "kitchen")
    for organization, device in (("acme", "hall"), ("other", "kitchen")):
        with pytest.raises(NotFound, match=device):
            await state.revoke_device(organization, device)
    await state.revoke_device("acme", "kitchen")
    with pytest.raises(NotFound):
        await state.revoke_device("acme", "kitchen")


async def test_another_connections_change_is_seen(state: State, tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as command:
        await command.add_device("acme", "theirs")
        assert {device.device_id for device in await state.devices()} == {"theirs"}
        await command.revoke_device("acme", "theirs")
        assert await Credentials(state).all() == []


async def test_changes_at_the_same_time_all_succeed(state: State) -> None:
    """They share one connection: a transaction of one must not be inside that of another."""
    await state.add_device("acme", "leaving")
    names = [f"device-{number}" for number in range(10)]
    await asyncio.gather(*(state.add_device("acme", name) for name in names), state.revoke_device("acme", "leaving"))
    assert {login.device_id for login in await Credentials(state).all()} == set(names)


async def test_a_change_that_is_cancelled_midway_is_undone_and_hinders_no_other(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = state._db.execute

    async def cancelled(sql: str, *parameters: Any) -> object:
        result = await execute(sql, *parameters)
        if sql.startswith("INSERT INTO devices"):
            raise asyncio.CancelledError
        return result

    with monkeypatch.context() as cancelling:
        cancelling.setattr(state._db, "execute", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await state.add_device("acme", "kitchen")
    await state.add_device("acme", "hall")
    assert [device.device_id for device in await state.devices()] == ["hall"]


async def test_a_disk_that_fails_is_told_and_nothing_of_the_change_stays(state: State) -> None:
    await state._db.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON mqtt_credentials BEGIN SELECT raise(FAIL, 'x'); END"
    )
    with pytest.raises((StoreFailed, AlreadyExists)):
        await state.add_device("acme", "kitchen")
    await state._db.execute("DROP TRIGGER full")
    assert await state.devices() == []
    await state.add_device("acme", "kitchen")


async def test_what_was_changed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with State.open(path, KEY, clock=ManualClock()) as state:
        made = await state.add_device("acme", "kitchen")
        with sqlite3.connect(path) as db:  # already on disk while it is open
            assert db.execute("SELECT count(*) FROM mqtt_credentials").fetchone() == (1,)
        db.close()
    async with State.open(path, KEY, clock=ManualClock()) as state:
        assert [login.password_hash for login in await Credentials(state).all()] == [hash_password(KEY, made.password)]


async def test_a_state_that_cannot_be_opened_is_told_in_words(tmp_path: Path) -> None:
    """For example because a command run as root has made it."""
    with pytest.raises(StoreFailed, match="nowhere"):
        async with State.open(tmp_path / "nowhere" / "state.db", KEY, clock=ManualClock()):
            pass
