"""What we take in beside what else one could run, each doing the same work: parse, validate, dedupe, store.

- neurogate as it is run, with its default settings
- (a) amqtt alone, as fast as it gets; it stores nothing, so it does less than all others
- (b) mosquitto, and behind it a paho subscriber with our ingest and our writer, each a process of its own
- (c) the ceiling: our ingest and our writer behind a protocol that only frames PUBLISH

Same boards, same payload, same load generator in a process of its own; each turn has a fresh contender on a copy of the
same folder, and the turns of all alternate, so that whatever else the machine does hits each of them.

The rate of neurogate, (a) and (c) is that of PUBACKs, after a warm-up; with neurogate and (c) there must be a row in
the log for each PUBACK. With (b) a PUBACK promises nothing: mosquitto gives it from memory, far ahead of its
subscriber, whose rate is meant. So the rate of (b) is the rows in the log from the end of the warm-up to the last row,
and its boards publish for a quarter of the time only: else what waits in mosquitto would grow for as long as they
publish. While the rest is stored the subscriber has the machine for itself, and it always has as many readings at once
as it can take, whatever the window of the boards is: both are in favour of (b), and with a window of 1 the second is
most of what is seen. Its mosquitto has no limits, no logins and nothing on disk.
"""

import asyncio
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from gateway.storage.data_dir import DataDir
from tests.bench import brokers, process, site
from tests.bench.brokers import AMQTT, MOSQUITTO, NEUROGATE
from tests.bench.measurements import Row

BARE = "bare protocol"
CONTENDERS = (NEUROGATE, AMQTT, MOSQUITTO, BARE)

CONNECTIONS = (10, 100, 1_000)
WINDOWS = (1, 10)

_SAYS = {
    NEUROGATE: "neurogate",
    AMQTT: "(a) amqtt, stores nothing",
    MOSQUITTO: "(b) mosquitto, subscriber",
    BARE: "(c) bare protocol",
}
_ASKED_AT = 100
_ASKED = {AMQTT: 2.5, MOSQUITTO: 1.5, BARE: 0.7}

_STORED_S = 60
_LOOK_S = 0.02
_AHEAD = 4  # (b): how much shorter its boards publish


@dataclass(slots=True, frozen=True)
class Turn:
    """What one contender did."""

    rate: float
    """Readings a second."""
    acked: int
    stored: int
    busy: float
    """Of a core: the load generator."""


async def peers(folder: Path, *, seconds: float, rounds: int, connections: Sequence[int] = CONNECTIONS) -> list[Row]:
    """Compare all. Raises NotInstalled."""
    table: list[Row] = [
        ("compared to", brokers.versions()),
        ("ratios", "x: neurogate's rate is so many times this one's"),
    ]
    prepared = folder / "prepared"
    logins = json.loads((await site.prepare(prepared, devices=max(connections), readings=0)).read_text())
    seen: defaultdict[tuple[int, int, str], list[Turn]] = defaultdict(list)
    for _, boards, window, name in product(range(rounds), connections, WINDOWS, CONTENDERS):
        with site.copied(prepared) as running:
            logins_file = running / "boards.json"
            logins_file.write_text(json.dumps(logins[:boards]))
            seen[boards, window, name].append(await turn(name, running, logins_file, window=window, seconds=seconds))
    for boards, window in product(connections, WINDOWS):
        table += _compare(boards, window, {name: seen[boards, window, name] for name in CONTENDERS})
    return table


async def turn(name: str, folder: Path, logins_file: Path, *, window: int, seconds: float) -> Turn:
    """Let one contender take in what it can. Raises NotInstalled."""
    async with _contender(name, folder) as port:
        if name == MOSQUITTO:
            return await _stored(port, folder, logins_file, window, seconds)
        warm_up = seconds / 4
        measured = await site.load(port, logins_file, window=window, seconds=seconds, warm_up=warm_up)
        stored = 0 if name == AMQTT else _rows(folder)
    return Turn(measured["rate"], round(measured["acked"]), stored, measured["busy"])


async def _stored(port: int, folder: Path, logins_file: Path, window: int, seconds: float) -> Turn:
    """Measure what comes to the log, until all is there."""
    publishing_s = seconds / _AHEAD
    load = site.load(port, logins_file, window=window, seconds=publishing_s, warm_up=publishing_s)
    loading = asyncio.create_task(load)
    looks: list[tuple[float, int]] = []
    ends = time.perf_counter() + seconds + _STORED_S
    while True:
        looks.append((time.perf_counter(), _rows(folder)))
        if loading.done() and (looks[-1][1] >= loading.result()["acked"] or looks[-1][0] >= ends):
            break
        await asyncio.sleep(_LOOK_S)
    measured, stored = loading.result(), looks[-1][1]
    started, before = next(look for look in looks if look[0] >= measured["started"])
    last = next(at for at, rows in looks if rows == stored)
    return Turn((stored - before) / (last - started), round(measured["acked"]), stored, measured["busy"])


def _rows(folder: Path) -> int:
    """Return how many readings are on disk."""
    with closing(sqlite3.connect(DataDir(folder).log_db)) as db:
        (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM device_telemetry_history").fetchone()
    rows: int = newest
    return rows


@asynccontextmanager
async def _contender(name: str, folder: Path) -> AsyncIterator[int]:
    """Run a contender on a prepared folder; yields the port where boards publish."""
    if name == BARE:
        async with process.listening("tests.bench.peers_bare", folder) as port:
            yield port
    elif name == MOSQUITTO:
        async with (
            brokers.broker(MOSQUITTO, folder, mosquitto=brokers.QUEUES_LIFTED) as mosquitto,
            process.listening("tests.bench.peers_subscriber", folder, mosquitto.port) as port,
        ):
            yield port
    else:
        async with brokers.broker(name, folder) as running:
            yield running.port


def _compare(boards: int, window: int, seen: dict[str, list[Turn]]) -> list[Row]:
    """Name the medians of the rounds, and the ratios round by round: their turns share the noise of the machine."""
    busy = max(one.busy for turns in seen.values() for one in turns)
    table: list[Row] = [(f"{boards:,} connections, window {window}", f"load generator {busy:.0%} of a core at most")]
    for name, turns in seen.items():
        told = f"{median(one.rate for one in turns):,.0f}/s"
        if name != NEUROGATE:
            ratio = median(ours.rate / one.rate for ours, one in zip(seen[NEUROGATE], turns, strict=True))
            told += f", x {ratio:.2f}" + (f" (asked: {_ASKED[name]})" if boards == _ASKED_AT else "")
        if name != AMQTT:
            missing = sum(one.acked - one.stored for one in turns)
            told += f", {missing:,} not stored" if missing else ", all stored"
        table.append((f"  {_SAYS[name]}", told))
    return table
