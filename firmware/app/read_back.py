"""The command that tells what the board works with. In memory only meanwhile."""

from app import VERSION


async def _read_back(application, params):
    """Return it, and what the radar says that it is set to."""
    result = {"firmware": VERSION, "serial": application.hardware.serial()}
    for driver in application.drivers:
        if "radar_parameters" in driver.methods:
            try:
                result["radar"] = await driver.carry_out("radar_parameters", params)
            except Exception as error:  # noqa: BLE001 - the rest is worth knowing without it
                result["radar"] = str(error)
    result["settings"] = application.settings.read()  # last, as both need much memory
    return result


METHODS = {"read_back": _read_back}
