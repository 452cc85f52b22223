"""The control socket of a gateway that runs in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import control
from gateway.app import Gateway
from gateway.cli import gateway_link
from gateway.config import Settings
from gateway.model.errors import GatewaySilent, NotFound
from gateway.model.reading import NewReading, TimeSource
from gateway.operations.call import Operation
from gateway.operations.devices import add_device, list_devices, revoke_device
from gateway.operations.registry import OPERATIONS
from gateway.operations.site import Site
from gateway.operations.status import gateway_status
from gateway.operations.tail import tail_readings
from gateway.storage.data_dir import DataDir
from gateway.storage.log import Log
from tests.gateway_process import CONNACK, connect_packet

PAYLOAD = b'{"device_id": "kitchen", "sensors": {"pir": {"motion_detected": true}}}'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    local = {"host": "127.0.0.1", "port": 0}
    no_other = {"tls_port": 0, "websocket_port": 0}
    return Settings.model_validate(
        {"gateway": {"data_dir": tmp_path}, "mqtt": local | no_other, "http": local | no_other}
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    gateway, stop, ready = Gateway(settings), asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.run(stop, ready=ready.set))
        try:
            await asyncio.wait_for(ready.wait(), 10)
            yield gateway
        finally:
            stop.set()


def log_of(gateway: Gateway) -> Log:
    return gateway._running.log


async def append(log: Log, count: int, *, device: str = "kitchen", payload: bytes = PAYLOAD) -> None:
    stream = log.stream("default", device, "")
    await log.append([NewReading(stream, None, 0, TimeSource.DEVICE, 0, 0, payload) for _ in range(count)])


def rows(page: Any) -> list[int]:
    return [int(reading["id"].rpartition(":")[2]) for reading in page.readings]


async def post(settings: Settings, name: str, body: bytes) -> tuple[int, Any]:
    with DataDir(settings.gateway.data_dir).short_control_socket() as path:
        connector = aiohttp.UnixConnector(path=path)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"http://gateway/{name}", data=body) as answer,
        ):
            return answer.status, await answer.json()


async def test_the_status_crosses_the_socket_whole(settings: Settings) -> None:
    async with running(settings) as gateway, gateway_link.connect(settings) as link:
        await append(log_of(gateway), 3)
        told = await link.call(gateway_status)
        assert told.buffer == (await gateway.status()).buffer
        assert (told.mqtt_port, told.problems) == (gateway._running.door.ports.mqtt, [])


async def test_without_a_gateway_there_is_no_status(settings: Settings) -> None:
    async with gateway_link.connect(settings) as link:
        with pytest.raises(NotFound, match="No gateway is running"):
            await link.call(gateway_status)


async def test_changes_at_once_are_one_after_the_other(settings: Settings) -> None:
    async with running(settings), gateway_link.connect(settings) as link:
        names = [f"board-{number:02}" for number in range(20)]
        made = await asyncio.gather(
            *(link.call(add_device, organization_id="default", device_id=name, metadata={}) for name in names),
            *(link.call(add_device, organization_id="default", device_id=name, metadata={}) for name in names),
            return_exceptions=True,
        )
        refused = [one for one in made if isinstance(one, Exception)]
        assert {type(one).__name__ for one in refused} == {"AlreadyExists"}
        assert len(refused) == 20
        assert [one.device_id for one in await link.call(list_devices)] == names


async def test_a_revoked_session_is_gone_when_the_operation_returns(settings: Settings) -> None:
    async with running(settings) as gateway:
        site, door = gateway._running.site, gateway._running.door
        made = await add_device(site, organization_id="default", device_id="kitchen", metadata={})
        reader, writer = await asyncio.open_connection("127.0.0.1", door.ports.mqtt)
        writer.write(connect_packet(made.username, made.password))
        assert await reader.readexactly(4) == CONNACK
        assert site.activity("default", "kitchen").connections == 1
        await revoke_device(site, organization_id="default", device_id="kitchen")
        assert door.connections == 0
        assert await reader.read() == b""
        writer.close()


async def test_errors_have_the_shape_of_the_http_api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(site: Site) -> int:
        raise KeyError(site)

    monkeypatch.setitem(OPERATIONS, "broken", Operation(broken))
    async with running(settings):
        status, document = await post(settings, "add_device", b'{"device_id": 5}')
        assert (status, document["error"]["code"]) == (400, "invalid_arguments")
        assert "organization_id: Field required" in document["error"]["message"]
        status, document = await post(settings, "fly", b"{}")
        assert (status, document["error"]["code"]) == (404, "not_found")
        assert document["error"]["hint"] == "It is of another version than this command: restart it."
        status, document = await post(settings, "broken", b"{}")
        assert (status, document["error"]["code"]) == (500, "internal_error")


async def test_a_stream_that_fails_half_way_says_why(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(site: Site) -> Any:
        yield site.settings.gateway.id
        raise NotFound("It is gone.", hint="Look elsewhere.")

    failing.__annotations__["return"] = AsyncIterator[str]
    monkeypatch.setitem(OPERATIONS, "failing", Operation(failing))
    async with running(settings), gateway_link.connect(settings) as link:
        items = link.stream(failing)
        assert await anext(items) == "site-1"
        with pytest.raises(NotFound) as raised:
            await anext(items)
    assert (raised.value.message, raised.value.hint) == ("It is gone.", "Look elsewhere.")


async def test_a_follower_misses_nothing_and_gets_nothing_twice(settings: Settings) -> None:
    async with running(settings) as gateway, gateway_link.connect(settings) as link:
        log = log_of(gateway)
        await append(log, 50)
        sizes = (1, 700, 3, 1, 250, 40) * 5
        last = 50 + sum(sizes)

        async def write() -> None:
            for size in sizes:
                await append(log, size)

        async with aclosing(link.stream(tail_readings, devices=[], sensors=[], last=20)) as pages:
            seen = rows(await anext(pages))
            writing = asyncio.create_task(write())
            async for page in pages:
                assert page.skipped == 0
                seen += rows(page)
                if seen[-1] == last:
                    break
        assert seen == list(range(31, last + 1))
        await writing


async def test_a_follower_sees_only_what_it_asked_for(settings: Settings) -> None:
    async with running(settings) as gateway, gateway_link.connect(settings) as link:
        log = log_of(gateway)
        await append(log, 300)
        await append(log, 1, device="hall")
        await append(log, 1, device="hall", payload=PAYLOAD.replace(b"pir", b"mq134"))
        pages = link.stream(tail_readings, devices=["hall"], sensors=["mq134"], last=1000)
        async with aclosing(pages):
            assert rows(await anext(pages)) == [302]


async def test_a_slow_follower_is_kept_nothing_for_and_told_what_it_has_not_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, batch = 60_000, 5_000
    monkeypatch.setattr(control, "HEARTBEAT_S", 0.05)  # the head comes with the first line
    async with running(settings) as gateway:
        log = log_of(gateway)
        with DataDir(settings.gateway.data_dir).short_control_socket() as path:
            reader, writer = await asyncio.open_unix_connection(path, limit=1_000)
        body = b'{"devices": [], "sensors": [], "last": 0}'
        head = f"POST /tail_readings HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(total // batch):  # nobody reads meanwhile
            await append(log, batch)
        seen: list[int] = []
        skipped = before_skip = 0
        rest = b""
        while not seen or seen[-1] < total:
            *lines, rest = (rest + await reader.read(65_536)).split(b"\n")
            for page in map(json.loads, filter(None, lines)):
                if page["skipped"]:
                    before_skip = before_skip or len(seen)
                    skipped += page["skipped"]
                seen += [int(reading["id"].rpartition(":")[2]) for reading in page["readings"]]
        writer.close()
        assert seen == sorted(set(seen))
        assert skipped > 0
        assert len(seen) + skipped == total
        assert 0 < before_skip < 5_000, "only what sockets hold was on its way"


async def test_a_quiet_gateway_is_not_taken_for_a_silent_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "HEARTBEAT_S", 0.05)
    async with running(settings) as gateway, gateway_link.connect(settings, patience_s=0.3) as link:
        asyncio.get_running_loop().call_later(1, asyncio.ensure_future, append(log_of(gateway), 1))
        pages = link.stream(tail_readings, devices=[], sensors=[], last=0)
        async with aclosing(pages):
            assert rows(await anext(pages)) == [1]
        monkeypatch.setattr(control, "HEARTBEAT_S", 60)
        pages = link.stream(tail_readings, devices=[], sensors=[], last=0)
        with pytest.raises(GatewaySilent):
            await anext(pages)


async def test_who_follows_does_not_hold_up_the_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.control._SHUTDOWN_S", 60.0)  # so long would who does not end be waited for
    seen: list[int] = []

    async def follow() -> None:
        async with gateway_link.connect(settings) as link:
            async for page in link.stream(tail_readings, devices=[], sensors=[], last=0):
                seen.extend(rows(page))

    loop = asyncio.get_running_loop()
    async with running(settings) as gateway:
        following = asyncio.create_task(follow())
        while not seen:
            await append(log_of(gateway), 1)
        await append(log_of(gateway), 500)
        stopped_at, last_row = loop.time(), log_of(gateway).last_row
    await following
    assert seen[-1] == last_row
    assert loop.time() - stopped_at < 15


async def test_a_gateway_waits_a_moment_for_a_command_that_has_the_store(settings: Settings) -> None:
    with DataDir(settings.gateway.data_dir).lock() as held:
        starting = asyncio.create_task(Gateway(settings).run(asyncio.Event()))
        await asyncio.sleep(0.3)
        assert not starting.done()
        assert not held.control_socket.exists()
    for _ in range(100):
        await asyncio.sleep(0.05)
        if held.control_socket.exists():
            break
    assert not starting.done()
    starting.cancel()
    await asyncio.wait([starting])
