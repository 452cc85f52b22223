"""P6: it always starts, and says what it found. A whole gateway, with real databases on disk."""

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.app import Gateway
from gateway.cli.gateway_link import connect
from gateway.clock import SystemClock
from gateway.config import GatewaySettings, HttpSettings, MqttSettings, Settings
from gateway.model.errors import ConfigError, NeurogateError, StoreFailed
from gateway.operations.erase import erase_device
from gateway.storage import log as log_module
from gateway.storage.credentials import Credentials
from gateway.storage.data_dir import DataDir, load_or_create_key
from gateway.storage.state import State
from tests.site import until
from tests.storage.repair.damaged import PAGE, corrupt_files, fill, opened, survivors

# Another process: closing a file here would drop the locks of the database that this process has open.
_OVERWRITE = """
import random, sys
path, first, last, seed = sys.argv[1], *map(int, sys.argv[2:])
with open(path, "r+b") as file:
    for page in range(first, last):
        file.seek(page * 4096)
        file.write(random.Random(seed + page).randbytes(4096))
"""


def overwrite(path: Path, first: int, last: int) -> None:
    subprocess.run([sys.executable, "-c", _OVERWRITE, str(path), str(first), str(last), "1"], check=True)


class Site:
    """A running gateway, and one board that talks to it over HTTP."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession, http: str, key: str) -> None:
        self.gateway = gateway
        self._session = session
        self._http = http
        self._key = key
        self.acknowledged: list[int] = []

    async def send(self, seq: int) -> int:
        body = {"device_id": "board", "boot_id": "b", "seq": seq, "sensors": {"pir": {"motion_detected": True}}}
        headers = {"x-api-key": self._key}
        async with self._session.post(f"{self._http}/api/v1/sensor-data", json=body, headers=headers) as answer:
            if answer.status == 202:
                self.acknowledged.append(seq)
            return answer.status

    async def ready(self) -> dict[str, Any]:
        async with self._session.get(f"{self._http}/ready") as answer:
            body: dict[str, Any] = await answer.json()
            return body | {"http": answer.status}

    async def metrics(self) -> str:
        async with self._session.get(f"{self._http}/metrics") as answer:
            return await answer.text()

    async def until_noticed(self, words: str) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while words not in " ".join((body := await self.ready())["notices"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return body


def no_space_left(*_: object) -> None:
    raise OSError(28, "No space left on device")


def settings(folder: Path) -> Settings:
    return Settings(
        gateway=GatewaySettings(data_dir=folder),
        mqtt=MqttSettings(host="127.0.0.1", port=0, websocket_port=0, tls_port=0),
        http=HttpSettings(host="127.0.0.1", port=0, tls_port=0, rate_limit_per_minute=0),
    )


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Gateway]:
    gateway, stop, ready = Gateway(settings(folder)), asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(gateway.run(stop, ready=ready.set))
    task.add_done_callback(lambda _: ready.set())
    await asyncio.wait_for(ready.wait(), 10)
    try:
        if not task.done():
            yield gateway
    finally:
        stop.set()
        await task


@asynccontextmanager
async def site(folder: Path, key: str | None = None) -> AsyncIterator[Site]:
    async with running(folder) as gateway, aiohttp.ClientSession() as session:
        if key is None:
            key = (await gateway.add_device("board")).password
        status = await gateway.status()
        yield Site(gateway, session, f"http://127.0.0.1:{status.http_port}", key)


async def register(folder: Path) -> str:
    """Register the board as a command would, before the gateway runs; returns its password."""
    data_dir = DataDir(folder).ensure()
    password_key = load_or_create_key(data_dir.password_key)
    async with State.open(data_dir.state_db, password_key, clock=SystemClock()) as state:
        return (await state.add_device("default", "board")).password


def stored_seqs(folder: Path) -> set[int]:
    with closing(sqlite3.connect(folder / "log.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = """SELECT seq FROM device_telemetry_history h JOIN streams s ON s.id = h.stream
            WHERE device_id = 'board' AND boot_id = 'b'"""
        return {seq for (seq,) in db.execute(query)}


async def test_p6_a_damaged_log_is_replaced_while_readings_are_taken_in(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", 20_000)
    (tmp_path / "log.db").write_bytes(random.Random(1).randbytes(PAGE) + (tmp_path / "log.db").read_bytes()[PAGE:])
    async with site(tmp_path) as board:
        assert await board.send(1) == 202
        body = await board.until_noticed("20,000 readings were salvaged")
        assert body["http"] == 200
        assert body["status"] == "ready"
        assert "its header is not that of a database" in body["notices"][0]
        assert 'neurogate_store_damaged{database="log.db"} 1.0' in await board.metrics()
        assert 'neurogate_store_damaged{database="state.db"} 0.0' in await board.metrics()
    assert survivors(tmp_path / "log.db") == (20_000, 1)
    async with site(tmp_path, "unused") as board:  # after a clean stop there is nothing left to say
        assert (await board.ready())["notices"] == []
        assert 'neurogate_store_damaged{database="log.db"} 0.0' in await board.metrics()


async def test_p6_after_an_unclean_stop_a_check_runs_while_readings_are_taken_in(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", 20_000)
    pages = (tmp_path / "log.db").stat().st_size // PAGE
    overwrite(tmp_path / "log.db", pages // 2, pages // 2 + 2)
    (tmp_path / "running").touch()
    async with site(tmp_path) as board:
        assert await board.send(1) == 202
        body = await board.until_noticed("readings were salvaged")
        assert "log.db was damaged" in body["notices"][0]
        assert await board.send(2) == 202
    right, others = survivors(tmp_path / "log.db")
    assert right >= 20_000 - 2 * 8
    assert others == 2


async def test_p6_a_sound_log_passes_the_check_after_an_unclean_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await fill(tmp_path / "log.db", 1_000)
    (tmp_path / "running").touch()
    async with site(tmp_path) as board:
        assert await board.send(1) == 202
        async with asyncio.timeout(10):
            while "checked log.db: it is sound" not in caplog.messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await board.ready())["notices"] == []
    assert not corrupt_files(tmp_path)
    assert not (tmp_path / "running").exists()


async def test_p6_a_killed_gateway_has_left_its_note_and_a_stopped_one_has_not(tmp_path: Path) -> None:
    config = tmp_path / "neurogate.toml"
    config.write_text(
        'version = 1\n[gateway]\ndata_dir = "."\n[log]\nformat = "json"\n'
        '[mqtt]\nhost = "127.0.0.1"\nport = 0\nwebsocket_port = 0\ntls_port = 0\n'
        '[http]\nhost = "127.0.0.1"\nport = 0\ntls_port = 0\n'
    )
    for number, note, checked in ((signal.SIGKILL, True, False), (signal.SIGTERM, False, True)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "run", "-c", str(config)), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        async with asyncio.timeout(30):
            said = b""
            while b"gateway ready" not in said or (checked and b"it is sound" not in said):
                said += await process.stderr.readline()
            process.send_signal(number)
            await process.communicate()
        assert (b"after an unclean stop" in said) is checked
        assert (tmp_path / "running").exists() is note


async def test_p6_what_was_found_is_said_until_a_clean_stop(tmp_path: Path) -> None:
    note = {"database": "log.db", "words": "log.db was damaged once."}
    (tmp_path / "running").write_text(json.dumps(note) + "\n" + '{"database": "cut o')
    async with site(tmp_path) as board:
        await board.send(1)
    (tmp_path / "running").write_text(json.dumps(note) + "\n")
    async with site(tmp_path, "unused") as board:
        assert "log.db was damaged once." in (await board.ready())["notices"]
        assert 'neurogate_store_damaged{database="log.db"} 1.0' in await board.metrics()


async def test_p6_a_log_damaged_under_load_costs_no_later_acknowledgement(tmp_path: Path) -> None:
    log = tmp_path / "log.db"
    await fill(log, 30_000)
    pages = log.stat().st_size // PAGE
    statuses: dict[int, int] = {}
    async with site(tmp_path) as board:
        stop = asyncio.Event()

        async def load(first: int) -> None:
            seq = first
            while not stop.is_set():
                statuses[seq] = await board.send(seq)
                seq += 10

        async with asyncio.TaskGroup() as tasks:
            for worker in range(1, 11):
                tasks.create_task(load(worker))
            await until(lambda: len(board.acknowledged) > 100, "some readings before the damage")
            before = len(board.acknowledged)
            await asyncio.to_thread(overwrite, log, 13, pages * 9 // 10)  # all but the header and the newest
            at_damage = len(board.acknowledged)
            noticed = await board.until_noticed("log.db was damaged")
            at_swap = len(board.acknowledged)
            await board.until_noticed("readings were salvaged")
            await until(lambda: len(board.acknowledged) > at_swap + 100, "readings go on being acknowledged")
            stop.set()
        after = len(board.acknowledged)
    kept = stored_seqs(tmp_path)
    lost = [seq for seq in board.acknowledged if seq not in kept]
    after_swap = [seq for seq in board.acknowledged[at_swap:] if seq not in kept]
    refused = sum(status != 202 for status in statuses.values())
    print(
        f"acknowledged {before} before the damage, {at_damage} at it, {at_swap} when /ready said so, {after} in all;"
        f" {refused} refused; acknowledged and missing: {len(lost)}, of those after the exchange: {len(after_swap)}"
    )
    print(noticed["notices"])
    assert refused == 0
    assert after > at_swap + 100
    assert after_swap == []
    assert lost == []  # the newest pages were left whole, so what came before the damage is there, too


async def test_p6_the_state_comes_back_from_its_copy(tmp_path: Path) -> None:
    key = await register(tmp_path)
    (tmp_path / "state.db").write_bytes(random.Random(1).randbytes(20_000))
    async with site(tmp_path, key) as board:
        assert await board.send(1) == 202
        body = await board.ready()
        assert body["http"] == 200
        assert "it came back from its copy" in body["notices"][0]
        assert 'neurogate_store_damaged{database="state.db"} 1.0' in await board.metrics()
    assert [file.name.partition(".corrupt-")[0] for file in corrupt_files(tmp_path)] == ["state.db"]


@pytest.mark.parametrize("deed", ["emptied", "deleted", "half overwritten"])
async def test_p6_the_state_comes_back_however_it_was_lost(tmp_path: Path, deed: str) -> None:
    key = await register(tmp_path)
    state = tmp_path / "state.db"
    match deed:
        case "emptied":
            state.write_bytes(b"")
        case "deleted":
            state.unlink()
        case _:
            state.write_bytes(state.read_bytes()[:PAGE] + random.Random(1).randbytes(state.stat().st_size - PAGE))
    async with site(tmp_path, key) as board:
        assert await board.send(1) == 202
        assert "it came back from its copy" in (await board.ready())["notices"][0]


async def test_p6_state_and_copy_lost_is_an_empty_state(tmp_path: Path) -> None:
    await register(tmp_path)
    for name in ("state.db", "state.db.copy"):
        (tmp_path / name).write_bytes(random.Random(1).randbytes(20_000))
    async with site(tmp_path) as board:  # registers the board again
        assert await board.send(1) == 202
        assert "begins empty" in (await board.ready())["notices"][0]


async def test_p6_both_databases_damaged_at_once(tmp_path: Path) -> None:
    key = await register(tmp_path)
    await fill(tmp_path / "log.db", 5_000)
    for name in ("state.db", "log.db"):
        with (tmp_path / name).open("r+b") as file:
            file.write(random.Random(1).randbytes(PAGE))
    async with site(tmp_path, key) as board:
        assert await board.send(1) == 202
        body = await board.until_noticed("5,000 readings were salvaged")
        assert any("state.db" in notice for notice in body["notices"])
    assert survivors(tmp_path / "log.db") == (5_000, 1)


async def test_p6_a_state_damaged_at_run_time_comes_back(tmp_path: Path) -> None:
    async with site(tmp_path) as board:
        parts = board.gateway._parts
        assert parts is not None
        (tmp_path / "state.db-wal").unlink()
        overwrite(tmp_path / "state.db", 0, 6)
        await parts.state.copy()  # as every hour
        assert await board.send(1) == 202
        assert "it came back from its copy" in (await board.ready())["notices"][0]
        await board.gateway.add_device("another")


async def test_p6_a_state_that_cannot_be_restored_yet_is_restored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as board:
        (tmp_path / "state.db-wal").unlink()
        overwrite(tmp_path / "state.db", 0, 6)
        with monkeypatch.context() as full:
            full.setattr("gateway.storage.state.restore", no_space_left)
            with pytest.raises(StoreFailed, match="cannot be restored yet"):
                await board.gateway.add_device("another")
        await board.gateway.add_device("another")
        assert "it came back from its copy" in (await board.ready())["notices"][0]


async def test_p7_no_copy_gives_a_revoked_board_its_access_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with State.open(tmp_path / "state.db", b"k" * 32, clock=SystemClock(), tell=lambda _: None) as state:
        await state.add_device("default", "stolen")
        monkeypatch.setattr("gateway.storage.state.write_copy", no_space_left)
        await state.revoke_device("default", "stolen")
    (tmp_path / "state.db").write_bytes(random.Random(1).randbytes(20_000))
    async with State.open(tmp_path / "state.db", b"k" * 32, clock=SystemClock(), tell=lambda _: None) as state:
        assert not await Credentials(state).all()


async def test_p6_a_log_that_cannot_be_replaced_yet_is_said_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.storage.log_files.replace_log", no_space_left)
    async with site(tmp_path) as board:
        assert await board.send(1) == 202
        parts = board.gateway._parts
        assert parts is not None
        parts.log.care.report("a test says so")
        async with asyncio.timeout(20):
            body = await board.until_noticed("could not be repaired yet")
            assert body["http"] == 503
            assert await board.send(2) == 503
            await board.metrics()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    assert (tmp_path / "running").exists(), "so that the next start looks at it"


async def test_p6_a_full_disk_is_left_with_the_ballasts_help_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = tmp_path / "ballast"
    async with site(tmp_path) as board:
        assert await board.send(1) == 202
    ballast.write_bytes(b"")

    def connect_with_room(*arguments: Any, **settings: Any) -> sqlite3.Connection:
        if ballast.exists():
            raise sqlite3.OperationalError("disk I/O error")
        return log_connect(*arguments, **settings)

    log_connect = log_module._connect
    monkeypatch.setattr(log_module, "_connect", connect_with_room)
    monkeypatch.setattr("gateway.storage.log_files.is_full", lambda _: True)
    async with opened(tmp_path / "log.db") as log:
        assert not ballast.exists()
        assert log.last_row == 1


async def test_p6_a_command_does_not_repair_behind_the_gateways_back(tmp_path: Path) -> None:
    await register(tmp_path)
    (tmp_path / "state.db").write_bytes(random.Random(1).randbytes(20_000))
    with pytest.raises(StoreFailed, match="damaged") as caught:
        await register(tmp_path)
    assert "Start the gateway" in caught.value.hint
    assert not corrupt_files(tmp_path)


async def test_p6_a_command_does_not_repair_the_log_either(tmp_path: Path) -> None:
    await fill(tmp_path / "log.db", 1_000)
    (tmp_path / "log.db").write_bytes(random.Random(1).randbytes(20_000))
    async with connect(Settings.model_validate({"gateway": {"data_dir": tmp_path}})) as link:
        with pytest.raises(StoreFailed, match="damaged") as caught:
            async for _ in link.stream(erase_device, organization_id="default", device_id="board-001"):
                pass
    assert "Start the gateway" in caught.value.hint
    assert not corrupt_files(tmp_path)


async def test_p6_a_read_only_folder_is_explained(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    DataDir(folder).ensure()
    (folder / "lock").mkdir()  # what root cannot write to, either
    with pytest.raises(ConfigError) as caught:
        async with running(folder):
            pass
    assert "gateway.data_dir" in caught.value.hint


async def test_p6_a_log_that_may_not_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "log.db").mkdir()
    with pytest.raises(NeurogateError) as caught:
        async with running(tmp_path):
            pass
    assert "log" in caught.value.message
    assert caught.value.hint
