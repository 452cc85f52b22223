"""What a client finds when it comes back (MQTT 3.1.1, 3.1.2.4, 4.1, 4.3, 4.4 and 4.6)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker.outbox import IN_FLIGHT
from gateway.operations.devices import revoke_device
from tests.broker.raw import (
    ACCEPTED,
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
PRESENT = b"\x20\x02\x01\x00"


def unsubscribe(name: str, packet_id: int = 1) -> bytes:
    data = name.encode()
    return bytes([0xA2, len(data) + 4]) + packet_id.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


@asynccontextmanager
async def back(site: Site, client_id: str = "sleeper", *, clean: bool = False) -> AsyncIterator[RawClient]:
    """Come back to a session that is there."""
    hello = connect(client_id, site.kitchen.username, site.kitchen.password, clean=clean)
    async with RawClient.open(site, hello) as client:
        assert await client.packet() == PRESENT
        yield client


@asynccontextmanager
async def subscribed(
    site: Site, client_id: str = "sleeper", *, qos: int, clean: bool = False
) -> AsyncIterator[RawClient]:
    async with RawClient.login(site, client_id=client_id, clean=clean) as client:
        client.send(subscribe(STATUS, qos=qos))
        assert await client.packet() == b"\x90\x03\x00\x01" + bytes([qos])
        yield client


async def away(site: Site, client_id: str = "sleeper") -> None:
    session = site.gateway._running.door.delivery.sessions.get(f"{site.kitchen.username}|{client_id}")
    assert session is not None
    await until(lambda: session.link is None, "the session at rest")


async def say(site: Site, *packets: bytes, answers: int | None = None) -> None:
    """Publish from another client, and wait until it is acknowledged."""
    async with RawClient.login(site, client_id="board") as board:
        board.send(*packets)
        for _ in range(len(packets) if answers is None else answers):
            assert (await board.packet())[0] in (0x40, 0x50)


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
async def test_the_qos_of_a_delivery_is_the_lower_of_both(site: Site, published: int, granted: int) -> None:
    """MQTT-3.8.4-6."""
    async with subscribed(site, qos=granted, clean=True) as client:
        await say(site, publish(STATUS, b"x", qos=published), answers=bool(published))
        await client.expect(publish(STATUS, b"x", qos=min(published, granted)))


async def test_a_client_with_several_filters_that_match_gets_one_copy_by_the_highest(site: Site) -> None:
    """MQTT-3.3.5-1."""
    async with RawClient.login(site) as client:
        client.send(
            subscribe(STATUS, qos=0), subscribe("devices/kitchen/#", qos=2), subscribe("devices/kitchen/+", qos=1)
        )
        for granted in (0, 2, 1):
            assert await client.packet() == b"\x90\x03\x00\x01" + bytes([granted])
        await say(site, publish(STATUS, b"x", qos=2))
        await client.expect(publish(STATUS, b"x", qos=2))
        assert await client.is_alive()


async def test_what_is_not_acknowledged_comes_again_with_dup_in_order_and_under_its_id(site: Site) -> None:
    """MQTT-4.4.0-1, MQTT-3.3.1-1."""
    packets = [publish(STATUS, b"%d" % n, qos=1 + n % 2, packet_id=n) for n in range(1, 5)]
    async with subscribed(site, qos=2) as client:
        await say(site, *packets)
        await client.expect(*packets)
        client.send(puback(2), PINGREQ)
        await client.expect(PINGRESP)
    await away(site)
    async with back(site) as client:
        again = [publish(STATUS, b"%d" % n, qos=1 + n % 2, packet_id=n, dup=True) for n in (1, 3, 4)]
        await client.expect(*again)


async def test_one_silent_client_is_sent_nothing_twice_on_one_connection(site: Site) -> None:
    """MQTT-4.4.0-1 asks for it at a new connection only."""
    async with subscribed(site, qos=1) as client:
        await say(site, publish(STATUS, b"x", qos=1))
        await client.expect(publish(STATUS, b"x", qos=1))
        site.clock.advance(60_000)
        assert await client.is_alive()


async def test_qos_2_goes_on_where_it_was(site: Site) -> None:
    """After its PUBREC a message is not sent again: its PUBREL is."""
    async with subscribed(site, qos=2) as client:
        await say(site, publish(STATUS, b"x", qos=2))
        await client.expect(publish(STATUS, b"x", qos=2, packet_id=1))
        client.send(pubrec(1))
        await client.expect(pubrel(1))
    await away(site)
    async with back(site) as client:
        await client.expect(pubrel(1))
        client.send(pubcomp(1))
        await say(site, publish(STATUS, b"y", qos=2))
        await client.expect(publish(STATUS, b"y", qos=2, packet_id=2))


async def test_what_was_under_way_is_completed_after_an_unsubscribe(site: Site) -> None:
    """MQTT-3.10.4-3."""
    async with subscribed(site, qos=2) as client:
        await say(site, publish(STATUS, b"x", qos=2))
        await client.expect(publish(STATUS, b"x", qos=2, packet_id=1))
        client.send(unsubscribe(STATUS, 7))
        await client.expect(b"\xb0\x02\x00\x07")
        await say(site, publish(STATUS, b"y", qos=2))
        client.send(pubrec(1))
        await client.expect(pubrel(1))
        client.send(pubcomp(1), PINGREQ)
        await client.expect(PINGRESP)


async def test_a_pubrec_for_nothing_is_released_so_that_the_client_can_let_go(site: Site) -> None:
    async with subscribed(site, qos=2) as client:
        await say(site, publish(STATUS, b"x", qos=1))
        await client.expect(publish(STATUS, b"x", qos=1))
        client.send(puback(1), pubrec(9), pubcomp(9), puback(9))
        await client.expect(pubrel(9))
        assert await client.is_alive()


async def test_offline_messages_come_in_order_once_without_retain_and_without_dup(site: Site) -> None:
    async with subscribed(site, qos=1) as client:
        client.send(DISCONNECT)
        await client.rest()
    count = 3 * IN_FLIGHT
    await say(site, *(publish(STATUS, b"%d" % n, qos=1, packet_id=n, retain=True) for n in range(1, count + 1)))
    await say(site, publish(STATUS, b"nobody keeps QoS 0"), answers=0)
    async with back(site) as client:
        for n in range(1, count + 1):
            await client.expect(publish(STATUS, b"%d" % n, qos=1, packet_id=n))
            client.send(puback(n))
        assert await client.is_alive()


async def test_no_more_than_the_window_is_under_way(site: Site) -> None:
    async with subscribed(site, qos=1) as client:
        packets = [publish(STATUS, b"%d" % n, qos=1, packet_id=n) for n in range(1, IN_FLIGHT + 3)]
        await say(site, *packets)
        await client.expect(*packets[:IN_FLIGHT])
        assert await client.is_alive()
        client.send(puback(2))
        await client.expect(packets[IN_FLIGHT])
        assert await client.is_alive()


async def test_a_new_subscriber_gets_every_retained_message_however_many(site: Site) -> None:
    """At the lower QoS, and with retain (MQTT-3.3.1-6, -8)."""
    count = 200
    async with RawClient.login(site, client_id="board") as board:
        for n in range(count):
            board.send(publish(f"{STATUS}/{n:03}", b"x", qos=n % 3, packet_id=n + 1, retain=True))
            if n % 3:
                assert (await board.packet())[0] in (0x40, 0x50)
        assert await board.is_alive()
    for clean in (True, False):
        got: dict[bytes, tuple[int, bool]] = {}
        async with RawClient.login(site, client_id=f"late-{clean}", clean=clean) as client:
            client.send(subscribe(f"{STATUS}/+", qos=1))
            assert await client.packet() == b"\x90\x03\x00\x01\x01"
            while len(got) < count:
                packet = await client.packet()
                qos, retain = packet[0] >> 1 & 3, bool(packet[0] & 1)
                topic, rest = packet[4 : 4 + packet[3]], packet[4 + packet[3] :]
                assert topic not in got
                got[topic] = (qos, retain)
                if qos:
                    client.send(b"\x40\x02" + rest[:2])
        assert got == {f"{STATUS}/{n:03}".encode(): (min(1, n % 3), True) for n in range(count)}


async def test_a_subscription_that_is_made_again_brings_its_retained_message_again(site: Site) -> None:
    """MQTT-3.8.4-3."""
    await say(site, publish(STATUS, b"on", qos=1, retain=True))
    async with RawClient.login(site) as client:
        for _ in range(2):
            client.send(subscribe(STATUS))
            await client.expect(b"\x90\x03\x00\x01\x00", publish(STATUS, b"on", retain=True))


@pytest.mark.parametrize("clean", [True, False])
async def test_retained_messages_that_were_not_sent_yet_are_not_after_an_unsubscribe(site: Site, clean: bool) -> None:
    """MQTT-3.10.4-2; but those that another filter matches are, with what that was granted."""
    names = [f"{STATUS}/1/too", f"{STATUS}/2/too", *(f"{STATUS}/{n:03}" for n in range(IN_FLIGHT + 20))]
    await say(site, *(publish(name, b"x", qos=1, packet_id=n, retain=True) for n, name in enumerate(names, 1)))
    async with RawClient.login(site, clean=clean) as client:
        client.send(subscribe(f"{STATUS}/#", qos=1))
        await client.expect(b"\x90\x03\x00\x01\x01")
        for _ in range(IN_FLIGHT):
            assert (await client.packet())[0] == 0x33  # QoS 1, retain
        client.send(subscribe(f"{STATUS}/+/too"))
        await client.expect(b"\x90\x03\x00\x01\x00")
        client.send(unsubscribe(f"{STATUS}/#", 7))
        await client.expect(b"\xb0\x02\x00\x07")
        client.send(*(puback(n) for n in range(1, IN_FLIGHT + 1)))
        late = {publish(f"{STATUS}/{n}/too", b"x", retain=True) for n in (1, 2)}
        assert {await client.packet(), await client.packet()} == late
        assert await client.is_alive()


async def test_an_ended_subscription_is_ended_also_after_coming_back(site: Site) -> None:
    async with subscribed(site, qos=1) as client:
        client.send(unsubscribe(STATUS, 7), unsubscribe("never/subscribed", 8))
        await client.expect(b"\xb0\x02\x00\x07", b"\xb0\x02\x00\x08")
    await away(site)
    await say(site, publish(STATUS, b"x", qos=1))
    async with back(site) as client:
        assert await client.is_alive()


async def test_a_clean_session_ends_the_one_before_and_leaves_none(site: Site) -> None:
    """MQTT-3.1.2-6."""
    async with subscribed(site, qos=1):
        pass
    await away(site)
    await say(site, publish(STATUS, b"x", qos=1))
    for clean in (True, False):
        async with RawClient.open(
            site, connect("sleeper", site.kitchen.username, site.kitchen.password, clean=clean)
        ) as client:
            assert await client.packet() == ACCEPTED
            assert await client.is_alive()
            await say(site, publish(STATUS, b"y", qos=1))
            assert await client.is_alive()
            client.send(DISCONNECT)
            await client.rest()


@pytest.mark.parametrize("clean", [True, False])
async def test_a_take_over_ends_the_older_connection_and_hands_over_what_is_kept(site: Site, clean: bool) -> None:
    """MQTT-3.1.4-2."""
    async with subscribed(site, qos=1) as old:
        await say(site, publish(STATUS, b"x", qos=1))
        await old.expect(publish(STATUS, b"x", qos=1))
        hello = connect("sleeper", site.kitchen.username, site.kitchen.password, clean=clean)
        async with RawClient.open(site, hello) as new:
            assert await new.packet() == (ACCEPTED if clean else PRESENT)
            assert await old.rest() == b""
            if not clean:
                await new.expect(publish(STATUS, b"x", qos=1, dup=True))
            assert await new.is_alive()


async def test_two_hundred_take_overs_in_a_row_leave_one_connection(site: Site) -> None:
    hello = connect("sleeper", site.kitchen.username, site.kitchen.password, clean=False)
    door = site.gateway._running.door
    for number in range(200):
        reader_writer = RawClient.open(site, hello)
        client = await reader_writer.__aenter__()
        assert await client.packet() == (PRESENT if number else ACCEPTED)
    assert await client.is_alive()
    await until(lambda: door.connections == 1, "one connection")
    client.cut()


async def test_what_a_persistent_client_published_with_qos_2_is_known_when_it_comes_back(site: Site) -> None:
    """MQTT-4.3.3: the message is not taken twice, whatever the connection."""
    async with subscribed(site, "watcher", qos=0, clean=True) as watcher:
        async with RawClient.login(site, client_id="writer", clean=False) as writer:
            writer.send(publish(STATUS, b"once", qos=2, packet_id=5))
            await writer.expect(pubrec(5))
        await watcher.expect(publish(STATUS, b"once"))
        await away(site, "writer")
        async with back(site, "writer") as writer:
            writer.send(publish(STATUS, b"once", qos=2, packet_id=5, dup=True), pubrel(5))
            await writer.expect(pubrec(5), pubcomp(5))
            writer.send(publish(STATUS, b"next", qos=2, packet_id=5))
            await writer.expect(pubrec(5))
        await watcher.expect(publish(STATUS, b"next"))


async def test_p1_what_cannot_be_kept_for_a_subscriber_is_not_acknowledged(site: Site, disk: FailingDisk) -> None:
    async with subscribed(site, qos=1):
        pass
    await away(site)
    await say(site, publish(STATUS, b"kept", qos=1))
    async with RawClient.login(site, client_id="board") as board:
        disk.failing = True
        board.send(publish(STATUS, b"lost", qos=1), PINGREQ)
        assert b"\x40" not in await board.rest()
    disk.failing = False
    await say(site, publish(STATUS, b"again", qos=1))
    async with back(site) as client:
        await client.expect(publish(STATUS, b"kept", qos=1, packet_id=1))
        got = await client.packet()
        assert got.endswith(b"again")
        assert await client.is_alive()


async def test_p1_a_subscription_that_cannot_be_kept_is_not_granted(site: Site, disk: FailingDisk) -> None:
    async with RawClient.login(site, client_id="sleeper", clean=False) as client:
        disk.failing = True
        client.send(subscribe(STATUS, qos=1))
        assert await client.rest() == b""
    disk.failing = False


async def test_acknowledgements_keep_their_order_whatever_has_to_be_kept(site: Site) -> None:
    async with subscribed(site, qos=1):
        pass
    await away(site)
    async with RawClient.login(site, client_id="board") as board:
        topics = [TOPIC, STATUS, "devices/kitchen/other"]
        packets = [
            publish(topics[n % 3], reading(), qos=1 + n % 2, packet_id=n, retain=n % 5 == 0) for n in range(1, 101)
        ]
        board.send(*packets)
        await board.expect(*(pubrec(n) if n % 2 else puback(n) for n in range(1, 101)))
        assert len(await site.stored(33)) == 33


async def test_telemetry_is_retained_and_kept_as_well_as_stored(site: Site) -> None:
    async with RawClient.login(site, client_id="sleeper", clean=False) as client:
        client.send(subscribe(TOPIC, qos=1))
        await client.packet()
    await away(site)
    await say(site, publish(TOPIC, reading(), qos=2, retain=True))
    await site.stored(1)
    async with back(site) as client:
        head = await client.read(2)
        assert (await client.read(head[1])).endswith(reading())
    async with RawClient.login(site) as late:
        late.send(subscribe(TOPIC))
        await late.expect(b"\x90\x03\x00\x01\x00", publish(TOPIC, reading(), retain=True))


async def test_a_revoked_credential_takes_its_sessions_along(site: Site) -> None:
    async with subscribed(site, qos=1):
        pass
    await away(site)
    await site.command(revoke_device, organization_id="default", device_id="kitchen")
    assert len(site.gateway._running.door.delivery.sessions) == 0


async def test_sessions_and_retained_messages_survive_a_restart(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        who = site.kitchen
        async with subscribed(site, qos=2) as client:
            await say(site, publish(STATUS, b"1", qos=1), publish(STATUS, b"2", qos=2))
            await client.expect(publish(STATUS, b"1", qos=1, packet_id=1), publish(STATUS, b"2", qos=2, packet_id=2))
            client.send(puback(1))
            assert await client.is_alive()
        await away(site)
        await say(site, publish(STATUS, b"on", qos=1, retain=True))
    async with (
        running_site(tmp_path, kitchen=who) as site,
        RawClient.open(site, connect("sleeper", who.username, who.password, clean=False)) as client,
    ):
        assert await client.packet() == PRESENT
        await client.expect(
            publish(STATUS, b"2", qos=2, packet_id=2, dup=True), publish(STATUS, b"on", qos=1, packet_id=3)
        )
        client.send(subscribe(STATUS))
        await client.expect(b"\x90\x03\x00\x01\x00", publish(STATUS, b"on", retain=True))


async def mosquitto(site: Site, program: str, *arguments: str) -> tuple[int, list[str]]:
    """Run a real client to its end."""
    who = ["-h", "127.0.0.1", "-p", str(site.mqtt_port), "-u", site.kitchen.username, "-P", site.kitchen.password]
    process = await asyncio.create_subprocess_exec(program, *who, *arguments, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines()


async def test_mosquitto_comes_back_to_what_it_missed(site: Site) -> None:
    listen = ["-i", "panel", "-c", "-q", "2", "-t", "devices/kitchen/+", "-F", "%t %q %r %p"]
    assert await mosquitto(site, "mosquitto_sub", *listen, "-E") == (0, [])
    for number, qos in enumerate("1221"):
        said = ["-t", STATUS, "-q", qos, "-m", str(number), "-r"]
        assert await mosquitto(site, "mosquitto_pub", *said) == (0, [])
    code, lines = await mosquitto(site, "mosquitto_sub", *listen, "-C", "5")
    # It shows a message of QoS 2 when that is released, and subscribes again, so it gets the retained message again.
    by_qos = sorted((line.removeprefix(f"{STATUS} ") for line in lines), key=lambda line: line[0])
    assert (code, by_qos) == (0, ["1 0 0", "1 0 3", "1 1 3", "2 0 1", "2 0 2"])
