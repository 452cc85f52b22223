"""Whether the power supply of a Raspberry Pi is strong enough: most SD cards that break, break by it."""

from contextlib import suppress

from gateway.doctor.evidence import Evidence
from gateway.model.finding import Finding, fine, warning


async def power(evidence: Evidence) -> list[Finding]:
    """Ask the sensor that the Pi's kernel has for it; other machines have none."""
    found = []
    for name in (evidence.machine.sys / "class/hwmon").glob("*/name"):
        with suppress(OSError):
            if name.read_text("ascii").strip() == "rpi_volt":
                alarm = (name.parent / "in0_lcrit_alarm").read_text("ascii").strip()
                found.append(
                    fine("The voltage is good.")
                    if alarm == "0"
                    else warning(
                        "The voltage is or was too low since the start: an SD card may be damaged by it.",
                        "Use the Pi's own power supply and a short cable, and give USB devices a hub with power.",
                    )
                )
    return found
