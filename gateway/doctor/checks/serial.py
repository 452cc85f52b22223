"""Whether the serial ports of the configuration are there and may be opened. None is opened: that may reset a board."""

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, broken, fine, warning
from gateway.sources.serial_port import PortAbsent, PortUnusable, find_port


async def serial(evidence: Evidence) -> list[Finding]:
    """Look for each; what a running gateway says of an open one is among its notices."""
    found = []
    for table in evidence.settings.serial:
        try:
            path = find_port(table.port)
        except PortAbsent as error:
            found.append(warning(f"{table.device_id}: {error.message}", error.hint))
        except PortUnusable as error:
            found.append(broken(f"{table.device_id}: {error.message}", error.hint))
        else:
            found.append(fine(f"{table.device_id}: {path} is there."))
    return found
