"""P10 with whole processes: a gateway whose wall clock is wrong, and a receiver that checks every signature."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from gateway.storage.log_reader import LogReader
from gateway.storage.state import DeviceCredential
from tests.ports import free_port
from tests.promises.boards import Board, running
from tests.promises.false_clock import DAY_MS, ClockFile
from tests.promises.gateway_process import GatewayProcess
from tests.promises.receiver_process import ReceiverProcess
from tests.promises.site import Site

_READINGS = 30
"""In each wave."""
_PATIENCE_S = 20.0
_LONGEST_ACK_S = 3.0
_OFF_BY_AT_MOST_S = 2.0
"""A correction is only worth a step of a second."""


@dataclass
class Scene:
    """One installation with a board; nothing runs yet."""

    site: Site
    clock: ClockFile
    gateway: GatewayProcess
    receiver: ReceiverProcess
    board: DeviceCredential

    async def wave(self, boot_id: str) -> tuple[float, float]:
        """Let the board publish; returns when it began and ended, by a clock that is right."""
        began = time.time()
        board = Board(self.board, self.site.mqtt_port, boot_id=boot_id, readings=_READINGS)
        async with running([board]) as tasks:
            await asyncio.wait_for(asyncio.gather(*tasks), _PATIENCE_S)
        assert (board.resent, board.longest_ack_s < _LONGEST_ACK_S) == (0, True)
        return began, time.time()

    async def text(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.site.http_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, timeout=aiohttp.ClientTimeout(10)) as answer:
            return await answer.text()

    async def says_synced(self, synced: int) -> None:
        """Return when the metrics say so, and what the clock says can have been learned."""
        async with asyncio.timeout(_PATIENCE_S):
            while f"neurogate_clock_synced {synced}.0" not in await self.text("/metrics"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(2.5)  # it is looked at every second

    async def has_frozen(self) -> None:
        """Return when the log has a batch that is to be sent."""
        async with asyncio.timeout(_PATIENCE_S), LogReader.open(self.site.data_dir.log_db) as log:
            while not any(one.attempt for one in await log.cursors()):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)

    async def deliver(self) -> dict[str, list[dict[str, Any]]]:
        """Start the receiver; returns what has arrived when nothing is left, by the board's boot."""
        await self.receiver.start()
        await self.gateway.everything_delivered("api", _PATIENCE_S)
        await self.receiver.count()
        assert (self.receiver.counted["signature_failures"], self.receiver.counted["changed"]) == (0, 0)
        arrived: dict[str, list[dict[str, Any]]] = {}
        for batch in self.receiver.recorded():
            for one in batch["readings"]:
                arrived.setdefault(one["boot_id"], []).append(one)
        for readings in arrived.values():
            assert [one["seq"] for one in readings] == list(range(1, _READINGS + 1)), "once each, in their order"
        return arrived


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    port = free_port()
    site = Site(folder, webhooks={"api": port})
    site.write()
    (board,) = await site.add_devices(1)
    program = ("-m", "tests.promises.gateway_with_false_clock", str(folder / "clock"))
    gateway = GatewayProcess(site, program=program)
    receiver = ReceiverProcess(port, site.secret, folder / "record.jsonl")
    try:
        yield Scene(site, ClockFile(folder / "clock"), gateway, receiver, board)
    finally:
        await receiver.__aexit__()
        await gateway.__aexit__()


def unix_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def off_by_s(readings: list[dict[str, Any]], taken: tuple[float, float]) -> float:
    """Return how far the worst of the times lies outside the moments between which the readings were taken."""
    times = [unix_s(one[name]) for one in readings for name in ("time", "received_at")]
    return max(0.0, taken[0] - min(times), max(times) - taken[1])


async def test_p10_what_was_stored_in_1970_is_delivered_with_its_true_time(tmp_path: Path) -> None:
    """Every reading, as none of them can have arrived before: nobody listened."""
    async with scene(tmp_path) as play:
        play.clock.set_to_1970()
        await play.gateway.start()
        assert "neurogate_clock_synced 0.0" in await play.text("/metrics")
        taken = await play.wave("boot-1")
        async with LogReader.open(play.site.data_dir.log_db) as log:
            assert {one.received_at_ms // DAY_MS for one in await log.read(0, limit=999)} == {0}, "it is 1970"
        play.clock.set(0, synced=True)
        await play.says_synced(1)
        arrived = await play.deliver()
        assert {one["time_source"] for one in arrived["boot-1"]} == {"corrected"}
        assert off_by_s(arrived["boot-1"], taken) < _OFF_BY_AT_MOST_S


async def test_p10_also_after_a_kill_that_came_before_the_clock_was_right(
    tmp_path: Path, say: Callable[[str], None]
) -> None:
    """But for the batch that was under way when it was killed: it may have arrived, and goes out as it was."""
    async with scene(tmp_path) as play:
        play.clock.set_to_1970()
        await play.gateway.start()
        await play.wave("boot-0")
        await play.has_frozen()  # a batch of these
        taken = {"boot-1": await play.wave("boot-1")}
        await play.gateway.kill()
        async with LogReader.open(play.site.data_dir.log_db) as log:
            ((*_, attempt),) = [(one.position, one.attempt) for one in await log.cursors()]
        await play.gateway.start()
        taken["boot-2"] = await play.wave("boot-2")
        play.clock.set(0, synced=True)
        await play.says_synced(1)
        taken["boot-3"] = await play.wave("boot-3")
        arrived = await play.deliver()
        assert attempt is not None
        batches = {batch["webhook_id"]: batch["readings"] for batch in play.receiver.recorded()}
        frozen = batches[attempt.batch_id]
        assert {one["time_source"] for one in frozen} == {"gateway"}
        assert {one["time"][:4] for one in frozen} == {"1970"}
        for boot, source in (("boot-1", "corrected"), ("boot-2", "corrected"), ("boot-3", "gateway")):
            assert {one["time_source"] for one in arrived[boot]} == {source}
            assert off_by_s(arrived[boot], taken[boot]) < _OFF_BY_AT_MOST_S
        say(f"P10: of {4 * _READINGS} readings {len(frozen)} went out as they were frozen in 1970, the others right")


async def test_p10_a_jump_of_a_day_and_back_touches_no_time_no_order_and_no_connection(tmp_path: Path) -> None:
    async with scene(tmp_path) as play:
        play.clock.set(0, synced=True)
        await play.gateway.start()
        await play.says_synced(1)
        taken = {"boot-1": await play.wave("boot-1")}
        for boot, jump in (("boot-2", DAY_MS), ("boot-3", -DAY_MS), ("boot-4", -60_000)):
            play.clock.set(jump, synced=False)
            taken[boot] = await play.wave(boot)
        await play.says_synced(0)
        play.clock.set(0, synced=True)
        await play.says_synced(1)
        arrived = await play.deliver()
        for boot, source in (("boot-1", "gateway"), *((f"boot-{n}", "corrected") for n in (2, 3, 4))):
            assert {one["time_source"] for one in arrived[boot]} == {source}
            assert off_by_s(arrived[boot], taken[boot]) < _OFF_BY_AT_MOST_S
        refused = [line for line in (await play.text("/metrics")).splitlines() if "front_door_refused_total{" in line]
        assert not refused, "keepalives count by the monotonic clock"
