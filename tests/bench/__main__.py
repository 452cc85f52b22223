"""`scripts/bench`: measure this machine, print one table.

`rates` is what the gateway takes in, into a log that is not empty, and what it delivers, from a board to a receiver.
`destinations` is what five destinations that fail cost five others.
`peers` is what the gateway takes in beside others that do the same work, as ratios.
`backlog` is what a week of undelivered readings costs: the start, catching up, memory, and those who send readings.
`fanout` is one message to ten subscribers, in turns with mosquitto and stock amqtt.
`broker` is what connections cost, and what one client can do to the others.
"""

import argparse
import asyncio
import os
import platform
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.backlog import backlog
from tests.bench.broker import broker
from tests.bench.brokers import NotInstalled
from tests.bench.destinations import destinations
from tests.bench.fanout import fanout
from tests.bench.measurements import Row, end_to_end, ingest
from tests.bench.peers import CONNECTIONS, peers

_DESTINATIONS_SHARE = 10  # each reading is delivered five times, in each turn
_TURN_S = 5.0
"""Each turn of a comparison."""
_PEERS_TURN_S = 3.0
"""Of which there are 24 in a round."""


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = ["rates", "backlog", "fanout", "broker", "destinations", "peers"]
    parser.add_argument("what", nargs="?", choices=what, default="rates", help="by default rates")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything: does it run?")
    parser.add_argument("--seconds", type=float, default=60, help="length of the ingest measurement of rates")
    parser.add_argument("--turn-seconds", type=float, default=_PEERS_TURN_S, help="length of each turn of peers")
    parser.add_argument("--rows", type=int, default=1_000_000, help="readings in the log before")
    parser.add_argument("--readings", type=int, default=300_000, help="readings sent end to end by rates")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each comparison of backlog, fanout, destinations and peers"
    )
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
        rows += asyncio.run(_measure(base, arguments, scale))
    except NotInstalled as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(base)
    table = Table("measured", "value", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


async def _measure(base: Path, arguments: argparse.Namespace, scale: int) -> list[Row]:
    if arguments.what == "backlog":
        return await backlog(
            base / "backlog",
            connections=100,
            rows=arguments.rows // scale,
            seconds=_TURN_S / scale,
            rounds=arguments.rounds,
        )
    if arguments.what == "destinations":
        readings = arguments.rows // scale // _DESTINATIONS_SHARE
        return await destinations(base / "destinations", readings=readings, rounds=arguments.rounds)
    if arguments.what == "broker":
        return await broker(base / "broker", boards=1_000 // scale, stuck_mb=200 // scale)
    if arguments.what == "fanout":
        return await fanout(base / "fanout", seconds=_TURN_S / scale, rounds=1 if arguments.quick else arguments.rounds)
    if arguments.what == "peers":
        return await peers(
            base / "peers",
            connections=[boards // scale for boards in CONNECTIONS],
            seconds=arguments.turn_seconds / scale,
            rounds=1 if arguments.quick else arguments.rounds,
        )
    rows = await ingest(
        base / "ingest",
        connections=100,
        window=10,
        seconds=arguments.seconds / scale,
        rows=arguments.rows // scale,
    )
    return rows + await end_to_end(base / "e2e", connections=100, window=10, readings=arguments.readings // scale)


if __name__ == "__main__":
    main()
