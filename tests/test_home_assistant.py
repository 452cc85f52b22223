"""Home Assistant at the embedded broker: a real client that does what Home Assistant does.

It subscribes to the discovery topics, says that it has come, and subscribes to what it finds in what it is told.
"""

import asyncio
import json
import shlex
import tomllib
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from pydantic import JsonValue
from typer.testing import CliRunner

from gateway import home_assistant
from gateway.access import Device
from gateway.cli import command_line
from gateway.cli.gateway_link import connect
from gateway.clock import ManualClock
from gateway.config import HomeAssistantSettings
from gateway.model.home_assistant.topics import object_id
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device, revoke_device, set_metadata, transfer_device
from gateway.operations.erase import erase_device
from gateway.operations.organizations import add_organization
from gateway.storage.credentials import NewPassword
from gateway.storage.state import DeviceCredential
from gateway.storage.told_topics import ToldTopics
from tests.broker.raw import RawClient, publish, subscribe
from tests.guides.pages import blocks
from tests.home_assistant import HomeAssistant, listen, showing
from tests.inbound.site import open_site
from tests.site import Site, reading, running_site, until

NAME = object_id("site-1", "default", "kitchen")
CONFIG = f"homeassistant/device/{NAME}/config"
ON = {"enabled": True}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and tell without waiting."""
    monkeypatch.setattr(home_assistant, "_LOOK_S", 0.05)
    monkeypatch.setattr(home_assistant, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(home_assistant, "_PAUSE_S", 0.01)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, home_assistant=ON) as site:
        yield site


async def credential(site: Site, organization_id: str | None = "default", name: str = "hass") -> NewPassword:
    return await site.command(add_credential, name=name, organization_id=organization_id, is_home_assistant=True)


@asynccontextmanager
async def home(site: Site, who: NewPassword | None = None, *, births: bool = True) -> AsyncIterator[HomeAssistant]:
    """Run Home Assistant's side."""
    who = who or await credential(site)
    shown = HomeAssistant()
    async with aiomqtt.Client(
        "127.0.0.1", site.mqtt_port, username=who.username, password=who.password, identifier=f"ha-{who.username}"
    ) as client:
        await client.subscribe([("homeassistant/+/+/config", 0), ("homeassistant/+/+/+/config", 0)])
        if births:
            await client.publish("homeassistant/status", "online")
        listening = asyncio.create_task(listen(client, shown))
        try:
            yield shown
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def says(site: Site, body: dict[str, Any], who: DeviceCredential | None = None) -> None:
    """Let a board send a reading, and hear that it is stored."""
    who = who or site.kitchen
    device_id = who.username.partition("/")[2]
    payload = json.dumps({"device_id": device_id} | body).encode()
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=who.username, password=who.password) as board:
        await board.publish(f"devices/{device_id}/telemetry", payload, qos=1)


async def shows(found: HomeAssistant, component: str, value: str, device: str = NAME) -> None:
    await showing(found, device, component, value)


def sensors(**found: Any) -> dict[str, Any]:
    return {"sensors": found}


class Nobody:
    """A broker without clients, that counts how often it is asked who is there."""

    def __init__(self) -> None:
        self.looks = 0
        self.looks_at_topics = 0

    def show(self, topic: str, payload: bytes) -> None:
        pass

    def shown(self, topic: str) -> bytes:  # noqa: ARG002 - nobody hears any
        return b""

    def is_heard(self, topic: str) -> bool:  # noqa: ARG002 - nobody hears any
        self.looks_at_topics += 1
        return False

    def is_stuck(self, topic: str) -> bool:  # noqa: ARG002 - nobody hears any
        return False

    def connected(self) -> Container[Device]:
        self.looks += 1
        return ()


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_comes_often_lets_it_not_look_at_all_devices_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    monkeypatch.setattr(home_assistant, "_LOOK_S", 60)
    monkeypatch.setattr(home_assistant, "_LOOK_AGAIN_S", 60)
    monkeypatch.setattr(home_assistant, "_PAUSE_S", 0)
    broker = Nobody()
    async with open_site(tmp_path) as site:
        store = ToldTopics(site.access._state)
        await store.change(["homeassistant/device/gone/config"], [])
        settings = HomeAssistantSettings(enabled=enabled)
        told = home_assistant.HomeAssistant(settings, "site-1", site.log, site.access, store, broker, site.clock)
        running = asyncio.create_task(told.run())
        await until(lambda: broker.looks_at_topics > 0, "it has begun")
        for _ in range(50):
            await told.changed()
            for _ in range(5):
                await asyncio.sleep(0.001)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (broker.looks, broker.looks_at_topics) == (2 if enabled else 0, 1)  # 2: at the start


async def test_it_shows_a_board_and_what_it_measures(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(ld2410={"presence": True, "distance_cm": 123}, pir={"motion_detected": False}))
        await shows(shown, "ld2410-presence", "on")
        await shows(shown, "ld2410-distance_cm", "123")
        await shows(shown, "pir-motion_detected", "off")
        await says(site, sensors(ld2410={"presence": False}, mq134={"gas_concentration": 12.5}))
        await shows(shown, "ld2410-presence", "off")
        await shows(shown, "mq134-gas_concentration", "12.5")
        await shows(shown, "connectivity", "on")
        assert list(shown.devices) == [NAME]


async def test_who_comes_later_is_told_what_is_known(site: Site) -> None:
    await says(site, sensors(pir={"motion_detected": True}))
    await site.stored(1)
    async with home(site, births=False) as shown:
        await shows(shown, "pir-motion_detected", "on")


async def test_when_it_says_that_it_has_come_it_is_told_everything_again(site: Site) -> None:
    who = await credential(site)
    await says(site, sensors(pir={"motion_detected": True}))
    async with home(site, who) as shown:
        await shows(shown, "pir-motion_detected", "on")
        shown.devices.clear()
        shown.heard.clear()
        async with RawClient.login(site, who, "another") as again:
            again.send(publish("homeassistant/status", b"online"))
            await shows(shown, "pir-motion_detected", "on")


async def test_with_another_prefix_it_may_say_that_it_has_come_where_it_always_does(tmp_path: Path) -> None:
    async with running_site(tmp_path, home_assistant=ON | {"discovery_prefix": "ha"}) as site:
        who, told = await credential(site), site.gateway._running.home_assistant
        await until(lambda: not any(one.configs_due for one in told._devices.values()) and bool(told._devices), "told")
        login: dict[str, Any] = {"username": who.username, "password": who.password}
        async with aiomqtt.Client("127.0.0.1", site.mqtt_port, **login) as client, asyncio.timeout(20):
            await client.subscribe("ha/device/+/config")
            assert (await anext(client.messages)).retain
            for topic in ("homeassistant/status", "ha/status"):
                await client.publish(topic, "online")
                assert not (await anext(client.messages)).retain


async def test_after_a_restart_it_is_told_what_was_known_with_the_same_ids(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_site(tmp_path, clock=clock, home_assistant=ON) as site:
        who = await credential(site)
        async with home(site, who) as before:
            await says(site, sensors(pir={"motion_detected": True}))
            await shows(before, "pir-motion_detected", "on")
        kitchen = site.kitchen
    async with (
        running_site(tmp_path, kitchen=kitchen, clock=clock, home_assistant=ON) as site,
        home(site, who) as after,
    ):
        await shows(after, "pir-motion_detected", "on")
        ids = [[one["unique_id"] for one in shown.devices[NAME].values()] for shown in (before, after)]
        assert ids[0] == ids[1]


async def test_what_came_late_does_not_overwrite_what_is_newer(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(pir={"motion_detected": True}) | {"timestamp": site.clock.now_ms()})
        await shows(shown, "pir-motion_detected", "on")
        old = site.clock.now_ms() - 3_600_000
        await says(site, sensors(pir={"motion_detected": False}, door={"open": True}) | {"timestamp": old})
        await shows(shown, "door-open", "on")
        assert shown.state(NAME, "pir-motion_detected") == "on"


async def test_a_board_whose_will_says_so_is_offline_and_a_reading_brings_it_back(site: Site) -> None:
    async with home(site) as shown:
        will = ("org_default/devices/kitchen/status", b'{"status": "offline"}')
        async with RawClient.login(site, will=will) as board:
            board.send(publish("devices/kitchen/telemetry", reading()))
            await shows(shown, "pir-motion_detected", "on")
        await shows(shown, "connectivity", "off")
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(shown, "connectivity", "on")
        await shows(shown, "pir-motion_detected", "on")


async def test_p4_a_status_that_cannot_be_read_stops_nothing_also_after_a_restart(tmp_path: Path) -> None:
    deep = b"[" * 20_000
    async with running_site(tmp_path, home_assistant=ON) as site:
        who = await credential(site)
        async with RawClient.login(site) as board:
            board.send(publish("devices/kitchen/status", deep, retain=True))
            board.send(publish("devices/kitchen/telemetry", reading()))
            async with home(site, who) as shown:
                await shows(shown, "pir-motion_detected", "on")
        kitchen = site.kitchen
    async with running_site(tmp_path, kitchen=kitchen, home_assistant=ON) as site, home(site, who) as shown:
        await shows(shown, "pir-motion_detected", "on")


async def test_a_board_that_is_not_heard_for_long_is_offline(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(shown, "pir-motion_detected", "on")
        site.clock.advance(299_000)
        told = site.gateway._running.home_assistant
        told._look()
        assert not told._devices["default", "kitchen"].is_due
        site.clock.advance(1_000)
        await shows(shown, "pir-motion_detected", "unavailable")
        await shows(shown, "connectivity", "off")


async def test_when_the_gateway_stops_it_says_so_first(tmp_path: Path) -> None:
    async with running_site(tmp_path, home_assistant=ON) as site:
        door = site.gateway._running.door
        who = await credential(site)
        await until(lambda: door.delivery.local.retained("default/neurogate/status") is not None, "it runs")
        async with RawClient.login(site, who) as client:
            client.send(subscribe("neurogate/status"))
            await client.expect(b"\x90\x03\x00\x01\x00", publish("neurogate/status", b"online", retain=True))
            await door.stop()
            assert await client.rest() == publish("neurogate/status", b"offline")


async def test_a_device_that_moves_leaves_and_appears_where_it_is(site: Site) -> None:
    await site.command(add_organization, organization_id="acme", name="Acme")
    theirs = await credential(site, "acme")
    async with home(site) as ours, home(site, theirs) as acmes:
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(ours, "pir-motion_detected", "on")
        assert acmes.devices == {}
        await site.command(transfer_device, organization_id="default", device_id="kitchen", to="acme")
        await until(lambda: not ours.devices, "the device left")
        await shows(acmes, "connectivity", "off", object_id("site-1", "acme", "kitchen"))
        assert [topic for topic in acmes.heard if "default" in topic] == []


async def test_a_device_that_is_revoked_leaves_and_comes_back_with_its_access(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(shown, "pir-motion_detected", "on")
        await site.command(revoke_device, organization_id="default", device_id="kitchen")
        await until(lambda: not shown.devices, "the device left")
        again = await site.command(add_device, organization_id="default", device_id="kitchen", metadata={})
        await shows(shown, "connectivity", "off")
        await says(site, sensors(pir={"motion_detected": False}), again)
        await shows(shown, "pir-motion_detected", "off")


async def test_what_left_while_it_was_away_it_hears_when_it_comes_back(site: Site) -> None:
    who = await credential(site)
    await site.command(add_organization, organization_id="acme", name="Acme")
    async with home(site, who) as shown:
        await shows(shown, "connectivity", "off")
    await site.command(transfer_device, organization_id="default", device_id="kitchen", to="acme")
    async with home(site, who, births=False) as again:
        again.devices = shown.devices
        await until(lambda: not again.devices, "the device left")


async def test_when_it_is_switched_off_it_hears_that_nothing_is_there(tmp_path: Path) -> None:
    async with running_site(tmp_path, home_assistant=ON) as site:
        who = await credential(site)
        async with home(site, who) as shown:
            await shows(shown, "connectivity", "off")
            await until(lambda: CONFIG in str(site.gateway._running.home_assistant._told), "it is noted")
        kitchen = site.kitchen
    for _ in range(2):  # it has not come between the two
        async with running_site(tmp_path, kitchen=kitchen):
            pass
    async with running_site(tmp_path, kitchen=kitchen) as site, home(site, who) as again:
        again.devices = shown.devices
        await until(lambda: not again.devices, "the device left")
        told = site.gateway._running.home_assistant
        await until(lambda: not told._over and not told._told, "it is noted")


async def test_the_sites_hears_all_organisations_and_an_organisations_its_own(site: Site) -> None:
    await site.command(add_organization, organization_id="acme", name="Acme")
    theirs = await site.command(add_device, organization_id="acme", device_id="kitchen", metadata={})
    sites = await credential(site, None, "hass-site")
    async with home(site, sites) as everybody, home(site) as ours:
        await says(site, sensors(pir={"motion_detected": True}))
        await says(site, sensors(pir={"motion_detected": False}), theirs)
        acmes = object_id("site-1", "acme", "kitchen")
        await shows(everybody, "pir-motion_detected", "on")
        await shows(everybody, "pir-motion_detected", "off", acmes)
        await shows(ours, "pir-motion_detected", "on")
        assert set(everybody.devices) == {NAME, acmes}
        assert set(ours.devices) == {NAME}


async def test_a_device_is_called_and_found_as_its_owner_says(site: Site) -> None:
    async with home(site) as shown:
        await shows(shown, "connectivity", "off")
        metadata: dict[str, JsonValue] = {"name": "Kitchen", "location": "Ground floor"}
        await site.command(set_metadata, organization_id="default", device_id="kitchen", metadata=metadata)
        await until(lambda: shown.names[NAME].get("suggested_area") == "Ground floor", "its place is known")
        assert shown.names[NAME]["name"] == "Kitchen"


async def test_of_many_readings_the_last_is_shown_and_no_config_is_told_twice(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(ld2410={"presence": True, "distance_cm": 0}))
        await shows(shown, "ld2410-distance_cm", "0")
        told = shown.configs
        who = site.kitchen
        async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=who.username, password=who.password) as board:
            for number in range(1, 301):
                body = {"device_id": "kitchen"} | sensors(ld2410={"presence": True, "distance_cm": number})
                await board.publish("devices/kitchen/telemetry", json.dumps(body), qos=0)
        await shows(shown, "ld2410-distance_cm", "300")
        assert shown.configs == told


@pytest.mark.parametrize(
    "topic",
    [
        CONFIG,
        "homeassistant/status",
        "neurogate/status",
        "neurogate/devices/kitchen/state",
        "default/neurogate/devices/kitchen/state",
    ],
)
async def test_a_board_can_tell_it_nothing_even_by_a_route(tmp_path: Path, topic: str) -> None:
    routes = [{"topic": f"{first}/#", "parser": "standard"} for first in ("homeassistant", "neurogate", "default")]
    async with running_site(tmp_path, ingest={"routes": routes}, home_assistant=ON) as site, home(site) as shown:
        await shows(shown, "connectivity", "off")
        async with RawClient.login(site) as board:
            board.send(publish(topic, b"{}"))
            if not topic.startswith("default/"):
                await board.rest()  # closed: it is not its own
        assert shown.state(NAME, "connectivity") == "off"
        assert await site.metric("sensor_data_ingested_total") == 0


async def test_it_speaks_in_nobodys_name_and_reads_nothing_else(tmp_path: Path) -> None:
    routes = [{"topic": "hub/#", "parser": "standard"}]
    topics = ("devices/kitchen/telemetry", "org_default/devices/kitchen/commands/1", "neurogate/status", "hub/x")
    async with running_site(tmp_path, ingest={"routes": routes}, home_assistant=ON) as site:
        who = await credential(site)
        for topic in topics:
            async with RawClient.login(site, who) as client:
                client.send(publish(topic, reading()))
                await client.rest()
        await _is_granted_nothing_else(site, who)


async def _is_granted_nothing_else(site: Site, who: NewPassword) -> None:
    async with RawClient.login(site, who) as client:
        for topic in ("devices/kitchen/telemetry", "#", "org_default/devices/#", "tasmota/discovery/#"):
            client.send(subscribe(topic))
            await client.expect(b"\x90\x03\x00\x01\x80")


async def test_when_its_owner_removes_a_device_there_it_goes_on_and_nobody_else_hears_it(site: Site) -> None:
    who = await credential(site)
    other_one = await credential(site, name="other")
    async with home(site, other_one, births=False) as other, home(site, who, births=False) as shown:
        await shows(shown, "connectivity", "off")
        await shows(other, "connectivity", "off")
        told = other.configs  # nothing makes it be told again: nobody has said that they have come
        async with RawClient.login(site, who, "remover") as client:
            client.send(publish(CONFIG, b"", retain=True), publish(CONFIG, b'{"dev": {}}', retain=True))
            assert await client.is_alive()
        async with RawClient.login(site, who, "willing", will=(CONFIG, b"{}")):
            pass
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(other, "pir-motion_detected", "on")
        assert (list(other.devices), other.configs) == ([NAME], told + 1)


async def test_it_may_subscribe_to_the_states_of_many_devices_at_once(site: Site) -> None:
    who = await credential(site)
    topics = [f"neurogate/devices/d{number}/state" for number in range(500)]
    async with aiomqtt.Client("127.0.0.1", site.mqtt_port, username=who.username, password=who.password) as client:
        granted = await client.subscribe([(topic, 0) for topic in topics])
        assert len(granted) == 500
        assert not [code for code in granted if getattr(code, "value", code) >= 0x80]


async def test_what_is_erased_is_forgotten_here_too(site: Site) -> None:
    async with home(site) as shown:
        await says(site, sensors(pir={"motion_detected": True}))
        await shows(shown, "pir-motion_detected", "on")
        async with connect(site.settings) as link:
            assert [one async for one in link.stream(erase_device, organization_id="default", device_id="kitchen")]
        await until(lambda: set(shown.devices[NAME]) == {"connectivity"}, "it is forgotten")
        assert "motion" not in shown.heard["neurogate/devices/kitchen/state"]


async def test_the_guide_is_right(tmp_path: Path) -> None:
    [table] = [block for block in blocks("home-assistant.md", "toml") if "[home_assistant]" in block]
    _, add, listen = (shlex.split(block) for block in blocks("home-assistant.md", "sh"))
    async with running_site(tmp_path, **tomllib.loads(table)) as site:
        config = tmp_path / "neurogate.toml"
        config.write_text(f'version = 1\n[gateway]\ndata_dir = "{tmp_path}"\n')
        command = [*add[1:], "--json", "-c", str(config)]
        done = await asyncio.to_thread(CliRunner().invoke, command_line(), command)
        new = json.loads(done.stdout)
        words = [{"PASSWORD": new["password"]}.get(word, word) for word in listen]
        assert new["username"] in words
        await says(site, sensors(ld2410={"presence": True}))
        local = site.gateway._running.door.delivery.local
        await until(lambda: "ld2410-presence" in repr([local.retained(topic) for topic in local.retained_for("#")]))
        process = await asyncio.create_subprocess_exec(
            *words, "-p", str(site.mqtt_port), "-C", "3", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        topics = [line.split(b" ")[0].decode() for line in out.splitlines()]
        assert set(topics) == {CONFIG, "neurogate/status", "neurogate/devices/kitchen/state"}


async def test_nothing_is_told_unless_it_is_switched_on(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site, home(site) as shown:
        await says(site, sensors(pir={"motion_detected": True}))
        await site.stored(1)
        local = site.gateway._running.door.delivery.local
        assert list(local.retained_for("#")) == []
        assert (shown.devices, shown.heard) == ({}, {})
