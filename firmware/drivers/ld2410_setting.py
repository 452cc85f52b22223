"""What the LD2410 radar can be set to: the commands that change its parameters. In memory only meanwhile."""

from micropython import const

from drivers.ld2410_commands import encode, u16

ALL_GATES = const(0xFFFF)
_SET_GATES = const(0x0060)
_SET_SENSITIVITY = const(0x0064)
_LAST_GATE = const(8)


def differing(is_now, wanted):
    """Return the commands for what is wanted and not so now, as `parameters` returns it. Raises ValueError."""
    new = dict(is_now)
    for name in is_now:
        if name in wanted:
            new[name] = wanted[name]
    asked = []
    if any(new[name] != is_now[name] for name in ("moving_gate", "stationary_gate", "nobody_s")):
        asked.append(set_gates(new["moving_gate"], new["stationary_gate"], new["nobody_s"]))
    moving, stationary = new["moving_sensitivity"], new["stationary_sensitivity"]
    if len(moving) != len(is_now["moving_sensitivity"]) or len(stationary) != len(is_now["stationary_sensitivity"]):
        raise ValueError("a sensitivity is needed for each of the %d gates" % len(is_now["moving_sensitivity"]))
    for gate in range(len(moving)):
        old = is_now["moving_sensitivity"][gate], is_now["stationary_sensitivity"][gate]
        if (moving[gate], stationary[gate]) != old:
            asked.append(set_sensitivity(gate, moving[gate], stationary[gate]))
    return asked


def set_gates(moving, stationary, nobody_s):
    """Return the command that sets the farthest gate (2 to 8) of each kind, and how long presence lasts (0 to 65535 s).

    Raises ValueError.
    """
    for name, gate in (("moving", moving), ("stationary", stationary)):
        _check(name, gate, 2, _LAST_GATE)
    _check("nobody_s", nobody_s, 0, 65535)
    return encode(_SET_GATES, _words(moving, stationary, nobody_s))


def set_sensitivity(gate, moving, stationary):
    """Return the command that sets from which energy (0 to 100) on a gate (0 to 8, or ALL_GATES) sees somebody.

    Raises ValueError.
    """
    if gate != ALL_GATES:
        _check("gate", gate, 0, _LAST_GATE)
    _check("moving", moving, 0, 100)
    _check("stationary", stationary, 0, 100)
    return encode(_SET_SENSITIVITY, _words(gate, moving, stationary))


def _words(*numbers):
    """Return numbered parameters: each a word u16 and a value u32."""
    value = b""
    for word, number in enumerate(numbers):
        value += u16(word) + bytes((number & 0xFF, number >> 8 & 0xFF, number >> 16 & 0xFF, number >> 24))
    return value


def _check(name, number, least, most):
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise ValueError("%s must be a whole number from %d to %d" % (name, least, most))
