"""Writes down what this release leaves on disk; run once for each release, before it is published:

    python -m tests.storage.released.record

A folder named by the version then holds the SQL of both databases with rows in every table, what must be found in them
(`known.json`), and a configuration with every setting of the release. It is never changed afterwards. What has a method
in the store is written by that; losses and salvages, which need a full disk or a damaged one, are written as they are.
"""

import asyncio
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.clock import ManualClock
from gateway.config import StorageSettings
from gateway.config.reference import commented_file
from gateway.metrics import Metrics
from gateway.model.reading import NewQuarantine, NewReading, TimeSource
from gateway.storage import mqtt_store
from gateway.storage.commit_thread import Statements
from gateway.storage.credentials import Credentials
from gateway.storage.cursors import Attempt
from gateway.storage.log import Log
from gateway.storage.mqtt_messages import Frozen, MqttMessages
from gateway.storage.mqtt_store import KeptMessage, MqttStore
from gateway.storage.state import State
from gateway.storage.tokens import Tokens

HERE = Path(__file__).parent
KEY = bytes(range(32))
T0 = 1_763_640_000_000
READINGS = 6
REFUSED = 2
"""The row that a destination has refused."""
ACKNOWLEDGED = 3
"""Up to this row it has everything else."""

_AS_IT_IS = (
    ("INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?)", [("archive", 3, 1, 3, T0, T0)]),
    ("INSERT INTO dead_letter_losses VALUES (?, ?, ?, ?, ?, ?)", [("archive", 1, 1, 1, T0, T0)]),
    (
        "INSERT INTO salvages VALUES (1, ?, 'page 7 is damaged', ?, 0, 0, 5, 1, 1, 1)",
        [("log.db.corrupt-20251120T120000Z", T0)],
    ),
)


def main() -> None:
    """Record this release."""
    folder = HERE / __version__
    if folder.exists():
        sys.exit(f"{folder} exists: what has been released is never edited.")
    with tempfile.TemporaryDirectory() as name:
        known = asyncio.run(_fill(Path(name)))
        folder.mkdir()
        for database in ("log", "state"):
            (folder / f"{database}.sql").write_text("".join(_dump(Path(name) / f"{database}.db")), "utf-8")
    (folder / "known.json").write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    (folder / "neurogate.toml").write_text(_every_setting(), "utf-8")
    print(f"Wrote {folder}.")


async def _fill(folder: Path) -> dict[str, Any]:
    clock, metrics = ManualClock(T0), Metrics()
    async with (
        State.open(folder / "state.db", KEY, clock=clock) as state,
        Log.create(folder / "log.db", StorageSettings(), clock=clock, metrics=metrics) as log,
    ):
        known = await _fill_state(state)
        await _fill_log(log, clock)
        store = MqttStore(log)
        messages = MqttMessages(
            log, store, state, clock, metrics, max_messages=10, max_bytes=100_000, max_age_s=86_400.0
        )
        await messages.open()
        row = await messages.subscribe("default", ("devices/#",), "http://127.0.0.1:9/")
        kept = messages.keep("default/devices/kitchen/status", b'{"on": true}', 1, retain=False)
        assert kept is not None
        await store.written([*_of_clients(), kept[1]])
        await messages.freeze(row.id, Frozen("msg_1", 0, 1, 1))
        return known | {"log_uuid": log.uuid, "subscription": row.id}


async def _fill_state(state: State) -> dict[str, Any]:
    credentials, tokens = Credentials(state), Tokens(state)
    device = await state.add_device(
        "default", "kitchen", {"room": "kitchen"}, hardware_ids=["aa:bb:cc"], serial_number="SN-1"
    )
    await state.add_device("default", "revoked")
    await state.revoke_device("default", "revoked")
    hub, site = await credentials.add("hub", "default"), await credentials.add("dashboard", None)
    new_password = await credentials.rotate(device.username, 86_400_000)
    token = await tokens.add("owner", "default", "owner")
    return {
        "logins": {
            "rotated": [device.username, device.password],
            "device": [device.username, new_password],
            "hub": [hub.username, hub.password],
            "site": [site.username, site.password],
        },
        "token": token.token,
    }


async def _fill_log(log: Log, clock: ManualClock) -> None:
    await log.open_cursor("building", start="oldest")
    for seq in range(1, READINGS + 1):
        clock.advance(1_000)
        payload = json.dumps({"device_id": "kitchen", "boot_id": "b", "seq": seq, "sensors": {"pir": {"pulses": seq}}})
        reading = NewReading(
            log.stream("default", "kitchen", "b"),
            seq,
            T0 + seq,
            TimeSource.DEVICE,
            clock.now_ms(),
            clock.monotonic_ms(),
            payload.encode(),
            raw=b"as it came" if seq == 1 else None,
            metadata='{"room":"kitchen"}',
        )
        await log.append([reading])
    await log.append([NewQuarantine("default", "kitchen", "http", "not_json", "No JSON.", clock.now_ms(), b"{")])
    refused = (await log.read(REFUSED - 1, until=REFUSED, limit=1))[0]
    await log.dead_letters.set_aside("building", refused, "422: what is this?", clock.now_ms())
    await log.transact(
        Statements((("UPDATE dead_letters SET provisional = 0 WHERE destination = ?", [("building",)]), *_AS_IT_IS))
    )
    log.move_cursor("building", ACKNOWLEDGED)
    await log.freeze(
        Attempt("building", "msg_frozen", ACKNOWLEDGED, READINGS, READINGS - ACKNOWLEDGED, "00", clock.now_ms())
    )
    await log.learn_clock()


def _of_clients() -> Iterator[mqtt_store.Change]:
    waiting = KeptMessage(1, 1, "default/devices/kitchen/status", b"waits", 1, False, T0, False, False)  # noqa: FBT003 - a row
    yield from mqtt_store.begin_session(1, "hub|panel", "default/")
    yield mqtt_store.subscribe(1, "default/devices/#", 1)
    yield mqtt_store.take_id(1, 7)
    yield mqtt_store.queue_message(1, waiting)
    yield mqtt_store.retain("default/devices/kitchen/status", b"retained", 1)
    yield from mqtt_store.leave_session(1, T0)


def _dump(path: Path) -> Iterator[str]:
    """Yield the statements that make the database again, its version too."""
    with closing(sqlite3.connect(path)) as db:
        for pragma in ("auto_vacuum", "user_version"):
            yield f"PRAGMA {pragma} = {db.execute(f'PRAGMA {pragma}').fetchone()[0]};\n"
        for statement in db.iterdump():
            yield f"{statement}\n"


def _every_setting() -> str:
    """Return the commented file without its examples, each setting at its default."""
    return re.sub(r"^#(\w+ = )", r"\1", commented_file().partition("\n#[[")[0], flags=re.MULTILINE) + "\n"


if __name__ == "__main__":
    main()
