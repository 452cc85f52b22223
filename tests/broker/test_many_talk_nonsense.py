"""Whatever several clients send at once, right, nearly right or not at all: nothing breaks, stays behind or waits."""

import asyncio
import gc
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.packets import encode_packet, encode_text
from gateway.login_delay import LONGEST_S
from tests.broker.raw import (
    DISCONNECT,
    PINGREQ,
    RawClient,
    connect,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    subscribe,
)
from tests.broker.raw_websocket import CONTINUATION, PING, TEXT, WebSocketClient, frame
from tests.site import PATIENCE_S, Site, reading, until

SLOWEST_S = 3.0
"""For the neighbour's PINGRESP; the machine may be busy with other work."""
MOST_KEPT = 200
"""Objects of ours that may stay: sessions, what waits for them, retained messages and devices have their own bounds."""
LOGINS_FORGOTTEN_MS = 15 * 60 * 1000
"""Or every story would end with a refused client that is kept waiting as long as can be."""
TELEMETRY = "devices/kitchen/telemetry"
TOPICS = [
    TELEMETRY,
    "devices/kitchen/status",
    "devices/kitchen/a/b",
    "devices/hall/status",
    "",
    "devices/kitchen/+",
    "#",
]


@dataclass(frozen=True)
class Step:
    """One client does one thing."""

    client: int
    """0 and 1 come by TCP, 2 and 3 by WebSocket."""
    does: Literal["send", "cut", "wait"]
    data: bytes = b""
    cuts: tuple[int, ...] = ()
    """Where the bytes, or the WebSocket messages, are cut."""
    opcode: int = 2


def logins(site: Site) -> st.SearchStrategy[bytes]:
    return st.builds(
        connect,
        st.sampled_from(["a", "b", ""]),
        st.just(site.kitchen.username),
        st.sampled_from([site.kitchen.password] * 5 + ["wrong"]),
        clean=st.booleans(),
        keepalive=st.sampled_from([0, 1, 60]),
        will=st.none() | st.tuples(st.sampled_from(TOPICS), st.binary(max_size=5)),
        will_qos=st.just(0),
        will_retain=st.just(value=False),
    )


def packets(site: Site) -> st.SearchStrategy[bytes]:
    """Packets of every kind, most of them right."""
    ids = st.sampled_from([1, 2, 1, 2, 0, 65_535])
    qos = st.sampled_from([0, 1, 2, 0, 1, 2, 0, 1, 2, 3])
    filters = st.lists(st.sampled_from([*TOPICS, "devices/kitchen/#", "devices/kitchen/+/b"]), max_size=3)
    topic = st.sampled_from(TOPICS[:3] * 4 + TOPICS)
    payload = st.just(reading()) | st.binary(max_size=300)
    return st.one_of(
        logins(site),
        st.builds(
            publish,
            topic,
            payload,
            qos=qos,
            packet_id=ids,
            retain=st.booleans(),
            dup=st.sampled_from([False] * 3 + [True]),
        ),
        st.builds(lambda names, qos, number: subscribe(*names, qos=qos, packet_id=number), filters, qos, ids),
        st.builds(
            lambda names, number: encode_packet(0xA2, number.to_bytes(2, "big") + b"".join(map(encode_text, names))),
            filters,
            ids,
        ),
        *(st.builds(answer, ids) for answer in (puback, pubrec, pubrel, pubcomp)),
        st.sampled_from([PINGREQ, DISCONNECT]),
        st.builds(encode_packet, st.integers(0, 255), st.binary(max_size=20)),
    )


def spoilt(data: bytes, at: int, how: str, byte: int) -> bytes:
    at %= len(data)
    match how:
        case "changed":
            return data[:at] + bytes([byte]) + data[at + 1 :]
        case "cut":
            return data[:at]
        case "longer":
            return data[:at] + bytes([byte]) + data[at:]
        case _:
            return data[at:] + data[:at]


def steps(site: Site) -> st.SearchStrategy[list[Step]]:
    good = st.lists(packets(site), min_size=1, max_size=5).map(b"".join)
    bad = st.builds(
        spoilt, good, st.integers(0, 500), st.sampled_from(["changed", "cut", "longer", "turned"]), st.integers(0, 255)
    )
    client = st.integers(0, 3)
    cuts = st.lists(st.integers(1, 300), max_size=3).map(tuple)
    opcode = st.sampled_from([2] * 12 + [TEXT, CONTINUATION, PING, 3])
    says = st.builds(Step, client, st.just("send"), good | good | bad, cuts, opcode)
    return st.lists(says | says | says | st.builds(Step, client, st.sampled_from(["cut", "wait"])), max_size=25)


def tasks_of_connections() -> list[str]:
    """Name the tasks that serve connections."""
    names = ("connect ", "detach", "close WebSocket")
    tasks = asyncio.all_tasks()
    return [one.get_name() for one in tasks if one.get_name().startswith(names) or "RequestHandler" in repr(one)]


def objects_of_ours() -> int:
    """Count what is alive of the gateway's own classes."""
    gc.collect()
    return sum(str(getattr(type(one), "__module__", "")).startswith("gateway.") for one in gc.get_objects())


async def say(client: RawClient, step: Step) -> None:
    edges = [0, *sorted({cut % len(step.data) for cut in step.cuts} - {0}), len(step.data)] if step.data else []
    for start, end in pairwise(edges):
        piece = step.data[start:end]
        if isinstance(client, WebSocketClient):
            client.send_frames(frame(piece, step.opcode))
        else:
            client.send(piece)
        await asyncio.sleep(0)


@pytest.mark.timeout(1_800)  # with the thorough profile
async def test_whatever_many_clients_say_nothing_breaks_nor_stays_nor_waits(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    door = site.gateway._running.door
    hall = await site.gateway.add_device("hall")
    slowest = 0.0

    async def live(story: list[Step], hello: bytes) -> None:
        nonlocal slowest
        clients: dict[int, RawClient] = {}
        async with AsyncExitStack() as stack:
            for step in story:
                if step.client not in clients:
                    kind = RawClient if step.client < 2 else WebSocketClient
                    clients[step.client] = await stack.enter_async_context(kind.open(site, hello))
                if step.does == "cut":
                    clients.pop(step.client).cut()
                elif step.does == "wait":
                    await asyncio.sleep(0.002)
                else:
                    await say(clients[step.client], step)
                started = time.monotonic()
                assert await neighbour.is_alive()
                slowest = max(slowest, time.monotonic() - started)
            neighbour.send(publish("devices/hall/telemetry", reading("hall"), qos=1))
            await neighbour.expect(puback(1))
        await until(lambda: door.connections == 1, "every connection forgotten", patience_s=LONGEST_S + PATIENCE_S)
        await until(lambda: not tasks_of_connections(), "every task done")
        assert (len(door._clients), site.log.waiting) == (1, 0)
        site.clock.advance(LOGINS_FORGOTTEN_MS)

    loop = asyncio.get_running_loop()
    hello = connect("a", site.kitchen.username, site.kitchen.password)

    @settings(
        max_examples=max(80, settings.default.max_examples if settings.default else 0),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(steps(site), st.sampled_from([hello, hello, b""]))
    def explore(story: list[Step], first: bytes) -> None:
        asyncio.run_coroutine_threadsafe(live(story, first), loop).result(60)

    before = objects_of_ours()
    async with RawClient.login(site, hall, "neighbour") as neighbour:
        with caplog.at_level(logging.ERROR):
            await asyncio.to_thread(explore)
    ours = [record for record in caplog.records if record.name.startswith(("gateway", "aiohttp", "asyncio"))]
    assert [record.getMessage() for record in ours if record.levelno >= logging.ERROR] == []
    assert slowest < SLOWEST_S
    assert objects_of_ours() - before < MOST_KEPT
