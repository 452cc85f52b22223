"""Which readings there are: what boards send, and what a log holds."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path

Stream = tuple[str, str]
"""Device and boot_id."""

Acknowledged = Mapping[Stream, set[int]]
"""The sequence numbers that a promise was given for."""

Stored = Mapping[Stream, list[int]]
"""Every sequence number that is there; one that is there twice is in it twice."""

_SENSORS = {
    "ld2410": {"presence": True, "moving": True, "stationary": False, "distance_cm": 123, "moving_energy": 55},
    "pir": {"motion_detected": True, "pulses": 2},
    "mq134": {"gas_concentration": 12.5, "unit": "ppm", "state": "ok", "raw_uv": 812000, "rs_ohm": 31250.0},
}
_REST = json.dumps({"firmware": "1.4.0", "sensors": _SENSORS, "health": {"rssi_dbm": -61, "uptime_s": 86400}})[1:]

_MIXED_UP = """SELECT h.seq FROM device_telemetry_history h NOT INDEXED
    WHERE h.id > ? AND h.seq IS NOT json_extract(h.payload, '$.seq') LIMIT 1"""

_STORED = """SELECT s.device_id, s.boot_id, h.seq FROM streams s
    JOIN device_telemetry_history h ON h.stream = s.id
    WHERE h.id > ? ORDER BY s.id, h.seq"""


def payload(device_id: str, boot_id: str, seq: int) -> bytes:
    """Return a reading as boards send it, about 400 bytes."""
    return f'{{"device_id": "{device_id}", "boot_id": "{boot_id}", "seq": {seq}, {_REST}'.encode()


def newest_row(log_db: Path) -> int:
    """Return the newest row of a log, 0 when there is none."""
    with _open(log_db) as db:
        ((row,),) = db.execute("SELECT coalesce(max(id), 0) FROM device_telemetry_history")
    return int(row)


def stored(log_db: Path, after: int = 0) -> Stored:
    """Return what a log holds in rows after `after`; each row's payload must be that of its key."""
    found: dict[Stream, list[int]] = defaultdict(list)
    with _open(log_db) as db:
        assert not db.execute(_MIXED_UP, (after,)).fetchall(), "a row has another reading's payload"
        for device, boot, seq in db.execute(_STORED, (after,)):
            found[device, boot].append(seq)
    return found


def missing(acknowledged: Acknowledged, in_log: Stored) -> list[tuple[str, str, int]]:
    """Return acknowledged readings that are not stored."""
    return [
        (*stream, seq)
        for stream, seqs in acknowledged.items()
        for seq in sorted(seqs.difference(in_log.get(stream, ())))
    ]


def repeated(in_log: Stored) -> list[Stream]:
    """Return the streams in which a reading is stored more than once."""
    return [stream for stream, seqs in in_log.items() if len(set(seqs)) != len(seqs)]


def integrity(log_db: Path) -> str:
    """Return SQLite's own verdict: `ok`."""
    with _open(log_db) as db:
        return "; ".join(words for (words,) in db.execute("PRAGMA integrity_check"))


def _open(log_db: Path) -> AbstractContextManager[sqlite3.Connection]:
    return closing(sqlite3.connect(f"{log_db.absolute().as_uri()}?mode=ro", uri=True, timeout=10))
