"""The command that tells what the board works with. In memory only meanwhile."""

import json

from app import VERSION


async def read_back(application, params):
    """Return it, and what the radar says that it is set to: in pieces of JSON: all at once takes thrice the memory."""
    pieces = [json.dumps({"firmware": VERSION, "serial": application.hardware.serial()})[:-1].encode()]
    for driver in application.drivers:
        if "radar_parameters" in driver.methods:
            try:
                radar = await driver.carry_out("radar_parameters", params)
            except Exception as error:  # noqa: BLE001 - the rest is worth knowing without it
                radar = str(error)
            pieces.append(b',"radar":' + json.dumps(radar).encode())
    settings = application.settings
    pieces.append(b',"settings":{"version":%d' % settings.version)
    for table, fields in settings.tables():
        pieces.append((',"%s":%s' % (table, json.dumps(fields))).encode())
    pieces.append(b"}}")
    return tuple(pieces)
