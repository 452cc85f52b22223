"""`scripts/bench`: measure this machine, print one table.

`rates` is what the gateway takes in, into a log that is not empty, and what it delivers, from a board to a receiver.
`destinations` is what five destinations that fail cost five others.
`clouds` is what three destinations that fail cost four others, one of each kind, and the memory of a million readings.
`peers` is what the gateway takes in beside others that do the same work, as ratios.
`latency` is how long a reading takes to its acknowledgement and to a webhook, and the memory of many connections.
`disk` is what is written to disk for each reading.
`backlog` is what a week of undelivered readings costs: the start, catching up, memory, and those who send readings.
`fanout` is one message to ten subscribers, in turns with mosquitto and stock amqtt.
`external` is what is taken in from somebody else's broker, and memory.
`broker` is what connections cost, and what one client can do to the others.
"""

import argparse
import asyncio
import os
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.backlog import backlog
from tests.bench.broker import broker
from tests.bench.brokers import NotInstalled
from tests.bench.clouds import clouds
from tests.bench.destinations import destinations
from tests.bench.disk import NotOnDisk, disk
from tests.bench.external import external
from tests.bench.fanout import fanout
from tests.bench.latency import latency
from tests.bench.measurements import Row, end_to_end, ingest
from tests.bench.peers import CONNECTIONS, peers

_DESTINATIONS_SHARE = 10  # each reading is delivered five times, in each turn
_TURN_S = 5.0
_PEERS_TURN_S = 3.0
"""Of which there are 24 in a round."""
_LATENCY_TURN_S = 10.0
_CLOUDS_TURN_S = 20.0
_DISK_TURN_S = 15.0
"""With one reading a second."""


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=_MEASURES, default="rates", help="by default rates")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: does it run?")
    parser.add_argument("--seconds", type=float, default=60, help="length of the ingest measurement of rates")
    parser.add_argument("--turn-seconds", type=float, help="length of each turn of peers, latency, clouds and disk")
    parser.add_argument("--rows", type=int, default=1_000_000, help="readings in the log before")
    parser.add_argument("--readings", type=int, default=300_000, help="readings sent end to end by rates")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each comparison and of latency")
    parser.add_argument("--folder", type=Path, help="where the data goes (default: beside the checkout's temp files)")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    rows: list[Row] = [
        ("date", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
        ("machine", f"{os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.machine()}, load generator included"),
        ("software", f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, synchronous=FULL"),
    ]
    base = Path(tempfile.mkdtemp(prefix="neurogate-bench-", dir=arguments.folder or "/var/tmp"))
    try:
        rows += asyncio.run(_MEASURES[arguments.what](base / arguments.what, arguments, scale))
    except (NotInstalled, NotOnDisk) as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(base)
    table = Table("measured", "value", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


async def _rates(folder: Path, options: argparse.Namespace, scale: int) -> list[Row]:
    rows = await ingest(
        folder / "ingest",
        connections=100,
        window=10,
        seconds=options.seconds / scale,
        rows=options.rows // scale,
    )
    return rows + await end_to_end(folder / "e2e", connections=100, window=10, readings=options.readings // scale)


_Measure = Callable[[Path, argparse.Namespace, int], Coroutine[None, None, list[Row]]]
"""What is measured in a folder; everything is to be divided by the number."""

_MEASURES: dict[str, _Measure] = {
    "rates": _rates,
    "peers": lambda folder, options, scale: peers(
        folder,
        connections=[boards // scale for boards in CONNECTIONS],
        seconds=(options.turn_seconds or _PEERS_TURN_S) / scale,
        rounds=1 if options.quick else options.rounds,
    ),
    "latency": lambda folder, options, scale: latency(
        folder,
        connections=1_000 // scale,
        seconds=(options.turn_seconds or _LATENCY_TURN_S) / scale,
        rounds=1 if options.quick else options.rounds,
    ),
    "clouds": lambda folder, options, scale: clouds(
        folder,
        seconds=(options.turn_seconds or _CLOUDS_TURN_S) / scale,
        rounds=1 if options.quick else options.rounds,
        readings=options.rows // scale,
    ),
    "disk": lambda folder, options, scale: disk(folder, seconds=(options.turn_seconds or _DISK_TURN_S) / scale),
    "backlog": lambda folder, options, scale: backlog(
        folder,
        connections=100,
        rows=options.rows // scale,
        seconds=_TURN_S / scale,
        rounds=options.rounds,
    ),
    "fanout": lambda folder, options, scale: fanout(
        folder, seconds=_TURN_S / scale, rounds=1 if options.quick else options.rounds
    ),
    "external": lambda folder, options, scale: external(
        folder, messages=options.readings // scale, rounds=1 if options.quick else options.rounds
    ),
    "broker": lambda folder, _, scale: broker(folder, boards=1_000 // scale, stuck_mb=200 // scale),
    "destinations": lambda folder, options, scale: destinations(
        folder, readings=options.rows // scale // _DESTINATIONS_SHARE, rounds=options.rounds
    ),
}


if __name__ == "__main__":
    main()
