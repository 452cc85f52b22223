"""What is known of the MQ-13x gas sensors: read at the start, and taken out of memory then.

Sources: a, b and clean-air ratios as fitted from the datasheets (10 to 1000 ppm) by the MQSensorsLib project; CO2, with
its range, as measured by D. Gironi; the correction for temperature and humidity of G. Krocker's MQ135 library.
"""

from drivers.mq import Channel

_CURVES = """
mq131 o3      23.943  -1.11  10 1000 15.0
mq131 cl2     47.209  -1.186 10 1000 15.0
mq135 acetone 34.668  -3.369 10 1000 3.6
mq135 alcohol 77.255  -3.18  10 1000 3.6
mq135 co      605.18  -3.937 10 1000 3.6
mq135 co2     116.602 -2.769 10 2000 3.6
mq135 nh3     102.2   -2.473 10 1000 3.6
mq135 toluene 44.947  -3.445 10 1000 3.6
mq136 h2s     36.737  -3.536 10 1000 3.6
"""
"""Part, gas: a, b, the ppm between which the curve holds, and Rs / R0 in clean air. A text: objects would take 2 KB."""


def curves():
    """Yield part, gas and the curve's five numbers of each line of the table."""
    end = 0
    while end + 1 < len(_CURVES):  # one line after the other: all at once would take 1 KB
        start, end = end + 1, _CURVES.find("\n", end + 1)
        part, gas, *numbers = _CURVES[start:end].split()
        yield part, gas, [float(number) for number in numbers]


def channel(settings, r0_ohm=None):
    """Return the Channel of a sensor's settings.

    `part`, `gas`; `supply_mv`, `load_ohm`, `divider_top_ohm`, `divider_bottom_ohm` of the circuit; for a part or gas
    that is not in the table `a`, `b`, `ppm_min`, `ppm_max` and `clean_air_ratio`. Raises ValueError.
    """
    part, gas = settings.get("part", "mq135"), settings.get("gas", "nh3")
    curve = (None, None, 10, 1000, None)
    for known_part, known_gas, numbers in curves():
        if (known_part, known_gas) == (part, gas):
            curve = numbers
    names = ("a", "b", "ppm_min", "ppm_max", "clean_air_ratio")
    curve = a, b, _, _, clean = [settings.get(name, number) for name, number in zip(names, curve)]
    if a is None or b is None or clean is None:
        raise ValueError("no curve is known of %s for %s: set a, b and clean_air_ratio" % (gas, part))
    if not (a > 0 and b < 0 and clean > 0):
        raise ValueError("a and clean_air_ratio must be above 0, b below 0")
    top = settings.get("divider_top_ohm", 10_000)
    bottom = settings.get("divider_bottom_ohm", 9_100)
    load = settings.get("load_ohm", 1_000)
    supply_uv = settings.get("supply_mv", 5_000) * 1000
    if not (top >= 0 and bottom > 0 and load > 0 and supply_uv > 0):
        raise ValueError("resistors and supply must be above 0")
    circuit = (supply_uv, (top + bottom) / bottom, load * (top + bottom) / (load + top + bottom))
    return Channel(part, gas, curve, circuit, r0_ohm)


def correction(temperature_c, humidity_pct):
    """Return the factor by which Rs differs from that at 20 °C and 33 % (MQ-135)."""
    return 0.00035 * temperature_c**2 - 0.02718 * temperature_c + 1.39538 - (humidity_pct - 33) * 0.0018
