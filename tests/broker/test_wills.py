"""A will is published whenever a client goes without a goodbye, and only then (MQTT 3.1.1, 3.1.2.5)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.broker.raw import ACCEPTED, DISCONNECT, RawClient, connect, publish, subscribe
from tests.site import Site, reading, running_site

STATUS = "devices/kitchen/status"
TOPIC = "devices/kitchen/telemetry"
SUBACK = b"\x90\x03\x00\x01\x02"
GONE = b"gone"


@asynccontextmanager
async def watching(site: Site) -> AsyncIterator[RawClient]:
    async with RawClient.login(site, client_id="watcher") as watcher:
        watcher.send(subscribe("devices/kitchen/#", qos=2))
        assert await watcher.packet() == SUBACK
        yield watcher


def hello(
    site: Site, *, qos: int = 0, retain: bool = False, keepalive: int = 60, topic: str = STATUS, payload: bytes = GONE
) -> bytes:
    who = site.kitchen
    return connect(
        "dying",
        who.username,
        who.password,
        keepalive=keepalive,
        will=(topic, payload),
        will_qos=qos,
        will_retain=retain,
    )


async def test_a_stop_of_the_gateway_leaves_them_for_who_comes_after_it(tmp_path: Path) -> None:
    """Also one that nobody takes back: its board may have gone for good meanwhile (3.1.2.5)."""
    async with running_site(tmp_path) as site, RawClient.open(site, hello(site, qos=1, retain=True)) as client:
        assert await client.packet() == ACCEPTED
        kitchen = site.kitchen
        await site.gateway._running.listeners.aclose()
    async with running_site(tmp_path, kitchen=kitchen) as site, RawClient.login(site) as client:
        client.send(subscribe(STATUS))
        await client.expect(b"\x90\x03\x00\x01\x00", publish(STATUS, GONE, retain=True))


@pytest.mark.parametrize("how", ["abrupt close", "keepalive", "protocol error", "take-over"])
async def test_a_client_that_goes_without_a_goodbye_leaves_its_will(site: Site, how: str) -> None:
    async with (
        watching(site) as watcher,
        RawClient.open(site, hello(site, qos=1, keepalive=1 if how == "keepalive" else 60)) as dying,
    ):
        assert await dying.packet() == ACCEPTED
        if how == "abrupt close":
            dying.cut()
        elif how == "protocol error":
            dying.send(b"\xf0\x00")
        elif how == "take-over":
            async with RawClient.open(site, connect("dying", site.kitchen.username, site.kitchen.password)) as new:
                assert await new.packet() == ACCEPTED
                await watcher.expect(publish(STATUS, GONE, qos=1))
        if how != "take-over":
            await watcher.expect(publish(STATUS, GONE, qos=1))


async def test_a_goodbye_leaves_none(site: Site) -> None:
    async with watching(site) as watcher, RawClient.open(site, hello(site)) as polite:
        assert await polite.packet() == ACCEPTED
        polite.send(DISCONNECT)
        assert await polite.rest() == b""
        assert await watcher.is_alive()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_will_has_its_qos_and_is_retained_if_it_says_so(site: Site, qos: int) -> None:
    async with watching(site) as watcher:
        async with RawClient.open(site, hello(site, qos=qos, retain=True)) as dying:
            assert await dying.packet() == ACCEPTED
        await watcher.expect(publish(STATUS, GONE, qos=qos))
        async with RawClient.login(site, client_id="late") as late:
            late.send(subscribe(STATUS, qos=2))
            await late.expect(SUBACK, publish(STATUS, GONE, qos=qos, retain=True))


async def test_a_will_that_is_telemetry_is_stored_before_anybody_hears_it(site: Site) -> None:
    async with watching(site) as watcher:
        async with RawClient.open(site, hello(site, qos=1, topic=TOPIC, payload=reading())) as dying:
            assert await dying.packet() == ACCEPTED
        await watcher.expect(publish(TOPIC, reading(), qos=1))
        assert len(await site.stored(1)) == 1
