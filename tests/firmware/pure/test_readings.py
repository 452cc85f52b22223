"""When a reading is taken, and what is in it: also run by MicroPython."""

import asyncio
import json

from app.clock import Clock
from app.readings import Readings
from time_by_hand import LoopTicks


class Driver:
    def __init__(self, name, fields):
        self.name = name
        self.fields = fields
        self.changed = False

    def read(self):
        return self.fields

    def health(self):
        return {self.name: "ok"}


class Outbox:
    def __init__(self):
        self.bodies = []

    def add(self, body):
        self.bodies.append(json.loads(body))


def readings(*drivers, min_interval_ms=1, heartbeat_s=3_600):
    outbox = Outbox()
    settings = {"min_interval_ms": min_interval_ms, "heartbeat_s": heartbeat_s}
    clock = Clock(LoopTicks(), lambda unix_s: None)
    return Readings(clock, drivers, outbox, settings, lambda: {"heap_free": 1}), outbox


async def running(part, *steps):
    """Run it; each step is a driver that has something new, or milliseconds."""
    task = asyncio.create_task(part.run())
    for step in steps:
        if isinstance(step, int):
            await asyncio.sleep_ms(step)
        else:
            step.changed = True
            await asyncio.sleep_ms(20)
    task.cancel()


async def test_a_reading_has_every_sensor_that_says_something_and_the_health_of_all():
    part, outbox = readings(Driver("a", {"x": 1}), Driver("b", None))
    part.measure()
    assert outbox.bodies == [{"sensors": {"a": {"x": 1}}, "health": {"heap_free": 1, "a": "ok", "b": "ok"}}]


async def test_without_any_sensor_there_is_no_reading():
    part, outbox = readings(Driver("b", None))
    part.measure()
    assert outbox.bodies == []


async def test_a_change_of_any_driver_is_a_reading_and_silence_is_none():
    one, other = Driver("a", {"x": 1}), Driver("b", {"y": 1})
    part, outbox = readings(one, other)
    await running(part, 20, one, other)
    assert len(outbox.bodies) == 2
    await running(part, 60)
    assert len(outbox.bodies) == 2


async def test_many_changes_within_the_interval_are_one_reading():
    driver = Driver("a", {"x": 1})
    part, outbox = readings(driver, min_interval_ms=400)
    await running(part, driver, driver, driver, driver)
    assert len(outbox.bodies) == 1
    await running(part, 500)
    assert len(outbox.bodies) == 2, "the last change was forgotten"


async def test_the_heartbeat_needs_no_change():
    part, outbox = readings(Driver("a", {"x": 1}), heartbeat_s=0)
    await running(part, 50)
    assert len(outbox.bodies) > 1
