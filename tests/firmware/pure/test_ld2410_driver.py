"""The radar's driver with a simulated radar on its line: also run by MicroPython."""

import asyncio

from drivers import RadarError
from drivers.ld2410 import Ld2410
from simulated_radar import SimulatedRadar
from time_by_hand import LoopTicks


class Line:
    """A UART at one speed, with the radar at its other end."""

    def __init__(self, radar, baud):
        self.radar, self.baud = radar, baud
        self.waiting = b""
        self.written = b""

    async def read(self, at_most):
        while not self.waiting:
            await asyncio.sleep_ms(5)
        data, self.waiting = self.waiting[:at_most], self.waiting[at_most:]
        return data

    def write(self, data):
        self.written += data

    async def drain(self):
        if self.radar.baud == self.baud:
            self.waiting += self.radar.hear(self.written)
        self.written = b""


class Bench:
    def __init__(self, radar=None, **settings):
        self.radar = radar or SimulatedRadar()
        self.line = None
        self.plugged = True
        self.driver = Ld2410(self.open, settings, LoopTicks())
        self.tasks = [asyncio.create_task(self.driver.run()), asyncio.create_task(self.report())]

    def open(self, baud):
        self.line = Line(self.radar, baud)
        return self.line

    async def report(self):
        while True:
            await asyncio.sleep_ms(20)
            if self.plugged and self.line is not None:
                report = self.radar.report()
                self.line.waiting += report if self.line.baud == self.radar.baud else bytes(reversed(report))

    async def until(self, what, ms=4_000):
        for _ in range(ms // 10):
            if what():
                return
            await asyncio.sleep_ms(10)
        raise AssertionError("it did not come to that: %s" % self.driver.health())

    def close(self):
        for task in self.tasks:
            task.cancel()


async def test_it_says_who_is_there_and_nothing_of_who_has_left():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    assert driver.read() is None
    await bench.until(lambda: driver.version == "V1.07.22091516")
    await bench.until(lambda: driver.state == "ok")
    radar.state, radar.moving_cm, radar.moving_energy, radar.distance_cm = 1, 123, 60, 120
    await bench.until(lambda: driver.read()["presence"])
    assert driver.read() == {
        "presence": True,
        "moving": True,
        "stationary": False,
        "distance_cm": 120,
        "moving_distance_cm": 123,
        "moving_energy": 60,
        "stationary_distance_cm": 0,
        "stationary_energy": 0,
    }
    radar.state = 0
    await bench.until(lambda: not driver.read()["presence"])
    assert not any(driver.read().values())
    bench.close()


async def test_only_what_changes_enough_is_news():
    bench = Bench(dead_band_cm=30)
    driver, radar = bench.driver, bench.radar
    radar.state, radar.moving_cm = 1, 100
    await bench.until(lambda: driver.read() is not None)
    await asyncio.sleep_ms(100)
    driver.read()
    driver.changed = False
    radar.moving_cm = 129
    await asyncio.sleep_ms(100)
    assert not driver.changed
    radar.moving_cm = 130
    await bench.until(lambda: driver.changed)
    bench.close()


async def test_a_radar_that_is_unplugged_is_lost_and_comes_back():
    bench = Bench()
    driver = bench.driver
    await bench.until(lambda: driver.state == "ok")
    bench.plugged, bench.radar.baud = False, 1
    await bench.until(lambda: driver.state == "lost")
    assert driver.read() is None
    assert driver.health()["radar"] == "lost"
    bench.plugged, bench.radar.baud = True, 115_200  # another one, at another speed
    await bench.until(lambda: driver.state == "ok", 8_000)
    assert bench.line.baud == 115_200
    bench.close()


async def test_commands_are_asked_one_after_another_and_the_configuration_is_left():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    await bench.until(lambda: driver.state == "ok")
    first, second = await asyncio.gather(
        driver.carry_out("radar_parameters", {}), driver.carry_out("set_radar", {"nobody_s": 30, "moving_gate": 4})
    )
    assert first["nobody_s"] == 5
    assert second["nobody_s"] == radar.nobody_s == 30
    assert radar.gates == [4, 8]
    sensitive = await driver.carry_out("set_radar", {"moving_sensitivity": [50, 50, 40, 99, 20, 15, 15, 15, 15]})
    assert sensitive["moving_sensitivity"][3] == radar.moving[3] == 99
    assert radar.heard.count(0x64) == 1  # only the gate that differs
    assert not radar.configuring
    await bench.until(lambda: driver.state == "ok")
    bench.close()


async def test_what_is_lost_is_asked_again_and_no_answer_is_an_error():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    await bench.until(lambda: driver.version != "")
    radar.deaf_for = 2
    assert (await driver.carry_out("radar_parameters", {}))["nobody_s"] == 5
    radar.refuses = (0x60,)
    for answer in (driver.carry_out("set_radar", {"nobody_s": 1}), driver.carry_out("set_radar", {"nobody_s": 2})):
        try:
            await answer
        except RadarError as error:
            assert "refused command 60" in str(error)
        else:
            raise AssertionError("it was taken")
        assert not radar.configuring
    radar.deaf_for = 3
    try:
        await driver.carry_out("radar_parameters", {})
    except RadarError as error:
        assert "does not answer" in str(error)
    else:
        raise AssertionError("it was answered")
    await bench.until(lambda: not radar.configuring)
    bench.close()


async def test_bad_parameters_change_nothing():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    await bench.until(lambda: driver.version != "")
    for wrong in ({"moving_gate": 9}, {"nobody_s": -1}, {"moving_sensitivity": [1, 2]}, {"nobody_s": "5"}):
        try:
            await driver.carry_out("set_radar", wrong)
        except ValueError:
            assert not radar.configuring
        else:
            raise AssertionError(wrong)
    assert 0x60 not in radar.heard
    bench.close()


async def test_it_sets_what_is_wanted_when_the_radar_is_found():
    bench = Bench(nobody_s=60, stationary_gate=6)
    await bench.until(lambda: bench.radar.nobody_s == 60)
    assert bench.radar.gates == [8, 6]
    bench.close()


async def test_engineering_reports_name_each_gate_and_end_by_themselves():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    await bench.until(lambda: driver.version != "")
    assert await driver.carry_out("radar_engineering", {"seconds": 1}) == {"engineering": True}
    await bench.until(lambda: "moving_gate_energies" in (driver.read() or {}))
    assert driver.read()["moving_gate_energies"] == list(range(1, 10))
    await bench.until(lambda: not radar.engineering)
    bench.close()


async def test_it_restarts_and_goes_on():
    bench = Bench()
    driver, radar = bench.driver, bench.radar
    await bench.until(lambda: driver.version != "")
    assert await driver.carry_out("radar_restart", {}) == {"restarted": True}
    assert radar.restarts == 1
    await bench.until(lambda: driver.state == "ok")
    bench.close()


async def test_a_radar_that_was_left_in_its_configuration_is_led_out():
    radar = SimulatedRadar()
    radar.configuring, radar.deaf_for = True, 4  # it misses what is asked at the start
    bench = Bench(radar)
    await bench.until(lambda: bench.driver.state == "ok", 10_000)
    bench.close()
