"""An LD2410 radar on a UART of this machine: its frames in, readings of it to ingest. Nothing is ever sent to it."""

import asyncio
from typing import Any

from pydantic_core import to_json

from gateway.access import KnownDevices
from gateway.clock import Clock
from gateway.config import SerialTable
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.model.errors import StoreFailed
from gateway.parsers.ld2410 import FrameReader
from gateway.sources.radar import Radar
from gateway.sources.serial_port import SerialPort

_WATCH_S = 0.5


class Ld2410Source:
    """See the module's own words. `run` it until cancelled."""

    def __init__(
        self,
        table: SerialTable,
        organization_id: str,
        devices: KnownDevices,
        ingest: Ingest,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._table = table
        self._organization_id = organization_id
        self._devices = devices
        self._ingest = ingest
        self._skipped = metrics.serial_skipped.labels(table.port)
        self._port = SerialPort(table, metrics, self)
        self._frames = FrameReader()
        self._radar = Radar(table, clock)

    @property
    def notices(self) -> list[str]:
        """What its owner should know; each as a sentence."""
        if self._port.notice:
            return [self._port.notice]
        if self._radar.state != "lost":
            return []
        what = f"Radar {self._table.device_id} is lost: {self._table.port} is open, and no frame of an LD2410 comes."
        hint = f"Check its power, its wires (its TX to our RX), and that its baud rate is {self._table.speed}."
        return [f"{what} {hint}"]

    async def run(self) -> None:
        """Read for ever, and notice when nothing comes."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._port.run(), name=f"read {self._table.port}")
            tasks.create_task(self._watch(), name=f"watch {self._table.port}")

    async def _watch(self) -> None:
        while True:
            self._submit(self._radar.watch())
            await asyncio.sleep(_WATCH_S)

    def opened(self) -> None:
        """Begin; what comes first may be the rest of a frame."""
        self._frames = FrameReader()

    def received(self, data: bytes) -> None:
        """Take in what the frames say."""
        skipped = self._frames.skipped
        for report in self._frames.feed(data):
            self._submit(self._radar.heard(report))
        self._skipped.inc(self._frames.skipped - skipped)

    def closed(self) -> None:
        """Nothing to do: if it stays away, the radar is lost."""

    def _submit(self, reading: dict[str, Any] | None) -> None:
        if reading is not None:
            device = self._devices.heard(self._organization_id, self._table.device_id)
            self._ingest.take(device, to_json(reading), self, source=f"serial {self._table.port}"[:200])

    # What becomes of them: this is their owner

    def committed(self, count: int) -> None:
        """They are on disk."""

    def failed(self, error: StoreFailed) -> None:  # noqa: ARG002 - the store itself says why, and it is counted there
        """Some are not on disk: what the radar sees is said again as soon as may be."""
        self._radar.not_stored()
