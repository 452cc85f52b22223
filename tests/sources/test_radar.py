"""Which reports become readings, on a clock that is moved by hand: ten reports a second."""

from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.config import SerialTable
from gateway.parsers.ld2410 import FrameReader, Report
from gateway.parsers.standard import parse_object
from gateway.sources.radar import Radar

FRAME_MS = 100


def report(state: int = 3, *, moving_cm: int = 100, still_cm: int = 120, cm: int = 110) -> Report:
    distances = [moving_cm.to_bytes(2, "little"), still_cm.to_bytes(2, "little"), cm.to_bytes(2, "little")]
    data = bytes([2, 0xAA, state]) + distances[0] + b"\x32" + distances[1] + b"\x3c" + distances[2] + b"\x55\x00"
    (one,) = FrameReader().feed(b"\xf4\xf3\xf2\xf1\x0d\x00" + data + b"\xf8\xf7\xf6\xf5")
    return one


class Room:
    """A radar and ten reports a second of it."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        table = {"port": "/dev/ttyAMA0", "format": "ld2410", "device_id": "radar"}
        self.radar = Radar(SerialTable.model_validate(table | settings), self.clock)
        self.readings: list[dict[str, Any]] = []

    def hears(self, one: Report, seconds: float = 0.1) -> list[dict[str, Any]]:
        """Return the readings that so many seconds of the same report make."""
        made = []
        for _ in range(round(seconds * 1000 / FRAME_MS)):
            self.clock.advance(FRAME_MS)
            made += [self.radar.heard(one), self.radar.watch()]
        return self.keep(made)

    def silent(self, seconds: float) -> list[dict[str, Any]]:
        made = []
        for _ in range(round(seconds * 2)):
            self.clock.advance(500)
            made.append(self.radar.watch())
        return self.keep(made)

    def keep(self, made: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
        readings = [one for one in made if one is not None]
        self.readings += readings
        return readings


def seen(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [reading["sensors"]["ld2410"] for reading in readings]


def test_the_first_report_is_a_reading_in_the_standard_shape() -> None:
    (reading,) = Room().hears(report())
    assert parse_object(reading, None).bad_sensors == ()
    assert reading["health"]["radar"] == "ok"
    assert reading["sensors"]["ld2410"] == {
        "presence": True,
        "moving": True,
        "stationary": True,
        "distance_cm": 110,
        "moving_distance_cm": 100,
        "moving_energy": 50,
        "stationary_distance_cm": 120,
        "stationary_energy": 60,
    }


def test_while_nothing_changes_there_is_a_heartbeat() -> None:
    room = Room(heartbeat_s=60)
    room.hears(report())
    assert room.hears(report(), 59.9) == []
    assert len(room.hears(report())) == 1
    assert len(room.hears(report(), 600)) == 10


def test_somebody_who_comes_or_goes_is_told_at_once() -> None:
    room = Room(min_interval_s=10)
    assert [one["presence"] for one in seen(room.hears(report(0)))] == [False]
    for state in (1, 0, 2, 0, 3, 0):
        assert [one["presence"] for one in seen(room.hears(report(state)))] == [state > 0]


def test_what_nobody_is_there_for_is_not_kept() -> None:
    (empty,) = seen(Room().hears(report(0, moving_cm=70, still_cm=55, cm=60)))
    assert not any(empty.values())
    (still,) = seen(Room().hears(report(2, moving_cm=70, still_cm=55, cm=60)))
    assert (still["moving_distance_cm"], still["moving_energy"]) == (0, 0)
    assert (still["stationary_distance_cm"], still["distance_cm"]) == (55, 60)


def test_a_distance_that_the_firmware_leaves_out_is_taken_from_the_target() -> None:
    assert seen(Room().hears(report(3, moving_cm=70, still_cm=0, cm=0)))[0]["distance_cm"] == 70
    assert seen(Room().hears(report(2, moving_cm=70, still_cm=81, cm=0)))[0]["distance_cm"] == 81


def test_a_distance_within_the_dead_band_is_no_news_however_slowly_it_creeps_out() -> None:
    room = Room(dead_band_cm=20, heartbeat_s=10_000)
    room.hears(report(1, moving_cm=100, cm=100))
    assert room.hears(report(1, moving_cm=119, cm=119), 60) == []
    assert room.hears(report(1, moving_cm=81, cm=81), 60) == []
    assert [one["distance_cm"] for one in seen(room.hears(report(1, moving_cm=120, cm=120), 60))] == [120]
    assert room.hears(report(1, moving_cm=101, cm=101), 60) == []


def test_who_walks_is_told_no_more_often_than_the_interval() -> None:
    room = Room(min_interval_s=1, dead_band_cm=10)
    for step in range(100):
        room.hears(report(1 + step % 2, moving_cm=100 + 30 * step, cm=100 + 30 * step))
    assert len(room.readings) == 10


def test_without_dead_band_and_interval_every_change_is_told_and_no_repeat() -> None:
    room = Room(min_interval_s=0, dead_band_cm=0)
    for step in range(50):
        room.hears(report(1, cm=100 + step), 0.2)
    assert len(room.readings) == 50


def test_a_silent_radar_is_lost_and_says_nothing_of_anybody() -> None:
    room = Room(lost_after_s=5, heartbeat_s=60)
    room.hears(report(1))
    assert room.silent(4.5) == []
    (lost,) = room.silent(60)
    assert lost["sensors"] == {"radar": {"state": "lost"}}
    assert lost["health"]["radar"] == "lost"
    assert parse_object(lost, None).bad_sensors == ()
    assert len(room.silent(120)) == 2
    (back,) = room.hears(report(1), 30)
    assert back["sensors"]["ld2410"]["presence"]
    assert back["health"]["radar"] == "ok"


def test_a_radar_that_never_spoke_is_lost_too() -> None:
    room = Room(lost_after_s=5)
    assert len(room.silent(5)) == 1


def test_while_it_measures_noise_it_says_so_once() -> None:
    room = Room()
    room.hears(report(1))
    (reading,) = room.hears(report(4), 30)
    assert reading["sensors"] == {"radar": {"state": "calibrating"}}
    assert len(room.hears(report(0), 30)) == 1


def test_what_was_not_stored_is_said_again_but_not_ten_times_a_second() -> None:
    room = Room(min_interval_s=1)
    (first,) = room.hears(report(1))
    for _ in range(30):
        room.radar.not_stored()
        room.hears(report(1))
    assert len(room.readings) == 4
    assert room.readings[1]["sensors"] == first["sensors"]
    assert room.hears(report(1), 10) == []


@pytest.mark.parametrize("rounds", [50])
def test_each_reading_has_a_number_of_its_own(rounds: int) -> None:
    room, other = Room(), Room()
    for step in range(rounds):
        room.hears(report(step % 2))
        room.silent(6)
    assert [one["seq"] for one in room.readings] == list(range(len(room.readings)))
    assert len({one["boot_id"] for one in room.readings}) == 1
    assert other.hears(report())[0]["boot_id"] != room.readings[0]["boot_id"]
