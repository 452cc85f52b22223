"""A whole gateway inside the test's own event loop, on free ports, with devices."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiohttp

from gateway.app import Gateway
from gateway.cli.gateway_link import connect
from gateway.clock import ManualClock
from gateway.config import Settings
from gateway.model.reading import NewQuarantine, StoredReading
from gateway.operations import site as operations
from gateway.storage.commit_thread import CommitThread, Transaction
from gateway.storage.log import Log
from gateway.storage.state import DeviceCredential

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE_S = 20.0
"""How long a test waits for what must happen: it costs nothing where it happens, and a busy machine is slow."""


def reading(device_id: str = "kitchen", **fields: Any) -> bytes:
    """A small valid reading."""
    return json.dumps({"device_id": device_id, "sensors": {"pir": {"motion_detected": True}}} | fields).encode()


async def until(holds: Callable[[], bool], what: str = "the condition", *, patience_s: float = PATIENCE_S) -> None:
    """Return as soon as it holds."""
    try:
        async with asyncio.timeout(patience_s):
            while not holds():  # noqa: ASYNC110 - of what is watched, most cannot be waited for
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {patience_s} s") from None


@dataclass
class Site:
    """A running gateway and what a test needs of it."""

    gateway: Gateway
    clock: ManualClock
    settings: Settings
    kitchen: DeviceCredential
    """A device that is always there."""
    http: aiohttp.ClientSession

    @property
    def mqtt_port(self) -> int:
        return self.gateway._running.door.ports.mqtt

    @property
    def http_port(self) -> int:
        return self.gateway._running.http.port

    @property
    def log(self) -> Log:
        return self.gateway._running.log

    @property
    def state_db(self) -> Path:
        return self.settings.gateway.data_dir / "state.db"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    async def stored(self, count: int) -> list[StoredReading]:
        """Return the log once it holds that many readings; more are a failure."""
        await until(lambda: self.log.last_row >= count, f"{count} readings stored")
        return await self.log.read(0, limit=count + 10)

    async def quarantined(self) -> list[NewQuarantine]:
        return [entry for _, entry in await self.log.quarantined()]

    async def metric(self, line_start: str) -> float:
        """Return the value of one sample of /metrics, 0 when it is not there."""
        async with self.http.get(self.url("/metrics")) as response:
            for line in (await response.text()).splitlines():
                if line.startswith(line_start):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    async def command(
        self, operation: Callable[Concatenate[operations.Site, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Carry out an operation as a command does: over the control socket."""
        async with connect(self.settings) as link:
            return await link.call(operation, *args, **kwargs)


@asynccontextmanager
async def running_site(
    data_dir: Path,
    *,
    integrations: Sequence[Mapping[str, Any]] = (),
    serial: Sequence[Mapping[str, Any]] = (),
    kitchen: DeviceCredential | None = None,
    clock: ManualClock | None = None,
    **tables: Mapping[str, Any],
) -> AsyncIterator[Site]:
    """Run a gateway; `tables` are sections of its settings. `kitchen` is there already after a restart."""
    local = {"host": "127.0.0.1", "port": 0}
    settings = Settings.model_validate(
        {name: dict(table) for name, table in tables.items()}
        | {
            "gateway": {"data_dir": data_dir},
            "mqtt": local | {"websocket_port": 0, "tls_port": 0} | dict(tables.get("mqtt", {})),
            "http": local | {"tls_port": 0} | dict(tables.get("http", {})),
            "egress": {"policy": "any"} | dict(tables.get("egress", {})),
            "integrations": integrations,
            "serial": serial,
        }
    )
    clock = clock or ManualClock()
    gateway = Gateway(settings, clock=clock)
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(gateway.run(stop, ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
    waiting.cancel()
    if running.done():
        running.result()
    assert ready.is_set(), f"the gateway was not ready within {PATIENCE_S} s"
    try:
        kitchen = kitchen or await gateway.add_device("kitchen")
        async with aiohttp.ClientSession() as http:
            yield Site(gateway, clock, settings, kitchen, http)
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await running


class FailingDisk:
    """Lets commits fail like a broken disk while it is told to."""

    def __init__(self) -> None:
        self.failing = False
        self.failed = 0

    def attempt(self, thread: CommitThread, transaction: Transaction) -> Exception | None:
        if not self.failing:
            return _REAL_ATTEMPT(thread, transaction)
        self.failed += 1
        return _REAL_ATTEMPT(thread, _Failing(transaction))


class _Failing:
    """A transaction that fails at its very end."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.rolled_back = transaction.rolled_back

    def write(self, db: sqlite3.Connection) -> None:
        self._transaction.write(db)
        raise sqlite3.OperationalError("disk I/O error")


_REAL_ATTEMPT = CommitThread._attempt
