"""Topics that a parser has been chosen for: who may use them, what is stored, when it is acknowledged and answered."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.operations.credentials import add_credential, show_credential
from gateway.operations.devices import add_device, list_devices
from gateway.storage.credentials import NewPassword
from gateway.storage.state import DeviceCredential
from tests.broker.raw import PINGREQ, RawClient, puback, publish, pubrec, subscribe
from tests.broker.test_credentials import mosquitto_pub
from tests.broker.test_subscribing import line, mosquitto_sub
from tests.site import FailingDisk, Site, reading, running_site

MEASURED = "factory/press/measurements"
REPORT = "$sys/version/1.0/devices/hub1/properties_report"
ANSWER = publish(f"{REPORT}_reply", b'{"result":0}')
SUBACK = b"\x90\x03\x00\x01"

ROUTES: list[dict[str, Any]] = [
    {
        "topic": "factory/+/measurements",
        "parser": "custom",
        "mapping": {
            "device_id": {"path": "id", "optional": True},
            "timestamp": {"path": "ts", "optional": True},
            "sensors": {"climate": {"temperature_c": {"path": "t", "scale": 0.1}}},
        },
    },
    {"topic": "devices/+/senml", "parser": "senml"},
    {"topic": "devices/+/config/senml", "parser": "senml"},
    {"topic": "packs/#", "parser": "senml"},
    {"topic": "theirs/#", "parser": "senml", "organization_id": "other"},
    {"topic": "plain/+", "parser": "standard"},
    {"topic": "$sys/version/+/devices/#", "parser": "vmark"},
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path / "data", ingest={"routes": ROUTES}) as running:
        yield running


async def hub_of(site: Site, organization_id: str | None = "default", name: str = "hub") -> NewPassword:
    return await site.command(add_credential, name=name, organization_id=organization_id)


async def sent(site: Site, who: DeviceCredential | NewPassword | None, topic: str, payload: Any) -> None:
    """Publish with QoS 1; returns when it is acknowledged."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    async with RawClient.login(site, who, client_id="sender") as client:
        client.send(publish(topic, data, qos=1, packet_id=9))
        await client.expect(puback(9))


async def closed(site: Site, who: DeviceCredential | NewPassword | None, topic: str) -> bool:
    async with RawClient.login(site, who) as client:
        client.send(publish(topic, b"{}", qos=1), PINGREQ)
        return await client.rest() == b""


async def test_a_device_publishes_its_own_json_on_its_own_topic(site: Site) -> None:
    await sent(site, None, MEASURED, {"t": 215, "ts": site.clock.now - 5})
    (stored,) = await site.stored(1)
    assert (stored.device_id, stored.time_ms) == ("kitchen", site.clock.now - 5)
    assert stored.body["sensors"] == {"climate": {"temperature_c": 21.5}}
    query = "SELECT raw FROM device_telemetry_history"
    assert [json.loads(raw) for (raw,) in await site.log.fetch(query)] == [{"t": 215, "ts": site.clock.now - 5}]


async def test_a_hub_publishes_for_the_device_that_the_message_names(site: Site) -> None:
    await sent(site, await hub_of(site), MEASURED, {"id": "press-4", "t": 1})
    (stored,) = await site.stored(1)
    assert stored.device_id == "press-4"
    assert [(one.device_id, one.status) for one in await site.command(list_devices)] == [
        ("kitchen", "active"),
        ("press-4", "discovered"),
    ]


async def test_a_reading_where_devices_are_spoken_to_is_of_one_that_is_discovered_if_a_parser_reads_there(
    site: Site,
) -> None:
    await sent(site, await hub_of(site), "devices/attic/config/senml", [{"n": "t", "v": 1}])
    assert [one.device_id for one in await site.stored(1)] == ["attic"]
    assert {one.device_id for one in await site.command(list_devices)} == {"attic", "kitchen"}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\xff", "invalid_json"),
        ({"id": "hall", "t": 1}, "foreign_device"),
        ({"x": 1}, "path_not_found"),
        ({"t": 1, "ts": 1e308 * 10}, "invalid_json"),
        ({"id": ["x"], "t": 1}, "invalid_device_id"),
    ],
)
async def test_p4_what_cannot_be_parsed_is_quarantined_and_acknowledged(site: Site, payload: Any, code: str) -> None:
    await sent(site, None, MEASURED, payload)
    (bad,) = await site.quarantined()
    assert (bad.device_id, bad.code, bad.source) == ("kitchen", code, MEASURED)
    assert (await site.log.buffer()).readings == 0


@pytest.mark.parametrize(
    ("payload", "code"), [({"t": 1}, "no_device"), ({"id": "a/b", "t": 1}, "invalid_device_id"), (b"", "invalid_json")]
)
async def test_p4_what_is_nobodys_is_quarantined_and_acknowledged(site: Site, payload: Any, code: str) -> None:
    await sent(site, await hub_of(site), MEASURED, payload)
    (bad,) = await site.quarantined()
    assert (bad.organization_id, bad.device_id, bad.code) == ("default", "", code)


async def test_p8_a_route_is_its_organisations_and_gives_no_right_to_another_devices_topics(site: Site) -> None:
    theirs = await hub_of(site, "other", "theirs")
    await site.gateway.add_device("hall")
    assert await closed(site, theirs, MEASURED)
    assert await closed(site, theirs, REPORT)
    assert await closed(site, None, "theirs/x")
    assert await closed(site, None, "devices/hall/senml")
    assert await closed(site, None, "factory/press/other")
    assert await closed(site, await hub_of(site, None, "all"), MEASURED)
    await sent(site, theirs, "theirs/x", [{"bn": "a:", "n": "t", "v": 1}])
    (stored,) = await site.stored(1)
    assert (stored.organization_id, stored.device_id) == ("other", "a")


async def test_a_pack_of_several_devices_and_times_is_stored_whole(site: Site) -> None:
    pack = [
        {"bn": "a:", "bt": site.clock.now / 1000 - 60, "n": "t", "v": 1},
        {"n": "t", "v": 2, "t": 1},
        {"bn": "b:", "n": "pir/motion_detected", "vb": True},
        {"bn": "c:", "n": "pir/motion_detected", "v": 5},
    ]
    await sent(site, await hub_of(site), "packs/x", pack)
    stored = await site.stored(3)
    assert [(one.device_id, site.clock.now - one.time_ms) for one in stored] == [
        ("a", 60_000),
        ("a", 59_000),
        ("b", 60_000),
    ]
    assert [(bad.device_id, bad.code) for bad in await site.quarantined()] == [("c", "invalid_sensors")]
    assert [row for row in await site.log.fetch("SELECT raw FROM device_telemetry_history") if row[0]] == []


async def test_too_many_readings_are_quarantined_together(site: Site) -> None:
    pack = [{"n": "t", "v": 1, "t": -second} for second in range(1001)]
    await sent(site, None, "devices/kitchen/senml", pack)
    assert [bad.code for bad in await site.quarantined()] == ["too_many_readings"]


async def test_p9_a_pack_that_repeats_itself_holds_nobody_up(site: Site) -> None:
    await sent(site, None, "devices/kitchen/senml", [{"n": "t", "v": 1}] * 3_000)
    assert [bad.code for bad in await site.quarantined()] == ["too_many_readings"]


async def test_p2_a_message_with_several_readings_that_is_marked_as_sent_again_is_stored_once(site: Site) -> None:
    pack = json.dumps([{"n": "t", "v": 1, "t": -1}, {"n": "t", "v": 2}]).encode()
    async with RawClient.login(site) as client:
        for dup in (False, True):
            client.send(publish("devices/kitchen/senml", pack, qos=1, packet_id=4, dup=dup))
            await client.expect(puback(4))
    assert len(await site.stored(2)) == 2


async def test_a_standard_payload_on_a_topic_of_ones_own_is_stored_byte_for_byte(site: Site) -> None:
    await sent(site, None, "plain/x", reading())
    query = "SELECT payload, raw FROM device_telemetry_history"
    assert list(await site.log.fetch(query)) == [(reading(), None)]


async def test_every_qos_is_answered_in_order_among_others(site: Site) -> None:
    payload = json.dumps({"t": 1}).encode()
    async with RawClient.login(site) as client:
        client.send(
            publish(MEASURED, payload, qos=1, packet_id=1),
            publish("devices/kitchen/telemetry", reading(), qos=1, packet_id=2),
            publish(MEASURED, payload),
            publish(MEASURED, payload, qos=2, packet_id=3),
            publish(MEASURED, payload, qos=2, packet_id=3),
            publish("devices/kitchen/status", b"on", qos=1, packet_id=4),
        )
        await client.expect(puback(1), puback(2), pubrec(3), pubrec(3), puback(4))
    assert len(await site.stored(4)) == 4


async def test_p1_nothing_is_acknowledged_or_answered_when_the_commit_fails(site: Site, disk: FailingDisk) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site, hub, client_id="ears") as ears, RawClient.login(site, hub) as client:
        ears.send(subscribe("$sys/version/+/devices/#"))
        assert (await ears.packet())[:4] == SUBACK
        disk.failing = True
        client.send(publish(REPORT, b'{"t":1}', qos=1))
        assert await client.rest() == b""
        assert disk.failed
        disk.failing = False
        assert await ears.is_alive()  # nothing came before the PINGRESP
    assert (await site.log.buffer()).readings == 0


async def test_local_subscribers_of_the_organisation_hear_a_route(site: Site) -> None:
    hub = await hub_of(site)
    async with mosquitto_sub(site, hub, "-t", "factory/+/measurements") as listening:
        await sent(site, None, MEASURED, {"t": 1})
        assert await line(listening) == f'{MEASURED} 0 0 {{"t": 1}}'


# V-Mark


async def test_a_report_is_answered_when_it_is_stored_and_its_device_is_discovered(site: Site) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site, hub) as client:
        client.send(subscribe("$sys/version/+/devices/hub1/properties_report_reply"))
        assert await client.packet() == SUBACK + b"\x00"
        client.send(publish(REPORT, b'{"hardware_ids":["AA:01","AA:02"],"serial_number":"S1","t":21.5}', qos=1))
        await client.expect(ANSWER, puback(1))
        (stored,) = await site.stored(1)
    assert (stored.device_id, stored.body["sensors"]) == ("AA:01", {"vmark": {"t": 21.5}})
    (found,) = [one for one in await site.command(list_devices) if one.status == "discovered"]
    assert (found.device_id, found.hardware_ids, found.serial_number) == ("AA:01", ("AA:01", "AA:02"), "S1")


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b'{"hardware_ids":["a b"],"t":1}'])
async def test_a_report_that_is_quarantined_is_answered_too(site: Site, payload: bytes) -> None:
    async with RawClient.login(site, await hub_of(site)) as client:
        client.send(subscribe("$sys/version/+/devices/#"))
        assert await client.packet() == SUBACK + b"\x00"
        client.send(publish(REPORT, payload, qos=1))
        await client.expect(publish(REPORT, payload), ANSWER, puback(1))
    assert len(await site.quarantined()) == 1


async def test_p4_a_device_of_which_nothing_can_be_read_costs_no_other_of_the_report(site: Site) -> None:
    nothing = {"hardware_ids": ["B"], "properties": {}}
    devices = [{"device_id": "a", "t": 1}, nothing, {"device_id": "c", "t": 3}]
    await sent(site, await hub_of(site), REPORT, {"devices": devices})
    assert [one.device_id for one in await site.stored(2)] == ["a", "c"]
    (bad,) = await site.quarantined()
    assert (bad.device_id, bad.code, json.loads(bad.payload)) == ("", "invalid_vmark", nothing)


async def test_a_reply_to_a_persistent_session_is_on_disk_first(site: Site) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site, hub, clean=False) as client:
        client.send(subscribe("$sys/version/+/devices/+/properties_report_reply", qos=1))
        assert await client.packet() == SUBACK + b"\x01"
        client.send(*(publish(REPORT, b'{"t":1}', qos=1, packet_id=number) for number in (1, 2)))
        answers = [publish(f"{REPORT}_reply", b'{"result":0}', qos=1, packet_id=number) for number in (1, 2)]
        assert sorted([await client.packet() for _ in range(4)]) == sorted([*answers, puback(1), puback(2)])


async def test_our_own_reply_that_comes_back_is_ignored(site: Site) -> None:
    hub = await hub_of(site)
    async with RawClient.login(site, hub, client_id="ears") as ears:
        ears.send(subscribe("$sys/version/+/devices/#"))
        assert await ears.packet() == SUBACK + b"\x00"
        await sent(site, hub, REPORT + "_reply", b'{"result":0}')
        assert await ears.is_alive()
    assert await site.quarantined() == []
    assert site.log.last_row == 0


async def test_another_topic_of_a_hub_is_a_message_like_any(site: Site) -> None:
    hub = await hub_of(site)
    async with mosquitto_sub(site, hub, "-t", "$sys/version/+/devices/#") as listening:
        await sent(site, hub, "$sys/version/1.0/devices/hub1/online", b"yes")
        assert await line(listening) == "$sys/version/1.0/devices/hub1/online 0 0 yes"
    assert await site.quarantined() == []


async def test_a_device_is_found_by_hardware_id_then_serial_number(site: Site) -> None:
    await site.command(
        add_device, organization_id="default", device_id="attic", metadata={}, hardware_ids=("AA:01", "a b")
    )
    await site.command(add_device, organization_id="default", device_id="cellar", metadata={}, serial_number="S1")
    hub = await hub_of(site)
    for names in (
        {"hardware_ids": ["x", "a b"], "serial_number": "S1"},
        {"hardware_ids": ["x"], "serial_number": "S1"},
        {"serial_number": "S1", "device_id": "attic"},
        {"device_id": "attic"},
    ):
        await sent(site, hub, REPORT, names | {"properties": {"t": 1}})
    assert [one.device_id for one in await site.stored(4)] == ["attic", "cellar", "cellar", "attic"]
    assert {one.status for one in await site.command(list_devices)} == {"active"}


async def test_a_discovered_device_is_found_again_and_can_be_given_a_name(site: Site) -> None:
    hub = await hub_of(site)
    report = {"hardware_ids": ["AA:01"], "properties": {"t": 1}}
    await sent(site, hub, REPORT, report)
    await sent(site, hub, REPORT, {"hardware_ids": ["AA:01"], "device_id": "other", "properties": {"t": 1}})
    await site.command(add_device, organization_id="default", device_id="attic", metadata={}, hardware_ids=("AA:01",))
    await sent(site, hub, REPORT, report)
    assert [one.device_id for one in await site.stored(3)] == ["AA:01", "AA:01", "attic"]


async def test_a_device_is_also_found_by_the_only_name_that_a_message_has_for_it(site: Site) -> None:
    hub = await hub_of(site)
    name = "urn:dev:ow:10e2073a01080063"
    pack = [{"n": name, "v": 1}]
    await sent(site, hub, "packs/x", pack)
    attic = await site.command(
        add_device, organization_id="default", device_id="attic", metadata={}, hardware_ids=(name,)
    )
    await sent(site, hub, "packs/x", pack)
    await sent(site, attic, "packs/x", pack)
    assert [one.device_id for one in await site.stored(3)] == [name, "attic", "attic"]


async def test_p8_what_a_hub_discovers_cannot_take_another_devices_name(site: Site) -> None:
    hub = await hub_of(site)
    await sent(site, hub, REPORT, {"device_id": "thief", "hardware_ids": ["kitchen"], "properties": {"t": 1}})
    await sent(site, None, MEASURED, {"id": "kitchen", "t": 1})
    await sent(site, hub, MEASURED, {"id": "kitchen", "t": 1})
    assert [one.device_id for one in await site.stored(3)] == ["thief", "kitchen", "kitchen"]


async def test_a_hub_whose_reports_look_otherwise_takes_a_mapping_and_is_answered(tmp_path: Path) -> None:
    mapping = {"each": "list", "device_id": "mac", "sensors": {"climate": {"t": "val"}}}
    route = {"topic": "$sys/version/+/devices/#", "parser": "vmark", "mapping": mapping}
    async with running_site(tmp_path, ingest={"routes": [route]}) as site:
        async with RawClient.login(site, await hub_of(site)) as client:
            client.send(subscribe("$sys/version/+/devices/+/properties_report_reply"))
            assert await client.packet() == SUBACK + b"\x00"
            client.send(publish(REPORT, b'{"list":[{"mac":"A","val":1},{"mac":"B","val":2}]}', qos=1))
            await client.expect(ANSWER, puback(1))
        assert [one.device_id for one in await site.stored(2)] == ["A", "B"]


async def test_a_device_may_be_a_hub_for_itself(site: Site) -> None:
    hub1 = await site.gateway.add_device("hub1")
    async with RawClient.login(site, hub1) as client:
        client.send(subscribe("$sys/version/+/devices/hub1/#", "$sys/version/+/devices/#"))
        assert await client.packet() == b"\x90\x04\x00\x01\x00\x80"
    await sent(site, hub1, REPORT, {"t": 1})
    assert [one.device_id for one in await site.stored(1)] == ["hub1"]
    for topic in (REPORT, f"{REPORT}_reply", "$sys/version/1.0/devices/hub1/online"):
        assert await closed(site, None, topic)  # or it could tell hub1 that its report was stored
    await sent(site, hub1, REPORT, {"hardware_ids": ["AA"], "t": 1})
    assert [bad.code for bad in await site.quarantined()] == ["foreign_device"]


async def test_mosquitto_is_answered(site: Site) -> None:
    """The whole of it with a client that is not ours."""
    hub = await hub_of(site)
    async with mosquitto_sub(site, hub, "-t", "$sys/version/+/devices/+/properties_report_reply") as listening:
        assert await mosquitto_pub(site, hub, REPORT, b'{"properties":{"t":1}}') == 0
        assert await line(listening) == f'{REPORT}_reply 0 0 {{"result":0}}'


async def test_a_will_on_a_route_is_read_like_any_message(site: Site) -> None:
    async with RawClient.login(site, will=(MEASURED, b'{"t":5}')):
        pass
    assert [one.body["sensors"]["climate"] for one in await site.stored(1)] == [{"temperature_c": 0.5}]


async def test_a_will_on_the_topic_of_our_reply_is_heard_by_nobody(site: Site) -> None:
    hub, online = await hub_of(site), "$sys/version/1.0/devices/hub1/online"
    async with RawClient.login(site, hub, client_id="ears") as ears:
        ears.send(subscribe("$sys/version/+/devices/#"))
        assert await ears.packet() == SUBACK + b"\x00"
        for topic in (f"{REPORT}_reply", online):
            async with RawClient.login(site, hub, client_id="dying", will=(topic, b"gone")):
                pass
        await ears.expect(publish(online, b"gone"))
        assert await ears.is_alive()
    assert await site.quarantined() == []


async def test_what_a_client_may_hear_is_shown(site: Site) -> None:
    hub = await hub_of(site)
    details = await site.command(show_credential, username=hub.username)
    assert {"factory/+/measurements", "$sys/version/+/devices/#"} <= set(details.rights.subscribe)
    assert "theirs/#" not in details.rights.subscribe
    kitchen = await site.command(show_credential, username=site.kitchen.username)
    assert "factory/+/measurements" not in kitchen.rights.subscribe
    assert "$sys/version/+/devices/kitchen/#" in kitchen.rights.subscribe


async def test_without_a_route_nobody_may(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        hub = await hub_of(site)
        for topic in (MEASURED, REPORT):
            assert await closed(site, None, topic)
            assert await closed(site, hub, topic)
