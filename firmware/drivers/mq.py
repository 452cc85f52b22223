"""The arithmetic of an MQ-13x gas sensor: from the voltage at a pin to a resistance, a ratio and an estimate in ppm.

The sensor's resistance Rs and a load RL divide its supply Vc. RL's voltage reaches the pin through a divider of two
resistors, which lie parallel to RL and so are a part of the load:

    Vrl = Vpin * (Rtop + Rbottom) / Rbottom        load = RL || (Rtop + Rbottom)
    Rs  = load * (Vc - Vrl) / Vrl                  ratio = Rs / R0              ppm = a * ratio ** b

R0 is Rs in clean air, divided by the ratio that the curve has there. A curve is read from a datasheet's logarithmic
picture: the result is an estimate, never a safety device. Where a curve is not known to hold there is no number.

Sources: Winsen's MQ-135 datasheet (circuit, preheating, 10 to 1000 ppm); a, b and clean-air ratios as fitted from the
datasheets by the MQSensorsLib project; CO2, with its range, as measured by D. Gironi; the correction for temperature
and humidity of G. Krocker's MQ135 library.
"""

PREHEAT_MS = 180_000
"""After power on: until the heater is warm, what it says means nothing."""

RAIL_LOW_UV = 50_000
"""Below, the sensor is not connected."""
RAIL_HIGH_UV = 2_450_000
"""Beyond, the ESP32's converter (11 dB) is not linear: short circuit, or a divider that does not fit."""

CLEAN_AIR_RATIO = {"mq131": 15.0, "mq135": 3.6, "mq136": 3.6}
"""Rs / R0 in clean air."""

CURVES = {
    ("mq131", "o3"): (23.943, -1.11, 10, 1000),
    ("mq131", "cl2"): (47.209, -1.186, 10, 1000),
    ("mq135", "acetone"): (34.668, -3.369, 10, 1000),
    ("mq135", "alcohol"): (77.255, -3.18, 10, 1000),
    ("mq135", "co"): (605.18, -3.937, 10, 1000),
    ("mq135", "co2"): (116.602, -2.769, 10, 2000),
    ("mq135", "nh3"): (102.2, -2.473, 10, 1000),
    ("mq135", "toluene"): (44.947, -3.445, 10, 1000),
    ("mq136", "h2s"): (36.737, -3.536, 10, 1000),
}
"""(part, gas): a, b, and the ppm between which the curve holds."""


class Channel:
    """One sensor with its circuit and curve.

    `settings`: `part`, `gas`; `supply_mv`, `load_ohm`, `divider_top_ohm`, `divider_bottom_ohm` of the circuit; for a
    part or gas that is not in CURVES `a`, `b`, `ppm_min`, `ppm_max` and `clean_air_ratio`. Raises ValueError.
    """

    def __init__(self, settings, r0_ohm=None):
        self.part = settings.get("part", "mq135")
        self.gas = settings.get("gas", "nh3")
        curve = CURVES.get((self.part, self.gas), (None, None, 10, 1000))
        self._a = settings.get("a", curve[0])
        self._b = settings.get("b", curve[1])
        self._least = settings.get("ppm_min", curve[2])
        self._most = settings.get("ppm_max", curve[3])
        self._clean = settings.get("clean_air_ratio", CLEAN_AIR_RATIO.get(self.part))
        if self._a is None or self._b is None or self._clean is None:
            raise ValueError("no curve is known of %s for %s: set a, b and clean_air_ratio" % (self.gas, self.part))
        if not (self._a > 0 and self._b < 0 and self._clean > 0):
            raise ValueError("a and clean_air_ratio must be above 0, b below 0")
        top = settings.get("divider_top_ohm", 10_000)
        bottom = settings.get("divider_bottom_ohm", 9_100)
        load = settings.get("load_ohm", 1_000)
        self._supply_uv = settings.get("supply_mv", 5_000) * 1000
        if not (top >= 0 and bottom > 0 and load > 0 and self._supply_uv > 0):
            raise ValueError("resistors and supply must be above 0")
        self._scale = (top + bottom) / bottom
        self._load_ohm = load * (top + bottom) / (load + top + bottom)
        self.r0_ohm = r0_ohm
        """Rs in clean air / the curve's ratio there; None until it is calibrated."""

    def rs_ohm(self, pin_uv):
        """Return the sensor's resistance; None when the voltage is at a rail, or cannot be."""
        load_uv = pin_uv * self._scale
        if not RAIL_LOW_UV <= pin_uv <= RAIL_HIGH_UV or load_uv >= self._supply_uv:
            return None
        return self._load_ohm * (self._supply_uv - load_uv) / load_uv

    def calibrate(self, rs_ohm):
        """Take a resistance as that in clean air; returns R0."""
        self.r0_ohm = rs_ohm / self._clean
        return self.r0_ohm

    def ppm(self, ratio):
        """Return the estimate; None where the curve is not known to hold."""
        if ratio <= 0:
            return None
        ppm = self._a * ratio**self._b
        return ppm if self._least <= ppm <= self._most else None

    def reading(self, pin_uv, *, is_warm, temperature_c=None, humidity_pct=None):
        """Return the fields of the sensor `mq134` (a generic channel's name on the wire).

        `state`: `ok`, `warming`, `uncalibrated`, `out_of_range` (of the curve), `no_signal` or `saturated` (a rail).
        `gas_concentration` is 0 unless the state is ok: what counts then is the state, and the raw values.
        """
        rs = self.rs_ohm(pin_uv)
        fields = {"gas_concentration": 0.0, "unit": "ppm", "gas": self.gas, "part": self.part, "raw_uv": pin_uv}
        if rs is None:
            fields["state"] = "no_signal" if pin_uv < RAIL_LOW_UV else "saturated"
            return fields
        if temperature_c is not None:
            rs /= correction(temperature_c, 33 if humidity_pct is None else humidity_pct)
        fields["rs_ohm"] = round(rs, 1)
        if self.r0_ohm:
            ratio = rs / self.r0_ohm
            fields["ratio"] = round(ratio, 4)
            ppm = self.ppm(ratio)
            fields["state"] = "ok" if ppm is not None else "out_of_range"
            if ppm is not None and is_warm:
                fields["gas_concentration"] = round(ppm, 2)
        else:
            fields["state"] = "uncalibrated"
        if not is_warm:
            fields["state"] = "warming"
        return fields


def correction(temperature_c, humidity_pct):
    """Return the factor by which Rs differs from that at 20 °C and 33 % (MQ-135)."""
    return 0.00035 * temperature_c**2 - 0.02718 * temperature_c + 1.39538 - (humidity_pct - 33) * 0.0018


def median(numbers):
    """Return the middle one, which a spike does not move."""
    ordered = sorted(numbers)
    return ordered[len(ordered) // 2]
