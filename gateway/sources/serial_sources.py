"""The sources that `[[serial]]` names."""

from typing import Protocol

from gateway.access import KnownDevices
from gateway.clock import Clock
from gateway.config import SerialTable, Settings
from gateway.ingest import Ingest
from gateway.metrics import Metrics
from gateway.sources.serial_ld2410 import Ld2410Source
from gateway.sources.serial_lines import LinesSource


class SerialSource(Protocol):
    """One serial port and what is read from it."""

    @property
    def notices(self) -> list[str]:
        """What its owner should know; each as a sentence."""
        ...

    async def run(self) -> None:
        """Read until cancelled; an unplugged port is opened again when it is back."""
        ...


def serial_sources(
    settings: Settings, devices: KnownDevices, ingest: Ingest, metrics: Metrics, clock: Clock
) -> dict[str, SerialSource]:
    """Return them by port."""

    def source(table: SerialTable) -> SerialSource:
        organization_id = table.organization_id or settings.gateway.organization_id
        if table.format == "ld2410":
            return Ld2410Source(table, organization_id, devices, ingest, metrics, clock)
        return LinesSource(table, organization_id, devices, ingest, metrics)

    return {table.port: source(table) for table in settings.serial}
