"""Everything a client can make the gateway keep has a bound, and reaching it harms nobody else."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker import outbox, sessions
from gateway.broker.packets import encode_packet, encode_text, remaining_length
from gateway.broker.sessions import Session, Sessions
from tests.broker.raw import ACCEPTED, DISCONNECT, RawClient, connect, puback, publish, pubrec, subscribe
from tests.site import Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
REFUSED = b"\x20\x02\x00\x05"
LONGEST = 65_535
"""Bytes a topic may have (MQTT 3.1.1, 1.5.3)."""


@pytest.fixture
async def longest_topics(tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose settings bound no topic."""
    async with running_site(tmp_path, mqtt={"max_topic_bytes": LONGEST}) as running:
        yield running


async def dropped(site: Site, reason: str) -> float:
    return await site.metric(f'neurogate_events_dropped_total{{destination="local",reason="{reason}"}}')


async def refused(site: Site, reason: str) -> float:
    return await site.metric(f'neurogate_front_door_refused_total{{reason="{reason}"}}')


def kept_sessions(site: Site) -> Sessions:
    return site.gateway._running.door.delivery.sessions


def session_of(site: Site, client_id: str) -> Session:
    session = kept_sessions(site).get(f"{site.kitchen.username}|{client_id}")
    assert session is not None
    return session


def away(site: Site, client_id: str) -> bool:
    return session_of(site, client_id).link is None


@asynccontextmanager
async def subscriber(site: Site, client_id: str, *, qos: int, clean: bool = True) -> AsyncIterator[RawClient]:
    async with RawClient.login(site, client_id=client_id, clean=clean) as client:
        client.send(subscribe(STATUS, qos=qos))
        assert await client.packet() == b"\x90\x03\x00\x01" + bytes([qos])
        yield client


async def leave_behind(site: Site, client_id: str) -> None:
    """Subscribe in a persistent session, and go."""
    async with subscriber(site, client_id, qos=1, clean=False) as client:
        client.send(DISCONNECT)
        await client.rest()
    await until(lambda: away(site, client_id), "the session at rest")


@pytest.mark.parametrize("first", [b"", connect("slow", "default/kitchen", "x")[:-1]], ids=["silent", "unfinished"])
async def test_p9_a_connect_that_never_comes_is_not_waited_for(tmp_path: Path, first: bytes) -> None:
    async with running_site(tmp_path, mqtt={"connect_timeout_s": 0.3}) as site, RawClient.login(site) as other:
        started = time.monotonic()
        async with RawClient.open(site, first) as client:
            assert await client.rest() == b""
        assert 0.25 < time.monotonic() - started < 5
        assert await refused(site, "connect_timeout") == 1
        assert await other.is_alive()


async def test_p9_the_connection_that_is_one_too_many_is_closed_and_no_other(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"max_connections": 2}) as site, RawClient.login(site, client_id="a") as a:
        async with RawClient.login(site, client_id="b") as b:
            async with RawClient.open(site) as third:
                assert await third.rest() == b""
            assert await refused(site, "too_many_connections") == 1
            assert await site.metric("active_connections") == 2
            assert await a.is_alive()
            assert await b.is_alive()
        door = site.gateway._running.door
        await until(lambda: door.connections == 1, "room for another")
        async with RawClient.login(site, client_id="c") as c:
            assert await c.is_alive()


async def test_p9_a_stranger_cannot_announce_more_than_a_packet_may_have(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"max_packet_bytes": 1000}) as site:
        async with RawClient.open(site, b"\x10\xff\xff\xff\x7f") as client:
            assert await client.rest() == b""
        assert await refused(site, "packet_too_big") == 1


async def test_a_packet_of_exactly_the_largest_size_is_taken(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"max_packet_bytes": 1000}) as site, RawClient.login(site) as client:
        around, _ = remaining_length(publish(TOPIC, reading(padding=""), qos=1), 1)
        client.send(publish(TOPIC, reading(padding="x" * (1000 - around)), qos=1, packet_id=1))
        await client.expect(puback(1))
        client.send(publish(TOPIC, reading(padding="x" * (1001 - around)), qos=1, packet_id=2))
        assert await client.rest() == b""


async def test_a_will_on_a_foreign_topic_is_refused_and_never_published(site: Site) -> None:
    hall = await site.gateway.add_device("hall")
    will = ("devices/kitchen/status", b"dead")
    async with subscriber(site, "watcher", qos=0) as watcher:
        async with RawClient.open(site, connect("evil", hall.username, hall.password, will=will)) as client:
            assert await client.rest() == REFUSED
        assert await refused(site, "foreign_will") == 1
        assert await watcher.is_alive()


async def test_p9_persistent_sessions_of_one_credential_do_not_grow_without_bound(site: Site) -> None:
    for number in range(sessions.SESSIONS_KEPT + 5):
        await leave_behind(site, f"client-{number}")
    assert len(kept_sessions(site)) <= sessions.SESSIONS_KEPT
    route = site.gateway._running.door.delivery.local.route(f"default/{STATUS}")
    assert len(route) == len(kept_sessions(site))
    newest = connect("client-14", site.kitchen.username, site.kitchen.password, clean=False)
    async with RawClient.open(site, newest) as client:
        assert await client.packet() == b"\x20\x02\x01\x00"
    oldest = connect("client-0", site.kitchen.username, site.kitchen.password, clean=False)
    async with RawClient.open(site, oldest) as client:
        assert await client.packet() == ACCEPTED


async def test_p9_sessions_of_other_credentials_stay(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_KEPT", 1)
    hall = await site.gateway.add_device("kitchen2")
    async with RawClient.login(site, hall, "kept", clean=False) as client:
        client.send(DISCONNECT)
        await client.rest()
    for number in range(3):
        await leave_behind(site, f"client-{number}")
    assert kept_sessions(site).get(f"{hall.username}|kept") is not None


async def test_p9_clients_with_clean_sessions_leave_nothing_behind(site: Site) -> None:
    for number in range(20):
        async with subscriber(site, f"client-{number}", qos=1):
            pass
    await until(lambda: not len(kept_sessions(site)), "every session gone")
    assert not site.gateway._running.door.delivery.local.subscriptions


async def test_p9_what_waits_for_a_client_that_is_away_is_bounded_and_the_rest_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_site(tmp_path, mqtt={"outbox_max_messages": 5}) as site:
        await leave_behind(site, "sleeper")
        async with RawClient.login(site, client_id="board") as board:
            for number in range(1, 9):
                board.send(publish(STATUS, b"%d" % number, qos=1, packet_id=number))
                await board.expect(puback(number))
        assert await dropped(site, "outbox_full") == 3
        lost = "messages for local subscribers are lost: outbox_full"
        assert [record.getMessage() for record in caplog.records].count(lost) == 1
        back = connect("sleeper", site.kitchen.username, site.kitchen.password, clean=False)
        async with RawClient.open(site, back) as client:
            assert await client.packet() == b"\x20\x02\x01\x00"
            for number in range(1, 6):
                packet = await client.packet()
                assert packet[-1:] == b"%d" % number
                client.send(b"\x40\x02" + packet[-3:-1])
            assert await client.is_alive()


async def test_p9_what_waits_for_a_client_that_acknowledges_nothing_is_bounded_and_the_rest_counted(
    tmp_path: Path,
) -> None:
    async with (
        running_site(tmp_path, mqtt={"outbox_max_messages": outbox.IN_FLIGHT + 5}) as site,
        subscriber(site, "silent", qos=1) as silent,
        RawClient.login(site, client_id="board") as board,
    ):
        count = outbox.IN_FLIGHT + 20
        for number in range(1, count + 1):
            board.send(publish(STATUS, b"x", qos=1, packet_id=number))
            await board.expect(puback(number))
        assert await dropped(site, "outbox_full") == 15
        for _ in range(outbox.IN_FLIGHT):
            assert (await silent.packet())[0] >> 4 == 3
        assert await silent.is_alive()


async def test_p5_what_waited_too_long_for_a_client_is_given_up_and_counted(tmp_path: Path) -> None:
    async with running_site(tmp_path, mqtt={"outbox_max_age_s": 60}) as site:
        await leave_behind(site, "sleeper")
        delivery = site.gateway._running.door.delivery
        async with RawClient.login(site, client_id="board") as board:
            for packet_id, wait_ms in ((1, 40_000), (2, 40_000)):
                board.send(publish(STATUS, b"%d" % packet_id, qos=1, packet_id=packet_id))
                await board.expect(puback(packet_id))
                site.clock.advance(wait_ms)
                delivery.expire()
        assert await dropped(site, "outbox_expired") == 1
        back = connect("sleeper", site.kitchen.username, site.kitchen.password, clean=False)
        async with RawClient.open(site, back) as client:
            assert await client.packet() == b"\x20\x02\x01\x00"
            await client.expect(publish(STATUS, b"2", qos=1, packet_id=2))


@pytest.mark.parametrize(("qos", "stays"), [(1, 0), (2, outbox.IN_FLIGHT)])
async def test_p5_what_waited_too_long_for_a_client_that_was_there_goes_after_a_restart(
    tmp_path: Path, qos: int, stays: int
) -> None:
    """Most of it never was sent, though it was queued while its client was there. What was with QoS 2 must stay."""
    count = 3 * outbox.IN_FLIGHT
    settings = {"outbox_max_age_s": 60, "max_inflight": count}
    async with (
        running_site(tmp_path, mqtt=settings) as site,
        subscriber(site, "silent", qos=qos, clean=False),
        RawClient.login(site, client_id="board") as board,
    ):
        for packet_id in range(1, count + 1):
            board.send(publish(STATUS, b"x", qos=qos, packet_id=packet_id))
            assert (await board.packet())[0] in (0x40, 0x50)
    async with running_site(tmp_path, kitchen=site.kitchen, mqtt=settings) as site:
        box = session_of(site, "silent").outbox
        assert box is not None
        assert len(box) == count
        site.clock.advance(60_001)
        site.gateway._running.door.delivery.expire()
        assert len(box) == stays
        assert await dropped(site, "outbox_expired") == count - stays


async def test_p9_a_client_subscribes_to_so_many_filters_and_no_more(tmp_path: Path) -> None:
    names = [f"{STATUS}/{number}" for number in range(5)]
    async with running_site(tmp_path, mqtt={"max_subscriptions": 3}) as site, RawClient.login(site) as client:
        client.send(subscribe(*names))
        assert await client.packet() == b"\x90\x07\x00\x01" + b"\x00" * 3 + b"\x80" * 2
        client.send(subscribe(names[0], qos=1))
        assert await client.packet() == b"\x90\x03\x00\x01\x01"


@pytest.mark.parametrize("allowed", [100, 5_000])
async def test_p9_five_thousand_filters_in_one_subscribe_delay_nobody(tmp_path: Path, allowed: int) -> None:
    names = [f"devices/kitchen/+/{number}/#" for number in range(5_000)]
    async with (
        running_site(tmp_path, mqtt={"max_packet_bytes": 1_000_000, "max_filters_per_subscribe": allowed}) as site,
        RawClient.login(site, client_id="greedy") as greedy,
        RawClient.login(site, client_id="board") as board,
    ):
        greedy.send(subscribe(*names))
        await greedy.writer.drain()
        started = time.monotonic()
        assert await board.is_alive()
        assert time.monotonic() - started < 2
        if allowed == len(names):
            assert (await greedy.read(6))[:1] == b"\x90"
        else:
            assert await greedy.rest() == b""
            assert await refused(site, "too_many_filters") == 1


@pytest.mark.parametrize("first", [0x82, 0xA2], ids=["subscribe", "unsubscribe"])
async def test_p9_a_packet_holds_so_many_filters_and_no_more(tmp_path: Path, first: int) -> None:
    def packet(count: int) -> bytes:
        filters = [encode_text(f"{STATUS}/{number}") + b"\0" * (first == 0x82) for number in range(count)]
        return encode_packet(first, b"\0\1" + b"".join(filters))

    async with (
        running_site(tmp_path, mqtt={"max_filters_per_subscribe": 3}) as site,
        RawClient.login(site) as client,
    ):
        client.send(packet(3))
        assert (await client.packet())[2:4] == b"\0\1"
        client.send(packet(4))
        assert await client.rest() == b""
        assert await refused(site, "too_many_filters") == 1


LONG = {"levels": ("/a" * 17, "/a" * 18, "21 levels"), "bytes": ("/" + "x" * 477, "/" + "x" * 478, "501 bytes")}
"""What may follow devices/kitchen/status, what may not, and why."""


@pytest.mark.parametrize("which", LONG)
@pytest.mark.parametrize("way", ["publish", "will", "subscribe"])
async def test_p9_a_topic_has_so_many_levels_and_bytes_and_no_more(
    tmp_path: Path, which: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    fits, too_long, why = LONG[which]
    bounds = {"max_topic_levels": 20, "max_topic_bytes": 500}
    async with running_site(tmp_path, mqtt=bounds) as site, RawClient.login(site, client_id="other") as other:
        async with RawClient.login(site, will=(STATUS + fits, b"")) as client:
            client.send(publish(STATUS + fits, b"", qos=1), subscribe(STATUS + fits))
            await client.expect(puback(1), b"\x90\x03\x00\x01\x00")
            if way == "subscribe":
                client.send(subscribe(STATUS, STATUS + too_long))
                await client.expect(b"\x90\x04\x00\x01\x00\x80")
                assert await site.metric('neurogate_subscriptions_refused_total{reason="topic_too_long"}') == 1
            elif way == "publish":
                client.send(publish(STATUS + too_long, b"", qos=1))
                assert await client.rest() == b""
        if way == "will":
            hello = connect("x", site.kitchen.username, site.kitchen.password, will=(STATUS + too_long, b""))
            async with RawClient.open(site, hello) as client:
                assert await client.rest() == REFUSED
        if way != "subscribe":
            assert await refused(site, "topic_too_long") == 1
            details = [record.__dict__.get("detail", "") for record in caplog.records]
            assert [detail for detail in details if detail.startswith(why)]
        assert await other.is_alive()


async def test_every_filter_that_is_not_granted_is_counted_and_not_every_one_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said(reason: str) -> int:
        return [record.getMessage() for record in caplog.records].count(f"topic filter not granted: {reason}")

    async with running_site(tmp_path, mqtt={"max_subscriptions": 1}) as site, RawClient.login(site) as client:
        for minute in range(1, 4):
            for number in range(5):
                client.send(subscribe("devices/hall/#", STATUS, f"{STATUS}/{number}"))
                assert await client.packet() == b"\x90\x05\x00\x01\x80\x00\x80"
            for reason in ("foreign_filter", "too_many_subscriptions"):
                assert await site.metric(f'neurogate_subscriptions_refused_total{{reason="{reason}"}}') == 5 * minute
                assert said(reason) == minute
            site.clock.advance(60_000)


async def test_p9_messages_of_qos_2_that_are_not_released_are_bounded(site: Site) -> None:
    async with RawClient.login(site) as client:
        for number in range(1, 1_001):
            client.send(publish(STATUS, b"", qos=2, packet_id=number))
        await client.expect(*[pubrec(number) for number in range(1, 1_001)])
        client.send(publish(STATUS, b"", qos=2, packet_id=1_001))
        assert await client.rest() == b""
        assert await refused(site, "too_many_unreleased") == 1


async def test_p9_a_topic_as_long_as_can_be_stops_no_commit(longest_topics: Site) -> None:
    """It stands behind a reading, so it is its commit that hands it on."""
    site = longest_topics
    hall = await site.gateway.add_device("hall")
    longest = STATUS + "/" + "x" * (65_536 - 2 - 2 - len(STATUS) - 1)
    async with RawClient.login(site, client_id="board") as board, RawClient.login(site, hall, "other") as other:
        board.send(subscribe("devices/kitchen/#"))
        await board.packet()
        board.send(publish(TOPIC, reading(), qos=1, packet_id=1), publish(longest, b"", qos=1, packet_id=2))
        await site.stored(1)
        for number in (1, 2):
            other.send(publish("devices/hall/telemetry", reading("hall"), qos=1, packet_id=number))
            await other.expect(puback(number))


async def test_p9_a_will_as_long_as_can_be_frees_its_connection(tmp_path: Path) -> None:
    topic = STATUS + "/" + "x" * (LONGEST - len(STATUS) - 1)
    async with (
        running_site(tmp_path, mqtt={"max_packet_bytes": 200_000, "max_topic_bytes": LONGEST}) as site,
        RawClient.login(site, client_id="watcher") as watcher,
    ):
        watcher.send(subscribe("devices/kitchen/#"))
        await watcher.packet()
        hello = connect("dying", site.kitchen.username, site.kitchen.password, will=(topic, b"x"))
        async with RawClient.open(site, hello) as client:
            assert await client.rest() == b""
        door = site.gateway._running.door
        await until(lambda: door.connections == 1, "the connection forgotten")


@pytest.mark.parametrize("clean", [True, False])
async def test_p9_a_client_id_as_long_as_can_be_is_an_answer_and_no_fault_of_ours(tmp_path: Path, clean: bool) -> None:
    async with running_site(tmp_path, mqtt={"max_packet_bytes": 200_000}) as site:
        hello = connect("x" * LONGEST, site.kitchen.username, site.kitchen.password, clean=clean)
        async with RawClient.open(site, hello) as client:
            assert await client.rest() == b"\x20\x02\x00\x02"
        assert await refused(site, "internal_error") + await refused(site, "connection_error") == 0
