"""P4 for destinations, with the real webhook, and with the whole gateway as a process that is killed."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.storage.data_dir import DataDir
from gateway.storage.log_reader import LogReader
from tests import command_line
from tests.bench.site import prepare
from tests.cloud_sync.samples import append
from tests.cloud_sync.site import Site, open_site, running, until, webhook

READINGS = 5_000
BIG = {"batch_max_bytes": 100_000_000, "rate_limit_per_minute": 0}


@dataclass
class Receiver:
    """Somebody's API: refuses the whole batch for one reading that it cannot use."""

    poison: set[int] = field(default_factory=set)
    status: int = 422
    max_bytes: int = 1_000_000_000
    refuses: int = 0
    """Answers everything with this status."""
    accepted: dict[int, set[str]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: int = 0
    on_request: Callable[[int], Awaitable[None]] | None = None

    async def post(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        message_id = request.headers["webhook-id"]
        assert self.bodies.setdefault(message_id, body) == body, "an id came again with another body"
        if self.refuses:
            return web.Response(status=self.refuses)
        if len(body) > self.max_bytes:
            return web.Response(status=413, text="at most so many bytes")
        rows = [int(reading["id"].rpartition(":")[2]) for reading in json.loads(body)["readings"]]
        if self.poison.intersection(rows):
            return web.Response(status=self.status, text="gas_concentration: out of range")
        for row in rows:
            if row not in self.accepted:
                self.order.append(row)
            self.accepted.setdefault(row, set()).add(message_id)
        if self.on_request is not None:
            await self.on_request(self.requests)
        return web.Response(status=204)

    def got_each_once_in_order(self, rows: list[int]) -> bool:
        return self.order == rows and all(len(ids) == 1 for ids in self.accepted.values())


@asynccontextmanager
async def serving(receiver: Receiver) -> AsyncIterator[TestServer]:
    app = web.Application(client_max_size=1_000_000_000)
    app.router.add_post("/hook", receiver.post)
    server = TestServer(app)
    async with server:
        yield server


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "log.db") as site:
        await append(site.log, READINGS)
        yield site


async def dead_letters(site: Site) -> list[tuple[int, str]]:
    site.log._flush_moves()
    await site.log._idle.wait()
    return [(one.reading.row, one.reason) for one in await site.log.dead_letters.letters() if not one.provisional]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_p4_one_poison_reading_among_five_thousand(site: Site, status: int) -> None:
    receiver = Receiver({3_456}, status)
    async with serving(receiver) as server, running(site.forwarder(webhook("cloud", server, **BIG))) as forwarder:
        await until(lambda: forwarder._live.position == READINGS)
    assert await dead_letters(site) == [(3_456, f"HTTP {status} gas_concentration: out of range")]
    assert receiver.got_each_once_in_order([row for row in range(1, READINGS + 1) if row != 3_456])
    if status != 413:  # sizes grow again slowly
        assert receiver.requests <= 27
    assert site.waits == []


async def test_p4_several_poison_readings(site: Site) -> None:
    receiver = Receiver({1, 2, 700, 2_500, 2_501, 4_999})
    async with serving(receiver) as server, running(site.forwarder(webhook("cloud", server, **BIG))) as forwarder:
        await until(lambda: forwarder._live.position == READINGS)
    assert [row for row, _ in await dead_letters(site)] == sorted(receiver.poison)
    assert receiver.got_each_once_in_order([row for row in range(1, READINGS + 1) if row not in receiver.poison])
    assert receiver.requests < 100


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422])
async def test_p4_a_receiver_that_refuses_everything_gets_everything_when_it_is_repaired(
    site: Site, status: int
) -> None:
    receiver = Receiver(refuses=status)
    shown = []
    async with serving(receiver) as server:
        forwarder = site.forwarder(webhook("cloud", server, **BIG))

        async def sleep(seconds: float) -> None:
            shown.append((await forwarder.status(), await site.log.dead_letters.letters(), seconds))
            if len(shown) == 3:
                receiver.refuses = 0
            await site.sleep(seconds)

        forwarder._sleep = sleep
        async with running(forwarder):
            await until(lambda: forwarder._live.position == READINGS)
    assert len(shown) == 3
    for one, letters, seconds in shown:
        assert (one.state, one.position, one.undelivered, letters, seconds) == ("error", 0, READINGS, [], 300)
    assert receiver.got_each_once_in_order(list(range(1, READINGS + 1)))
    assert await dead_letters(site) == []


async def test_p4_a_limit_on_bytes_shrinks_the_batches_and_lets_them_grow_again(site: Site) -> None:
    receiver = Receiver(max_bytes=100_000)
    async with serving(receiver) as server, running(site.forwarder(webhook("cloud", server, **BIG))) as forwarder:
        await until(lambda: forwarder._live.position >= 1_000)
        receiver.max_bytes = 1_000_000_000
        await until(lambda: forwarder._live.position == READINGS)
        assert forwarder._size.readings > 200
    assert receiver.got_each_once_in_order(list(range(1, READINGS + 1)))
    assert await dead_letters(site) == []
    assert site.waits == []


# The whole gateway


CONFIG = """\
version = 1
[gateway]
data_dir = "{data_dir}"
[mqtt]
host = "127.0.0.1"
port = 0
websocket_port = 0
tls_port = 0
[http]
host = "127.0.0.1"
port = 0
tls_port = 0
[egress]
policy = "any"
[log]
format = "json"
[[integrations]]
type = "webhook"
name = "cloud"
url = "{url}"
start = "oldest"
rate_limit_per_minute = 0
batch_max_bytes = 100000000
"""


@asynccontextmanager
async def gateway(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "run", "-c", str(config)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)


async def neurogate(config: Path, *words: str) -> tuple[int, str]:
    done = await asyncio.to_thread(command_line.neurogate, *words, "-c", str(config), folder=config.parent)
    return done.returncode, done.stdout + done.stderr


async def stored(data_dir: DataDir) -> tuple[int, list[dict[str, Any]]]:
    async with LogReader.open(data_dir.log_db) as log:
        position = sum(cursor.position for cursor in await log.cursors())
        letters = await log.dead_letters.letters()
        found = [{"row": one.reading.row, "provisional": one.provisional} for one in letters]
        return position, found


async def wait_for(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_p4_killed_in_the_middle_of_splits_then_replayed_from_the_command_line(tmp_path: Path) -> None:
    """SIGKILL again and again, each time after the receiver stored a part and before the gateway hears of it."""
    data_dir = DataDir(tmp_path / "data")
    await prepare(data_dir.path, devices=3, readings=READINGS)
    receiver = Receiver({1_234, 4_321})
    config = tmp_path / "neurogate.toml"
    async with serving(receiver) as server:
        config.write_text(CONFIG.format(data_dir=data_dir.path, url=server.make_url("/hook")))

        kills = 0
        while kills < 6:
            async with gateway(config) as process:
                parts = 0

                async def kill(_: int) -> None:
                    nonlocal parts
                    parts += 1
                    if parts == 2:
                        process.kill()
                        await process.wait()

                receiver.on_request = kill
                await asyncio.wait_for(process.wait(), 60)
                assert process.returncode == -signal.SIGKILL
                kills += 1
        receiver.on_request = None

        async def done() -> bool:
            return await stored(data_dir) == (
                READINGS,
                [{"row": 1_234, "provisional": False}, {"row": 4_321, "provisional": False}],
            )

        async with gateway(config):
            await wait_for(done)
            assert receiver.got_each_once_in_order([n for n in range(1, READINGS + 1) if n not in receiver.poison])

            code, words = await neurogate(config, "buffer", "dead-letters", "--json")
            listed = json.loads(words)
            assert (code, [one["row"] for one in listed]) == (0, [1_234, 4_321])
            assert listed[0]["reason"] == "HTTP 422 gas_concentration: out of range"
            assert listed[0]["device_id"].startswith("bench-")

            receiver.poison = {4_321}
            code, words = await neurogate(config, "buffer", "replay", "--all")
            assert code == 1
            assert "Delivered: 1 reading. Refused again: 1 reading;" in words
            assert 1_234 in receiver.accepted

        receiver.poison = set()
        code, words = await neurogate(config, "buffer", "replay", "4321")
        assert code == 0
        assert "they go out after its next start" in words
        assert 4_321 not in receiver.accepted
        async with gateway(config):
            await wait_for(lambda: _is_empty(data_dir))
        assert sorted(receiver.accepted) == list(range(1, READINGS + 1))
        assert all(len(ids) == 1 for ids in receiver.accepted.values())
        code, words = await neurogate(config, "buffer", "dead-letters")
        assert (code, words) == (0, "There are no dead letters.\n")


async def _is_empty(data_dir: DataDir) -> bool:
    return (await stored(data_dir))[1] == []
