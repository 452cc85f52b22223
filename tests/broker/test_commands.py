"""Commands on the wire: who is told what, whose answer counts, and that nothing is told too late."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import commands
from gateway.commands import Commands
from gateway.model.command import Command
from gateway.operations.commands import list_commands, send_command
from gateway.operations.credentials import add_credential
from gateway.operations.devices import add_device, set_metadata, transfer_device
from gateway.operations.organizations import add_organization
from tests.broker.raw import RawClient, connect, puback, publish, subscribe
from tests.site import Site, running_site, until

HEARD = "org_default/devices/kitchen/commands/+"
PRESENT = b"\x20\x02\x01\x00"


@pytest.fixture(autouse=True)
def nobody_looks_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told must have been seen to come."""
    monkeypatch.setattr(commands, "_LOOK_AGAIN_S", 3600.0)


def topic(command: Command) -> str:
    return f"org_{command.organization_id}/devices/{command.device_id}/commands/{command.id}"


def engine(site: Site) -> Commands:
    return site.gateway._running.site.commands


async def send(site: Site, device_id: str = "kitchen", timeout_ms: int = 30_000) -> Command:
    return await site.command(
        send_command,
        organization_id="default",
        device_id=device_id,
        method="identify",
        params={},
        timeout_ms=timeout_ms,
    )


async def state(site: Site, command: Command) -> Command:
    rows = await site.command(list_commands, organization_id="default", device_id=command.device_id)
    return next(one for one in rows if one.id == command.id)


async def becomes(site: Site, command: Command, wanted: str) -> Command:
    while (now := await state(site, command)).state != wanted:
        assert now.is_pending, now
        now = await engine(site).changed(now)
    return now


@asynccontextmanager
async def board(site: Site, *, clean: bool = False) -> AsyncIterator[RawClient]:
    async with RawClient.login(site, client_id="kitchen", clean=clean) as client:
        client.send(subscribe(HEARD, qos=1))
        assert await client.packet() == b"\x90\x03\x00\x01\x01"
        yield client


async def told(client: RawClient, command: Command, packet_id: int = 1, *, dup: bool = False) -> None:
    """The client hears the command next, just so."""
    payload = b'{"method":"identify","params":{},"deadline":%d}' % (command.deadline_ms // 1000)
    packet = publish(topic(command), payload, qos=1, packet_id=packet_id, dup=dup)
    await client.expect(packet)


async def test_an_answer_is_on_disk_before_it_is_acknowledged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with board(site) as client:
        sent = await send(site)
        await told(client, sent)
        store, may_write = engine(site)._store, asyncio.Event()
        record = store.record

        async def record_later(changed: Sequence[Command]) -> None:
            await may_write.wait()
            await record(changed)

        monkeypatch.setattr(store, "record", record_later)
        client.send(puback(1), publish(f"{topic(sent)}/ack", b'{"state":"executing"}', qos=1, packet_id=7))
        assert await client.is_alive()  # and nothing is acknowledged before that
        may_write.set()
        await client.expect(puback(7))
        assert (await state(site, sent)).state == "executing"
        answer = json.dumps({"state": "successful", "result": {"blinked": 5}}).encode()
        client.send(publish(f"{topic(sent)}/ack", answer, qos=1, packet_id=8))
        await client.expect(puback(8))
        done = await state(site, sent)
        assert (done.state, done.result) == ("successful", {"blinked": 5})


async def test_a_board_that_comes_back_in_time_is_told(site: Site) -> None:
    async with board(site):
        pass
    first, second = await send(site), await send(site)
    assert [(await state(site, one)).state for one in (first, second)] == ["queued", "queued"]
    hello = connect("kitchen", site.kitchen.username, site.kitchen.password, clean=False)
    async with RawClient.open(site, hello) as client:
        await client.expect(PRESENT)
        await told(client, first, 1)
        await told(client, second, 2)
        assert (await becomes(site, second, "sent")).sent_at_ms == site.clock.now


async def test_what_is_too_late_is_not_sent_again(site: Site) -> None:
    async with board(site) as client:
        sent = await send(site)
        await told(client, sent)  # and not acknowledged: the broker keeps it for the session
    outbox = site.gateway._running.door.delivery.sessions.get(f"{site.kitchen.username}|kitchen").outbox  # type: ignore[union-attr]
    assert outbox is not None
    assert len(outbox) == 1
    site.clock.advance(30_000)
    engine(site).look_again()
    await becomes(site, sent, "expired")
    assert len(outbox) == 0
    hello = connect("kitchen", site.kitchen.username, site.kitchen.password, clean=False)
    async with RawClient.open(site, hello) as client:
        await client.expect(PRESENT)
        assert await client.is_alive()  # and nothing came before that


async def test_after_a_restart_what_is_good_is_sent_again_and_what_is_late_is_not(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site, board(site) as client:
        late, good = await send(site, timeout_ms=5_000), await send(site)
        await told(client, late, 1)
        await told(client, good, 2)
    site.clock.advance(5_000)
    async with running_site(tmp_path, clock=site.clock, kitchen=site.kitchen) as again:
        hello = connect("kitchen", again.kitchen.username, again.kitchen.password, clean=False)
        async with RawClient.open(again, hello) as client:
            await client.expect(PRESENT)
            await told(client, good, 2, dup=True)
            assert (await state(again, late)).state == "expired"
            client.send(puback(2), publish(f"{topic(good)}/ack", b'{"state":"successful"}', qos=1, packet_id=3))
            await client.expect(puback(3))
            assert (await state(again, good)).state == "successful"


async def test_who_only_listens_is_not_the_board(site: Site) -> None:
    hub = await site.command(add_credential, name="panel", organization_id="default")
    async with RawClient.login(site, hub) as panel:
        panel.send(subscribe("org_default/devices/#", qos=1))
        await panel.packet()
        sent = await send(site)
        engine(site).look_again()
        assert await panel.is_alive()
        assert (await state(site, sent)).state == "queued"
        async with board(site, clean=True) as client:
            await told(client, sent)
            await told(panel, sent)


async def test_a_hub_speaks_for_devices_without_access_of_their_own(site: Site) -> None:
    hub = await site.command(add_credential, name="hub", organization_id="default")
    await site.command(set_metadata, organization_id="default", device_id="lamp", metadata={})
    async with RawClient.login(site, hub) as client:
        client.send(subscribe("org_default/devices/#", qos=1))
        await client.packet()
        sent = await send(site, "lamp")
        await told(client, sent)
        client.send(publish(f"{topic(sent)}/ack", b'{"state":"failed","result":"no lamp"}', qos=1, packet_id=3))
        await client.read(4 + len(publish(f"{topic(sent)}/ack", b'{"state":"failed","result":"no lamp"}', qos=1)))
        assert (await becomes(site, sent, "failed")).result == "no lamp"


async def test_p8_nobody_else_answers_for_a_device(site: Site) -> None:
    hall = await site.command(add_device, organization_id="default", device_id="hall", metadata={})
    stranger = await site.command(add_device, organization_id="acme", device_id="kitchen", metadata={})
    foreign_hub = await site.command(add_credential, name="hub", organization_id="acme")
    tool = await site.command(add_credential, name="tool", organization_id=None)
    async with board(site) as client:
        sent = await send(site)
        await told(client, sent)
        client.send(puback(1))
        success = b'{"state":"successful"}'
        for who in (hall, stranger, foreign_hub):  # their connection is closed
            async with RawClient.login(site, who) as other:
                other.send(publish(f"{topic(sent)}/ack", success, qos=1))
                assert await other.rest() == b""
        async with RawClient.login(site, foreign_hub) as other:  # the same id in its own organisation
            other.send(publish(f"{topic(sent)}/ack".replace("default", "acme"), success, qos=1))
            await other.expect(puback(1))
        async with RawClient.login(site, tool) as other:  # it may tell devices what to do, and not speak for them
            other.send(publish(f"default/{topic(sent)}/ack", success, qos=1))
            await other.expect(puback(1))
        assert (await state(site, sent)).state == "sent"


async def test_of_a_device_that_has_moved_nothing_is_left(site: Site) -> None:
    sent = await send(site)
    await site.command(add_organization, organization_id="acme")
    await site.command(transfer_device, organization_id="default", device_id="kitchen", to="acme")
    at_rest = await site.gateway._running.site.state()
    assert list(await at_rest.fetch("SELECT 1 FROM commands WHERE id = ?", (sent.id,))) == []
    site.clock.advance(30_000)
    engine(site).look_again()
    await until(lambda: not engine(site)._pending, "nothing waits")
