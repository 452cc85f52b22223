"""Who may come in: taken over from the state as a whole, so that no login fails for a moment."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access import Access, Credential, known_devices
from gateway.clock import ManualClock
from gateway.model.errors import BadInput, StoreFailed
from gateway.parsers.contract import Found
from gateway.parsers.senml import SENML
from gateway.storage.credentials import Credentials
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
    return Access(state, KEY, ManualClock())


def logged_in(access: Access, device: DeviceCredential) -> Credential:
    credential = access.authenticate(device.username, device.password)
    assert credential is not None
    return credential


async def test_name_and_password_or_the_password_alone_let_in(access: Access, state: State) -> None:
    device = await state.add_device("acme", "kitchen")
    await access.refresh()
    credential = logged_in(access, device)
    assert access.authenticate_key(device.password) is credential
    assert credential.device is access.devices.get("acme", "kitchen")
    assert credential.organization_id == "acme"
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
    assert not one.rights.may_publish("org_theirs/devices/x/telemetry")


async def test_what_has_not_changed_stays_the_same_object(access: Access, state: State, command: State) -> None:
    device = await state.add_device("acme", "kitchen", {"room": "kitchen"})
    await access.refresh()
    credential = logged_in(access, device)
    assert credential.device is not None
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
    assert new.device is not None
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


# Organisations, the site, and passwords that overlap


HOUR_MS = 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timed(state: State, clock: ManualClock) -> Access:
    return Access(state, KEY, clock)


async def hub_of(state: State, access: Access, organization_id: str | None = "acme") -> tuple[Credential, str]:
    new = await Credentials(state).add("hub", organization_id)
    await access.refresh()
    credential = access.authenticate(new.username, new.password)
    assert credential is not None
    return credential, new.password


async def test_an_old_password_is_good_for_its_time_and_then_its_sessions_end(
    timed: Access, state: State, clock: ManualClock
) -> None:
    old, first = await hub_of(state, timed)
    second = await Credentials(state).rotate("hub@acme", HOUR_MS)
    await timed.refresh()
    new = timed.authenticate("hub@acme", second)
    assert new is not None
    assert new is not old
    assert new.statistics is old.statistics
    clock.advance(HOUR_MS - 1)
    await timed.refresh()  # what the state says of the time left is an hour old
    assert timed.authenticate("hub@acme", first) is old
    assert timed.authenticate_key(first) is old
    assert timed.is_current(old)
    told: list[bool] = []

    async def hear() -> None:
        told.append(timed.is_current(old))

    timed.on_change.append(hear)
    clock.advance(1)
    assert timed.authenticate("hub@acme", first) is None
    assert timed.authenticate_key(first) is None
    await timed._end_old_passwords()
    assert told == [False]
    assert timed.is_current(new)
    assert [row.old_password_hash for row in await Credentials(state).all()] == [None]


async def test_a_clock_that_is_set_ends_no_password(timed: Access, state: State, clock: ManualClock) -> None:
    _, first = await hub_of(state, timed)
    await Credentials(state).rotate("hub@acme", HOUR_MS)
    await timed.refresh()
    clock.now += 1000 * HOUR_MS
    assert timed.authenticate("hub@acme", first) is not None


async def test_what_is_left_to_an_old_password_survives_a_restart(
    timed: Access, state: State, clock: ManualClock
) -> None:
    _, first = await hub_of(state, timed)
    await Credentials(state).rotate("hub@acme", HOUR_MS)
    await timed.refresh()
    clock.advance(HOUR_MS * 3 // 4)
    await timed.write_down()
    later = ManualClock()
    again = Access(state, KEY, later)
    await again.refresh()
    later.advance(HOUR_MS // 4 - 1)
    assert again.authenticate("hub@acme", first) is not None
    later.advance(1)
    assert again.authenticate("hub@acme", first) is None


async def test_a_revoked_credential_ends_with_both_passwords(timed: Access, state: State) -> None:
    old, first = await hub_of(state, timed)
    second = await Credentials(state).rotate("hub@acme", HOUR_MS)
    await timed.refresh()
    new = timed.authenticate("hub@acme", second)
    assert new is not None
    await Credentials(state).revoke("hub@acme")
    await timed.refresh()
    for credential, password in ((old, first), (new, second)):
        assert not timed.is_current(credential)
        assert timed.authenticate("hub@acme", password) is None
    assert not timed.may_hear("hub@acme", "acme/devices/kitchen/status")


async def test_a_device_unknown_so_far_is_registered_behind_the_data_path(timed: Access, state: State) -> None:
    await state.add_device("acme", "kitchen")
    hub, _ = await hub_of(state, timed)
    found = timed.sender(hub, "devices/attic/telemetry")
    assert found is not None
    assert (found.organization_id, found.device_id) == ("acme", "attic")
    assert timed.sender(hub, "neurobuild/sensors/attic/data") is found
    assert timed.sender(hub, "org_acme/devices/kitchen/status") is timed.devices.get("acme", "kitchen")
    assert [row.device_id for row in await state.devices()] == ["kitchen"]
    await timed.write_down()
    assert [(row.device_id, row.status) for row in await state.devices()] == [
        ("attic", "discovered"),
        ("kitchen", "active"),
    ]
    await timed.refresh()
    assert timed.sender(hub, "devices/attic/telemetry") is found


@pytest.mark.parametrize(
    "topic", ["devices", "devices/x", "devices//status", "devices/-x/status", "devices/a b/status", "neurobuild/x/y/z"]
)
async def test_a_topic_of_no_possible_device_discovers_nothing(timed: Access, state: State, topic: str) -> None:
    hub, _ = await hub_of(state, timed)
    assert timed.sender(hub, topic) is None
    assert len(timed.devices) == 0


@pytest.mark.parametrize(
    "topic", ["devices/{}/commands/1", "org_acme/devices/{}/config", "neurobuild/sensors/{}/commands"]
)
async def test_a_device_that_is_spoken_to_is_not_discovered(timed: Access, state: State, topic: str) -> None:
    await state.add_device("acme", "kitchen")
    hub, _ = await hub_of(state, timed)
    assert timed.sender(hub, topic.format("kitchen")) is timed.devices.get("acme", "kitchen")
    spoken_to = timed.sender(hub, topic.format("typo"))
    assert spoken_to is not None
    assert (spoken_to.device_id, spoken_to.is_known) == ("typo", False)
    assert [one.device_id for one in timed.devices] == ["kitchen"]
    timed.sender(hub, "devices/typo/status")
    assert [one.device_id for one in timed.devices] == ["kitchen", "typo"]


async def test_a_hub_that_invents_devices_cannot_fill_the_state_and_loses_no_reading(
    timed: Access, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_devices, "DISCOVERED_AT_MOST", 3)
    await state.add_device("acme", "known")
    hub, _ = await hub_of(state, timed)
    for number in range(10):
        sender = timed.sender(hub, f"devices/invented-{number}/telemetry")
        assert sender is not None
        assert sender.device_id == f"invented-{number}"
    await timed.write_down()
    await timed.refresh()
    assert timed.sender(hub, "devices/another/telemetry") is not None
    await timed.write_down()
    assert len(await state.devices()) == len(timed.devices) == 4
    await state.add_device("acme", "invented-0")  # the owner knows it: there is room for another
    await timed.refresh()
    timed.sender(hub, "devices/another/telemetry")
    await timed.write_down()
    assert [row.device_id for row in await state.devices()] == [
        "another",
        "invented-0",
        "invented-1",
        "invented-2",
        "known",
    ]


async def test_what_could_not_be_written_is_written_later(
    timed: Access, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(_: object) -> None:
        raise StoreFailed("no room")

    hub, _ = await hub_of(state, timed)
    timed.sender(hub, "devices/attic/telemetry")
    timed.came_in(hub)
    with monkeypatch.context() as full:
        full.setattr(state, "discover_devices", failing)
        full.setattr(timed._credentials, "note", failing)
        with pytest.raises(StoreFailed):
            await timed.write_down()
    await timed.write_down()
    assert [row.device_id for row in await state.devices()] == ["attic"]
    assert [row.connections for row in await Credentials(state).all()] == [1]


async def test_statistics_go_on_over_a_restart_and_a_new_password(timed: Access, state: State) -> None:
    hub, password = await hub_of(state, timed)
    timed.came_in(hub)
    timed.authenticate("hub@acme", "wrong")
    hub.statistics.messages_in += 7
    await timed.write_down()
    await Credentials(state).rotate("hub@acme", HOUR_MS)
    again = Access(state, KEY, ManualClock())
    await again.refresh()
    credential = again.authenticate("hub@acme", password)
    assert credential is not None
    again.came_in(credential)
    await again.write_down()
    (row,) = await Credentials(state).all()
    assert (row.connections, row.refused_logins, row.messages_in) == (2, 1, 7)
    assert row.last_connected_at_ms == ManualClock().now


async def test_nothing_is_written_while_nothing_is_used(
    timed: Access, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hub_of(state, timed)
    written: list[object] = []

    async def note(usages: list[object]) -> None:
        written.extend(usages)

    monkeypatch.setattr(timed._credentials, "note", note)
    await timed.write_down()
    assert written == []


async def test_rights_that_have_changed_hold_for_what_is_sent(
    timed: Access, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session may outlive its credential: of the name that was the site's, an organisation's may remain."""
    monkeypatch.setattr("gateway.storage.credentials.organization_username", lambda _, name: name)  # as they were once
    await hub_of(state, timed, None)
    assert timed.may_hear("hub", "other/devices/x/status")
    assert timed.may_hear("hub", "$SYS/broker/uptime")
    await Credentials(state).revoke("hub")
    await timed.refresh()
    await hub_of(state, timed, "acme")
    assert timed.may_hear("hub", "acme/devices/x/status")
    assert not timed.may_hear("hub", "other/devices/x/status")
    assert not timed.may_hear("hub", "$SYS/broker/uptime")
    assert not timed.may_hear("nobody", "acme/devices/x/status")


async def test_a_device_speaks_for_no_other_that_is_known_and_a_hub_for_all(access: Access, state: State) -> None:
    """By a parser: what it calls a device is looked up, so the sender has to be compared with what was found."""
    kitchen, _ = await state.add_device("acme", "kitchen"), await state.add_device("acme", "hall")
    await access.refresh()
    sender = logged_in(access, kitchen).device
    assert sender is not None
    assert access.sent_by(sender, SENML).device_of(Found({}, "kitchen")) is sender
    with pytest.raises(BadInput, match="was sent as kitchen"):
        access.sent_by(sender, SENML).device_of(Found({}, "hall"))
    assert access.sent_within("acme", SENML).device_of(Found({}, "hall")) is access.devices.get("acme", "hall")
