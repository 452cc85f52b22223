"""A board without a network: it writes one JSON reading a line, on USB.

Each line is taken in as a message of the board's would be: stored, or put into quarantine. What is no text at all, or
longer than a line may be, is counted and thrown away: at a wrong baud rate there is no end of it. With `acknowledge`,
`{"ack": seq}` is answered to a line that has a `seq` once what became of it is on disk (P1), also if that is
quarantine; a line without one is never answered, or a board that echoes would be answered for ever.
"""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic_core import to_json

from gateway.access import KnownDevices
from gateway.config import SerialTable
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.errors import BadInput, StoreFailed
from gateway.model.text import is_clean_text
from gateway.parsers.standard import load_json
from gateway.sources.serial_port import SerialPort

logger = logging.getLogger(__name__)

_UNCOMMITTED_AT_MOST = 200  # lines; then the port is not read


class LinesSource:
    """See the module's own words. `run` it until cancelled."""

    def __init__(
        self, table: SerialTable, organization_id: str, devices: KnownDevices, ingest: Ingest, metrics: Metrics
    ) -> None:
        self._table = table
        self._organization_id = organization_id
        self._devices = devices
        self._ingest = ingest
        self._metrics = metrics
        self._skipped = metrics.serial_skipped.labels(table.port)
        self._port = SerialPort(table, metrics, self)
        self._owed = _Owed(self._settled, self._not_stored)
        self._line = bytearray()
        self._is_first = True
        self._is_too_long = False
        self._is_garbled = False
        self._is_paused = False

    async def run(self) -> None:
        """Read for ever."""
        await self._port.run()

    @property
    def notices(self) -> list[str]:
        """What its owner should know; each as a sentence."""
        garbled = (
            f"Serial port of {self._table.device_id}: what comes is no text. Is {self._table.speed} its baud rate?"
            if self._is_garbled
            else ""
        )
        return [words for words in (self._port.notice, garbled) if words]

    def opened(self) -> None:
        """Begin; what comes first may be the rest of a line."""
        self._is_first = True

    def received(self, data: bytes) -> None:
        """Take whole lines in, and keep the beginning of the next."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._add(end)
            self._end_line()
        self._add(rest)

    def closed(self) -> None:
        """Drop what has begun; of what is not on disk yet the board will hear nothing."""
        if self._line or self._is_too_long:
            self._discard("line_cut", len(self._line))
        self._forget()
        self._is_garbled = False
        self._start_over()

    def _add(self, piece: bytes) -> None:
        if len(self._line) + len(piece) <= self._table.max_line_bytes and not self._is_too_long:
            self._line += piece
        else:
            self._is_too_long = True
            self._skipped.inc(len(self._line) + len(piece))
            self._line.clear()

    def _end_line(self) -> None:
        line, is_first = bytes(self._line).strip(), self._is_first
        is_too_long = self._is_too_long
        self._forget()
        self._is_first = False
        if is_too_long:
            self._discard("line_too_long", 0)
        elif not line:
            pass
        elif is_first and not line.startswith(b"{"):
            self._discard("line_cut", len(line))
        elif not _is_text(line):
            self._is_garbled = True
            self._discard("line_not_text", len(line))
        else:
            self._is_garbled = False
            self._take(line)

    def _forget(self) -> None:
        self._line.clear()
        self._is_too_long = False

    def _discard(self, reason: str, size: int) -> None:
        self._metrics.errors.labels(reason).inc()
        self._skipped.inc(size)

    def _take(self, line: bytes) -> None:
        device = self._devices.heard(self._organization_id, self._table.device_id)
        self._owed.add(_seq(line) if self._table.acknowledge else None)
        self._ingest.take(device, line, self._owed, source=f"serial {self._table.port}"[:200])
        if len(self._owed) >= _UNCOMMITTED_AT_MOST and not self._is_paused:
            self._is_paused = True
            self._port.pause()

    def _settled(self, due: list[int]) -> None:
        """Acknowledge what is on disk, and read on when little is left."""
        if due:
            self._port.send(b"".join(to_json({"ack": seq}) + b"\n" for seq in due))
        if self._is_paused and len(self._owed) <= _UNCOMMITTED_AT_MOST // 2:
            self._is_paused = False
            self._port.read_on()

    def _not_stored(self, error: StoreFailed) -> None:
        said = {"device_id": self._table.device_id, "reason": error.message}
        logger.warning("lines of a serial port were not stored, nor acknowledged", extra=said)
        self._start_over()

    def _start_over(self) -> None:
        """Owe nothing for what has come until now."""
        self._owed.withhold()
        self._owed = _Owed(self._settled, self._not_stored)
        if self._is_paused:
            self._is_paused = False
            self._port.read_on()


class _Owed:
    """What is to be acknowledged, in the order it came; one object until the port closes or a commit fails."""

    def __init__(self, settled: Callable[[list[int]], None], not_stored: Callable[[StoreFailed], None]) -> None:
        self._settled = settled
        self._not_stored = not_stored
        self._seqs: deque[int | None] = deque()
        self._is_withheld = False

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: int | None) -> None:
        """Owe an acknowledgement; None for a line that is not answered."""
        self._seqs.append(seq)

    def withhold(self) -> None:
        """Acknowledge nothing more."""
        self._is_withheld = True
        self._seqs.clear()

    def committed(self, count: int) -> None:
        """So many more are on disk."""
        if self._is_withheld:
            return
        done = [self._seqs.popleft() for _ in range(count)]
        self._settled([seq for seq in done if seq is not None])

    def failed(self, error: StoreFailed) -> None:
        """Some are not on disk, and nobody knows which: none is acknowledged, and the board sends them again."""
        if not self._is_withheld:
            self._not_stored(error)


def _is_text(line: bytes) -> bool:
    try:
        return is_clean_text(line.decode().replace("\t", " "))
    except UnicodeDecodeError:
        return False


def _seq(line: bytes) -> int | None:
    """Return the reading's number, if it has one: also of a reading that cannot be used, or it comes for ever."""
    with suppress(BadInput):
        document: Any = load_json(line)
        seq = document.get("seq") if isinstance(document, dict) else None
        return seq if type(seq) is int else None
    return None
