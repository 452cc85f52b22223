"""A person in a room, as cheap sensors see them: a small random walk that repeats by seed.

It models episodes of presence, a wandering distance and slowly drifting gas. It is no physics: all it can
show is that readings of the right shape come through.
"""

import math
import random
from typing import Any

_EMPTY_MEAN_S = 45.0
_OCCUPIED_MEAN_S = 30.0
_RANGE_CM = (40.0, 480.0)  # what an LD2410 resolves indoors
_STEP_CM = 25.0  # standard deviation of a person's way in one second
_MOVING_CM = 12.0  # a longer way than this in one second is walking

_GAS_MEAN_PPM = 12.5
_GAS_NOISE = 0.01  # relative, per square root of a second
_GAS_RETURN_PER_S = 0.005
_SUPPLY_UV = 3_300_000
_LOAD_OHM = 10_000.0  # the divider's lower half
_R0_OHM = 30_600.0  # the sensing element in clean air
_CURVE_A, _CURVE_B = 13.2, 2.77  # ppm = A * (Rs / R0) ** -B, of the shape of an MQ-13x data sheet


class Room:
    """What LD2410 radar, PIR and MQ gas sensor see in one room; call `sensors` once per measurement."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._occupied = False
        self._episode_left_s = rng.expovariate(1 / _EMPTY_MEAN_S)
        self._distance_cm = 0.0
        self._gas_log = rng.gauss(0.0, 0.1)

    def sensors(self, elapsed_s: float) -> dict[str, dict[str, Any]]:
        """Let `elapsed_s` pass and return one measurement in the wire's shape."""
        walked_cm = self._live(elapsed_s)
        moving = self._occupied and walked_cm > _MOVING_CM
        return {
            "ld2410": self._radar(moving=moving),
            "pir": self._pir(elapsed_s, moving=moving),
            "mq134": self._gas(elapsed_s),
        }

    def _live(self, elapsed_s: float) -> float:
        """Enter, walk or leave; return the centimetres walked per second."""
        self._episode_left_s -= elapsed_s
        if self._episode_left_s <= 0:
            self._occupied = not self._occupied
            mean_s = _OCCUPIED_MEAN_S if self._occupied else _EMPTY_MEAN_S
            self._episode_left_s = self._rng.expovariate(1 / mean_s)
            self._distance_cm = _RANGE_CM[1] * 0.7  # people come in by the door
        if not self._occupied:
            return 0.0
        way = self._rng.gauss(0.0, _STEP_CM * math.sqrt(elapsed_s))
        self._distance_cm = min(max(self._distance_cm + way, _RANGE_CM[0]), _RANGE_CM[1])
        return abs(way) / math.sqrt(elapsed_s)

    def _radar(self, *, moving: bool) -> dict[str, Any]:
        near = 1 - self._distance_cm / (1.5 * _RANGE_CM[1])  # energy falls with distance
        distance = round(self._distance_cm) if self._occupied else 0
        still = self._occupied and not moving
        return {
            "presence": self._occupied,
            "moving": moving,
            "stationary": still,
            "distance_cm": distance,
            "moving_distance_cm": distance if moving else 0,
            "moving_energy": self._energy(near) if moving else 0,
            "stationary_distance_cm": distance if still else 0,
            "stationary_energy": self._energy(near) if still else 0,
        }

    def _energy(self, near: float) -> int:
        return min(max(round(100 * near + self._rng.gauss(0, 6)), 1), 100)

    def _pir(self, elapsed_s: float, *, moving: bool) -> dict[str, Any]:
        pulses = self._rng.randint(1, 1 + math.ceil(min(elapsed_s, 10.0))) if moving else 0
        return {"motion_detected": pulses > 0, "pulses": pulses}

    def _gas(self, elapsed_s: float) -> dict[str, Any]:
        breath = 0.3 if self._occupied else 0.0  # a room with a person in it drifts up
        self._gas_log += (breath - self._gas_log) * min(_GAS_RETURN_PER_S * elapsed_s, 1.0)
        self._gas_log += self._rng.gauss(0.0, _GAS_NOISE * math.sqrt(elapsed_s))
        ppm = _GAS_MEAN_PPM * math.exp(self._gas_log)
        ratio = (ppm / _CURVE_A) ** (-1 / _CURVE_B)
        rs_ohm = ratio * _R0_OHM
        return {
            "gas_concentration": round(ppm, 2),
            "unit": "ppm",
            "state": "ok",
            "raw_uv": round(_SUPPLY_UV * _LOAD_OHM / (rs_ohm + _LOAD_OHM)),
            "rs_ohm": round(rs_ohm, 1),
            "ratio": round(ratio, 4),
        }
