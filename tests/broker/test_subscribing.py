"""What local subscribers hear, and what they cannot do to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.storage.credentials import NewPassword
from gateway.storage.state import DeviceCredential
from tests.broker.raw import RawClient, puback, publish, subscribe
from tests.site import PATIENCE_S, Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"


@asynccontextmanager
async def mosquitto_sub(
    site: Site, device: DeviceCredential | NewPassword, *arguments: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Run the real client; the context begins when its subscription is granted."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", device.username]
    command += ["-P", device.password, "-F", "%t %q %r %p", *arguments]
    before = site.gateway._running.door.delivery.local.changes
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        await until(lambda: site.gateway._running.door.delivery.local.changes > before, "the subscription")
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def line(stream: asyncio.StreamReader) -> str:
    async with asyncio.timeout(PATIENCE_S):
        return (await stream.readline()).decode().rstrip()


@pytest.mark.parametrize("qos", [0, 1])
async def test_mosquitto_sub_sees_a_reading_after_its_commit(site: Site, qos: int) -> None:
    arguments = ("-t", "devices/kitchen/#", "-q", str(qos))
    async with mosquitto_sub(site, site.kitchen, *arguments) as lines, RawClient.login(site) as board:
        board.send(publish(TOPIC, reading(), qos=1))
        assert await line(lines) == f"{TOPIC} {qos} 0 {reading().decode()}"
        assert site.log.last_row == 1


async def test_a_late_subscriber_gets_the_retained_status_and_nobody_else_does(site: Site) -> None:
    async with RawClient.login(site, client_id="board") as board:
        board.send(publish(STATUS, b"online", qos=1, retain=True))
        await board.expect(puback(1))
        async with mosquitto_sub(site, site.kitchen, "-t", STATUS) as lines:
            assert await line(lines) == f"{STATUS} 0 1 online"
            async with RawClient.login(site, client_id="other") as other:
                other.send(subscribe("devices/kitchen/commands/#"))
                assert await other.packet() == b"\x90\x03\x00\x01\x00"
                assert await other.is_alive()


async def test_only_filters_inside_the_clients_own_topics_are_granted(site: Site) -> None:
    await site.gateway.add_device("hall")
    refused = ["#", "+/kitchen/status", "devices/hall/#", "devices/kitchenette/#", "$SYS/#", "devices/+/status"]
    refused += ["org_default/#", "/devices/kitchen/#", "Devices/kitchen/#"]
    async with RawClient.login(site) as client:
        client.send(subscribe(STATUS, *refused, "org_default/devices/kitchen/#"))
        assert await client.packet() == b"\x90\x0d\x00\x01\x00" + b"\x80" * 9 + b"\x00"


@pytest.mark.parametrize("topic", ["devices/x/status", "devices/x/telemetry", "neurobuild/sensors/x/data"])
async def test_p8_organisations_with_equal_device_ids_hear_nothing_of_each_other(site: Site, topic: str) -> None:
    ours = await site.gateway.add_device("x", organization_id="ours")
    theirs = await site.gateway.add_device("x", organization_id="theirs")
    async with RawClient.login(site, ours) as listening, RawClient.login(site, theirs) as speaking:
        listening.send(subscribe("devices/x/#", "neurobuild/sensors/x/#", "org_ours/devices/x/#"))
        await listening.packet()
        speaking.send(publish(topic, reading("x"), qos=1, retain=True))
        await speaking.expect(puback(1))
        own = publish("org_ours/devices/x/mark", b"mine")
        listening.send(own)
        await listening.expect(own)


async def test_a_message_is_never_delivered_at_a_higher_qos_than_it_was_published(site: Site) -> None:
    """MQTT-3.8.4-6: the lower of the published and the granted one."""
    async with mosquitto_sub(site, site.kitchen, "-t", STATUS, "-q", "2") as lines, RawClient.login(site) as board:
        for qos in (0, 1):
            board.send(publish(STATUS, b"x", qos=qos, packet_id=qos))
            assert await line(lines) == f"{STATUS} {qos} 0 x"


async def test_p9_a_subscriber_that_reads_nothing_is_bounded_and_then_dropped(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_subscriber_buffer_bytes": 100_000, "subscriber_timeout_s": 1}) as site,
        RawClient.login(site, client_id="stuck") as stuck,
        RawClient.login(site, client_id="board") as board,
    ):
        stuck.send(subscribe("devices/kitchen/#"))
        await stuck.packet()
        stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a duplex transport
        door = site.gateway._running.door
        (link,) = (one for one in door._connections if one.client_id == "stuck")
        packet = publish(TOPIC, reading(padding="x" * 50_000), qos=1)
        most = 0
        for _ in range(400):
            board.send(packet)
            await board.expect(puback(1))
            most = max(most, link._transport.get_write_buffer_size())
        assert 100_000 < most < 200_000
        lost = 'neurogate_events_dropped_total{destination="local",reason="slow_subscriber"}'
        assert await site.metric(lost) > 100
        await until(lambda: door.connections == 1, "the stuck subscriber dropped")
        assert await site.metric('neurogate_front_door_refused_total{reason="slow_subscriber"}') == 1
        assert await board.is_alive()


async def test_a_subscriber_that_reads_again_in_time_stays(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_subscriber_buffer_bytes": 100_000}) as site,
        RawClient.login(site, client_id="slow") as slow,
        RawClient.login(site, client_id="board") as board,
    ):
        slow.send(subscribe(STATUS, qos=1))
        await slow.packet()
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
        door = site.gateway._running.door
        (link,) = (one for one in door._connections if one.client_id == "slow")
        sent = 0
        while not link.is_stuck or sent < 300:
            board.send(publish(STATUS, b"%06d" % sent + b"x" * 50_000, qos=1))
            await board.expect(puback(1))
            sent += 1
            assert sent < 1_000
            if sent == 5:  # so many that the window never fills
                slow.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
            if sent >= 5:
                break
        for number in range(sent):
            packet = await slow.read(len(publish(STATUS, b"%06d" % number + b"x" * 50_000, qos=1)))
            at = packet.index(b"%06d" % number)
            slow.send(b"\x40\x02" + packet[at - 2 : at])
        assert await slow.is_alive()


async def test_p9_a_subscriber_that_acknowledges_nothing_starves_no_other(site: Site) -> None:
    count = 7000
    async with (
        RawClient.login(site, client_id="silent") as silent,
        RawClient.login(site, client_id="healthy") as healthy,
        RawClient.login(site, client_id="board") as board,
    ):
        silent.send(subscribe(STATUS, qos=1))
        healthy.send(subscribe(STATUS))
        assert (await silent.packet(), await healthy.packet()) == (b"\x90\x03\x00\x01\x01", b"\x90\x03\x00\x01\x00")
        for _ in range(count // 100):
            board.send(*[publish(STATUS, b"x", qos=1)] * 100)
            await board.expect(*[puback(1)] * 100)
            await healthy.expect(*[publish(STATUS, b"x")] * 100)
