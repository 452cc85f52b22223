"""What is received from elsewhere is acknowledged when it is on disk, in order, and comes again when it is not."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from cloud_sync.contract import AuthFailed, Gone, Hearing, NotConnected
from gateway.config.routes import Mapping
from gateway.inbound.window import MOST_MESSAGES
from gateway.model.errors import StoreFull
from tests.inbound.site import OtherSide, Site, open_site
from tests.site import FailingDisk, reading, until

HUB = "$sys/version/1.0/devices/hub1/properties_report"
VMARK = Hearing(("$sys/version/+/devices/#",), "vmark")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as site:
        yield site


def numbered(seq: int, device_id: str = "hall") -> bytes:
    return reading(device_id, boot_id="b1", seq=seq)


async def test_p1_everything_is_acknowledged_in_order_when_it_is_on_disk(site: Site) -> None:
    source = OtherSide()
    async with site.receiving(source) as inbound:
        payloads = [numbered(seq) for seq in range(200)]
        payloads[7], payloads[77] = b"no JSON", b'{"device_id": "hall", "sensors": {}}'
        for payload in payloads:
            source.publish(payload)
        await until(lambda: len(source.acknowledged) == len(payloads), "all acknowledged")
        assert source.acknowledged == payloads
        assert len(await site.stored()) == len(payloads) - 2
        assert {one.code for one in await site.quarantined()} == {"invalid_json", "invalid_reading"}
        status = inbound.status()
    assert (status.state, status.received, status.last_error) == ("receiving", len(payloads), "")
    assert {one.organization_id for one in await site.stored()} == {"acme"}


async def test_p1_what_the_disk_refuses_is_not_acknowledged_and_comes_again(site: Site, disk: FailingDisk) -> None:
    source = OtherSide()
    disk.failing = True
    async with site.receiving(source) as inbound:
        source.publish(numbered(1))
        source.publish(numbered(2))
        await until(lambda: source.connections > 2, "it tried again")
        assert source.acknowledged == []
        assert inbound.status().state in {"full", "connecting", "receiving"}
        disk.failing = False
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    assert [one.seq for one in await site.stored()] == [1, 2]


async def test_p2_what_was_stored_and_not_acknowledged_is_stored_once(site: Site) -> None:
    source = OtherSide()
    acknowledge = source.acknowledge

    async def dies(_: object) -> bool:
        source.acknowledge = acknowledge  # type: ignore[method-assign]
        return False

    source.acknowledge = dies  # type: ignore[assignment, method-assign]
    async with site.receiving(source):
        source.publish(numbered(1))
        await until(lambda: source.acknowledged == [numbered(1)], "acknowledged by the second connection")
    assert source.connections == 2
    assert len(await site.stored()) == 1


async def test_p5_no_more_is_taken_than_fits_until_it_is_on_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OtherSide(at_once=100)
    waiting: list[object] = []
    submit = site.log.submit
    monkeypatch.setattr(site.log, "submit", lambda *entry: waiting.append(entry))
    async with site.receiving(source):
        for seq in range(2_500):
            source.publish(numbered(seq))
        await until(lambda: len(waiting) >= MOST_MESSAGES, "it is full")
        for _ in range(20):
            await site.sleep(0)
        assert len(waiting) == source.handed_in == MOST_MESSAGES
        assert source.acknowledged == []
        monkeypatch.setattr(site.log, "submit", submit)
        for entry in waiting:
            submit(*entry)  # type: ignore[misc]
        await until(lambda: len(source.acknowledged) == 2_500, "all of it")
    assert len(await site.stored()) == 2_500


async def test_a_hub_hears_its_reply_after_the_store_and_before_it_is_acknowledged(site: Site) -> None:
    source = OtherSide(hearing=VMARK)
    async with site.receiving(source):
        source.publish(b'{"hardware_ids": ["AA:01"], "properties": {"t": 21.5}}', HUB)
        source.publish(b"no JSON", HUB)
        source.publish(b'{"result":0}', f"{HUB}_reply")
        source.publish(b"{}", "$sys/version/1.0/devices/hub1/online")
        await until(lambda: len(source.acknowledged) == 4, "all acknowledged")
    assert source.replies == [(f"{HUB}_reply", b'{"result":0}')] * 2
    assert source.log.index("reply") < source.log.index("ack")
    (stored,) = await site.stored()
    assert (stored.organization_id, stored.device_id) == ("acme", "AA:01")
    assert [one.code for one in await site.quarantined()] == ["invalid_json"]


async def test_a_report_whose_reply_does_not_get_there_comes_again(site: Site) -> None:
    source = OtherSide(hearing=VMARK)
    source.takes_replies = False
    async with site.receiving(source):
        source.publish(b'{"device_id": "AA", "properties": {"t": 21.5}}', HUB)
        await until(lambda: source.connections > 1, "another connection")
        assert source.acknowledged == []
        source.takes_replies = True
        await until(lambda: bool(source.acknowledged), "acknowledged")


async def test_p8_another_organisations_device_is_not_reached(site: Site) -> None:
    source = OtherSide()
    async with site.receiving(source):
        source.publish(reading("hall"), "org_other/devices/hall/telemetry")
        source.publish(reading("hall"), "org_acme/devices/hall/telemetry")
        source.publish(reading("cellar"), "devices/hall/telemetry")
        source.publish(b'{"status": "online"}', "org_acme/devices/hall/status")
        await until(lambda: len(source.acknowledged) == 4, "all acknowledged")
    assert [(one.organization_id, one.device_id) for one in await site.stored()] == [("acme", "hall")]
    found = [(one.organization_id, one.code) for one in await site.quarantined()]
    assert found == [("acme", "foreign_topic"), ("acme", "foreign_device")]


KITCHENS = Hearing(("#",), device_id="kitchen")


async def test_p8_by_a_connection_of_one_device_only_that_one_speaks(site: Site) -> None:
    """When the device has moved, the connection still leads to a broker of whoever had it before."""
    source = OtherSide(hearing=KITCHENS)
    async with site.receiving(source):
        source.publish(reading("safe"))
        source.publish(reading("safe"), "org_acme/devices/safe/telemetry")
        source.publish(reading("safe"), "devices/kitchen/telemetry")
        source.publish(reading("kitchen"), "plant/of/its/own")
        source.publish(reading("kitchen"), "devices/kitchen/telemetry")
        await until(lambda: len(source.acknowledged) == 5, "all acknowledged")
    assert [(one.organization_id, one.device_id) for one in await site.stored()] == [("acme", "kitchen")] * 2
    assert [one.code for one in await site.quarantined()] == ["foreign_device", "foreign_topic", "foreign_device"]
    assert {one.organization_id for one in await site.quarantined()} == {"acme"}
    assert [one.device_id for one in site.access.devices] == ["kitchen"]


async def test_p8_by_a_hubs_connection_another_hub_neither_speaks_nor_is_answered(site: Site) -> None:
    source = OtherSide(hearing=Hearing(VMARK.topics, "vmark", device_id="hub1"))
    async with site.receiving(source):
        source.publish(b'{"device_id": "AA", "properties": {"t": 21.5}}', HUB.replace("hub1", "hub2"))
        source.publish(b'{"device_id": "AA", "properties": {"t": 21.5}}', HUB)
        source.publish(b'{"properties": {"t": 21.5}}', HUB)
        await until(lambda: len(source.acknowledged) == 3, "all acknowledged")
    assert [one.device_id for one in await site.stored()] == ["AA", "hub1"]
    assert [one.code for one in await site.quarantined()] == ["foreign_device"]
    assert [topic for topic, _ in source.replies] == [f"{HUB}_reply"] * 2


async def test_p8_a_hub_that_has_moved_speaks_for_itself_alone_and_is_answered(site: Site) -> None:
    """Whoever had it before may report by it what they like, and there are devices of the same names."""
    known = OtherSide(hearing=VMARK)
    async with site.receiving(known):
        hub = '{"device_id": "hub1", "hardware_ids": ["AA:02"], "t": 1}'
        known.publish(f'{{"devices": [{hub}, {{"device_id": "safe", "t": 1}}]}}'.encode(), HUB)
        await until(lambda: bool(known.acknowledged), "both known")
    moved = OtherSide(hearing=Hearing(VMARK.topics, "vmark", device_id="hub1", speaks_for_others=False))
    async with site.receiving(moved):
        moved.publish(b'{"device_id": "safe", "properties": {"t": 21.5}}', HUB)
        moved.publish(b'{"devices": [{"device_id": "new", "t": 1}, {"hardware_ids": ["AA:02"], "t": 2}]}', HUB)
        moved.publish(b'{"properties": {"t": 21.5}}', HUB)
        await until(lambda: len(moved.acknowledged) == 3, "all acknowledged")
    assert [one.device_id for one in await site.stored()] == ["hub1", "safe", "hub1", "hub1"]
    assert [one.code for one in await site.quarantined()] == ["foreign_device", "foreign_device"]
    assert [one.device_id for one in site.access.devices] == ["hub1", "safe"]
    assert [topic for topic, _ in moved.replies] == [f"{HUB}_reply"] * 3


async def test_p4_a_connection_of_what_can_be_no_device_stores_nothing(site: Site) -> None:
    source = OtherSide(hearing=Hearing(("#",), device_id="kit chen"))
    async with site.receiving(source):
        source.publish(reading("hall"))
        await until(lambda: len(source.acknowledged) == 1, "acknowledged")
    assert (await site.stored(), [one.code for one in await site.quarantined()]) == ([], ["invalid_device_id"])


@pytest.mark.parametrize("parser", ["standard", "vmark"])
async def test_what_nobody_asked_for_is_acknowledged_counted_and_told_once(
    site: Site, caplog: pytest.LogCaptureFixture, parser: Literal["standard", "vmark"]
) -> None:
    source = OtherSide(hearing=Hearing(("plant/+",), parser))
    async with site.receiving(source):
        source.publish(reading("hall"), "an/older/subscription")
        source.publish(reading("hall"), "as/the/broker/has/rewritten/it")
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    assert (await site.stored(), await site.quarantined()) == ([], [])
    (told,) = [one.getMessage() for one in caplog.records if "left out" in one.msg]
    assert "an/older/subscription" in told
    unasked = ("neurogate_received_unasked_messages_total", {"integration": "plant"})
    assert site.metrics.registry.get_sample_value(*unasked) == 2
    site.metrics.forget_destination("plant")
    assert site.metrics.registry.get_sample_value(*unasked) is None


@pytest.mark.parametrize("before", ["$share/gateways", "$queue", "$exclusive"])
async def test_p1_what_a_shared_subscription_brings_is_stored(site: Site, before: str) -> None:
    source = OtherSide(hearing=Hearing((f"{before}/plant/+",)))
    async with site.receiving(source):
        source.publish(numbered(1))
        source.publish(numbered(2), "elsewhere/hall")
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    assert [one.seq for one in await site.stored()] == [1]


async def test_a_reading_of_ours_that_comes_back_is_not_stored_again(site: Site) -> None:
    source = OtherSide()
    async with site.receiving(source):
        source.publish(reading("hall", id=f"site-1:{site.log.uuid}:1"))
        source.publish(reading("hall", id=f"site-2:{site.log.uuid}:1"))
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    assert [one.body["id"][:6] for one in await site.stored()] == ["site-2"]


async def test_p1_what_others_say_of_a_reading_of_ours_is_stored(site: Site) -> None:
    source = OtherSide()
    async with site.receiving(source):
        source.publish(reading("average", made_of=[f"site-1:{site.log.uuid}:1"]))
        source.publish(reading("hall", id=f"site-1:{site.log.uuid}:1"), "org_other/devices/hall/telemetry")
        source.publish(b"by a template: %s" % json.dumps(f"site-1:{site.log.uuid}:1").encode())
        await until(lambda: len(source.acknowledged) == 3, "acknowledged")
    assert [one.device_id for one in await site.stored()] == ["average"]
    assert (await site.quarantined(), [one.device_id for one in site.access.devices]) == ([], ["average"])


EACH = {"each": "items", "device_id": "who", "sensors": {"climate": {"t": "t"}}}


async def test_p1_of_a_message_with_a_reading_of_ours_the_others_are_stored(site: Site) -> None:
    ours = f"site-1:{site.log.uuid}:1"
    batch = {"items": [{"who": "hall", "t": 20, "ref": ours}, {"who": "attic", "t": 21}]}
    whole = {"ref": ours, "items": [{"who": "cellar", "t": 20}]}
    source = OtherSide(hearing=Hearing(("#",), "custom", Mapping.model_validate(EACH)))
    async with site.receiving(source):
        source.publish(json.dumps(batch).encode())
        source.publish(json.dumps(whole).encode())
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    assert [one.device_id for one in await site.stored()] == ["attic"]
    source = OtherSide(hearing=VMARK)
    report = {"devices": [{"device_id": "AA", "t": 1, "ref": ours}, {"device_id": "BB", "t": 1}]}
    async with site.receiving(source):
        source.publish(json.dumps(report).encode(), HUB)
        await until(lambda: len(source.acknowledged) == 1, "acknowledged")
    assert [one.device_id for one in await site.stored()] == ["attic", "BB"]
    assert await site.quarantined() == []
    assert source.replies == [(f"{HUB}_reply", b'{"result":0}')]


async def test_p4_what_is_too_large_is_told_and_acknowledged(site: Site) -> None:
    source = OtherSide()
    async with site.receiving(source):
        source.publish(b"", cut_bytes=9_000_000)
        source.publish(reading("hall"), "plant/" + "x" * 60_000)
        await until(lambda: len(source.acknowledged) == 2, "acknowledged")
    bad, worse = await site.quarantined()
    assert (worse.code, len(worse.source)) == ("topic_too_long", 1_000)
    assert (bad.code, "9,000,000" in bad.reason, bad.source) == ("payload_too_large", True, "plant/hall")


async def test_after_an_end_it_waits_longer_and_longer(site: Site) -> None:
    source = OtherSide(*[NotConnected("away")] * 4, AuthFailed("no"), NotConnected("away"))
    async with site.receiving(source) as inbound:
        await until(lambda: inbound.status().state == "receiving")
        assert site.waits[:6] == [1, 2, 4, 8, 300, 32]
        site.clock.advance(1_000)
        source.cut()  # it has not held: two clients of one name would do this to each other for ever
        await until(lambda: source.connections == 8)
        assert site.waits[6] == 64
        await until(lambda: inbound.status().state == "receiving")
        site.clock.advance(60_000)
        source.cut()
        await until(lambda: source.connections == 9)
        assert site.waits[7] == 1


async def test_its_owner_is_told_what_to_mend(site: Site) -> None:
    source = OtherSide(AuthFailed("it refuses the password"), Gone("never again"))
    async with site.receiving(source) as inbound:
        await until(lambda: source.connections == 2)
        assert inbound.error == "never again"
        assert inbound.status().state == "error"
        assert site.waits == [300]


async def test_p5_while_there_is_no_room_nothing_is_asked_for(site: Site) -> None:
    source = OtherSide()
    site.log.bounds.full = StoreFull("The log is full.")
    async with site.receiving(source) as inbound:
        source.publish(numbered(1))
        await until(lambda: len(site.waits) > 3)
        assert (source.connections, inbound.status().state) == (0, "full")
        site.log.bounds.full = None
        await until(lambda: len(source.acknowledged) == 1)


async def test_at_a_stop_what_is_on_its_way_to_the_disk_is_acknowledged(tmp_path: Path) -> None:
    source = OtherSide()
    async with open_site(tmp_path, commit_max_delay_ms=100) as site:
        async with site.receiving(source):
            source.publish(numbered(1))
            await until(lambda: source.handed_in == 1)
            assert source.acknowledged == []
        assert source.acknowledged == [numbered(1)]
