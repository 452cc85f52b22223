"""MQTT over WebSocket: the same door, whatever the frames; and nobody else is harmed by them."""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gateway.model.errors import PortInUse
from tests.broker.raw import ACCEPTED, DISCONNECT, PINGREQ, PINGRESP, RawClient, connect, puback, publish, subscribe
from tests.broker.raw_websocket import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    WebSocketClient,
    frame,
    upgrade,
)
from tests.ports import free_port
from tests.site import PATIENCE_S, Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
REFUSED = b"\x20\x02\x00\x05"


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Site]:
    """A site that has the WebSocket port too."""
    async with running_site(tmp_path, mqtt={"websocket_port": free_port()}) as running:
        yield running


def where(site: Site, which: str) -> tuple[int, str]:
    """Return port and path."""
    own = site.settings.mqtt.websocket_port
    return {"own": (own, "/"), "own/mqtt": (own, "/mqtt"), "http/mqtt": (site.http_port, "/mqtt")}[which]


async def refused(site: Site, reason: str) -> float:
    return await site.metric(f'neurogate_front_door_refused_total{{reason="{reason}"}}')


def void(_: object) -> None:
    """paho's callbacks return nothing."""


EVERYWHERE = pytest.mark.parametrize("which", ["own", "own/mqtt", "http/mqtt"])


# Real clients


@EVERYWHERE
async def test_paho_publishes_and_hears_itself(both: Site, which: str) -> None:
    port, path = where(both, which)
    heard: list[tuple[str, int, bytes]] = []
    acknowledged = threading.Event()

    def converse() -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "paho", transport="websockets", protocol=paho.MQTTv311)
        client.username_pw_set(both.kitchen.username, both.kitchen.password)
        client.ws_set_options(path)
        client.on_message = lambda *about: heard.append((about[2].topic, about[2].qos, about[2].payload))
        client.on_connect = lambda *_: void(client.subscribe("devices/kitchen/#", qos=1))
        client.on_subscribe = lambda *_: void(client.publish(TOPIC, reading(), qos=1))
        client.on_publish = lambda *_: acknowledged.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        assert acknowledged.wait(PATIENCE_S)
        client.publish(STATUS, bytes(60_000), qos=1).wait_for_publish(PATIENCE_S)
        while len(heard) < 2:
            time.sleep(0.01)
        client.disconnect()
        client.loop_stop()

    async with asyncio.timeout(3 * PATIENCE_S):
        await asyncio.to_thread(converse)
    assert heard == [(TOPIC, 1, reading()), (STATUS, 1, bytes(60_000))]
    assert len(await both.stored(1)) == 1


@EVERYWHERE
async def test_aiomqtt_publishes_and_hears_itself(both: Site, which: str) -> None:
    port, path = where(both, which)
    async with (
        asyncio.timeout(3 * PATIENCE_S),
        aiomqtt.Client(
            "127.0.0.1",
            port,
            username=both.kitchen.username,
            password=both.kitchen.password,
            transport="websockets",
            websocket_path=path,
        ) as client,
    ):
        await client.subscribe("devices/kitchen/#", qos=1)
        for seq in range(50):
            await client.publish(TOPIC, reading(boot_id="b", seq=seq), qos=seq % 3)
        assert [(await anext(aiter(client.messages))).payload for _ in range(50)] == [
            reading(boot_id="b", seq=seq) for seq in range(50)
        ]
    assert [one.seq for one in await both.stored(50)] == list(range(50))


# Coming in


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Sec-WebSocket-Protocol: mqttv3.1",),
        ("Sec-WebSocket-Protocol: MQTT",),
        ("Sec-WebSocket-Protocol: chat, xmpp",),
    ],
)
async def test_without_the_subprotocol_it_is_400(site: Site, headers: tuple[str, ...]) -> None:
    reader, writer = await upgrade(site.http_port, "/mqtt", headers)
    assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
    writer.close()


async def test_one_subprotocol_of_several_is_enough(site: Site) -> None:
    reader, writer = await upgrade(site.http_port, "/mqtt", ("Sec-WebSocket-Protocol: mqttv3.1, mqtt",))
    assert b"Sec-WebSocket-Protocol: mqtt\r\n" in await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


@pytest.mark.parametrize("headers", [{}, {"Sec-WebSocket-Protocol": "mqtt"}])
async def test_a_request_for_anything_but_a_websocket_is_told_what_this_is(site: Site, headers: dict[str, str]) -> None:
    async with site.http.get(site.url("/mqtt"), headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "not_mqtt"


async def test_a_login_that_is_not_right_is_refused_and_closed(site: Site) -> None:
    async with WebSocketClient.open(site, connect("raw", site.kitchen.username, "wrong")) as client:
        assert await client.rest() == REFUSED
    assert await refused(site, "not_authorized") == 1


async def test_p9_whoever_comes_without_a_connect_is_not_waited_for(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"connect_timeout_s": 0.3}) as site, WebSocketClient.open(site) as client:
        await client.closed_with()
        assert await refused(site, "connect_timeout") == 1


async def test_p9_connections_of_every_kind_count_together(tmp_path: Path) -> None:
    async with (
        running_site(tmp_path, mqtt={"max_connections": 2}) as site,
        RawClient.login(site) as tcp,
        WebSocketClient.login(site) as web,
    ):
        async with WebSocketClient.open(site) as third:
            await third.closed_with()
        assert await refused(site, "too_many_connections") == 1
        assert await site.metric("active_connections") == 2
        assert await tcp.is_alive()
        assert await web.is_alive()


async def test_p9_sockets_that_never_ask_for_anything_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http_listeners._CONNECTIONS_WITHOUT_MQTT", 1)
    port = free_port()
    async with running_site(tmp_path, mqtt={"max_connections": 2, "websocket_port": port}) as site:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        async with RawClient.login(site) as client:
            assert await client.is_alive()
        silent.pop()[1].transport.abort()
        await asyncio.sleep(0.1)
        async with WebSocketClient.open(
            site, connect("c", site.kitchen.username, site.kitchen.password), port=port
        ) as web:
            await web.expect(ACCEPTED)
        for _, idle in silent:
            idle.transport.abort()


async def test_the_peer_in_the_log_is_the_socket_and_not_what_a_header_says(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    headers = ("X-Forwarded-For: 203.0.113.7", "Forwarded: for=203.0.113.7", "X-Real-IP: 203.0.113.7")
    with caplog.at_level(logging.WARNING, "gateway.broker"):
        async with WebSocketClient.open(site, connect("x", "nobody", "x"), headers=headers) as client:
            host, port = client.writer.get_extra_info("sockname")
            await client.rest()
    (record,) = [record for record in caplog.records if record.name == "gateway.broker.door"]
    assert record.__dict__["peer"] == f"{host}:{port}"


# Frames


async def test_packets_may_span_frames_and_frames_may_hold_packets(site: Site) -> None:
    """MQTT-6.0.0-2."""
    hello = connect("split", site.kitchen.username, site.kitchen.password)
    stream = hello + b"".join(publish(TOPIC, reading(), qos=1, packet_id=number) for number in range(1, 4))
    async with WebSocketClient.open(site) as client:
        client.send_frames(*(frame(stream[at : at + 1]) for at in range(len(stream))))
        await client.expect(ACCEPTED, puback(1), puback(2), puback(3))
        client.send(PINGREQ, publish(TOPIC, reading(), qos=1, packet_id=4), PINGREQ)
        answers = [await client.packet() for _ in range(3)]
        assert sorted(answers) == [puback(4), PINGRESP, PINGRESP]


async def test_a_message_in_fragments_with_a_ping_between_means_the_same(site: Site) -> None:
    async with WebSocketClient.login(site) as client:
        packet = publish(TOPIC, reading(), qos=1, packet_id=7)
        client.send_frames(
            frame(packet[:3], final=False),
            frame(b"there?", PING),
            frame(packet[3:20], CONTINUATION, final=False),
            frame(packet[20:], CONTINUATION),
        )
        await client.expect(puback(7))
        assert client.others == [(PONG, b"there?")]


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
async def test_frames_of_every_size_arrive_whole(site: Site, size: int) -> None:
    async with WebSocketClient.login(site) as client:
        client.send(subscribe(STATUS))
        await client.packet()
        packet = next(one for less in range(64) if len(one := publish(STATUS, bytes(size - less))) == size)
        client.send(packet)
        await client.expect(packet)


@pytest.mark.parametrize("logged_in", [False, True])
async def test_a_text_frame_ends_the_connection(site: Site, logged_in: bool) -> None:
    """MQTT-6.0.0-1; and it is no goodbye."""
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        open_one = WebSocketClient.login(site, will=(STATUS, b"gone")) if logged_in else WebSocketClient.open(site)
        async with open_one as client:
            client.send_frames(frame(PINGREQ.decode("latin-1").encode(), TEXT))
            assert await client.closed_with() == 1003
        assert await refused(site, "malformed") == 1
        if logged_in:
            await watcher.expect(publish(STATUS, b"gone"))
        assert await watcher.is_alive()


@pytest.mark.parametrize(
    "wrong",
    [
        frame(b"x", reserved=4),
        frame(b"x", 3),
        frame(b"x", CONTINUATION),
        frame(b"x", PING, final=False),
        frame(bytes(126), PING),
        frame(b"\xff", TEXT),
        frame(b"x", 8),
    ],
    ids=["reserved-bit", "opcode", "continuation", "fragmented-ping", "long-ping", "not-utf-8", "close-code"],
)
async def test_what_is_no_websocket_frame_ends_the_connection_and_no_other(site: Site, wrong: bytes) -> None:
    async with WebSocketClient.login(site, client_id="other") as other, WebSocketClient.login(site) as client:
        client.send_frames(wrong)
        await client.closed_with()
        assert await refused(site, "malformed") == 1
        assert await other.is_alive()


async def test_p9_nobody_can_announce_or_collect_more_than_a_packet_and_some_room(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"max_packet_bytes": 1000}) as site:
        async with WebSocketClient.open(site) as client:
            client.send_frames(frame(bytes(1_000_000))[:20])
            assert await client.closed_with() == 1009
        async with WebSocketClient.open(site) as client:
            client.send_frames(
                frame(bytes(40_000), final=False), *[frame(bytes(10_000), CONTINUATION, final=False)] * 3
            )
            assert await client.closed_with() == 1009
        async with WebSocketClient.login(site) as client:
            client.send(publish(TOPIC, bytes(1001))[:40])
            await client.closed_with()
        assert await refused(site, "packet_too_big") == 3


# Alive or not


async def test_only_mqtt_counts_for_the_keepalive(site: Site) -> None:
    async with (
        RawClient.login(site, client_id="watcher") as watcher,
        WebSocketClient.login(site, keepalive=1, will=(STATUS, b"offline")) as client,
    ):
        watcher.send(subscribe(STATUS))
        await watcher.packet()
        for _ in range(8):  # longer than the patience with those who say nothing
            assert await client.is_alive()
            await asyncio.sleep(0.25)
        last_word = time.monotonic()
        while not client.reader.at_eof() and time.monotonic() < last_word + PATIENCE_S:
            client.send_frames(frame(b"", PING), frame(b""), frame(b"", PONG))
            await asyncio.sleep(0.1)
        assert 1.0 < time.monotonic() - last_word < 5
        await watcher.expect(publish(STATUS, b"offline"))
        assert await refused(site, "keepalive") == 1


@pytest.mark.parametrize("says_goodbye", [True, False])
async def test_closing_the_websocket_is_no_disconnect(site: Site, says_goodbye: bool) -> None:
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe("devices/kitchen/#"))
        await watcher.packet()
        async with WebSocketClient.login(site, will=(STATUS, b"gone")) as client:
            if says_goodbye:
                client.send(DISCONNECT)
            else:
                client.send_frames(frame(b"\x03\xe8", 8))
            await client.rest()
        if not says_goodbye:
            await watcher.expect(publish(STATUS, b"gone"))
        await until(lambda: site.gateway._running.door.connections == 1, "the connection forgotten")
        assert await watcher.is_alive()


@pytest.mark.parametrize("newer", [RawClient, WebSocketClient])
@pytest.mark.parametrize("older", [RawClient, WebSocketClient])
async def test_a_client_that_comes_again_by_another_way_takes_its_own_place(
    site: Site, older: type[RawClient], newer: type[RawClient]
) -> None:
    async with older.login(site, client_id="same", will=(STATUS, b"taken over")) as old:
        old.send(subscribe(STATUS))
        await old.packet()
        async with newer.login(site, client_id="same") as new:
            assert (await old.rest()).endswith((b"", publish(STATUS, b"taken over")))
            new.send(publish(TOPIC, reading(), qos=1))
            await new.expect(puback(1))
            assert site.gateway._running.door.connections == 1


async def test_a_client_that_has_vanished_does_not_keep_its_successor_waiting(site: Site) -> None:
    async with WebSocketClient.login(site, client_id="same") as old:
        old._unpacking.cancel()  # it answers no closing frame
        started = time.monotonic()
        async with WebSocketClient.login(site, client_id="same") as new:
            assert await new.is_alive()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("last_word", [PINGREQ + b"\xf0\x00", b"\x30\x01\x00"])
async def test_p9_a_client_that_answers_no_closing_frame_is_not_waited_for(site: Site, last_word: bytes) -> None:
    async with WebSocketClient.login(site) as client:
        client._unpacking.cancel()
        client.send(last_word)
        started = time.monotonic()
        await until(lambda: not site.gateway._running.door.connections, "the connection forgotten")
        assert time.monotonic() - started < 2


async def test_stopping_closes_them_at_once(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        clients = [WebSocketClient.login(site, client_id=str(number), will=(STATUS, b"x")) for number in range(5)]
        opened = [await client.__aenter__() for client in clients]
        started = time.monotonic()
    assert time.monotonic() - started < 2
    for client in opened:
        assert await client.closed_with() == 1000
    for context in clients:
        await context.__aexit__(None, None, None)


# The port


async def test_a_port_that_is_taken_stops_the_start_and_says_which_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for number, (table, key) in enumerate([("mqtt", "port"), ("mqtt", "websocket_port"), ("http", "port")]):
            tables: dict[str, Any] = {table: {key: port}}
            with pytest.raises(PortInUse) as error:
                async with running_site(tmp_path / str(number), integrations=(), **tables):
                    pass
            assert f"Port {port} on 127.0.0.1 cannot be listened on: Address already in use." in str(error.value)
            assert f"{table}.{key}" in error.value.hint


async def test_a_port_of_0_opens_none(site: Site) -> None:
    listening = set()
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no disk is behind it
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry))) as one:
            if one.family == socket.AF_INET and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.add(one.getsockname()[1])
    assert listening == {site.mqtt_port, site.http_port}
