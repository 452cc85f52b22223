"""A whole installation in bad weather, for as long as you like: `python -m tests.soak --minutes 60 [--seed N]`.

A real gateway by a clock that jumps, boards that send again what was not acknowledged, a real receiver; the data
directory is a small disk where the system lets anybody mount one. Ends with exit code 1 when a promise was broken; the
seed tells which weather it was, not at which instant of the gateway's work it came.
"""

import argparse
import asyncio
import logging
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from tests.faulty_link import FaultyLink
from tests.ports import free_port
from tests.promises.boards import acknowledged, running
from tests.promises.false_clock import ClockFile
from tests.promises.gateway_process import GatewayProcess
from tests.promises.readings import integrity, missing, repeated, stored
from tests.promises.receiver_process import ReceiverProcess, Request, delivered
from tests.promises.site import ROOT, Site
from tests.promises.test_p2_once_and_p1_through_every_storm import (
    batches_that_changed,
    readings_in_several_batches,
    redelivered,
)
from tests.soak.weather import SMALL_JUMP_MS, PatientBoard, Weather

BOARDS = 20
RATE_PER_S = 20
DISK_MB = 150
_DRAIN_SHARE = 0.45
_LONGEST_DRAIN_S = 300.0
"""What is kept of the time for what is still to be delivered (a forwarder's backoff may be minutes)."""
_LONGEST_REST_S = 3.0
_SHORTEST_DRAIN_S = 30.0
_OFF_BY_AT_MOST_MS = SMALL_JUMP_MS + 5_000
_STORAGE = 'synchronous = "full"\nmax_bytes = 80000000\nmin_free_bytes = 5000000'
_MOUNT = f'mkdir -p "$1/data" && mount -t tmpfs -o size={DISK_MB}m tmpfs "$1/data" && shift && exec "$@"'
_UNSHARE = ("unshare", "--map-root-user", "--mount")


async def soak(folder: Path, seconds: float, seed: int, *, small_disk: bool) -> list[str]:
    """Run it; returns the broken promises."""
    dice = random.Random(seed)
    port = free_port()
    began, began_ms = time.monotonic(), time.time_ns() // 1_000_000
    async with FaultyLink(port) as link:
        site = Site(folder, webhooks={"cloud": link.port})
        site.write()
        site.config.write_text(site.config.read_text().replace('synchronous = "full"', _STORAGE))
        logins = await site.add_devices(BOARDS)
        clock = ClockFile(folder / "clock")
        clock.set(0, synced=True)
        receiver = ReceiverProcess(port, site.secret, folder / "record.jsonl")
        gateway = GatewayProcess(site, program=("-m", "tests.promises.gateway_with_false_clock", str(folder / "clock")))
        async with receiver, gateway:
            boards = [PatientBoard(login, site.mqtt_port, rate_per_s=RATE_PER_S) for login in logins]
            disk = site.data_dir.log_db.parent if small_disk else None
            log_db, longest_s = site.data_dir.log_db, max(3.0, seconds / 60)
            weather = Weather(dice, gateway, receiver, link, disk, clock, log_db, longest_s)
            async with running(boards):
                while time.monotonic() - began < seconds - min(seconds * _DRAIN_SHARE, _LONGEST_DRAIN_S):
                    await asyncio.sleep(dice.uniform(0.2, _LONGEST_REST_S))
                    name, event = weather.next_event()
                    acked = sum(len(board.acked) for board in boards)
                    print(f"{time.monotonic() - began:7.1f} s  {acked:9,} acknowledged  {name}", flush=True)
                    await event()
                await asyncio.sleep(_LONGEST_REST_S)
            print(f"{time.monotonic() - began:7.1f} s  the sky clears", flush=True)
            await weather.the_gateway_is_restarted()  # else it may wait for minutes: refused by a wrong clock
            drain_s = max(_SHORTEST_DRAIN_S, seconds - (time.monotonic() - began))
            await gateway.everything_delivered("cloud", drain_s)
            await receiver.count()
            code = await gateway.stop()
    promised, requests, in_log = acknowledged(boards), receiver.requests(), stored(site.data_dir.log_db)
    lost, gone = _lost(site.data_dir.log_db), missing(promised, delivered(requests))
    counted = receiver.counted
    arrived = {one for request in requests for one, *_ in request.readings}
    print(
        f"{weather.happened} events; {sum(map(len, promised.values())):,} readings acknowledged, "
        f"{sum(board.resent for board in boards):,} sent again; "
        f"{len(arrived):,} delivered in {len(requests):,} requests, "
        f"{redelivered(requests):,} of them redeliveries, {counted['untimely']:,} refused for a wrong clock; "
        f"{lost:,} counted as lost, {len(gone):,} of the acknowledged missing"
    )
    broken = {
        "the gateway did not stop as it should": code,
        "more acknowledged readings are missing than were counted as lost": gone if len(gone) > lost else (),
        "readings are stored twice": repeated(in_log),
        "one id stands for several readings": _with_several(requests, by_id=True),
        "readings have several ids": _with_several(requests, by_id=False),
        "batches changed": batches_that_changed(requests),
        "readings came in several batches": readings_in_several_batches(requests),
        "a batch came with another body": counted["changed"],
        "a time is wrong": _wrong_times(receiver, boards, weather.frozen, began_ms),
        "a signature was wrong": counted["signature_failures"],
        "a request was malformed": counted["malformed"],
        "the log is damaged": () if integrity(site.data_dir.log_db) == "ok" else True,
        "the gateway crashed": [one for one in gateway.said if "Traceback" in str(one)],
    }
    return [f"{words}: {what!r:.500}" for words, what in broken.items() if what]


def _with_several(requests: Sequence[Request], *, by_id: bool) -> dict[object, set[object]]:
    """Return the ids that stand for several readings, or the readings that have several ids."""
    found: dict[object, set[object]] = defaultdict(set)
    for request in requests:
        for reading_id, *reading in request.readings:
            one, other = (reading_id, tuple(reading)) if by_id else (tuple(reading), reading_id)
            found[one].add(other)
    return {one: others for one, others in found.items() if len(others) > 1}


def _wrong_times(
    receiver: ReceiverProcess, boards: Sequence[PatientBoard], frozen: set[str], began_ms: int
) -> list[dict[str, object]]:
    """Return readings without the time their board gave them, or with one from before or after all this.

    A batch that was frozen by a wrong clock keeps its times.
    """
    board_of = {board.stream: board for board in boards}
    earliest, latest = began_ms - _OFF_BY_AT_MOST_MS, time.time_ns() // 1_000_000 + _OFF_BY_AT_MOST_MS
    credible = range(earliest, latest)
    wrong = []
    for batch in receiver.recorded():
        for one in batch["readings"]:
            theirs = board_of[one["device_id"], one["boot_id"]].time_of(one["seq"])
            keeps_theirs = theirs is None or (one["time"], one["time_source"]) == (theirs, "device")
            times = {_unix_ms(one["time"]), _unix_ms(one["received_at"])}
            is_credible = batch["webhook_id"] in frozen or all(time_ms in credible for time_ms in times)
            if not (keeps_theirs and is_credible):
                wrong.append(one | {"webhook_id": batch["webhook_id"]})
    return wrong


def _unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _lost(log_db: Path) -> int:
    with closing(sqlite3.connect(log_db)) as db:
        return int(db.execute("SELECT coalesce(sum(readings), 0) FROM losses").fetchone()[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--in-folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--small-disk", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.in_folder is None:
        sys.exit(_in_a_folder_of_its_own(wanted.minutes, wanted.seed))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # boards knock at closed doors all the time
    broken = asyncio.run(soak(wanted.in_folder, wanted.minutes * 60, wanted.seed, small_disk=wanted.small_disk))
    for words in broken:
        print(f"BROKEN with --seed {wanted.seed}: {words}")
    print("every promise was kept" if not broken else f"{len(broken)} promises were broken")
    sys.exit(bool(broken))


def _in_a_folder_of_its_own(minutes: float, seed: int) -> int:
    """Start over, with a small disk if the system lets us mount one."""
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.soak", "--minutes", str(minutes), "--seed", str(seed)]
        command += ["--in-folder", folder]
        may_mount = subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
        if may_mount:
            command = [*_UNSHARE, "sh", "-c", _MOUNT, "sh", folder, *command, "--small-disk"]
        else:
            print("no small disk here: unshare is not permitted", flush=True)
        return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    main()
