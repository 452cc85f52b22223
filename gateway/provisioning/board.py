"""A board behind a serial port, by mpremote's raw REPL: one connection for all that is to be done.

- the program that runs is interrupted and its memory freed; its watchdog, which nothing stops, gets ten minutes
- a file is written beside its place, compared by its hash on the board, and then takes its place
- every failure is a FlashFailed that says what to do
"""

import binascii
import hashlib
import io
import json
import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, Self

from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from gateway.provisioning.errors import BoardLost, FlashFailed, NoMicroPython
from gateway.provisioning.ports import check_port

_TIMEOUT_S = 5
_TRIES_S = (0.7, 0.7, 1.5, 3)
"""How long an answer to Ctrl-C is waited for: a board that has just got its power hears none of the first."""
_CHUNK = 768
_NEW = "/.new"
_WATCHDOG = "import machine\nmachine.WDT(timeout=600000)"
_FACTS = """
import os, sys, json, machine
f = os.statvfs('/')
print(json.dumps({
 'machine': os.uname()[4], 'platform': sys.platform, 'version': sys.implementation.version[:2],
 'mpy': getattr(sys.implementation, '_mpy', 0) & 0xff, 'unique_id': machine.unique_id().hex(),
 'free': f[0] * f[3], 'block': f[0]}))
"""
_WALK = """
import os, hashlib, json, binascii
def _walk(at):
 try: found = list(os.ilistdir(at))
 except OSError: return
 for one in found:
  path = at.rstrip('/') + '/' + one[0]
  if one[1] & 0x4000: _walk(path)
  else:
   h = hashlib.sha256(); size = 0
   with open(path, 'rb') as file:
    while True:
     part = file.read(512)
     if not part: break
     h.update(part); size += len(part)
   print(json.dumps([path, size, binascii.hexlify(h.digest()).decode()]))
"""
_REMOVE = """
import os
def _remove(path):
 try: is_folder = os.stat(path)[0] & 0x4000
 except OSError: return
 if is_folder:
  for one in list(os.ilistdir(path)): _remove(path + '/' + one[0])
  os.rmdir(path)
 else: os.remove(path)
"""
_NO_SPACE = re.compile(r"OSError: (\[Errno )?28\b|ENOSPC")


@dataclass(slots=True, frozen=True)
class Facts:
    """What a board says of itself."""

    machine: str
    """For example `Generic ESP32 module with ESP32`."""
    platform: str
    version: tuple[int, int]
    """Of its MicroPython."""
    mpy: int
    """The version of compiled files that it takes."""
    unique_id: str
    free: int
    """Bytes."""
    block: int
    """Bytes that the smallest file takes."""


@dataclass(slots=True, frozen=True)
class File:
    """A file on a board."""

    size: int
    sha256: str


class _Transport(SerialTransport):  # type: ignore[misc]  # mpremote has no types
    """mpremote's, which waits for 10 s at each of several places when a board has gone."""

    def read_until(self, min_num_bytes: int, ending: bytes, timeout: float | None = None, **rest: Any) -> Any:  # noqa: ANN401
        return super().read_until(min_num_bytes, ending, timeout or _TIMEOUT_S, **rest)


class Board:
    """An interrupted board. Made by `Board.open`."""

    def __init__(self, transport: Any, port: str) -> None:  # noqa: ANN401 - mpremote has no types
        self._transport = transport
        self._port = port

    @classmethod
    @contextmanager
    def open(cls, port: str) -> Iterator[Self]:
        """Interrupt what runs on the board, and yield it. Raises FlashFailed."""
        check_port(port)
        try:
            transport = _Transport(port, timeout=_TIMEOUT_S)
        except TransportError:
            check_port(port)
            raise FlashFailed(f"{port} cannot be opened.", hint="Try again.") from None
        board = cls(transport, port)
        try:
            board._interrupt()
            yield board
        finally:
            with suppress(OSError):  # the cable may be out
                transport.close()

    def _interrupt(self) -> None:
        for patience_s in _TRIES_S:
            self._transport.serial.timeout = patience_s
            try:
                with redirect_stdout(io.StringIO()):  # mpremote prints what it did not understand
                    self._transport.enter_raw_repl(soft_reset=False, timeout_overall=patience_s)
                    self._transport.serial.timeout = _TIMEOUT_S
                    self._transport.exec(_WATCHDOG)
                    self._transport.enter_raw_repl(soft_reset=True, timeout_overall=_TIMEOUT_S)
                    self._transport.exec(_WATCHDOG)
            except TransportExecError as error:
                raise FlashFailed(
                    f"What answers on {self._port} is a MicroPython, but no ESP32: {_last_line(error)}.",
                    hint="Name the port of the ESP32.",
                ) from None
            except (TransportError, struct.error, OSError):
                if patience_s == _TRIES_S[-1]:
                    raise NoMicroPython(
                        f"No MicroPython answers on {self._port}.",
                        hint="A new board has none yet: take ESP32_GENERIC from micropython.org/download and add"
                        " --image FILE --sha256 SUM. Else press its EN button, and try again.",
                    ) from None
            else:
                return

    def run(self, code: str) -> str:
        """Run code on the board and return what it printed. Raises FlashFailed."""
        with self._talking():
            said, error = self._transport.exec_raw(code, timeout=_TIMEOUT_S)
            if error:
                raise TransportExecError(said, error.decode())
        return str(said.decode())

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            with redirect_stdout(io.StringIO()):
                yield
        except TransportExecError as error:
            if _NO_SPACE.search(error.error_output):
                raise _full() from None
            raise FlashFailed(
                f"The board refused: {_last_line(error)}.", hint="Press its EN button, and flash it again."
            ) from None
        except (TransportError, struct.error, OSError) as error:
            raise BoardLost(
                f"The board does not answer any more ({error}).",
                hint="Look at cable and supply, then flash it again: what is there already is not copied twice.",
            ) from None

    def facts(self) -> Facts:
        """Return what the board is."""
        found = json.loads(self.run(_FACTS))
        return Facts(**found | {"version": tuple(found["version"])})

    def files(self) -> dict[str, File]:
        """Return what is on the board, with the hashes that it computes itself."""
        lines = [json.loads(line) for line in self.run(_WALK + "_walk('/')").splitlines()]
        return {path: File(size, sha256) for path, size, sha256 in lines}

    def read(self, path: str) -> bytes | None:
        """Return a small file; None when it is not there."""
        said = self.run(
            f"import binascii\ntry:\n with open({path!r}, 'rb') as _f: print(binascii.hexlify(_f.read()).decode())\n"
            "except OSError: print('-')"
        ).strip()
        return None if said == "-" else bytes.fromhex(said)

    def write(self, path: str, content: bytes, tell: Callable[[int], None] = lambda _: None) -> None:
        """Replace a file; `tell` hears of every part how many bytes it was. Raises FlashFailed."""
        folders = path.split("/")[1:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/" + "/".join(folders[:depth])
            self.run(f"import os\ntry: os.mkdir({folder!r})\nexcept OSError: pass")
        self.run(f"import binascii\n_f = open({_NEW!r}, 'wb')")
        for start in range(0, len(content), _CHUNK):
            part = content[start : start + _CHUNK]
            self.run(f"_f.write(binascii.a2b_base64({binascii.b2a_base64(part, newline=False)!r}))")
            tell(len(part))
        self.run("_f.close()")
        written = self.run(_hash_of(_NEW)).strip()
        if written != hashlib.sha256(content).hexdigest():
            raise FlashFailed(
                f"{path} did not arrive as it was sent.", hint="Try another cable or USB port, and flash it again."
            )
        self.run(f"import os\nos.rename({_NEW!r}, {path!r})")

    def remove(self, path: str) -> None:
        """Take away a file or a folder with all in it, if it is there."""
        self.run(_REMOVE + f"_remove({path!r})")

    def reset(self) -> None:
        """Start the board's own program. What it says can be read with `console`."""
        with self._talking():
            self._transport.exec_raw_no_follow("import machine\nmachine.reset()")

    def console(self, seconds: float) -> str:
        """Return what the board says within so many seconds."""
        deadline = time.monotonic() + seconds
        said = b""
        with self._talking():
            while (left := deadline - time.monotonic()) > 0:
                self._transport.serial.timeout = min(left, 0.1)
                said += self._transport.serial.read(4096)
        return said.decode(errors="replace").replace("\x04", "")


def _hash_of(path: str) -> str:
    return (
        "import hashlib, binascii\n_h = hashlib.sha256()\n"
        f"with open({path!r}, 'rb') as _f:\n"
        " while True:\n  _p = _f.read(512)\n  if not _p: break\n  _h.update(_p)\n"
        "print(binascii.hexlify(_h.digest()).decode())"
    )


def _full() -> FlashFailed:
    return FlashFailed(
        "The board's flash is full.",
        hint="Look what lies there (mpremote fs ls); readings that wait are in /spill and leave when it is connected.",
    )


def _last_line(error: TransportExecError) -> str:
    lines = str(error.error_output).strip().splitlines()
    return lines[-1] if lines else "without a word"
