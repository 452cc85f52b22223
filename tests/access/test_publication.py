"""What a message on a topic is to whoever publishes it, and whose to publish the topic is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.access import Access, Credential, Publication, known_devices
from gateway.clock import ManualClock
from gateway.config.routes import Route
from gateway.parsers.routes import ParserRoutes
from gateway.storage.state import State

KEY = bytes(32)
VMARK = "$sys/version/1.0/devices/kitchen"
ROUTES = ParserRoutes(
    [
        Route(topic="packs/#", parser="senml"),
        Route(topic="devices/+/senml", parser="senml"),
        Route(topic="$sys/version/+/devices/#", parser="vmark"),
    ],
    "acme",
)


@pytest.fixture
async def access(tmp_path: Path) -> AsyncIterator[Access]:
    async with State.open(tmp_path / "state.db", KEY, clock=ManualClock()) as state:
        await state.add_device("acme", "kitchen")
        access = Access(state, KEY, ManualClock(), ROUTES)
        await access.refresh()
        yield access


def client(access: Access, organization_id: str | None, device_id: str | None = None, **fields: Any) -> Credential:
    device = None if device_id is None or organization_id is None else access.devices.get(organization_id, device_id)
    rights = ROUTES.rights_of(organization_id, device_id, is_home_assistant=fields.get("is_home_assistant", False))
    return Credential("somebody", organization_id, device, rights, **fields)


@pytest.mark.parametrize(
    "topic", ["neurobuild/sensors/kitchen/data", "devices/kitchen/telemetry", "org_acme/devices/kitchen/telemetry"]
)
async def test_a_reading_is_that_of_the_device_of_its_topic(access: Access, topic: str) -> None:
    kitchen = access.devices.get("acme", "kitchen")
    for who in (client(access, "acme", "kitchen"), client(access, "acme")):
        assert access.publication(who, topic) == Publication(telemetry_of=kitchen)


@pytest.mark.parametrize("topic", ["devices/kitchen/status", "devices/kitchen/commands/7/ack"])
async def test_what_is_no_reading_is_handed_on(access: Access, topic: str) -> None:
    for who in (client(access, "acme", "kitchen"), client(access, "acme")):
        assert access.publication(who, topic) == Publication()


async def test_a_parser_reads_what_it_was_chosen_for_and_hands_on_or_drops_the_rest(access: Access) -> None:
    kitchen = client(access, "acme", "kitchen")
    for topic, parser in [
        ("packs/a", "senml"),
        ("devices/kitchen/senml", "senml"),
        (f"{VMARK}/properties_report", "vmark"),
    ]:
        known = access.publication(kitchen, topic)
        assert known is not None
        assert known.routed is not None
        assert (known.routed.parser.name, known.routed.sender) == (parser, kitchen.device)
        assert (known.telemetry_of, known.is_unheard, known.is_lasting) == (None, False, True)
    assert access.publication(kitchen, f"{VMARK}/events") == Publication()
    assert access.publication(kitchen, f"{VMARK}/properties_report_reply") == Publication(is_unheard=True)


async def test_the_topics_of_others_are_nobodys_to_publish(access: Access) -> None:
    kitchen, hub = client(access, "acme", "kitchen"), client(access, "acme")
    theirs = ["devices/hall/telemetry", "$sys/version/1.0/devices/hall/properties_report", "devices/hall/senml"]
    for topic in [*theirs, "org_other/devices/kitchen/telemetry", "$SYS/broker", "anything"]:
        assert access.publication(kitchen, topic) is None
    for topic in ["org_other/devices/kitchen/telemetry", "devices", "devices/a b/telemetry", "devices/a b/status"]:
        assert access.publication(hub, topic) is None
    assert access.publication(client(access, None), "acme/devices/kitchen/telemetry") is None
    assert access.publication(client(access, "other"), "packs/a") is None


async def test_the_site_tells_devices_what_to_do_and_home_assistant_says_that_it_has_come(access: Access) -> None:
    assert access.publication(client(access, None), "acme/devices/kitchen/commands/7") == Publication()
    home = client(access, "acme", is_home_assistant=True)
    assert access.publication(home, "homeassistant/status") == Publication()
    assert access.publication(home, "homeassistant/device/kitchen/config") == Publication(is_unheard=True)
    assert access.publication(home, "packs/a") is None


@pytest.mark.parametrize("topic", ["devices/{}/telemetry", "devices/{}/senml"])
async def test_what_is_of_a_device_without_room_is_for_one_message(
    access: Access, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_devices, "DISCOVERED_AT_MOST", 1)
    hub = client(access, "acme")
    first, second = (access.publication(hub, topic.format(name)) for name in ("attic", "cellar"))
    assert first is not None
    assert second is not None
    assert (first.is_lasting, second.is_lasting) == (True, False)
