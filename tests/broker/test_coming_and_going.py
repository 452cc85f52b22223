"""Who gets in at the front door, and what one connection can do to another."""

import asyncio
import time

import pytest

from gateway.broker.packets import encode_packet, encode_text
from gateway.operations.devices import add_device, revoke_device
from gateway.storage.state import DeviceCredential
from tests.broker.raw import ACCEPTED, DISCONNECT, PINGREQ, PINGRESP, RawClient, connect, puback, publish, subscribe
from tests.site import Site, until

STATUS = "devices/kitchen/status"
REFUSED = b"\x20\x02\x00\x05"


def hello(device: DeviceCredential, client_id: str = "raw", *, clean: bool = True) -> bytes:
    return connect(client_id, device.username, device.password, clean=clean)


@pytest.mark.parametrize(
    ("username", "password"),
    [(None, None), ("default/kitchen", None), ("default/kitchen", "wrong"), ("nobody", "wrong"), ("", "")],
)
async def test_a_login_that_is_not_right_is_refused_and_closed(
    site: Site, username: str | None, password: str | None
) -> None:
    async with RawClient.open(site, connect("raw", username, password)) as client:
        assert await client.rest() == REFUSED


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (
            encode_packet(0x10, encode_text("MQTT") + b"\x05\x02\x00\x3c\x00" + encode_text("c")),
            b"\x20\x03\x00\x84\x00",
        ),
        (encode_packet(0x10, encode_text("MQIsdp") + b"\x03\x02\x00\x3c" + encode_text("c")), b"\x20\x02\x00\x01"),
        (connect("", "default/kitchen", "x", clean=False), b"\x20\x02\x00\x02"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        (publish(STATUS), b""),
        (PINGREQ, b""),
        (encode_packet(0x11, b""), b""),
    ],
    ids=["mqtt-5", "mqtt-3.1", "no-client-id", "http", "tls", "publish", "pingreq", "reserved-flags"],
)
async def test_what_is_not_our_connect_is_answered_in_its_own_words_and_closed(
    site: Site, first: bytes, answer: bytes
) -> None:
    async with RawClient.open(site, first) as client:
        assert await client.rest() == answer


async def test_a_connect_in_single_bytes_gets_in(site: Site) -> None:
    async with RawClient.open(site) as client:
        for byte in hello(site.kitchen):
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        await client.expect(ACCEPTED)


async def test_connack_is_the_first_thing_a_persistent_client_hears(site: Site) -> None:
    """MQTT-3.2.0-1, also when it does not wait for CONNACK."""
    first = hello(site.kitchen, clean=False) + publish(STATUS, b"online", qos=1, packet_id=7) + PINGREQ
    async with RawClient.open(site, first) as client:
        assert await client.packet() == ACCEPTED
        await client.expect(puback(7), PINGRESP)


@pytest.mark.parametrize("username", ["default/kitchen", "default/hall"])
async def test_a_refused_login_leaves_its_victim_alone(site: Site, username: str) -> None:
    await site.gateway.add_device("hall")
    will = (STATUS, b"offline")
    async with (
        RawClient.login(site, client_id="watcher") as watcher,
        RawClient.login(site, client_id="victim", clean=False, will=will) as victim,
    ):
        watcher.send(subscribe(STATUS))
        victim.send(subscribe("devices/kitchen/commands/#"))
        assert (await watcher.packet(), await victim.packet()) == (b"\x90\x03\x00\x01\x00",) * 2
        evil = connect("victim", username, "wrong", will=("devices/kitchen/evil", b"evil"))
        async with RawClient.open(site, evil) as attacker:
            assert await attacker.rest() == REFUSED
        command = publish("devices/kitchen/commands/1", b"go")
        watcher.send(command)
        await victim.expect(command)
        victim.cut()
        await watcher.expect(publish(*will))


async def test_the_same_client_again_really_ends_the_older_connection(site: Site) -> None:
    async with RawClient.login(site, client_id="same") as old:
        old.send(subscribe(STATUS))
        await old.packet()
        async with RawClient.login(site, client_id="same") as new:
            assert await old.rest() == b""
            new.send(subscribe(STATUS))
            assert await new.packet() == b"\x90\x03\x00\x01\x00"
            new.send(publish(STATUS, b"hello"))
            await new.expect(publish(STATUS, b"hello"))


async def test_two_credentials_with_one_client_id_do_not_meet(site: Site) -> None:
    hall = await site.gateway.add_device("hall")
    async with RawClient.login(site, client_id="same") as first, RawClient.login(site, hall, "same") as second:
        assert await first.is_alive()
        assert await second.is_alive()


async def test_silence_beyond_one_and_a_half_keepalives_closes_and_leaves_the_will(site: Site) -> None:
    async with (
        RawClient.login(site, client_id="watcher") as watcher,
        RawClient.login(site, client_id="dying", keepalive=1, will=(STATUS, b"offline")) as dying,
    ):
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        started = time.monotonic()
        assert await dying.is_alive()
        assert await dying.rest() == b""
        assert 1.4 < time.monotonic() - started < 2.5
        await watcher.expect(publish(STATUS, b"offline"))


async def test_a_peer_that_falls_silent_after_some_words_is_noticed_as_fast(site: Site) -> None:
    """P9: within 1.5 x keepalive of the last word, not of the first check after it."""
    async with RawClient.login(site, keepalive=1) as client:
        await asyncio.sleep(0.2)
        assert await client.is_alive()
        last_word = time.monotonic()
        await client.rest()
        assert time.monotonic() - last_word < 2.5


async def test_a_goodbye_leaves_no_will_and_a_cut_does(site: Site) -> None:
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe("devices/kitchen/#"))
        await watcher.packet()
        async with RawClient.login(site, client_id="polite", will=("devices/kitchen/polite", b"x")) as polite:
            polite.send(DISCONNECT)
            assert await polite.rest() == b""
        async with RawClient.login(site, client_id="rude", will=("devices/kitchen/rude", b"x")):
            pass
        await watcher.expect(publish("devices/kitchen/rude", b"x"))


async def test_a_persistent_session_is_kept_while_its_client_is_away(site: Site) -> None:
    """MQTT-3.1.2-4: with its subscriptions; amqtt looks for what it may forget every second."""
    async with RawClient.login(site, client_id="sleeper", clean=False) as sleeper:
        sleeper.send(subscribe(STATUS, qos=1))
        await sleeper.packet()
        sleeper.send(DISCONNECT)
        await sleeper.rest()
    await asyncio.sleep(2.2)
    async with RawClient.open(site, hello(site.kitchen, "sleeper", clean=False)) as back:
        assert await back.packet() == b"\x20\x02\x01\x00"
        back.send(publish(STATUS, b"x", qos=0))
        await back.expect(publish(STATUS, b"x", qos=0))


async def test_a_revoked_device_is_out_and_stays_out(site: Site) -> None:
    async with RawClient.login(site) as client:
        await site.command(revoke_device, organization_id="default", device_id="kitchen")
        assert await client.rest() == b""
    async with RawClient.open(site, hello(site.kitchen)) as client:
        assert await client.rest() == REFUSED


async def test_devices_added_beside_the_gateway_get_in_at_once_also_all_together(site: Site) -> None:
    added = [
        await site.command(add_device, organization_id="default", device_id=f"new-{number}", metadata={})
        for number in range(20)
    ]

    async def log_in(device: DeviceCredential) -> bytes:
        async with RawClient.open(site, hello(device)) as client:
            return await client.packet()

    assert set(await asyncio.gather(*map(log_in, added))) == {ACCEPTED}


async def test_connections_are_counted_out_again(site: Site) -> None:
    async with RawClient.login(site):
        assert await site.metric("active_connections") == 1
    door = site.gateway._running.door
    await until(lambda: door.connections == 0, "the connection forgotten")
