"""Clients take turns: nobody waits for all that another one has sent, and who sends too fast is slowed down."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker.connection import Connection
from gateway.broker.packets import encode_packet, encode_text
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
    pubrel,
    subscribe,
)
from tests.broker.raw_websocket import WebSocketClient
from tests.broker.test_framing import Wire
from tests.site import Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
SUBACK = b"\x90\x03\x00\x01\x00"


@asynccontextmanager
async def wired(site: Site) -> AsyncIterator[tuple[Connection, Wire]]:
    """A client that is logged in, and whose bytes arrive when the test says so."""
    connection = Connection(site.gateway._running.door)
    wire = Wire(connection)
    connection.connection_made(wire)
    connection.data_received(connect("wired", site.kitchen.username, site.kitchen.password))
    await until(lambda: wire.sent == ACCEPTED and wire.reading.is_set(), "the login")
    wire.sent = b""
    yield connection, wire
    wire.close()
    await until(connection.lost.done, "the connection forgotten")


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (PINGREQ, PINGRESP),
        (pubrel(1), pubcomp(1)),
        (subscribe(STATUS), SUBACK),
        (publish(STATUS, b"x", qos=1), puback(1)),
    ],
    ids=["pingreq", "pubrel", "subscribe", "publish"],
)
async def test_p9_however_many_packets_come_at_once_others_have_their_turn(
    site: Site, packet: bytes, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wired(site) as (connection, wire):
        monkeypatch.setattr("gateway.broker.connection.TURN_S", 0.0)
        connection.data_received(packet * 100)
        connection._writer.flush()
        assert wire.sent == answer
        assert not wire.reading.is_set()
        await until(lambda: len(wire.sent) >= 100 * len(answer), "every answer")
        assert wire.sent == answer * 100
        await until(wire.reading.is_set, "the socket read again")


async def test_p9_a_chunk_of_tiny_packets_is_more_than_one_turn(site: Site) -> None:
    async with wired(site) as (connection, wire):
        connection.data_received(PINGREQ * 100_000)
        connection._writer.flush()
        assert len(wire.sent) < 50_000 * len(PINGRESP)


@pytest.mark.parametrize("kind", [RawClient, WebSocketClient])
async def test_turns_change_no_order(site: Site, kind: type[RawClient], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.broker.connection.TURN_S", 0.0)
    async with kind.login(site) as client:
        client.send(subscribe(STATUS))
        await client.expect(SUBACK)
        client.send(*[publish(STATUS, b"%d" % number) for number in range(500)], publish(STATUS, b"cut")[:-1])
        client.send(b"t", DISCONNECT)
        await client.expect(*[publish(STATUS, b"%d" % number) for number in range(500)], publish(STATUS, b"cut"))
        assert await client.rest() == b""


@pytest.mark.parametrize("kind", [RawClient, WebSocketClient])
async def test_p9_a_client_that_sends_too_fast_is_not_read_for_a_while_and_loses_nothing(
    tmp_path: Path, kind: type[RawClient]
) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_packets_per_second": 1_000}) as site,
        RawClient.login(site, client_id="neighbour") as neighbour,
        kind.login(site) as hasty,
    ):
        started = time.monotonic()
        for number in range(15):
            hasty.send(PINGREQ * 100)
            await hasty.expect(PINGRESP * 100)
            if number == 11:
                assert await neighbour.is_alive()
        assert time.monotonic() - started > 0.4
        assert await site.metric('neurogate_front_door_paused_total{reason="rate"}') >= 1
        assert await hasty.is_alive()


async def test_p9_every_kind_of_packet_counts(tmp_path: Path) -> None:
    """And each turn ends when its client has no more of them."""
    async with running_site(tmp_path, mqtt={"max_packets_per_second": 6}) as site, wired(site) as (connection, wire):
        packets = [PINGREQ, pubrel(1), subscribe(STATUS), puback(9), publish(STATUS, b"x", qos=1), PINGREQ]
        answers = [PINGRESP, pubcomp(1), SUBACK, publish(STATUS, b"x"), puback(1)]
        connection.data_received(b"".join(packets))
        connection._writer.flush()
        assert wire.sent == b"".join(answers)  # CONNECT was the sixth
        assert not wire.reading.is_set()
        await until(lambda: wire.sent.endswith(PINGRESP), "the last answer")


async def test_a_rate_of_0_is_no_limit(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"max_packets_per_second": 0}) as site, RawClient.login(site) as client:
        client.send(PINGREQ * 20_000)
        await client.expect(PINGRESP * 20_000)
        assert await site.metric('neurogate_front_door_paused_total{reason="rate"}') == 0


async def test_who_is_not_read_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_inflight": 1}) as site,
        RawClient.login(site, keepalive=1) as client,
    ):
        with monkeypatch.context() as slow:
            slow.setattr(site.log, "_commit", lambda: None)
            client.send(publish(TOPIC, reading(), qos=1), PINGREQ)
            await until(lambda: site.log.waiting == 1, "the reading taken in")
            await asyncio.sleep(2)
        site.log._commit()
        await client.expect(puback(1), PINGRESP)
        assert await site.metric('neurogate_front_door_paused_total{reason="inflight"}') == 1
        await asyncio.sleep(0.7)  # by then somebody has looked whether it lives; its 1.5 s have begun anew
        assert await client.is_alive()


async def test_a_goodbye_is_heard_although_its_socket_is_gone_before_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that goes to sleep without waiting for its acknowledgements resets the connection with the first."""
    monkeypatch.setattr("gateway.broker.connection.TURN_S", 0.0)
    async with (
        running_site(tmp_path, mqtt={"max_inflight": 10}) as site,
        RawClient.login(site, client_id="watcher") as watcher,
    ):
        watcher.send(subscribe(STATUS))
        await watcher.expect(SUBACK)
        async with RawClient.login(site, client_id="sleeper", will=(STATUS, b"dead")) as sleeper:
            sleeper.send(*[publish(TOPIC, reading(), qos=1)] * 100, publish(STATUS, b"asleep"), DISCONNECT)
            await asyncio.sleep(0)
        await watcher.expect(publish(STATUS, b"asleep"))
        await site.stored(100)
        assert await watcher.is_alive()
        await until(lambda: site.gateway._running.door.connections == 1, "the connection forgotten")


async def test_who_comes_again_does_not_wait_for_what_is_left_of_an_older_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what has been taken in of it (test_last_words)."""
    async with running_site(tmp_path, mqtt={"max_inflight": 1}) as site:
        with monkeypatch.context() as slow:
            slow.setattr(site.log, "_commit", lambda: None)
            async with RawClient.login(site, client_id="same") as old:
                old.send(*[publish(TOPIC, reading(), qos=1)] * 10)
                await until(lambda: site.log.waiting == 1, "one taken in")
        async with RawClient.open(site, connect("same", site.kitchen.username, site.kitchen.password)) as new:
            await until(lambda: bool(site.gateway._running.door._owing), "the older connection's end")
            site.log._commit()
            await new.expect(ACCEPTED)
            assert await new.is_alive()
            assert site.gateway._running.door.connections == 1
            assert len(await site.stored(1)) == 1


async def test_a_client_without_a_keepalive_is_watched_by_tcp(site: Site) -> None:
    async with RawClient.login(site, keepalive=0):
        (connection,) = site.gateway._running.door._connections
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120


async def test_p9_the_retained_messages_of_many_filters_are_looked_up_in_turns(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each comes once, with the highest QoS that any filter has."""
    async with wired(site) as (connection, wire):
        connection.data_received(b"".join(publish(f"{STATUS}/{n}", b"x", qos=1, retain=True) for n in range(3)))
        await until(lambda: wire.sent == puback(1) * 3, "all retained")
        wire.sent = b""
        local = site.gateway._running.door.delivery.local
        looked_up: list[str] = []
        retained_for = local.retained_for

        def counted(name: str) -> Iterator[str]:
            looked_up.append(name)
            return retained_for(name)

        monkeypatch.setattr(local, "retained_for", counted)
        filters = [f"{STATUS}/#", f"{STATUS}/+", "devices/kitchen/#", "devices/kitchen/+/0"]
        entries = [encode_text(name) + bytes([qos]) for name, qos in zip(filters, (0, 0, 1, 0), strict=True)]
        connection.data_received(encode_packet(0x82, b"\0\1" + b"".join(entries)))
        connection.resume_writing()
        connection._writer.flush()
        assert (len(looked_up), wire.sent) == (1, b"\x90\x06\0\1\0\0\1\0")
        wire.sent = b""
        expected = [publish(f"{STATUS}/{n}", b"x", qos=1, packet_id=n + 1, retain=True) for n in range(3)]
        await until(lambda: len(wire.sent) >= len(b"".join(expected)), "all of them")
        assert (len(wire.sent), wire.sent[0]) == (len(b"".join(expected)), 0x33)
        assert [wire.sent.count(f"{STATUS}/{n}".encode()) for n in range(3)] == [1, 1, 1]
        assert looked_up == [f"default/{name}" for name in filters]
