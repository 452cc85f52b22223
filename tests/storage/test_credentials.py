"""Credentials of organisations and the site, their passwords' overlap and their statistics on disk."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.model.errors import AlreadyExists, BadInput, NotFound
from gateway.storage.credentials import CredentialRow, Credentials, Usage
from gateway.storage.passwords import hash_password
from gateway.storage.state import SeenDevice, State
from gateway.storage.state_copy import copy_of

KEY = bytes(range(32))
HOUR_MS = 3_600_000


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir()]


async def only(state: State) -> CredentialRow:
    (row,) = await Credentials(state).all()
    return row


async def test_an_organisations_and_the_sites_credential_name_no_device(state: State, tmp_path: Path) -> None:
    credentials = Credentials(state)
    hub = await credentials.add("hub", "acme")
    tool = await credentials.add("tool", None)
    rows = {row.username: row for row in await credentials.all()}
    assert (rows["hub@acme"].organization_id, rows["hub@acme"].device_id) == ("acme", None)
    assert (rows["tool"].organization_id, rows["tool"].device_id) == (None, None)
    assert rows["hub@acme"].password_hash == hash_password(KEY, hub.password)
    assert hub.password not in repr(hub)
    assert not any(made.password.encode() in content for made in (hub, tool) for content in contents(tmp_path))


@pytest.mark.parametrize("name", ["", "a/b", "a|b", "+", "#", "x" * 101])
async def test_a_name_that_could_be_taken_for_anything_else_is_refused(state: State, name: str) -> None:
    with pytest.raises(BadInput):
        await Credentials(state).add(name, "acme")
    with pytest.raises(BadInput):
        await Credentials(state).add("hub", name)
    assert await Credentials(state).all() == []


async def test_p8_a_name_is_taken_once_in_its_organisation_and_others_do_not_notice(state: State) -> None:
    credentials = Credentials(state)
    made = [(await credentials.add("hub", whose)).username for whose in ("acme", "other", None)]
    assert made == ["hub@acme", "hub@other", "hub"]
    before = await credentials.all()
    for organization_id, username in zip(("acme", "other", None), made, strict=True):
        with pytest.raises(AlreadyExists, match=f"credential {username} already"):
            await credentials.add("hub", organization_id)
    assert await credentials.all() == before


async def test_a_rotated_password_leaves_the_one_before_for_a_while_and_no_older_one(state: State) -> None:
    credentials = Credentials(state)
    first = (await credentials.add("hub", "acme")).password
    second = await credentials.rotate("hub@acme", HOUR_MS)
    row = await only(state)
    assert (row.password_hash, row.old_password_hash) == (hash_password(KEY, second), hash_password(KEY, first))
    assert row.old_password_left_ms == HOUR_MS
    third = await credentials.rotate("hub@acme", 2 * HOUR_MS)
    row = await only(state)
    assert (row.password_hash, row.old_password_hash) == (hash_password(KEY, third), hash_password(KEY, second))
    await credentials.end_old_passwords([("hub@acme", hash_password(KEY, first))])  # of an earlier rotation: too late
    assert (await only(state)).old_password_left_ms == 2 * HOUR_MS
    await credentials.end_old_passwords([("hub@acme", hash_password(KEY, second))])
    row = await only(state)
    assert (row.password_hash, row.old_password_hash, row.old_password_left_ms) == (hash_password(KEY, third), None, 0)


async def test_without_overlap_only_the_new_password_is_left(state: State) -> None:
    device = await state.add_device("acme", "kitchen")
    password = await Credentials(state).rotate(device.username, 0)
    row = await only(state)
    assert (row.password_hash, row.old_password_hash) == (hash_password(KEY, password), None)


async def test_revoked_is_gone_with_both_passwords(state: State) -> None:
    credentials = Credentials(state)
    await credentials.add("hub", "acme")
    await credentials.rotate("hub@acme", HOUR_MS)
    await credentials.revoke("hub@acme")
    assert await credentials.all() == []
    for unknown in (credentials.revoke("hub@acme"), credentials.rotate("hub@acme", 0)):
        with pytest.raises(NotFound, match="hub"):
            await unknown


async def test_statistics_are_kept_without_a_copy_and_only_of_who_is_there(state: State, tmp_path: Path) -> None:
    credentials = Credentials(state)
    await credentials.add("hub", "acme")
    copy = copy_of(tmp_path / "state.db")
    copied = (copy.stat().st_ino, copy.read_bytes())
    await credentials.note([Usage("hub@acme", 5, 2, 3, 4), Usage("gone", 5, 2, 3, 4)])
    row = await only(state)
    assert (row.last_connected_at_ms, row.connections, row.refused_logins, row.messages_in) == (5, 2, 3, 4)
    assert (copy.stat().st_ino, copy.read_bytes()) == copied


async def test_what_is_left_of_an_overlap_is_not_noted_for_a_later_one(state: State) -> None:
    """The gateway notes what it knew, a command has rotated meanwhile."""
    credentials = Credentials(state)
    first = (await credentials.add("hub", "acme")).password
    await credentials.rotate("hub@acme", HOUR_MS)
    await credentials.note([Usage("hub@acme", None, 0, 0, 0, None, 0)])
    assert (await only(state)).old_password_left_ms == HOUR_MS
    await credentials.note([Usage("hub@acme", None, 0, 0, 0, hash_password(KEY, first), HOUR_MS - 1)])
    assert (await only(state)).old_password_left_ms == HOUR_MS - 1


async def test_discovered_devices_are_registered_once_without_a_copy(state: State, tmp_path: Path) -> None:
    await state.add_device("acme", "kitchen", {"room": "kitchen"})
    await state.add_device("acme", "gone")
    await state.revoke_device("acme", "gone")
    copied = copy_of(tmp_path / "state.db").stat().st_ino
    for _ in range(2):
        seen = [("acme", "kitchen"), ("acme", "gone"), ("acme", "new"), ("other", "new")]
        await state.discover_devices(SeenDevice(*key) for key in seen)
    found = {(row.organization_id, row.device_id): row.status for row in await state.devices()}
    assert found == {
        ("acme", "gone"): "revoked",
        ("acme", "kitchen"): "active",
        ("acme", "new"): "discovered",
        ("other", "new"): "discovered",
    }
    assert copy_of(tmp_path / "state.db").stat().st_ino == copied


async def test_a_discovered_device_becomes_active_with_a_password_of_its_own(state: State) -> None:
    await state.discover_devices([SeenDevice("acme", "new")])
    await state.add_device("acme", "new", {"room": "attic"})
    assert [(row.status, row.metadata) for row in await state.devices()] == [("active", {"room": "attic"})]
