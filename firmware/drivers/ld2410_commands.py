"""Commands of the HLK-LD2410 radar and what it acknowledges: bytes only, it opens nothing and waits for nothing.

    FD FC FB FA | length u16 | command u16 | value | 04 03 02 01
    acknowledged by the same frame with command + 0x0100 and a value that begins with a status u16, 0 when it was done

Little endian. Commands are understood between `ENABLE_CONFIGURATION` and `END_CONFIGURATION` only; meanwhile the radar
sends no reports. Source: Hi-Link, LD2410 serial communication protocol V1.02; LD2410B V1.06.
"""

from micropython import const

from drivers import RadarError

ENABLE_CONFIGURATION = const(0x00FF)
END_CONFIGURATION = const(0x00FE)
READ_PARAMETERS = const(0x0061)
ENGINEERING_ON = const(0x0062)
ENGINEERING_OFF = const(0x0063)
READ_VERSION = const(0x00A0)
RESTART = const(0x00A3)

_HEADER = b"\xfd\xfc\xfb\xfa"
_TAIL = b"\x04\x03\x02\x01"
LONGEST = const(80)
"""More than any acknowledgement is long."""
_ACKNOWLEDGED = const(0x0100)


def encode(command, value=b""):
    """Return the bytes of a command."""
    return _HEADER + u16(2 + len(value)) + u16(command) + value + _TAIL


def enable():
    """Return the command that begins the configuration."""
    return encode(ENABLE_CONFIGURATION, b"\x01\x00")


def version(value):
    """Return the firmware version that READ_VERSION was answered with, as `V1.07.22091516`. Raises RadarError."""
    if len(value) < 8:
        raise RadarError("the answer about the version is too short")
    build = "".join("%02x" % byte for byte in reversed(value[4:8]))
    return "V%d.%02x.%s" % (value[3], value[2], build)


def parameters(value):
    """Return what READ_PARAMETERS was answered with. Raises RadarError.

    `moving_gate`, `stationary_gate`: the farthest in use; `moving_sensitivity`, `stationary_sensitivity`: lists, the
    nearest gate first; `nobody_s`: how long presence lasts.
    """
    if len(value) < 4 or value[0] != 0xAA:
        raise RadarError("the answer about the parameters is none")
    gates = value[1] + 1
    if len(value) < 4 + 2 * gates + 2:
        raise RadarError("the answer about the parameters is too short")
    stationary = 4 + gates
    end = stationary + gates
    return {
        "moving_gate": value[2],
        "stationary_gate": value[3],
        "moving_sensitivity": list(value[4:stationary]),
        "stationary_sensitivity": list(value[stationary:end]),
        "nobody_s": value[end] | value[end + 1] << 8,
    }


def acknowledged(heard, command):
    """Return (status, value) of a command's acknowledgement, if all of it is among the bytes that were heard, or None.

    They may hold reports and noise, and be cut anywhere.
    """
    number = u16(command | _ACKNOWLEDGED)
    at = heard.find(_HEADER)
    while at >= 0:
        if heard[at + 6 : at + 8] == number:
            end = at + 6 + (heard[at + 4] | heard[at + 5] << 8)
            if end >= at + 10 and heard[end : end + 4] == _TAIL:
                return heard[at + 8] | heard[at + 9] << 8, heard[at + 10 : end]
        at = heard.find(_HEADER, at + 1)
    return None


def u16(number):
    """Return two bytes."""
    return bytes((number & 0xFF, number >> 8))
