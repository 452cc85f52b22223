"""Which of an LD2410's reports are worth a reading: it makes ten a second, and a room rarely changes as often.

- somebody comes or goes, or the radar's own state changes: at once
- moving or not, or a distance changes by the dead band or more: after `min_interval_s` at the earliest
- nothing changes: every `heartbeat_s`
- no report for `lost_after_s`: a reading says that the radar is lost, and again every `heartbeat_s`; it says nothing of
  who is there, since nobody knows
- what the radar does not see is 0: its reports keep the last distance when everybody has left

It opens nothing and asks only the clock it is given.
"""

import secrets
from typing import Any, Literal

from gateway.clock import Clock
from gateway.config import SerialTable
from gateway.parsers.ld2410 import Report

RadarState = Literal["ok", "calibrating", "lost"]
"""`calibrating` while it measures its background noise."""

_DISTANCES = ("distance_cm", "moving_distance_cm", "stationary_distance_cm")
_FLAGS = ("moving", "stationary")


class Radar:
    """See the module's own words. Each reading is a document in the standard shape, with a boot_id and seq of ours."""

    def __init__(self, table: SerialTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._boot_id = secrets.token_hex(4)
        self._seq = 0
        self._started_ms = self._heard_ms = clock.monotonic_ms()
        self.state: RadarState = "ok"
        self._shown: dict[str, Any] | None = None
        """The sensors of the newest reading; None when there is none, or it was not stored."""
        self._shown_ms: int | None = None

    def heard(self, report: Report) -> dict[str, Any] | None:
        """Return a reading if the report is worth one."""
        self._heard_ms = self._clock.monotonic_ms()
        self.state = "ok" if report.is_measuring else "calibrating"
        return self._reading_if_news(
            {"ld2410": _seen(report)} if report.is_measuring else {"radar": {"state": self.state}}
        )

    def watch(self) -> dict[str, Any] | None:
        """Return a reading if the radar is lost and it is time to say so; call it about every second."""
        if self._clock.monotonic_ms() - self._heard_ms < self._table.lost_after_s * 1000:
            return None
        self.state = "lost"
        return self._reading_if_news({"radar": {"state": self.state}})

    def not_stored(self) -> None:
        """Hear that a reading was not stored: what it said is news again."""
        self._shown = None

    def _reading_if_news(self, sensors: dict[str, Any]) -> dict[str, Any] | None:
        now = self._clock.monotonic_ms()
        if self._shown_ms is not None and not self._is_news(sensors, now - self._shown_ms):
            return None
        self._shown, self._shown_ms = sensors, now
        seq, self._seq = self._seq, self._seq + 1
        return {
            "device_id": self._table.device_id,
            "boot_id": self._boot_id,
            "seq": seq,
            "sensors": sensors,
            "health": {"radar": self.state, "uptime_s": (now - self._started_ms) // 1000},
        }

    def _is_news(self, sensors: dict[str, Any], age_ms: int) -> bool:
        if age_ms >= self._table.heartbeat_s * 1000:
            return True
        is_rested = age_ms >= self._table.min_interval_s * 1000
        if self._shown is None:
            return is_rested
        old, new = self._shown.get("ld2410"), sensors.get("ld2410")
        if old is None or new is None:
            return sensors != self._shown
        if old["presence"] != new["presence"]:
            return True
        has_moved = any(old[name] != new[name] for name in _FLAGS) or any(
            abs(old[name] - new[name]) >= max(self._table.dead_band_cm, 1) for name in _DISTANCES
        )
        return has_moved and is_rested


def _seen(report: Report) -> dict[str, Any]:
    """Return what the report says in the wire's shape."""
    moving_cm = report.moving_distance_cm if report.moving else 0
    stationary_cm = report.stationary_distance_cm if report.stationary else 0
    is_there = report.moving or report.stationary
    seen: dict[str, Any] = {
        "presence": is_there,
        "moving": report.moving,
        "stationary": report.stationary,
        # some firmware leaves the detection distance 0
        "distance_cm": (report.detection_distance_cm or moving_cm or stationary_cm) if is_there else 0,
        "moving_distance_cm": moving_cm,
        "moving_energy": report.moving_energy if report.moving else 0,
        "stationary_distance_cm": stationary_cm,
        "stationary_energy": report.stationary_energy if report.stationary else 0,
    }
    if report.moving_gates:
        seen["moving_gate_energies"] = list(report.moving_gates)
        seen["stationary_gate_energies"] = list(report.stationary_gates)
    return seen
