"""The network: joined, lost, joined again, later each time. Also run by MicroPython."""

import asyncio

from app.clock import Clock
from app.wifi import Wifi, backoff_ms
from time_by_hand import LoopTicks


class Station:
    """A network.WLAN; `there` is whether its access point is."""

    def __init__(self, clock, there=True):
        self.clock, self.there = clock, there
        self.joined, self.tries = False, []
        self.fails = False

    def active(self, on):
        self.joined = self.joined and on

    def connect(self, ssid, password):
        self.tries.append(self.clock.uptime_ms())
        if self.fails:
            raise OSError("Wifi Internal Error")
        self.joined = (ssid, password) == ("home", "secret")

    def isconnected(self):
        return self.there and self.joined

    def status(self, what):
        return -61


async def run(there, hours=0, **changes):
    clock = Clock(LoopTicks(), lambda unix_s: None)
    station = Station(clock, there)
    for name, value in changes.items():
        setattr(station, name, value)
    wifi = Wifi(clock, station, "home", "secret")
    task = asyncio.create_task(wifi.run())
    for _ in range(hours * 60):
        await asyncio.sleep_ms(60_000)
    await asyncio.sleep_ms(2_000)
    return wifi, station, task


def test_the_pauses_double_up_to_a_minute_and_differ_by_chance():
    for failures, least in ((1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (500, 60_000)):
        found = [backoff_ms(failures) for _ in range(50)]
        assert min(found) >= least
        assert max(found) <= least * 3 // 2
        assert len(set(found)) > 5


async def test_a_network_that_goes_is_joined_again():
    wifi, station, task = await run(there=True)
    assert wifi.is_connected
    assert wifi.rssi_dbm() == -61
    station.joined = False
    await asyncio.sleep_ms(4_000)
    assert wifi.is_connected
    assert wifi.losses == 1
    assert len(station.tries) == 2
    task.cancel()


async def test_without_its_access_point_it_tries_for_ever_and_more_and_more_rarely():
    wifi, station, task = await run(there=False, hours=1)
    assert not wifi.is_connected
    assert wifi.rssi_dbm() is None
    pauses = [after - before for before, after in zip(station.tries, station.tries[1:])]
    assert 35 < len(station.tries) < 70
    assert pauses[0] < 25_000
    assert all(80_000 <= pause <= 120_000 for pause in pauses[7:])
    station.there = True
    await asyncio.sleep_ms(120_000)
    assert wifi.is_connected
    task.cancel()


async def test_a_radio_that_refuses_is_switched_off_and_tried_again():
    wifi, station, task = await run(there=True, fails=True)
    assert not wifi.is_connected
    station.fails = False
    await asyncio.sleep_ms(10_000)
    assert wifi.is_connected
    task.cancel()
