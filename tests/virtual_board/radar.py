"""The radar on a virtual board's UART: the simulated LD2410 behind a TCP port, which stands for the wire."""

import socket
import threading
import time
from typing import Any

from tests.firmware.pure.simulated_radar import SimulatedRadar

_EVERY_S = 0.1


class Radar:
    """An LD2410 that reports ten times a second to whoever listens at its speed; at another speed, garbage."""

    def __init__(self) -> None:
        radar: Any = SimulatedRadar  # it runs under MicroPython too, which has no types
        self.radar = radar()
        self._lock = threading.Lock()
        self._plugged = True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def see(self, cm: int | None, *, moving: bool = True) -> None:
        """Somebody stands, or moves, so far away. `None`: nobody is there; the old distance stays, as a real one's."""
        with self._lock:
            radar = self.radar
            radar.state = 0 if cm is None else 1 if moving else 2
            if cm is not None:
                radar.distance_cm = cm
                radar.moving_cm, radar.moving_energy = (cm, 60) if moving else (0, 0)
                radar.stationary_cm, radar.stationary_energy = (0, 0) if moving else (cm, 60)

    def unplug(self) -> None:
        """Nothing comes over the wire any more."""
        self._plugged = False

    def plug(self) -> None:
        """It is back, as after a power on."""
        with self._lock:
            self.radar.configuring = self.radar.engineering = False
        self._plugged = True

    def close(self) -> None:
        """Take it away for good."""
        self._plugged = False
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                wire, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, wire: socket.socket) -> None:
        wire.settimeout(_EVERY_S / 4)
        first, heard = b"", b""
        due = time.monotonic()
        with wire:
            while True:
                try:
                    heard = wire.recv(4096)
                    if not heard:
                        return
                except TimeoutError:
                    heard = b""
                except OSError:
                    return
                if b"\n" not in first:
                    first, _, heard = (first + heard).partition(b"\n")
                    first += b"\n"
                    baud = int(first.split()[1])
                answer = self._answer(heard, baud)
                if time.monotonic() >= due:
                    due = time.monotonic() + _EVERY_S
                    answer += self._report(baud)
                try:
                    wire.sendall(answer)
                except OSError:
                    return

    def _answer(self, heard: bytes, baud: int) -> bytes:
        with self._lock:
            if not self._plugged or baud != self.radar.baud:
                return b""
            return bytes(self.radar.hear(heard))

    def _report(self, baud: int) -> bytes:
        with self._lock:
            if not self._plugged:
                return b""
            report = bytes(self.radar.report())
            return report if baud == self.radar.baud else bytes(~byte & 0xFF for byte in report)
