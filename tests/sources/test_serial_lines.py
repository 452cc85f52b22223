"""Boards that write lines: over a pty, with the real pyserial, into a whole gateway."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import serial
import uvloop

from gateway.access import Device
from gateway.ingest import Ingest
from gateway.model.errors import StoreFailed
from gateway.sources import serial_lines
from gateway.storage.log import Owner
from tests.site import FailingDisk, Site, reading, running_site, until
from tests.sources.pty_port import PtyPort


def board(seq: int | None = None, **fields: Any) -> bytes:
    numbered = {} if seq is None else {"boot_id": "b1", "seq": seq}
    return reading("usb", **numbered, **fields) + b"\n"


@asynccontextmanager
async def running(line: PtyPort, folder: Path, **settings: Any) -> AsyncIterator[Site]:
    table: Mapping[str, Any] = {"port": str(line.path), "device_id": "usb"} | settings
    async with running_site(folder / "data", serial=[table]) as site:
        await until_open(site)
        yield site


async def until_open(site: Site, *, is_open: bool = True) -> None:
    (source,) = site.gateway._running.serial.values()
    await until(lambda: (source.notices == []) == is_open, f"open is {is_open}")


async def notices(site: Site) -> list[str]:
    async with site.http.get(site.url("/ready")) as response:
        assert response.status == 200
        ready: dict[str, list[str]] = await response.json()
        return ready["notices"]


async def test_a_line_is_stored_as_a_message_of_the_device(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, organization_id="acme") as site:
        first = board(1)
        await line.write(first[:20])
        await line.write(first[20:] + b"\r\n" + board(2))
        stored = await site.stored(2)
        assert [(one.organization_id, one.device_id, one.boot_id, one.seq) for one in stored] == [
            ("acme", "usb", "b1", 1),
            ("acme", "usb", "b1", 2),
        ]
        device = site.gateway._running.access.devices.get("acme", "usb")
        assert device is not None
        assert device.readings == 2
        assert await site.quarantined() == []


async def test_what_was_added_about_the_device_is_with_its_readings(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await site.gateway.add_device("usb", metadata={"zone": "north"})
        await line.write(board(1))
        (stored,) = await site.stored(1)
        assert stored.device_metadata == {"zone": "north"}


async def test_a_line_that_cannot_be_used_is_quarantined(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(board(1) + b'{"device_id": "usb"}\nhello\n' + reading("kitchen") + b"\n" + board(2))
        await site.stored(2)
        await until(lambda: site.log.waiting == 0)
        quarantined = await site.quarantined()
        assert [(entry.device_id, entry.code) for entry in quarantined] == [
            ("usb", "invalid_reading"),
            ("usb", "invalid_json"),
            ("usb", "foreign_device"),
        ]
        assert quarantined[0].source == f"serial {line.path}"[:200]


async def test_the_rest_of_a_line_that_was_begun_before_is_only_counted(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(b'true}}, "x": 1}\n' + board(1))
        await site.stored(1)
        assert await site.quarantined() == []
        assert await site.metric('sensor_data_errors_total{reason="line_cut"}') == 1


async def test_garbage_is_counted_and_not_kept(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, max_line_bytes=200) as site:
        garbage = [b"\x00\xff\xfe" * 20, b"\x80" * 5, b"x" * 201, b"y" * 100_000]
        await line.write(board(1) + b"\n".join(garbage) + b"\n\n\n" + board(2))
        assert [one.seq for one in await site.stored(2)] == [1, 2]
        assert await site.quarantined() == []
        assert await site.metric('sensor_data_errors_total{reason="line_not_text"}') == 2
        assert await site.metric('sensor_data_errors_total{reason="line_too_long"}') == 2
        skipped = await site.metric("neurogate_serial_skipped_bytes_total")
        assert skipped == sum(map(len, garbage))


async def test_a_wrong_baud_rate_is_suspected_until_a_line_is_read(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(b"{\n\xfe\xff\x81\n")
        await until_open(site, is_open=False)
        (notice,) = await notices(site)
        assert "Is 115200 its baud rate?" in notice
        await line.write(board(1))
        await site.stored(1)
        assert await notices(site) == []


async def test_a_line_as_long_as_allowed_is_taken(line: PtyPort, tmp_path: Path) -> None:
    longest = board(1)[:-1].ljust(300)
    async with running(line, tmp_path, max_line_bytes=300) as site:
        await line.write(longest + b"\n" + longest + b" \n")
        await until(lambda: site.log.waiting == 0)
        await site.stored(1)
        assert await site.metric('sensor_data_errors_total{reason="line_too_long"}') == 1


async def test_an_unplugged_port_is_told_and_opened_again(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(board(1) + b'{"device_id": "us')
        await site.stored(1)
        up = f'neurogate_serial_open{{port="{line.path}"}}'
        assert await site.metric(up) == 1
        line.unplug()
        await until_open(site, is_open=False)
        (notice,) = await notices(site)
        assert notice.startswith("Serial port of usb: ")
        assert "Plug it in" in notice
        assert await site.metric(up) == 0
        line.plug()
        await until_open(site)
        await line.write(board(2))
        assert [one.seq for one in await site.stored(2)] == [1, 2]
        assert await notices(site) == []
        assert await site.metric(f'neurogate_serial_lost_total{{port="{line.path}"}}') == 1
        assert await site.quarantined() == []


async def test_a_port_that_is_not_there_at_the_start_is_opened_when_it_is(line: PtyPort, tmp_path: Path) -> None:
    line.unplug()
    table = {"port": str(line.path)[:-1] + "*", "device_id": "usb"}
    async with running_site(tmp_path / "data", serial=[table]) as site:
        await until(lambda: bool(site.gateway._running.serial))
        assert "is not there" in (await notices(site))[0] or "is not open yet" in (await notices(site))[0]
        line.plug()
        await until_open(site)
        await line.write(board(1))
        await site.stored(1)


async def test_a_port_that_another_program_uses_is_left_to_it(line: PtyPort, tmp_path: Path) -> None:
    table = {"port": str(line.path), "device_id": "usb"}
    with serial.Serial(str(line.path), exclusive=True):
        async with running_site(tmp_path / "data", serial=[table]) as site:
            (source,) = site.gateway._running.serial.values()
            await until(lambda: "used by another program" in source.notices[0])


async def test_two_names_of_one_port_do_not_share_its_bytes(line: PtyPort, tmp_path: Path) -> None:
    other = line.path.with_name("by-id")
    other.symlink_to(line.path)
    tables = [{"port": str(port), "device_id": "usb"} for port in (line.path, other)]
    async with running_site(tmp_path / "data", serial=tables) as site:
        sources = site.gateway._running.serial.values()
        await until(lambda: sum(source.notices == [] for source in sources) == 1)
        await until(lambda: any("used by another" in words for source in sources for words in source.notices))


async def test_a_defect_of_ours_is_told_and_the_port_read_again(
    line: PtyPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(line, tmp_path) as site:
        with monkeypatch.context() as broken:
            broken.setattr(serial_lines.LinesSource, "_take", None)
            await line.write(board(1))
            failing = site.gateway._supervisor.failing
            await until(lambda: f"serial {line.path}" in failing)
            await until_open(site, is_open=False)
        await until(lambda: not failing)
        await until_open(site)
        await line.write(board(2))
        assert [one.seq for one in await site.stored(1)] == [2]


async def test_it_is_acknowledged_when_it_is_on_disk(line: PtyPort, tmp_path: Path, disk: FailingDisk) -> None:
    async with running(line, tmp_path, acknowledge=True) as site:
        disk.failing = True
        await line.write(board(1) + board(2))
        await until(lambda: disk.failed > 0)
        await asyncio.sleep(0.1)
        assert line.read() == b""
        disk.failing = False
        await line.write(board(1) + board(2))
        assert await line.read_until(b'{"ack":2}\n') == b'{"ack":1}\n{"ack":2}\n'
        assert [one.seq for one in await site.stored(2)] == [1, 2]


async def test_a_failed_commit_withholds_what_was_with_the_next(
    line: PtyPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows which of them the next commit stored: none is acknowledged, and all come again."""
    owners: list[Owner] = []

    def take(_: Ingest, _device: Device, _data: bytes, owner: Owner, *, source: str) -> None:
        assert source
        owners.append(owner)

    async with running(line, tmp_path, acknowledge=True):
        monkeypatch.setattr(Ingest, "take", take)
        await line.write(board(1) + board(2))
        await until(lambda: len(owners) == 2)
        owners[0].failed(StoreFailed("no"))
        owners[1].committed(1)
        await line.write(board(3))
        await until(lambda: len(owners) == 3)
        owners[2].committed(1)
        assert await line.read_until(b"\n") == b'{"ack":3}\n'


async def test_an_acknowledged_line_is_in_the_log_already(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, acknowledge=True) as site:
        for seq in range(20):
            await line.write(board(seq))
            await line.read_until(b'{"ack":%d}\n' % seq)
            assert [one.seq for one in await site.log.read(0, limit=100)] == list(range(seq + 1))


async def test_a_line_that_comes_again_is_acknowledged_again_and_stored_once(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, acknowledge=True) as site:
        await line.write(board(7))
        await line.read_until(b'{"ack":7}\n')
        await line.write(board(7))
        await line.read_until(b'{"ack":7}\n')
        assert len(await site.stored(1)) == 1


async def test_a_numbered_line_in_quarantine_is_acknowledged_and_an_unnumbered_never(
    line: PtyPort, tmp_path: Path
) -> None:
    async with running(line, tmp_path, acknowledge=True) as site:
        unnumbered = [
            b"Traceback (most recent call last):",
            b'{"ack":3}',
            board()[:-1],
            b'{"seq": true}',
            b'{"seq": "4"}',
        ]
        await line.write(b'{"seq": 1}\n' + b"\n".join(unnumbered) + b"\n" + board(2))
        assert await line.read_until(b'{"ack":2}\n') == b'{"ack":1}\n{"ack":2}\n'
        assert len(await site.quarantined()) == 5


async def test_nothing_is_answered_unless_it_is_asked_for(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path) as site:
        await line.write(board(1))
        await site.stored(1)
        await asyncio.sleep(0.05)
        assert line.read() == b""


async def test_a_board_that_reads_no_answers_hurts_nobody(line: PtyPort, tmp_path: Path) -> None:
    async with running(line, tmp_path, acknowledge=True) as site:
        (source,) = site.gateway._running.serial.values()
        assert isinstance(source, serial_lines.LinesSource)
        for _ in range(100):
            source._port.send(b"x" * 9_999 + b"\n")
        assert 0 < len(source._port._unsent) <= 65_536
        await line.write(board(1))
        await site.stored(1)
        said = await line.read_until(b"x\n")
        while source._port._unsent:
            said += line.read()
            await asyncio.sleep(0.005)
        await line.write(board(2))
        said += await line.read_until(b'{"ack":2}\n')
        assert {len(one) for one in said.splitlines() if one.startswith(b"x")} == {9_999}


async def test_much_uncommitted_makes_the_port_wait(
    line: PtyPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_lines, "_UNCOMMITTED_AT_MOST", 4)
    async with running(line, tmp_path, acknowledge=True) as site:
        await line.write(b"".join(board(seq) for seq in range(300)))
        await line.read_until(b'{"ack":299}\n')
        assert len(await site.stored(300)) == 300


def test_it_works_on_the_event_loop_that_run_uses(line: PtyPort, tmp_path: Path) -> None:
    async def here() -> None:
        async with running(line, tmp_path, acknowledge=True) as site:
            await line.write(board(1))
            await line.read_until(b'{"ack":1}\n')
            line.unplug()
            await until_open(site, is_open=False)
            line.plug()
            await until_open(site)
            await line.write(board(2))
            await line.read_until(b'{"ack":2}\n')

    uvloop.run(here())
