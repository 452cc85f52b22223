"""Motion, its pulses, and what is no motion: also run by MicroPython."""

import asyncio

from drivers.pir import Pir
from time_by_hand import LoopTicks, Ticks


class Pin:
    def __init__(self):
        self.high = 0
        self.handler = None

    def value(self):
        return self.high

    def irq(self, handler):
        self.handler = handler

    def become(self, high):
        self.high = high
        self.handler(self)


def warm(**settings):
    pin, clock = Pin(), Ticks()
    pir = Pir(pin, settings, clock)
    clock.advance(60_000)
    pir.look()
    pir.changed = False
    return pir, pin, clock


def pulse(pir, pin, clock, ms):
    pin.become(1)
    pir.look()
    clock.advance(ms)
    pir.look()
    pin.become(0)
    pir.look()


def test_while_it_warms_up_nothing_is_said():
    pin, clock = Pin(), Ticks()
    pir = Pir(pin, {}, clock)
    pulse(pir, pin, clock, 1_000)
    assert pir.read() is None
    assert pir.health() == {"pir": "warming"}
    clock.advance(60_000)
    pir.look()
    assert pir.read() == {"motion_detected": False, "pulses": 0}


def test_motion_is_seen_held_and_over():
    pir, pin, clock = warm()
    pulse(pir, pin, clock, 2_000)
    assert pir.changed
    assert pir.read() == {"motion_detected": True, "pulses": 1}
    pir.changed = False
    clock.advance(4_900)
    pir.look()
    assert not pir.changed
    clock.advance(200)
    pir.look()
    assert pir.changed
    assert pir.read() == {"motion_detected": False, "pulses": 0}


def test_pulses_are_counted_once_and_between_readings():
    pir, pin, clock = warm()
    for _ in range(3):
        pulse(pir, pin, clock, 300)
        clock.advance(300)
    assert pir.read()["pulses"] == 3
    assert pir.read()["pulses"] == 0


def test_what_is_shorter_than_the_debounce_is_no_motion():
    pir, pin, clock = warm()
    for _ in range(20):
        pulse(pir, pin, clock, 49)
        clock.advance(10)
    assert pir.read() == {"motion_detected": False, "pulses": 0}
    assert not pir.changed


def test_an_output_that_stays_high_is_stuck_until_it_falls():
    pir, pin, clock = warm()
    pin.become(1)
    for _ in range(3_700):
        clock.advance(1_000)
        pir.look()
    assert pir.health() == {"pir": "stuck_high"}
    assert pir.read()["motion_detected"] is False
    pin.become(0)
    pir.look()
    assert pir.health() == {"pir": "ok"}


def test_hours_of_silence_are_no_motion_when_the_ticks_wrap_around():
    pir, pin, clock = warm()
    pulse(pir, pin, clock, 1_000)
    for _ in range(500):
        clock.advance(3_600_000)
        pir.look()
        assert not pir.read()["motion_detected"]


async def test_the_interrupt_wakes_it():
    pin = Pin()
    pir = Pir(pin, {"warm_up_s": 0, "debounce_ms": 20}, LoopTicks())
    running = asyncio.create_task(pir.run())
    await asyncio.sleep_ms(30)
    pir.changed = False
    pin.become(1)
    await asyncio.sleep_ms(200)  # long before it would have looked by itself
    assert pir.changed
    assert pir.read() == {"motion_detected": True, "pulses": 1}
    running.cancel()
