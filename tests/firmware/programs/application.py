# The whole program of a board on simulated hardware: it gets a story as JSON on standard
# input: `root` (its flash), `safe`, `flash_free`, `speed` (how much faster its time goes than ours). A file
# `root`/wifi_down takes the network away.
# Prints EVENT lines: what the hardware was asked for, and how much memory was in use at most.
import asyncio
import gc
import json
import os
import sys
import time

from app.main import Application

STORY = json.load(sys.stdin)


def say(*event):
    print("EVENT " + json.dumps(event))


class Ticks:
    SPEED = STORY.get("speed", 1)
    ticks_add, ticks_diff = time.ticks_add, time.ticks_diff

    @classmethod
    def ticks_ms(cls):
        return time.ticks_add(time.ticks_ms() * cls.SPEED, 0)


_sleep_ms = asyncio.sleep_ms
asyncio.sleep_ms = lambda ms: _sleep_ms(ms // Ticks.SPEED)


class Radar:
    """A radar in front of which somebody comes and goes; it answers no command."""

    REPORT = bytes.fromhex("f4f3f2f10d0002aa0233003c33003c33005500f8f7f6f5")

    def __init__(self, baud):
        self._baud = baud
        self._count = 0

    async def read(self, _):
        await asyncio.sleep_ms(100)
        self._count += 1
        if self._baud != 256_000:
            return b"\x00\xff"
        report = bytearray(self.REPORT)
        report[8] = 2 if self._count // 10 % 2 else 0
        return bytes(report)

    def write(self, data):
        pass

    async def drain(self):
        pass


class Pin:
    handler = None

    def value(self):
        return Ticks.ticks_ms() // 1_000 % 4 == 0

    def irq(self, handler):
        self.handler = handler


class Adc:
    def read_uv(self):
        return 812_000


class Station:
    def isconnected(self):
        try:
            os.stat(STORY["root"] + "/wifi_down")
        except OSError:
            return True
        return False

    def active(self, on):
        pass

    def connect(self, ssid, password):
        say("joins", ssid)

    def status(self, what):
        return -61


class Watchdog:
    def feed(self):
        gc.collect()
        if gc.mem_alloc() > Watchdog.most:
            Watchdog.most = gc.mem_alloc()
            say("memory", Watchdog.most)

    most = 0


class Hardware:
    root = STORY["root"]
    ticks = Ticks

    def led(self, on):
        say("led", bool(on))

    def open_radar(self, baud):
        return Radar(baud)

    def motion(self):
        return Pin()

    def gas(self):
        return Adc()

    def gas_divider(self):
        return {"divider_top_ohm": 10_000, "divider_bottom_ohm": 9_100}

    def station(self, hostname):
        return Station()

    def resolve(self, name):
        return "127.0.0.1"

    def set_rtc(self, unix_s):
        say("rtc", unix_s)

    def watchdog(self):
        return Watchdog()

    def reset(self):
        say("reset")
        sys.exit(0)

    def reset_cause(self):
        return "power"

    def serial(self):
        return "0011223344"

    def heap_free(self):
        return gc.mem_free(), 100_000

    def flash_free(self):
        return STORY.get("flash_free", 1 << 20)


asyncio.run(Application(Hardware(), STORY.get("safe", "")).start())
