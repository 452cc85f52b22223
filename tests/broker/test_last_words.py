"""What a connection that ended had published comes before its will, and before what its client says next."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.broker import door as front_door
from gateway.cli.gateway_link import connect as link_to
from gateway.operations.credentials import add_credential
from gateway.operations.devices import revoke_device
from gateway.operations.erase import erase_device
from gateway.storage.append import Append
from gateway.storage.commit_thread import CommitThread, Transaction
from tests.broker.raw import (
    ACCEPTED,
    DISCONNECT,
    RawClient,
    connect,
    puback,
    publish,
    pubrec,
    subscribe,
)
from tests.site import FailingDisk, Site, reading, running_site, until

TOPIC = "devices/kitchen/telemetry"
STATUS = "devices/kitchen/status"
PRESENT = b"\x20\x02\x01\x00"
ONLINE = publish(STATUS, b"online", retain=True)
A_WHILE_S = 0.1  # for what must not happen


class SlowDisk:
    """Readings do not reach it while it is held up."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self.waiting = 0

    def hold_up(self) -> None:
        self._free.clear()

    def go_on(self) -> None:
        self._free.set()

    def wait(self, transaction: Transaction) -> None:
        if isinstance(transaction, Append) and transaction.entries and not self._free.is_set():
            self.waiting += 1
            self._free.wait()


@pytest.fixture
def slow(disk: FailingDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk()

    def attempt(thread: CommitThread, transaction: Transaction) -> Exception | None:
        slow.wait(transaction)
        return disk.attempt(thread, transaction)

    monkeypatch.setattr(CommitThread, "_attempt", attempt)
    yield slow
    slow.go_on()


def hello(site: Site, *, will: bytes | None = b"offline", topic: str = STATUS, clean: bool = True) -> bytes:
    return connect(
        "dying",
        site.kitchen.username,
        site.kitchen.password,
        will=None if will is None else (topic, will),
        will_retain=will is not None and topic == STATUS,
        clean=clean,
    )


@asynccontextmanager
async def watching(site: Site, *, qos: int = 0) -> AsyncIterator[RawClient]:
    """Listen as a hub of the organisation: what happens to the device's credential does not concern it."""
    hub = await site.command(add_credential, name="hub", organization_id="default")
    async with RawClient.login(site, hub, "watcher") as watcher:
        watcher.send(subscribe("devices/kitchen/#", qos=qos))
        await watcher.expect(b"\x90\x03\x00\x01" + bytes([qos]))
        yield watcher


@asynccontextmanager
async def in_the_middle(site: Site, slow: SlowDisk, first: bytes, *said: bytes) -> AsyncIterator[RawClient]:
    """A client whose telemetry is in a commit that takes its time, and behind it what else it has said."""
    slow.hold_up()
    async with RawClient.open(site, first) as client:
        assert (await client.packet())[:2] == ACCEPTED[:2]
        received = site.gateway._running.door.received
        client.send(publish(TOPIC, reading(), qos=1, packet_id=1), *said)
        await until(lambda: site.gateway._running.door.received == received + 1 + len(said), "all of it taken in")
        await until(lambda: slow.waiting > 0, "the commit")
        yield client


async def retained(site: Site) -> bytes:
    """Return what a new subscriber of the status is told."""
    async with RawClient.login(site, client_id="late") as late:
        late.send(subscribe(STATUS))
        await late.expect(b"\x90\x03\x00\x01\x00")
        packet = await late.packet()
        assert packet[0] == 0x31
        return packet[4 + packet[3] :]


async def erase(site: Site) -> None:
    async with link_to(site.settings) as link:
        async for _ in link.stream(erase_device, organization_id="default", device_id="kitchen"):
            pass


async def ended(site: Site) -> None:
    door = site.gateway._running.door
    await until(lambda: bool(door._owing), "the connection's end")


@pytest.mark.parametrize("how", ["abrupt close", "protocol error", "take-over", "revocation"])
async def test_a_will_comes_after_all_that_its_client_has_published(site: Site, slow: SlowDisk, how: str) -> None:
    telemetry = publish(TOPIC, reading())
    async with watching(site) as watcher, in_the_middle(site, slow, hello(site), ONLINE) as dying:
        other: asyncio.Task[object] | None = None
        async with RawClient.open(site) as new:
            if how == "abrupt close":
                dying.cut()
            elif how == "protocol error":
                dying.send(b"\xf0\x00")
            elif how == "take-over":
                new.send(hello(site, will=None))
            else:
                other = asyncio.create_task(site.command(revoke_device, organization_id="default", device_id="kitchen"))
            await ended(site)
            assert await watcher.is_alive()
            slow.go_on()
            await watcher.expect(telemetry, publish(STATUS, b"online"), publish(STATUS, b"offline"))
            if how == "take-over":
                await new.expect(ACCEPTED)
            if other is not None:
                await other
            assert await watcher.is_alive()
    if how != "revocation":
        assert await retained(site) == b"offline"
    assert not site.gateway._running.door._owing


async def test_a_stop_of_the_gateway_waits_for_the_will(tmp_path: Path, slow: SlowDisk) -> None:
    async with running_site(tmp_path) as site, in_the_middle(site, slow, hello(site), ONLINE):
        kitchen = site.kitchen
        stopping = asyncio.create_task(site.gateway._running.listeners.aclose())
        await ended(site)
        await asyncio.sleep(A_WHILE_S)
        assert not stopping.done()
        slow.go_on()
        await stopping
    async with running_site(tmp_path, kitchen=kitchen) as site:
        assert await retained(site) == b"offline"


async def test_after_a_goodbye_comes_what_was_published_and_no_will(site: Site, slow: SlowDisk) -> None:
    async with watching(site) as watcher:
        async with in_the_middle(site, slow, hello(site), ONLINE) as polite:
            polite.send(DISCONNECT)
            assert await polite.rest() == b""
            slow.go_on()
            await watcher.expect(publish(TOPIC, reading()), publish(STATUS, b"online"))
        assert await watcher.is_alive()


async def test_a_will_that_is_telemetry_comes_after_all_too(site: Site, slow: SlowDisk) -> None:
    will = reading(seq=2)
    async with watching(site) as watcher:
        async with in_the_middle(site, slow, hello(site, will=will, topic=TOPIC), ONLINE) as dying:
            dying.cut()
            await ended(site)
            slow.go_on()
            await watcher.expect(publish(TOPIC, reading()), publish(STATUS, b"online"), publish(TOPIC, will))
        assert len(await site.stored(2)) == 2


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_will_is_left_also_when_what_was_published_cannot_be_stored(
    site: Site, slow: SlowDisk, disk: FailingDisk, is_gone: bool
) -> None:
    async with watching(site) as watcher:
        first = connect("dying", site.kitchen.username, site.kitchen.password, will=(STATUS, b"offline"))
        async with in_the_middle(site, slow, first, ONLINE) as dying:
            disk.failing = True
            if is_gone:
                dying.cut()
                await ended(site)
            slow.go_on()
            await watcher.expect(publish(STATUS, b"offline"))
        assert await watcher.is_alive()
        disk.failing = False


async def test_what_a_client_says_after_it_came_back_is_newer(site: Site, slow: SlowDisk) -> None:
    async with watching(site) as watcher, in_the_middle(site, slow, hello(site, will=None), ONLINE) as old:
        old.cut()
        await ended(site)
        async with RawClient.open(site, hello(site, will=None)) as new:
            new.send(publish(STATUS, b"again", qos=1, packet_id=5, retain=True))
            assert await watcher.is_alive()
            slow.go_on()
            await new.expect(ACCEPTED, puback(5))
            await watcher.expect(publish(TOPIC, reading()), publish(STATUS, b"online"), publish(STATUS, b"again"))
    assert await retained(site) == b"again"


async def test_a_message_of_qos_2_is_known_when_its_client_comes_back(site: Site, slow: SlowDisk) -> None:
    """MQTT-4.3.3-2."""
    again = reading(boot_id="b", seq=1)
    async with watching(site, qos=2) as watcher:
        first = hello(site, will=None, clean=False)
        async with in_the_middle(site, slow, first, publish(TOPIC, again, qos=2, packet_id=7)) as old:
            old.cut()
            await ended(site)
            async with RawClient.open(site, first) as new:
                new.send(publish(TOPIC, again, qos=2, packet_id=7, dup=True))
                assert await watcher.is_alive()
                slow.go_on()
                await new.expect(PRESENT, pubrec(7))
                await watcher.expect(publish(TOPIC, reading(), qos=1), publish(TOPIC, again, qos=2, packet_id=2))
                assert await watcher.is_alive()


@pytest.mark.parametrize("is_gone", [True, False])
async def test_what_is_on_its_way_is_erased_too(site: Site, slow: SlowDisk, is_gone: bool) -> None:
    async with in_the_middle(site, slow, hello(site, will=None), ONLINE) as client:
        if is_gone:
            client.cut()
            await ended(site)
        erasing = asyncio.create_task(erase(site))
        await asyncio.sleep(A_WHILE_S)
        slow.go_on()
        await erasing
    assert list(site.gateway._running.door.delivery.local.retained_for("default/#")) == []
    await until(lambda: not site.gateway._running.door._owing)


async def test_a_disk_that_hangs_keeps_nobody_out(site: Site, slow: SlowDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_door, "_TAKE_OVER_S", A_WHILE_S)
    async with in_the_middle(site, slow, hello(site), ONLINE) as old:
        old.cut()
        await ended(site)
        for _ in range(2):
            async with RawClient.open(site, hello(site, will=None)) as new:
                await new.expect(ACCEPTED)
        slow.go_on()
    await until(lambda: not site.gateway._running.door._owing)
    assert await retained(site) == b"offline"


async def test_who_comes_back_does_not_wait_for_a_commit_that_waits_for_company(tmp_path: Path) -> None:
    async with running_site(tmp_path, storage={"commit_max_delay_ms": 10_000}) as site:
        async with RawClient.open(site, hello(site, will=None)) as old:
            await old.expect(ACCEPTED)
            old.send(publish(TOPIC, reading(), qos=1), ONLINE)
            await until(lambda: site.gateway._running.door.received == 2)
        async with RawClient.open(site, hello(site, will=None)) as new:
            await new.expect(ACCEPTED)
            assert await retained(site) == b"online"
