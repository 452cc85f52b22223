"""What organisations and the site may do at the front door, how passwords change, what a failed login costs."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.access import Access
from gateway.broker.door import Door
from gateway.cli.gateway_link import ask
from gateway.login_delay import FIRST_S, LONGEST_S
from gateway.operations.credentials import (
    add_credential,
    list_credentials,
    revoke_credential,
    rotate_credential,
    show_credential,
)
from gateway.operations.devices import add_device, list_devices, rotate_device
from gateway.storage.credentials import NewPassword
from tests.broker.raw import ACCEPTED, DISCONNECT, RawClient, connect, puback, publish, subscribe
from tests.broker.test_subscribing import line, mosquitto_sub
from tests.site import PATIENCE_S, Site, reading, running_site, until

REFUSED = b"\x20\x02\x00\x05"
HOUR_MS = 3_600_000


async def hub_of(site: Site, organization_id: str | None = "default", name: str = "hub") -> NewPassword:
    return await site.command(add_credential, name=name, organization_id=organization_id)


async def mosquitto_pub(site: Site, who: NewPassword, topic: str, payload: bytes) -> int:
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", who.username, "-P", who.password]
    process = await asyncio.create_subprocess_exec(
        *command, "-q", "1", "-t", topic, "-s", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE_S):
        await process.communicate(payload)
    assert process.returncode is not None
    return process.returncode


@pytest.mark.parametrize(
    "topic", ["neurobuild/sensors/attic/data", "devices/attic/telemetry", "org_default/devices/attic/telemetry"]
)
async def test_what_a_hub_sends_is_stored_under_the_device_it_names_which_is_discovered(site: Site, topic: str) -> None:
    hub = await hub_of(site)
    assert await mosquitto_pub(site, hub, topic, reading("attic")) == 0
    assert [(one.organization_id, one.device_id) for one in await site.stored(1)] == [("default", "attic")]
    devices = await site.command(list_devices)
    assert [(one.device_id, one.status) for one in devices] == [("attic", "discovered"), ("kitchen", "active")]


async def test_a_hub_speaks_for_known_devices_and_many_of_them(site: Site) -> None:
    async with RawClient.login(site, await hub_of(site)) as hub:
        names = ["kitchen", *(f"room-{number}" for number in range(150))]
        for packet_id, name in enumerate(names * 2, 1):
            hub.send(publish(f"devices/{name}/telemetry", reading(name), qos=1, packet_id=packet_id))
        await hub.expect(*(puback(packet_id) for packet_id in range(1, 303)))
    assert [one.device_id for one in await site.stored(302)] == names * 2
    assert len(await site.command(list_devices)) == 151


async def test_a_discovered_device_registers_itself_soon_without_being_asked_for(site: Site) -> None:
    async with RawClient.login(site, await hub_of(site)) as hub:
        hub.send(publish("devices/attic/status", b"online", qos=1))
        await hub.expect(puback(1))
        access = site.gateway._running.access
        await until(lambda: not access.devices._to_register, "the registration")
    assert [one.device_id for one in await site.gateway._running.state.devices()] == ["attic", "kitchen"]


async def test_a_device_beyond_the_bound_loses_no_reading_and_is_registered_when_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.access.known_devices.DISCOVERED_AT_MOST", 1)
    topic, payload = "devices/attic/telemetry", reading("attic")

    async def registered() -> list[tuple[str, str]]:
        return [(one.device_id, one.status) for one in await site.command(list_devices)]

    async with RawClient.login(site, await hub_of(site)) as hub:
        hub.send(publish("devices/first/status", b"on", qos=1), publish(topic, payload, qos=1, packet_id=2))
        await hub.expect(puback(1), puback(2))
        assert await registered() == [("first", "discovered"), ("kitchen", "active")]
        await site.command(add_device, organization_id="default", device_id="first", metadata={})
        hub.send(publish(topic, payload, qos=1, packet_id=3))
        await hub.expect(puback(3))
    assert [one.device_id for one in await site.stored(2)] == ["attic", "attic"]
    assert await registered() == [("attic", "discovered"), ("first", "active"), ("kitchen", "active")]


async def test_p8_a_payload_of_another_device_than_the_topics_is_quarantined(site: Site) -> None:
    async with RawClient.login(site, await hub_of(site)) as hub:
        hub.send(publish("devices/attic/telemetry", reading("kitchen"), qos=1))
        await hub.expect(puback(1))
    (bad,) = await site.quarantined()
    assert (bad.device_id, bad.code) == ("attic", "foreign_device")


@pytest.mark.parametrize(
    "topic",
    ["org_other/devices/x/telemetry", "other/devices/x/telemetry", "devices", "devices/a b/telemetry", "$SYS/x", "x"],
)
async def test_p8_a_topic_that_is_not_the_organisations_closes_the_connection(site: Site, topic: str) -> None:
    async with RawClient.login(site, await hub_of(site)) as hub:
        hub.send(publish(topic, reading("x"), qos=1))
        assert await hub.rest() == b""
    assert [one.device_id for one in await site.command(list_devices)] == ["kitchen"]
    assert site.log.last_row == 0


async def test_a_hub_hears_every_device_of_its_organisation_and_of_no_other(site: Site) -> None:
    other = await site.command(add_device, organization_id="other", device_id="kitchen", metadata={})
    hub = await hub_of(site)
    async with (
        mosquitto_sub(site, hub, "-t", "devices/+/status", "-t", "neurobuild/sensors/#") as lines,
        RawClient.login(site) as ours,
        RawClient.login(site, other) as theirs,
    ):
        for client in (theirs, ours):
            client.send(publish("devices/kitchen/status", b"online", qos=1, retain=True))
            await client.expect(puback(1))
        ours.send(publish("neurobuild/sensors/kitchen/data", reading(), qos=1))
        assert await line(lines) == "devices/kitchen/status 0 0 online"
        assert (await line(lines)).startswith("neurobuild/sensors/kitchen/data")
    async with mosquitto_sub(site, hub, "-t", "devices/#") as lines:
        assert await line(lines) == "devices/kitchen/status 0 1 online"


async def test_a_hubs_command_reaches_the_board(site: Site) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site) as board:
        board.send(subscribe("devices/kitchen/commands/#"))
        await board.packet()
        assert await mosquitto_pub(site, hub, "devices/kitchen/commands/1", b"go") == 0
        await board.expect(publish("devices/kitchen/commands/1", b"go"))


async def test_a_hubs_command_to_nobody_is_taken_and_registers_nobody(site: Site) -> None:
    async with RawClient.login(site, await hub_of(site)) as hub:
        for packet_id, topic in enumerate(("commands/1", "config", "telemetry/x"), 1):
            hub.send(publish(f"devices/attic-{packet_id}/{topic}", b"x", qos=1, packet_id=packet_id))
            await hub.expect(puback(packet_id))
    assert {one.device_id for one in site.gateway._running.access.devices} == {"kitchen", "attic-3"}


async def test_only_filters_inside_an_organisations_rights_are_granted(site: Site) -> None:
    refused = ("#", "+/devices/#", "org_other/devices/#", "$SYS/#", "neurobuild/#")
    async with RawClient.login(site, await hub_of(site)) as hub:
        hub.send(subscribe("org_default/devices/#", *refused, "devices/+/telemetry"))
        assert await hub.packet() == b"\x90\x09\x00\x01\x00" + b"\x80" * 5 + b"\x00"


async def test_the_site_hears_all_organisations_by_name(site: Site) -> None:
    other = await site.command(add_device, organization_id="other", device_id="x", metadata={})
    tool = await hub_of(site, None, "tool")
    async with (
        mosquitto_sub(site, tool, "-t", "#") as lines,
        RawClient.login(site) as ours,
        RawClient.login(site, other) as theirs,
    ):
        for client, topic in ((ours, "devices/kitchen/status"), (theirs, "org_other/devices/x/status")):
            client.send(publish(topic, b"online", qos=1, retain=True))
            await client.expect(puback(1))
        assert await line(lines) == "default/devices/kitchen/status 0 0 online"
        assert await line(lines) == "other/org_other/devices/x/status 0 0 online"
    async with mosquitto_sub(site, tool, "-t", "+/devices/+/status") as lines:
        assert await line(lines) == "default/devices/kitchen/status 0 1 online"


async def test_the_site_tells_every_device_what_to_do_and_speaks_in_no_devices_name(site: Site) -> None:
    tool = await hub_of(site, None, "tool")
    async with RawClient.login(site) as board:
        board.send(subscribe("devices/kitchen/commands/#", "org_default/devices/kitchen/config/#"))
        await board.packet()
        for topic in ("devices/kitchen/commands/1", "org_default/devices/kitchen/config"):
            assert await mosquitto_pub(site, tool, f"default/{topic}", b"go") == 0
            await board.expect(publish(topic, b"go"))
    for topic in ("default/devices/kitchen/telemetry", "devices/kitchen/telemetry", "$SYS/broker/uptime"):
        async with RawClient.login(site, tool) as client:
            client.send(publish(topic, reading(), qos=1))
            assert await client.rest() == b""
    assert site.log.last_row == 0


async def test_only_the_site_hears_what_the_broker_says_of_itself(site: Site) -> None:
    tool, hub = await hub_of(site, None, "tool"), await hub_of(site)
    async with RawClient.login(site, tool) as client:
        client.send(subscribe("$SYS/#", "$SYS/broker/uptime", "#", "$other/#"))
        assert await client.packet() == b"\x90\x06\x00\x01\x00\x00\x00\x80"
    for who in (hub, site.kitchen):
        async with RawClient.login(site, who) as client:
            client.send(subscribe("$SYS/#", "$SYS/broker/uptime"))
            assert await client.packet() == b"\x90\x04\x00\x01\x80\x80"


async def test_a_session_ends_with_its_credential_and_the_next_of_that_name_gets_nothing_of_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A username that was the site's becomes an organisation's: what its session has subscribed to is not sent."""
    monkeypatch.setattr("gateway.storage.credentials.organization_username", lambda _, name: name)  # as they were once
    other = await site.command(add_device, organization_id="other", device_id="x", metadata={})

    async def speak() -> None:
        async with RawClient.login(site, other, "speaker") as theirs:
            theirs.send(publish("devices/x/status", b"secret", qos=1, retain=True))
            await theirs.expect(puback(1))

    async with RawClient.login(site, await hub_of(site, None), "same", clean=False) as client:
        client.send(subscribe("#", qos=1))
        await client.packet()
        client.send(DISCONNECT)
        await client.rest()
    await speak()
    await site.command(revoke_credential, username="hub")
    await speak()
    new = await hub_of(site)
    await speak()
    async with RawClient.open(site, connect("same", new.username, new.password, clean=False)) as client:
        assert await client.packet() == b"\x20\x02\x00\x00"
        await speak()
        client.send(subscribe("#"))
        assert await client.packet() == b"\x90\x03\x00\x01\x80"
        assert await client.is_alive()


async def leave_session(site: Site, hub: NewPassword) -> None:
    """Subscribe in a persistent session, and go."""
    async with RawClient.login(site, hub, "same", clean=False) as client:
        client.send(subscribe("devices/#", qos=1))
        await client.packet()
        client.send(DISCONNECT)
        await client.rest()


async def find_nothing(site: Site, hub: NewPassword) -> None:
    """Come back as who was never here, and hear topics as everybody does."""
    async with RawClient.open(site, connect("same", hub.username, hub.password, clean=False)) as client:
        assert await client.packet() == ACCEPTED
        client.send(subscribe("devices/#"))
        await client.expect(b"\x90\x03\x00\x01\x00")
        client.send(publish("devices/x/status", b"ours"))
        await client.expect(publish("devices/x/status", b"ours"))


async def test_p8_a_username_that_moved_to_another_organisation_while_all_was_stopped_has_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.credentials.organization_username", lambda _, name: name)  # as they were once
    async with running_site(tmp_path) as site:
        await leave_session(site, await hub_of(site, "one"))
    await asyncio.to_thread(ask, site.settings, revoke_credential, username="hub")
    new = await asyncio.to_thread(lambda: ask(site.settings, add_credential, name="hub", organization_id="two"))
    async with running_site(tmp_path, kitchen=site.kitchen) as site:
        assert len(site.gateway._running.door.delivery.sessions) == 0
        await find_nothing(site, new)


@pytest.mark.parametrize("is_told", [True, False])
async def test_p8_a_username_that_moved_to_another_organisation_at_once_has_no_session(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    """The door sees only that there is a credential of that name before and after, or not even that yet."""
    monkeypatch.setattr("gateway.storage.credentials.organization_username", lambda _, name: name)  # as they were once
    await leave_session(site, await hub_of(site, "one"))
    door: Door = site.gateway._running.door
    refresh = Access.refresh
    monkeypatch.setattr(Access, "refresh", lambda _: asyncio.sleep(0))
    await site.command(revoke_credential, username="hub")
    new = await hub_of(site, "two")
    if not is_told:
        monkeypatch.setattr(door._access, "on_change", [])
    await refresh(door._access)
    assert len(door.delivery.sessions) == (0 if is_told else 1)
    await find_nothing(site, new)


async def test_a_will_of_a_hub_is_a_reading_of_the_device_it_names(site: Site) -> None:
    will = ("devices/attic/telemetry", reading("attic"))
    async with RawClient.login(site, await hub_of(site), will=will):
        pass
    assert [one.device_id for one in await site.stored(1)] == ["attic"]


async def test_the_old_password_is_good_until_its_time_is_up(site: Site) -> None:
    old = site.kitchen
    new = await site.command(rotate_device, organization_id="default", device_id="kitchen", overlap_ms=HOUR_MS)
    async with RawClient.login(site, old, "old") as with_old, RawClient.login(site, new, "new") as with_new:
        assert await with_old.is_alive()
        site.clock.advance(HOUR_MS)
        site.gateway._running.access.devices.seen_new.set()  # else it looks only every few seconds
        assert await with_old.rest() == b""
        assert await with_new.is_alive()
    async with RawClient.open(site, connect("old", old.username, old.password)) as client:
        assert await client.rest() == REFUSED


async def test_revoke_ends_the_sessions_of_both_passwords_before_it_returns(site: Site) -> None:
    old = await hub_of(site)
    new = await site.command(rotate_credential, username="hub@default", overlap_ms=HOUR_MS)
    async with RawClient.login(site, old, "old") as with_old, RawClient.login(site, new, "new") as with_new:
        await site.command(revoke_credential, username="hub@default")
        door = site.gateway._running.door
        assert door.connections == 0
        assert [await client.rest() for client in (with_old, with_new)] == [b"", b""]


async def test_statistics_say_how_a_credential_is_used(site: Site) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site, hub) as client:
        for packet_id in (1, 2, 3):
            client.send(publish("devices/x/status", b"on", qos=1, packet_id=packet_id))
            await client.expect(puback(packet_id))
    async with RawClient.open(site, connect("raw", "hub@default", "wrong")) as client:
        assert await client.rest() == REFUSED
    shown = await site.command(show_credential, username="hub@default")
    assert (shown.connections, shown.refused_logins, shown.messages_in) == (1, 1, 3)
    assert shown.last_connected_at_ms == site.clock.now
    unused = {one.username: one.connections for one in await site.command(list_credentials)}
    assert unused == {"default/kitchen": 0, "hub@default": 1}


async def test_a_failed_login_waits_and_a_right_one_does_not(site: Site) -> None:
    """From the same address and of the same username: nobody locks a board out by guessing."""
    wrong = connect("evil", site.kitchen.username, "wrong")
    right = connect("raw", site.kitchen.username, site.kitchen.password)
    for failures in range(4):
        started = time.monotonic()
        async with RawClient.open(site, wrong) as evil:
            async with RawClient.open(site, right) as board:
                await board.expect(ACCEPTED)
            assert await evil.rest() == REFUSED
        assert time.monotonic() - started >= FIRST_S * 2**failures
    assert await site.metric("neurogate_failed_logins_delay_seconds_total") == pytest.approx(FIRST_S * 15)
    assert await site.metric('neurogate_front_door_refused_total{reason="not_authorized"}') == 4


async def test_a_thousand_boards_get_in_while_somebody_guesses(site: Site) -> None:
    guessing = [asyncio.create_task(guess(site, number)) for number in range(50)]
    try:
        started = time.monotonic()
        for number in range(1_000):
            async with RawClient.login(site, client_id=f"board-{number}"):
                pass
        assert time.monotonic() - started < 30
    finally:
        for task in guessing:
            task.cancel()
        await asyncio.gather(*guessing, return_exceptions=True)


async def guess(site: Site, number: int) -> None:
    while True:
        async with RawClient.open(site, connect(f"evil-{number}", site.kitchen.username, "wrong")) as evil:
            await evil.rest()
        await asyncio.sleep(0.05)


async def test_a_failed_login_that_waits_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with running_site(tmp_path / "data") as site:
            delay = site.gateway._running.door.login_delay
            for _ in range(8):
                with delay.failed("127.0.0.1", None):
                    pass
            evil = await clients.enter_async_context(RawClient.open(site, connect("evil", "nobody", "wrong")))
            await until(lambda: delay._waiting.total() == 1, "the login to wait")
            started = time.monotonic()
        assert await evil.rest() == b""
        assert time.monotonic() - started < LONGEST_S / 2
        assert not delay._waiting
