"""A radar at a UART: over a pty, with the real pyserial, into a whole gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.site import FailingDisk, Site, running_site, until
from tests.sources.pty_port import PtyPort

FRAMES = [
    bytes.fromhex(vector["hex"])
    for vector in json.loads((Path(__file__).parents[1] / "parsers/ld2410_reports.json").read_text())
]
NOBODY, SOMEBODY, ENGINEERING = FRAMES[0], FRAMES[1], FRAMES[5]


@asynccontextmanager
async def running(line: PtyPort, folder: Path, **settings: Any) -> AsyncIterator[Site]:
    table: Mapping[str, Any] = {"port": str(line.path), "device_id": "radar", "format": "ld2410"} | settings
    async with running_site(folder / "data", serial=[table]) as site:
        (source,) = site.gateway._running.serial.values()
        await until(lambda: source.notices == [])
        yield site


def presence(stored: list[Any]) -> list[bool | None]:
    return [reading.body["sensors"].get("ld2410", {}).get("presence") for reading in stored]


async def test_ten_frames_a_second_become_a_reading_for_each_change(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, heartbeat_s=1_000) as site:
        for frame in [NOBODY] * 10 + [SOMEBODY] * 10 + [NOBODY] * 10:
            site.clock.advance(100)
            await line.write(frame[:7])
            await line.write(frame[7:])
            await asyncio.sleep(0.002)
        stored = await site.stored(3)
        assert presence(stored) == [False, True, False]
        assert [one.seq for one in stored] == [0, 1, 2]
        assert len({one.boot_id for one in stored}) == 1
        assert stored[0].device_id == "radar"
        assert await site.quarantined() == []


async def test_an_engineering_report_brings_the_energy_of_each_gate(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(ENGINEERING)
        (stored,) = await site.stored(1)
        assert stored.body["sensors"]["ld2410"]["moving_gate_energies"] == [18, 5, 4, 9, 12, 13, 15, 4, 1]


async def test_cut_and_foreign_bytes_are_counted_and_the_next_frame_is_read(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(NOBODY[9:] + b"\x00\xff" * 10 + NOBODY[:12] + SOMEBODY)
        assert presence(await site.stored(1)) == [True]
        assert await site.metric("neurogate_serial_skipped_bytes_total") == len(NOBODY) - 9 + 20 + 12


async def test_a_radar_that_falls_silent_is_told(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, lost_after_s=5) as site:
        await line.write(SOMEBODY)
        await site.stored(1)
        site.clock.advance(5_000)
        stored = await site.stored(2)
        assert stored[1].body["sensors"] == {"radar": {"state": "lost"}}
        assert stored[1].body["health"]["radar"] == "lost"
        async with site.http.get(site.url("/ready")) as response:
            assert response.status == 200
            (notice,) = (await response.json())["notices"]
        assert "no frame of an LD2410 comes" in notice
        await line.write(SOMEBODY)
        assert presence(await site.stored(3)) == [True, None, True]


async def test_a_radar_that_is_unplugged_is_lost_and_comes_back(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(SOMEBODY + NOBODY[:9])
        await site.stored(1)
        line.unplug()
        (source,) = site.gateway._running.serial.values()
        await until(lambda: source.notices != [])
        site.clock.advance(6_000)
        await site.stored(2)
        line.plug()
        await until(lambda: "no frame" in source.notices[0])  # it is open again, and nothing has come yet
        await line.write(NOBODY)
        assert presence(await site.stored(3)) == [True, None, False]
        assert source.notices == []


async def test_what_was_not_stored_is_said_again(line: PtyPort, tmp_path: Path, disk: FailingDisk) -> None:
    async with running(line, tmp_path, heartbeat_s=1e9) as site:
        disk.failing = True
        await line.write(SOMEBODY)
        await until(lambda: disk.failed > 0)
        disk.failing = False
        async with asyncio.timeout(20):
            while site.log.last_row == 0:
                site.clock.advance(1_000)
                await line.write(SOMEBODY)
                await asyncio.sleep(0.02)
        assert presence(await site.log.read(0, limit=10)) == [True]
