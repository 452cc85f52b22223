"""A server that refuses some readings, and what would be left had the power failed while it did."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_sync.contract import Batch, Ok, Outcome, Rejected, TooLarge
from cloud_sync.forwarder import Forwarder
from tests.cloud_sync.site import Scripted, Site, open_site, running, until

NAME = "cloud"


@dataclass
class Server:
    """The other side: it outlives the gateway, refuses the poison, and remembers what came under which id."""

    poison: set[int] = field(default_factory=set)
    names_culprits: bool = False
    is_certain: bool = False
    takes_at_most: int = 10_000
    accepted: dict[int, set[str]] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    requests: list[list[int]] = field(default_factory=list)

    def take(self, batch: Batch, body: bytes) -> Outcome:
        rows = [reading.row for reading in batch.readings]
        self.requests.append(rows)
        assert self.bodies.setdefault(batch.id, body) == body, "an id came again with another body"
        if len(rows) > self.takes_at_most:
            return TooLarge("too much")
        if bad := sorted(self.poison.intersection(rows)):
            return Rejected("cannot be read", bad if self.names_culprits else (), is_certain=self.is_certain)
        for row in rows:
            if not self.accepted.get(row):
                self.order.append(row)
            self.accepted.setdefault(row, set()).add(batch.id)
        return Ok()


class Remote(Scripted):
    """A destination that asks a server, after the scripted answers."""

    def __init__(self, server: Server, *answers: Outcome, **settings: Any) -> None:
        super().__init__(**settings)
        self.server = server
        self.answers = list(answers)

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        self.sent.append((batch, body))
        return self.answers.pop(0) if self.answers else self.server.take(batch, body)


async def flush(site: Site) -> None:
    """Write the cursor's move now, instead of within a second."""
    site.log._flush_moves()
    await site.log._idle.wait()


async def replays_settled(forwarder: Forwarder) -> None:
    """Wait until everything that was requested has had its answer."""
    forwarder.replay()
    await until(lambda: not forwarder._replay._wanted.is_set())


async def letters(site: Site, *, provisional: bool = False) -> list[int]:
    await flush(site)
    return [letter.reading.row for letter in await site.log.dead_letters.letters() if letter.provisional is provisional]


def settled(forwarder: Forwarder, site: Site) -> Callable[[], bool]:
    return lambda: forwarder._live.reach == site.log.last_row


def columns(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


READINGS = 16


@dataclass
class Snapshots:
    """What would be on disk, and known to the server, had the power failed at each step."""

    log: Path
    folder: Path
    server: Server
    taken: list[tuple[Path, Server]] = field(default_factory=list)

    def take(self) -> None:
        copy = self.folder / f"{len(self.taken)}"
        copy.mkdir()
        for name in ("log.db", "log.db-wal"):
            if (self.log / name).exists():
                shutil.copy(self.log / name, copy / name)
        self.taken.append((copy, deepcopy(self.server)))


def snapshotting(site: Site, remote: Remote, snapshots: Snapshots) -> None:
    """Take a snapshot before and after each request, and after each write about dead letters."""
    send, letters = remote.send, site.log.dead_letters

    async def observed_send(batch: Batch, body: bytes) -> Outcome:
        snapshots.take()
        outcome = await send(batch, body)
        snapshots.take()
        return outcome

    remote.send = observed_send  # type: ignore[method-assign]
    write = letters._write

    async def observed_write(*statements: Any) -> None:
        await write(*statements)
        snapshots.take()

    letters._write = observed_write


async def resume(copy: Path, server: Server) -> list[tuple[Any, ...]]:
    """Start on a snapshot and deliver everything; returns the dead letters."""
    async with (
        open_site(copy / "log.db") as site,
        running(site.forwarder(Remote(server, batch_max_readings=8))) as forwarder,
    ):
        await until(lambda: forwarder._live.position == site.log.last_row)
        await replays_settled(forwarder)
    return columns(copy / "log.db", "SELECT row, provisional, attempts FROM dead_letters ORDER BY row")
