# The whole program of a board on simulated hardware: it gets a story as JSON on standard
# input: `root` (its flash), `safe`, `flash_free`, `speed` (how much faster its time goes than ours). A file
# `root`/wifi_down takes the network away, `root`/radar_lost the radar.
# Prints EVENT lines: what the hardware was asked for, and how much memory was in use: at each stage of the start, and
# since then ("memory": now, and at most). What is here takes about what app/hardware.py takes on a board.
import gc
import json
import os
import sys
import time

import micropython


def in_use():
    gc.collect()
    return gc.mem_alloc()


INTERPRETER = in_use()


def say(*event):
    print("EVENT " + json.dumps(event))


# A radar in front of which somebody comes and goes; it answers no command.
class Radar:
    def __init__(self, baud, is_lost):
        self._baud = baud
        self._is_lost = is_lost
        self._count = 0

    async def read(self, _):
        await asyncio.sleep_ms(100)
        self._count += 1
        if self._baud != 256_000 or self._is_lost():
            return b"\x00\xff"
        report = bytearray(b"\xf4\xf3\xf2\xf1\r\x00\x02\xaa\x023\x00<3\x00<3\x00U\x00\xf8\xf7\xf6\xf5")
        report[8] = 2 if self._count // 10 % 2 else 0
        return bytes(report)

    def write(self, data):
        pass

    async def drain(self):
        pass


# One for all: also the pin, the converter, the Wi-Fi station and the watchdog. Looks at the memory twice a second.
class Hardware:
    ticks = time
    said = most = 0

    def __init__(self):
        self.story = json.load(sys.stdin)
        self.root = self.story["root"]
        if "speed" in self.story:
            from faster_time import FasterTicks

            self.ticks = FasterTicks(self.story["speed"])
        self.set_rtc = lambda unix_s: say("rtc", unix_s)

    def led(self, on):
        say("led", bool(on))

    def open_radar(self, baud):
        return Radar(baud, lambda: self._is_there("/radar_lost"))

    def gas_divider(self):
        return {"divider_top_ohm": 10_000, "divider_bottom_ohm": 9_100}

    def _itself(self, *_):
        return self

    motion = gas = station = watchdog = _itself

    def resolve(self, name):
        return "127.0.0.1"

    def reset(self):
        micropython.qstr_info()  # how many names there are, for heap.py
        say("reset")
        sys.exit(0)

    def reset_cause(self):
        return "power"

    def serial(self):
        return "0011223344"

    def heap_free(self):
        return gc.mem_free(), 100_000

    def flash_free(self):
        return self.story.get("flash_free", 1 << 20)

    def value(self):
        return self.ticks.ticks_ms() // 1_000 % 4 == 0

    def irq(self, handler):
        pass

    def read_uv(self):
        return 812_000

    def isconnected(self):
        return not self._is_there("/wifi_down")

    def _is_there(self, name):
        try:
            os.stat(self.root + name)
        except OSError:
            return False
        return True

    def active(self, on):
        pass

    def connect(self, ssid, password):
        say("joins", ssid)

    def status(self, what):
        return -61

    def feed(self):
        used = in_use()
        self.most = max(used, self.most)
        if abs(used - self.said) > 200:
            self.said = used
            say("memory", used, self.most)


say("heap", "interpreter", INTERPRETER)
say("heap", "bench", in_use())
import asyncio  # noqa: E402 - its memory is measured

say("heap", "asyncio", in_use())
from app.main import Application  # noqa: E402

say("heap", "imported", in_use())
_hardware = Hardware()
_application = Application(_hardware, _hardware.story.get("safe", ""))
say("heap", "built", in_use())
asyncio.run(_application.start())
