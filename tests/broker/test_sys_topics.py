"""`$SYS`: for whoever has it among its topics, and for nobody else."""

from pathlib import Path

import pytest

from gateway.broker import door as door_module
from gateway.broker.door import Door
from tests.broker.raw import RawClient, publish, subscribe
from tests.broker.test_credentials import hub_of
from tests.site import Site, running_site


async def test_a_device_is_not_let_in(site: Site) -> None:
    async with RawClient.login(site) as client:
        client.send(subscribe("$SYS/#", "$SYS/broker/uptime"))
        assert await client.packet() == b"\x90\x04\x00\x01\x80\x80"


async def test_whoever_is_let_in_sees_how_the_broker_is_doing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "SYS_INTERVAL_S", 0.05)
    async with running_site(tmp_path) as site:
        tool = await hub_of(site, None, "tool")
        async with RawClient.login(site, tool, "watcher") as watcher, RawClient.login(site) as board:
            board.send(subscribe("devices/kitchen/commands/#"))  # behind the door, the same filter as the watcher's
            await board.expect(b"\x90\x03\x00\x01\x00")
            board.send(publish("devices/kitchen/status", b"x"))
            assert await board.is_alive()
            site.clock.advance(5_000)
            watcher.send(subscribe("default/devices/kitchen/commands/#", "$SYS/#"))
            await watcher.expect(b"\x90\x04\x00\x01\x00\x00")
            seen: dict[bytes, bytes] = {}
            expected = {
                b"$SYS/broker/uptime": b"5 seconds",
                b"$SYS/broker/clients/connected": b"2",
                b"$SYS/broker/publish/messages/received": b"1",
                b"$SYS/broker/subscriptions/count": b"3",
            }
            while not expected.items() <= seen.items():
                packet = await watcher.packet()
                seen[packet[4 : 4 + packet[3]]] = packet[4 + packet[3] :]
            assert seen[b"$SYS/broker/version"].startswith(b"neurogate ")


async def test_a_wildcard_of_a_device_never_reaches_there(site: Site) -> None:
    door: Door = site.gateway._running.door
    for message in door._sys.messages():
        door.delivery.show(message)
        assert not [name for name in door.delivery.local.retained_for("default/#") if name == message.topic]
    assert len(door.delivery.retained) == 0
