"""The arithmetic of an MQ-13x gas sensor: from the voltage at a pin to a resistance, a ratio and an estimate in ppm.

The sensor's resistance Rs and a load RL divide its supply Vc. RL's voltage reaches the pin through a divider of two
resistors, which lie parallel to RL and so are a part of the load:

    Vrl = Vpin * (Rtop + Rbottom) / Rbottom        load = RL || (Rtop + Rbottom)
    Rs  = load * (Vc - Vrl) / Vrl                  ratio = Rs / R0              ppm = a * ratio ** b

R0 is Rs in clean air, divided by the ratio that the curve has there. A curve is read from a datasheet's logarithmic
picture: the result is an estimate, never a safety device. Where a curve is not known to hold there is no number.

Source: Winsen's MQ-135 datasheet (circuit, preheating).
"""

from micropython import const

_RAIL_LOW_UV = const(50_000)
"""Below, the sensor is not connected."""
_RAIL_HIGH_UV = const(2_450_000)
"""Beyond, the ESP32's converter (11 dB) is not linear: short circuit, or a divider that does not fit."""


class Channel:
    """One sensor with its circuit and curve, as mq_curves.py makes it of settings."""

    def __init__(self, part, gas, curve, circuit, r0_ohm=None):
        self._part = part
        self._gas = gas
        self._a, self._b, self._least, self._most, self._clean = curve
        self._supply_uv, self._scale, self._load_ohm = circuit
        self.r0_ohm = r0_ohm
        """Rs in clean air / the curve's ratio there; None until it is calibrated."""

    def rs_ohm(self, pin_uv):
        """Return the sensor's resistance; None when the voltage is at a rail, or cannot be."""
        load_uv = pin_uv * self._scale
        if not _RAIL_LOW_UV <= pin_uv <= _RAIL_HIGH_UV or load_uv >= self._supply_uv:
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
        fields = {"gas_concentration": 0.0, "unit": "ppm", "gas": self._gas, "part": self._part, "raw_uv": pin_uv}
        if rs is None:
            fields["state"] = "no_signal" if pin_uv < _RAIL_LOW_UV else "saturated"
            return fields
        if temperature_c is not None:
            from drivers.mq_curves import correction

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
