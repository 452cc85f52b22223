"""Who may come in: taken over from the state as a whole, so that no login fails for a moment."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access import Access, Credential
from gateway.clock import ManualClock
from gateway.storage.state import DeviceCredential, State

KEY = bytes(range(32))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        yield state


@pytest.fixture
async def command(tmp_path: Path) -> AsyncIterator[State]:
    """The state as a command beside the gateway opens it."""
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as command:
        yield command


@pytest.fixture
def access(state: State) -> Access:
    return Access(state, KEY)


def logged_in(access: Access, device: DeviceCredential) -> Credential:
    credential = access.authenticate(device.username, device.password)
    assert credential is not None
    return credential


async def test_name_and_password_or_the_password_alone_let_in(access: Access, state: State) -> None:
    device = await state.add_device("acme", "kitchen")
    await access.refresh()
    credential = logged_in(access, device)
    assert access.authenticate_key(device.password) is credential
    assert (credential.device.organization_id, credential.device.device_id) == ("acme", "kitchen")
    assert access.is_current(credential)


async def test_nothing_else_lets_in(access: Access, state: State) -> None:
    kitchen, hall = await state.add_device("acme", "kitchen"), await state.add_device("acme", "hall")
    await access.refresh()
    wrong = ["", " ", kitchen.password[:-1], kitchen.password + " ", hall.password, "\udcff", "\0"]
    for password in wrong:
        assert access.authenticate(kitchen.username, password) is None
    for username in ("", "kitchen", "ACME/kitchen", "acme/kitchen ", "other/kitchen", "acme/none"):
        for password in ("", kitchen.password):
            assert access.authenticate(username, password) is None
    assert access.authenticate_key("") is None
    assert access.authenticate_key(kitchen.username) is None


async def test_p8_equal_names_of_two_organisations_do_not_open_each_others_door(access: Access, state: State) -> None:
    ours, theirs = await state.add_device("ours", "x"), await state.add_device("theirs", "x")
    await access.refresh()
    assert access.authenticate(ours.username, theirs.password) is None
    one, other = logged_in(access, ours), logged_in(access, theirs)
    assert one.device is not other.device
    assert "org_theirs/devices/x/" not in one.prefixes


async def test_what_has_not_changed_stays_the_same_object(access: Access, state: State, command: State) -> None:
    device = await state.add_device("acme", "kitchen", {"room": "kitchen"})
    await access.refresh()
    credential = logged_in(access, device)
    credential.device.readings = 7
    await command.add_device("acme", "hall")
    await access.refresh()
    assert logged_in(access, device) is credential
    assert access.is_current(credential)
    assert {one.device_id for one in access.devices} == {"kitchen", "hall"}
    assert credential.device in access.devices
    assert (credential.device.readings, credential.device.metadata) == (7, '{"room":"kitchen"}')


async def test_a_new_password_replaces_the_credential_and_keeps_the_device(
    access: Access, state: State, command: State
) -> None:
    device = await state.add_device("acme", "kitchen", {"room": "old"})
    await access.refresh()
    old = logged_in(access, device)
    await command.revoke_device("acme", "kitchen")
    again = await command.add_device("acme", "kitchen", {"room": "new"})
    await access.refresh()
    new = logged_in(access, again)
    assert new is not old
    assert not access.is_current(old)
    assert new.device is old.device
    assert new.device.metadata == '{"room":"new"}'
    assert access.authenticate(device.username, device.password) is None
    assert access.authenticate_key(device.password) is None


async def test_metadata_may_vanish(access: Access, state: State, command: State) -> None:
    await state.add_device("acme", "kitchen", {"room": "old"})
    await access.refresh()
    await command.revoke_device("acme", "kitchen")
    await command.add_device("acme", "kitchen")
    await access.refresh()
    assert [device.metadata for device in access.devices] == [None]


async def test_a_revoked_credential_vanishes_and_everybody_is_told(
    access: Access, state: State, command: State
) -> None:
    device = await state.add_device("acme", "kitchen")
    await access.refresh()
    credential = logged_in(access, device)
    told: list[bool] = []

    async def hear() -> None:
        told.append(access.is_current(credential))

    access.on_change.append(hear)
    await command.revoke_device("acme", "kitchen")
    await access.refresh()
    assert told == [False]
    assert access.authenticate(device.username, device.password) is None
    assert access.authenticate_key(device.password) is None


async def test_while_it_is_read_again_nobody_is_turned_away(access: Access, state: State, command: State) -> None:
    devices = [await state.add_device("acme", f"device-{number}") for number in range(20)]
    await access.refresh()
    known = [logged_in(access, device) for device in devices]
    checks = 0
    for number in range(10):
        await command.add_device("acme", f"new-{number}")
        refreshing = asyncio.create_task(access.refresh())
        while not refreshing.done():
            assert [logged_in(access, device) for device in devices] == known
            checks += 1
            await asyncio.sleep(0)
        await refreshing
    assert checks > 10


async def test_a_change_made_while_it_is_read_is_seen_by_the_next_reading(
    access: Access, state: State, command: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[DeviceCredential] = []
    devices = state.devices

    async def meanwhile() -> object:
        rows = await devices()
        added.append(await command.add_device("acme", f"late-{len(added)}"))
        return rows

    await state.add_device("acme", "kitchen")
    with monkeypatch.context() as busy:
        busy.setattr(state, "devices", meanwhile)
        await access.refresh()
    await access.refresh()
    assert len(added) == 1
    logged_in(access, added[0])


async def test_a_reading_that_fails_changes_nothing_and_the_next_one_catches_up(
    access: Access, state: State, command: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing() -> object:
        raise OSError

    kitchen = await state.add_device("acme", "kitchen")
    await access.refresh()
    credential = logged_in(access, kitchen)
    hall = await command.add_device("acme", "hall")
    with monkeypatch.context() as broken:
        broken.setattr(state, "devices", failing)
        with pytest.raises(OSError):  # noqa: PT011 - the very one from above
            await access.refresh()
    assert logged_in(access, kitchen) is credential
    await access.refresh()
    logged_in(access, hall)
