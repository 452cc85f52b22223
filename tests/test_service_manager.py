"""What systemd is told, over its own kind of socket: ready when the ports are open, fed while readings get on."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from gateway import service_manager
from gateway.service_manager import ServiceManager
from gateway.storage.commit_thread import CommitThread, Transaction
from gateway.storage.progress import Progress
from tests.gateway_process import WAIT_S, GatewayProcess
from tests.site import FailingDisk, Site, reading, until

FEED_EVERY_S = 0.05


class Manager:
    """The receiving end of `$NOTIFY_SOCKET`."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.environ = {"NOTIFY_SOCKET": address}
        self.told: list[str] = []

    def next(self) -> list[str]:
        """Wait for a message, and return its fields."""
        self.socket.settimeout(WAIT_S)
        return self.socket.recv(65_536).decode().splitlines()

    def until(self, field: str) -> list[str]:
        """Return everything up to the message with that field."""
        fields: list[str] = []
        while field not in fields:
            fields += self.next()
        return fields

    def count(self, field: str) -> int:
        """How often that has been told since the last count, without waiting."""
        self.socket.settimeout(0)
        found = 0
        with suppress(BlockingIOError):
            while True:
                found += field in self.socket.recv(65_536).decode().splitlines()
        return found


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(getattr(request, "param", str(tmp_path / "notify")))
    with manager.socket:
        yield manager


@contextmanager
def started(folder: Path, environ: Mapping[str, str]) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        gateway.process = gateway.popen("run", stderr=subprocess.DEVNULL)
    try:
        yield gateway
    finally:
        gateway.kill()


def listening_ports(pid: int) -> list[str]:
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


@pytest.mark.parametrize("manager", [f"@neurogate-test-{os.getpid()}"], indirect=True, ids=["abstract"])
def test_a_gateway_is_ready_when_its_ports_are_open_is_fed_and_says_that_it_stops(
    tmp_path: Path, manager: Manager
) -> None:
    with started(tmp_path, manager.environ | {"WATCHDOG_USEC": "400000"}) as gateway:
        assert gateway.process is not None
        fields = manager.until("READY=1")
        assert len(listening_ports(gateway.process.pid)) == 2
        assert "WATCHDOG=1" not in fields
        assert f"EXTEND_TIMEOUT_USEC={30_000_000}" in fields
        fields = manager.until("WATCHDOG=1")
        fields += manager.until("WATCHDOG=1")
        assert any(field.startswith("STATUS=Takes in readings: 0 since the start") for field in fields)
        gateway.process.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert gateway.process.wait(WAIT_S) == 0
    assert not manager.count("WATCHDOG=1")


def test_a_stopped_process_feeds_nobody(tmp_path: Path, manager: Manager) -> None:
    with started(tmp_path, manager.environ | {"WATCHDOG_USEC": "200000"}) as gateway:
        assert gateway.process is not None
        manager.until("WATCHDOG=1")
        gateway.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, gateway.process.pid, os.WSTOPPED | os.WNOWAIT)
        manager.count("WATCHDOG=1")
        manager.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            manager.socket.recv(65_536)
        gateway.process.send_signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "none"}])
def test_without_a_watchdog_nothing_is_fed(tmp_path: Path, manager: Manager, environ: dict[str, str]) -> None:
    with started(tmp_path, manager.environ | environ) as gateway:
        assert gateway.process is not None
        manager.until("READY=1")
        gateway.process.send_signal(signal.SIGTERM)
        assert "WATCHDOG=1" not in manager.until("STOPPING=1")


@asynccontextmanager
async def told(site: Site, manager: Manager) -> AsyncIterator[None]:
    watchdog = {"WATCHDOG_USEC": str(round(FEED_EVERY_S * 2 * 1_000_000))}
    service = ServiceManager(manager.environ | watchdog, site.gateway.makes_progress, site.gateway.status)
    ready, stop = asyncio.Event(), asyncio.Event()
    ready.set()
    telling = asyncio.create_task(service.keep_told(ready, stop))
    yield
    stop.set()
    await telling


async def sent(site: Site) -> int:
    """Send a reading over HTTP, and return the answer's status."""
    headers = {"x-api-key": site.kitchen.password, "content-type": "application/json"}
    async with site.http.post(site.url("/api/v1/sensor-data"), data=reading(), headers=headers) as answer:
        return answer.status


async def fed(manager: Manager) -> None:
    await until(lambda: manager.count("WATCHDOG=1") > 0, "a feeding")


async def never_fed(manager: Manager) -> None:
    await asyncio.sleep(FEED_EVERY_S * 2)  # what was on its way
    manager.count("WATCHDOG=1")
    await asyncio.sleep(FEED_EVERY_S * 10)
    assert not manager.count("WATCHDOG=1")


async def test_a_writer_that_hangs_is_not_fed_for_and_one_that_goes_on_is(
    site: Site, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that does not answer: the event loop turns, and nothing gets on."""
    attempt, hangs, goes_on = CommitThread._attempt, threading.Event(), threading.Event()

    def hanging(thread: CommitThread, transaction: Transaction) -> Exception | None:
        hangs.set()
        goes_on.wait(WAIT_S)
        return attempt(thread, transaction)

    async with told(site, manager):
        await fed(manager)
        monkeypatch.setattr(CommitThread, "_attempt", hanging)
        sending = asyncio.create_task(sent(site))
        await until(hangs.is_set, "a hanging commit")
        try:
            await never_fed(manager)
        finally:
            goes_on.set()
        await fed(manager)
        assert await sending == 202


async def test_commits_that_are_never_made_are_no_progress(
    site: Site, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread answers and readings wait for ever: a fault of ours, which only a restart mends."""
    progress = Progress(site.log)
    assert await progress.is_made()
    monkeypatch.setattr(site.log, "_schedule", lambda: None)
    sending = asyncio.create_task(sent(site))
    await until(lambda: bool(site.log.waiting), "a waiting reading")
    assert await progress.is_made()  # seen to wait for the first time
    assert not await progress.is_made()
    async with told(site, manager):
        await never_fed(manager)
        monkeypatch.undo()
        site.log._schedule()
        await fed(manager)
    assert await sending == 202
    assert await progress.is_made()


async def test_a_disk_that_fails_is_told_of_and_no_reason_to_be_restarted(
    site: Site, manager: Manager, disk: FailingDisk
) -> None:
    disk.failing = True
    assert await sent(site) == 503
    async with told(site, manager):
        fields = await asyncio.to_thread(manager.until, "WATCHDOG=1")
        fields += await asyncio.to_thread(manager.next)
        assert "disk I/O error" in str(fields)
    disk.failing = False


async def test_a_long_start_is_asked_patience_for_but_not_for_ever(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none() -> bool:
        raise NotImplementedError

    monkeypatch.setattr(service_manager, "_ASK_EVERY_S", 0.01)
    monkeypatch.setattr(service_manager, "_LONGEST_START_S", 0.3)
    service = ServiceManager(manager.environ, none, none)  # type: ignore[arg-type]
    starting = asyncio.create_task(service.keep_told(asyncio.Event(), asyncio.Event()))
    await until(lambda: manager.count("EXTEND_TIMEOUT_USEC=30000000") > 0, "patience asked for")
    await asyncio.sleep(0.4)
    manager.count("EXTEND_TIMEOUT_USEC=30000000")
    await asyncio.sleep(0.1)
    assert not manager.count("EXTEND_TIMEOUT_USEC=30000000")
    starting.cancel()
