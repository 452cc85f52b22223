"""What becomes of a PUBLISH: stored, then acknowledged, in order; or the connection ends."""

import asyncio
from pathlib import Path

import pytest

from tests.broker.raw import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    RawClient,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    subscribe,
)
from tests.site import FailingDisk, Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"


@pytest.mark.parametrize(("qos", "answer"), [(0, b""), (1, puback(5)), (2, pubrec(5))])
async def test_a_reading_of_every_qos_is_stored_and_answered(site: Site, qos: int, answer: bytes) -> None:
    async with RawClient.login(site) as client:
        client.send(publish(TOPIC, reading(), qos=qos, packet_id=5))
        await client.expect(answer)
        assert len(await site.stored(1)) == 1


async def test_qos_2_sent_again_before_its_release_is_stored_once(site: Site) -> None:
    async with RawClient.login(site) as client:
        packet = publish(TOPIC, reading(), qos=2, packet_id=5)
        client.send(packet, packet)
        await client.expect(pubrec(5), pubrec(5))
        client.send(pubrel(5))
        await client.expect(pubcomp(5))
        client.send(packet)
        await client.expect(pubrec(5))
        assert len(await site.stored(2)) == 2


async def test_acknowledgements_come_in_the_order_of_the_messages(site: Site) -> None:
    async with RawClient.login(site) as client:
        packets = [
            publish(TOPIC if number % 3 else STATUS, reading(), qos=1, packet_id=number) for number in range(1, 61)
        ]
        client.send(*packets)
        await client.expect(*(puback(number) for number in range(1, 61)))
        assert len(await site.stored(40)) == 40


async def test_messages_right_behind_connect_and_before_disconnect_are_all_stored(site: Site) -> None:
    """Deep sleep: everything in one write, without waiting for anything (amqtt alone loses 499 of 500)."""
    who = site.kitchen
    first = connect("sleeper", who.username, who.password, keepalive=0)
    packets = [publish(TOPIC, reading(boot_id="b", seq=number), qos=1, packet_id=number) for number in range(1, 501)]
    async with RawClient.open(site, b"".join([first, *packets, DISCONNECT])):
        assert [stored.seq for stored in await site.stored(500)] == list(range(1, 501))


@pytest.mark.parametrize("most", [1, 2, 3, 200])
async def test_whatever_the_limit_in_flight_everything_is_acknowledged(tmp_path: Path, most: int) -> None:
    async with running_site(tmp_path, mqtt={"max_inflight": most}) as site, RawClient.login(site) as client:
        for number in range(1, 11):
            client.send(publish(TOPIC, reading(), qos=1, packet_id=number))
            await client.expect(puback(number))


@pytest.mark.parametrize(
    "packet",
    [
        connect("again"),
        publish("devices/kitchen/+"),
        publish("devices/kitchen/#", qos=1),
        publish("", qos=1),
        publish(b"devices/kitchen/\xff"),
        publish(b"devices/kitchen/\xed\xa0\x80"),
        publish(b"devices/kitchen/\x00"),
        publish(STATUS, qos=3),
        publish(STATUS, qos=1, packet_id=0),
        publish(STATUS, dup=True),
        b"\x30\x04\x00\x50ab",
        b"\x30\x01\x00",
        b"\x30\xff\xff\xff\xff\x7f",
        b"\xf0\x00",
        b"\x00\x00",
        b"\x60\x02\x00\x01",
        b"\xc1\x00",
        b"\xe0\x01\x00",
        b"\x40\x02\x00\x00",
        b"\x80\x06\x00\x01\x00\x01a\x00",
        b"\x82\x02\x00\x01",
        subscribe(STATUS, qos=3),
        subscribe(STATUS, packet_id=0),
        subscribe(""),
    ],
)  # fmt: skip
async def test_a_malformed_packet_ends_the_connection_and_no_other(site: Site, packet: bytes) -> None:
    async with RawClient.login(site, client_id="other") as other, RawClient.login(site) as client:
        client.send(packet, PINGREQ)
        assert await client.rest() == b""
        assert await site.metric('neurogate_front_door_refused_total{reason="malformed"}') == 1
        assert await other.is_alive()


@pytest.mark.parametrize(
    "topic", ["devices/hall/telemetry", "org_other/devices/kitchen/status", "$SYS/x", "devices/kitchenette/x"]
)
async def test_a_foreign_topic_ends_the_connection(site: Site, topic: str) -> None:
    await site.gateway.add_device("hall")
    async with RawClient.login(site) as client:
        client.send(publish(topic, reading(), qos=1))
        assert await client.rest() == b""


async def test_a_packet_that_is_too_big_is_not_even_read(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_packet_bytes": 1000}) as site,
        RawClient.login(site, client_id="other") as other,
        RawClient.login(site) as client,
    ):
        client.send(publish(TOPIC, bytes(1000))[:20])
        assert await client.rest() == b""
        assert await site.metric('neurogate_front_door_refused_total{reason="packet_too_big"}') == 1
        assert await other.is_alive()


@pytest.mark.parametrize(
    "timestamp",
    [-1e308, 1e308, -1e300, 10**400, -(10**400), "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"],
    ids=["-1e308", "1e308", "-1e300", "10^400", "-10^400", "year-1", "year-9999"],
)
async def test_p4_no_timestamp_can_end_a_connection(site: Site, timestamp: float | str) -> None:
    """Or the board would come back and send it for ever."""
    async with RawClient.login(site) as client:
        client.send(publish(TOPIC, reading(timestamp=timestamp), qos=1, packet_id=3))
        await client.expect(puback(3))
        (stored,) = await site.stored(1)
        assert stored.time_ms == site.clock.now


async def test_what_cannot_be_used_is_acknowledged_and_kept(site: Site) -> None:
    async with RawClient.login(site) as client:
        client.send(publish(TOPIC, b"\xff", qos=1, packet_id=1), publish(TOPIC, reading("hall"), qos=1, packet_id=2))
        await client.expect(puback(1), puback(2))
        assert [(bad.code, bad.payload) for bad in await site.quarantined()] == [
            ("invalid_json", b"\xff"),
            ("foreign_device", reading("hall")),
        ]


async def test_p1_a_failed_commit_acknowledges_nothing_and_what_is_sent_again_is_stored_once(
    site: Site, disk: FailingDisk
) -> None:
    first, again = (publish(TOPIC, reading(), qos=1, packet_id=9, dup=dup) for dup in (False, True))
    async with RawClient.login(site) as client:
        disk.failing = True
        client.send(first)
        assert await client.rest() == b""
    async with site.http.get(site.url("/ready")) as response:
        assert response.status == 503
        assert "disk I/O error" in (await response.json())["problems"][0]
    disk.failing = False
    async with RawClient.login(site) as client:
        client.send(again, again)
        await client.expect(puback(9), puback(9))
        assert len(await site.stored(1)) == 1
    async with site.http.get(site.url("/ready")) as response:
        assert response.status == 200


async def test_a_client_that_keeps_sending_is_not_read_beyond_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_site(tmp_path, mqtt={"max_inflight": 10}) as site, RawClient.login(site) as client:
        log = site.log
        monkeypatch.setattr(log, "_commit", lambda: None)  # a disk that takes for ever
        packet = publish(TOPIC, reading(padding="x" * 2000), qos=1)
        for _ in range(20):
            client.send(*[packet] * 100)
            await asyncio.sleep(0.005)
        taken = log.waiting
        await asyncio.sleep(0.1)
        assert log.waiting == taken == 10
        assert client.writer.transport.get_write_buffer_size() > 0
        monkeypatch.undo()
        log._commit()
        await client.expect(*[puback(1)] * 2000)
        await until(lambda: log.stored == 2000)
        client.send(PINGREQ)
        await client.expect(PINGRESP)


@pytest.mark.parametrize("retain", [False, True])
async def test_a_fault_of_a_listener_costs_neither_publisher_nor_subscriber(
    site: Site, retain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("planted")

    delivery, heard = site.gateway._running.door.delivery, list[str]()
    delivery.subscriptions.on_hearing.append(fails)
    delivery.on_message.append(fails)
    delivery.on_message.append(lambda message: heard.append(message.topic))
    async with RawClient.login(site) as subscriber, RawClient.login(site, client_id="publisher") as client:
        subscriber.send(subscribe(STATUS))
        assert (await subscriber.packet())[0] == 0x90
        for number in (1, 2):
            client.send(publish(STATUS, b'{"status": "online"}', qos=1, packet_id=number, retain=retain))
            await client.expect(puback(number))
            assert STATUS.encode() in await subscriber.packet()
    assert sum(topic.endswith(STATUS) for topic in heard) >= 2
    assert [one.message for one in caplog.records if "planted" in (one.exc_text or "")] == [
        "a part that hears who subscribes has failed",
        "a part that hears messages has failed",
    ]
