"""A serial port that stays ours: opened, read, and opened again when it comes back after being unplugged.

It knows nothing of what is said on it: a `Listener` hears the bytes. Opening and closing happen in a thread, since a
driver may take seconds; reading and writing never block. What it cannot do now, `notice` says in words for its owner.
"""

import asyncio
import errno
import glob
import logging
import os
import termios
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import serial

from gateway.config import SerialTable
from gateway.metrics import Metrics
from gateway.model.errors import NeurogateError

logger = logging.getLogger(__name__)

_READ_BYTES = 4_096
_UNSENT_AT_MOST = 65_536
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
_USED_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EBUSY)


class PortUnusable(NeurogateError):
    """A serial port cannot be used as things are."""

    code = "serial_port_unusable"


class PortAbsent(PortUnusable):
    """It is not there; whoever plugs the board in makes it appear."""

    code = "serial_port_absent"


class Listener(Protocol):
    """Whoever a port's bytes are for."""

    def opened(self) -> None:
        """The port is open; what comes now may begin in the middle."""
        ...

    def received(self, data: bytes) -> None:
        """Bytes have come."""
        ...

    def closed(self) -> None:
        """Nothing more comes until it is opened again."""
        ...


def find_port(pattern: str) -> Path:
    """Return the one port that a path or a pattern of one means. Raises PortUnusable."""
    found = sorted(glob.glob(pattern)) or sorted(glob.glob(glob.escape(pattern)))  # noqa: PTH207 - an absolute pattern
    if not found:
        raise PortAbsent(f"{pattern} is not there.", hint="Plug it in; ls -l /dev/serial/by-id shows what there is.")
    if len(found) > 1:
        raise PortUnusable(
            f"{pattern} could be any of {', '.join(found)}.", hint="Write so much of the name that one is left."
        )
    path = Path(found[0])
    if not os.access(path, os.R_OK | os.W_OK):
        raise _not_allowed(path)
    return path


class SerialPort:
    """See the module's own words."""

    def __init__(self, table: SerialTable, metrics: Metrics, listener: Listener) -> None:
        self._table = table
        self._listener = listener
        self._is_open = metrics.serial_open.labels(table.port)
        self._lost = metrics.serial_lost.labels(table.port)
        self._is_open.set(0)
        self._loop: asyncio.AbstractEventLoop
        self._fd = -1
        self._ended: asyncio.Future[PortUnusable]
        self._unsent = bytearray()
        self._was_heard = False
        self._trouble = self._not_open

    @property
    def notice(self) -> str:
        """What its owner should know, as a sentence; empty while it is open."""
        return f"Serial port of {self._table.device_id}: {self._trouble}" if self._trouble else ""

    @property
    def _not_open(self) -> str:
        return f"{self._table.port} is not open yet."

    async def run(self) -> None:
        """Keep it open, until cancelled."""
        self._loop = asyncio.get_running_loop()
        wait_s = _FIRST_WAIT_S
        while True:
            self._was_heard = False
            try:
                port = await asyncio.to_thread(_open, self._table)
            except PortUnusable as error:
                self._tell(error)
            else:
                await self._serve(port)
            if self._was_heard:
                wait_s = _FIRST_WAIT_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _tell(self, error: PortUnusable) -> None:
        if self._trouble != str(error):  # the rest of an outage is no news
            self._trouble = str(error)
            logger.warning("%s", error, extra={"device_id": self._table.device_id})

    async def _serve(self, port: serial.Serial) -> None:
        """Read until it goes away, or this is cancelled."""
        self._trouble = ""
        self._fd = port.fileno()
        self._ended = self._loop.create_future()
        self._is_open.set(1)
        logger.info("serial port open", extra={"port": str(port.port), "device_id": self._table.device_id})
        try:
            self._listener.opened()
            self.read_on()
            error = await self._ended
        finally:
            self._is_open.set(0)
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._trouble = self._not_open
            self._unsent.clear()
            self._listener.closed()
            await asyncio.to_thread(_close, port)
        self._lost.inc()
        self._tell(error)

    def pause(self) -> None:
        """Read nothing for the moment: the driver keeps some, and a board notices that nothing is acknowledged."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def read_on(self) -> None:
        """Read again."""
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    # The descriptor is read and written directly: pyserial asks select(), which fails beyond 1,024 open files.

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror)
            return
        if not data:  # a terminal that was readable and has nothing has been hung up
            self._end("it was unplugged")
            return
        self._was_heard = True
        try:
            self._listener.received(data)
        except Exception as fault:  # noqa: BLE001 - a defect of ours ends this port's part, and is seen there
            if not self._ended.done():
                self._ended.set_exception(fault)

    def send(self, data: bytes) -> None:
        """Write; what a port that takes nothing leaves unsent is bounded, and beyond it nothing more is sent."""
        if self._fd < 0 or len(self._unsent) + len(data) > _UNSENT_AT_MOST:
            return
        was_waiting = bool(self._unsent)
        self._unsent += data
        if not was_waiting:
            self._writable()

    def _writable(self) -> None:
        try:
            written = os.write(self._fd, self._unsent)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self._end(error.strerror)
            return
        del self._unsent[:written]
        if self._unsent:
            self._loop.add_writer(self._fd, self._writable)
        else:
            self._loop.remove_writer(self._fd)

    def _end(self, why: str | None) -> None:
        self._loop.remove_reader(self._fd)  # or it would be called again and again
        self._loop.remove_writer(self._fd)
        if not self._ended.done():
            gone = f"{self._table.port} has gone ({why})."
            self._ended.set_result(PortAbsent(gone, hint="Plug it in again; it is opened as soon as it is there."))


def _open(table: SerialTable) -> serial.Serial:
    path = find_port(table.port)
    try:
        # 8 data bits, no parity, 1 stop bit; nobody else may read what is meant for us
        return serial.Serial(str(path), table.speed, timeout=0, write_timeout=0, exclusive=True)
    except (OSError, termios.error, ValueError) as error:  # OSError: pyserial's own is one
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EACCES:
            raise _not_allowed(path) from None
        if number in _USED_BY_ANOTHER:
            raise PortUnusable(
                f"{path} is used by another program.",
                hint=f"End it: a serial monitor, or a login (systemctl disable --now serial-getty@{path.name}).",
            ) from None
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
            raise PortAbsent(f"{path} cannot be opened ({error}).", hint="Plug it in again.") from None
        raise PortUnusable(
            f"{path} cannot be set to {table.speed} baud ({error}).",
            hint="Correct the port or the baud_rate of [[serial]].",
        ) from None


def _not_allowed(path: Path) -> PortUnusable:
    return PortUnusable(
        f"The gateway's user may not open {path}.",
        hint="Let it: sudo usermod -aG dialout USER, then log in again or restart the service.",
    )


def _close(port: serial.Serial) -> None:
    with suppress(OSError, termios.error):
        port.reset_output_buffer()  # closing waits for what a board does not take
    with suppress(OSError):
        port.close()
