"""The gas sensor's driver, with a converter by hand: also run by MicroPython."""

import asyncio

from drivers.mq_sensor import MqSensor
from time_by_hand import LoopTicks

CIRCUIT = {"divider_top_ohm": 10_000, "divider_bottom_ohm": 9_100, "preheat_s": 60}


class Adc:
    uv = 812_000

    def __init__(self):
        self.spikes = 0

    def read_uv(self):
        self.spikes += 1
        return 3_000_000 if self.spikes % 10 == 0 else self.uv


def sensor(**settings):
    kept, adc = [], Adc()
    return MqSensor(adc, dict(CIRCUIT, **settings), LoopTicks(), settings.get("r0_ohm"), kept.append), adc, kept


async def refused(params, driver):
    try:
        await driver.carry_out("calibrate_gas", params)
    except ValueError as error:
        return str(error)
    raise AssertionError("it was calibrated")


async def test_it_warms_up_then_wants_to_be_calibrated_and_keeps_what_it_found():
    driver, _, kept = sensor()
    assert driver.read() is None
    task = asyncio.create_task(driver.run())
    await asyncio.sleep_ms(5_000)
    reading = driver.read()
    assert (reading["state"], reading["raw_uv"]) == ("warming", 812_000)
    assert driver.changed
    assert "not warm yet" in await refused({}, driver)
    await asyncio.sleep_ms(60_000)
    assert driver.read()["state"] == "uncalibrated"
    result = await driver.carry_out("calibrate_gas", {})
    assert kept == [result["r0_ohm"]]
    assert result["r0_ohm"] > 0
    assert driver.read()["state"] in ("ok", "out_of_range")
    assert driver.read()["raw_uv"] == 812_000
    task.cancel()


async def test_at_a_rail_it_cannot_be_calibrated_and_the_raw_value_is_still_told():
    driver, adc, kept = sensor()
    adc.uv = 10_000
    task = asyncio.create_task(driver.run())
    await asyncio.sleep_ms(5_000)
    assert driver.read()["raw_uv"] == 10_000
    assert "look at the wiring" in await refused({"force": True}, driver)
    assert kept == []
    task.cancel()
