"""The only file that knows the chip: everything else is handed in, so that it runs without one."""

import asyncio
import binascii
import gc
import os
import socket
import time

import board
import esp32
import machine
import network
from micropython import const

_WATCHDOG_MS = const(60_000)
_CONSOLE_MS = const(1_800_000)
_EPOCH_S = 946_684_800 if time.gmtime(0)[0] == 2000 else 0
_CAUSES = {
    machine.PWRON_RESET: "power",
    machine.HARD_RESET: "hard",
    machine.WDT_RESET: "watchdog",
    machine.DEEPSLEEP_RESET: "deepsleep",
    machine.SOFT_RESET: "soft",
}


class _Motion:
    """The PIR's pin, with an interrupt on both edges."""

    def __init__(self):
        self._pin = machine.Pin(board.PIR, machine.Pin.IN)
        self.value = self._pin.value

    def irq(self, handler):
        self._pin.irq(handler=handler, trigger=machine.Pin.IRQ_RISING | machine.Pin.IRQ_FALLING)


class Hardware:
    """An ESP32 with the pins of board.py."""

    root = ""
    """The folder of the files, of which each begins with a slash."""
    ticks = time

    def __init__(self):
        self._led = machine.Pin(board.LED, machine.Pin.OUT, value=0)

    def led(self, on):
        """Switch the LED."""
        self._led.value(1 if on else 0)

    def open_radar(self, baud):
        """Return the radar's UART at this speed as a stream."""
        return asyncio.StreamReader(
            machine.UART(board.RADAR_UART, baudrate=baud, rx=board.RADAR_RX, tx=board.RADAR_TX, rxbuf=1024, timeout=0)
        )

    def motion(self):
        """Return the pin of the motion sensor."""
        return _Motion()

    def gas(self):
        """Return the converter of the gas sensor, which has `read_uv()`."""
        return machine.ADC(machine.Pin(board.GAS), atten=machine.ADC.ATTN_11DB)

    def gas_divider(self):
        """Return the resistors between gas sensor and pin, as its settings name them."""
        return {"divider_top_ohm": board.DIVIDER_TOP_OHM, "divider_bottom_ohm": board.DIVIDER_BOTTOM_OHM}

    def station(self, hostname):
        """Return the Wi-Fi station."""
        network.hostname(hostname[:32])
        return network.WLAN(network.STA_IF)

    def resolve(self, name):
        """Return the address of a host; a name that ends in .local is asked for by mDNS. Blocks. Raises OSError."""
        found = socket.getaddrinfo(name, 0, 0, socket.SOCK_STREAM)[0][-1]
        return found[0] if isinstance(found, tuple) else name  # other ports know bytes, and look it up again

    def set_rtc(self, unix_s):
        """Set the clock that TLS judges certificates by."""
        year, month, day, hour, minute, second, weekday = time.gmtime(unix_s - _EPOCH_S)[:7]
        machine.RTC().datetime((year, month, day, weekday, hour, minute, second, 0))

    def watchdog(self):
        """Start the watchdog, which nothing stops again."""
        return machine.WDT(timeout=_WATCHDOG_MS)

    def leave_to_console(self):
        """Give a person who has stopped the program half an hour: nothing feeds the watchdog any more."""
        machine.WDT(timeout=_CONSOLE_MS)

    def reset(self):
        """Start again from the beginning."""
        machine.reset()

    def reset_cause(self):
        """Return why the board has started."""
        return _CAUSES.get(machine.reset_cause(), "unknown")

    def serial(self):
        """Return the chip's own number."""
        return binascii.hexlify(machine.unique_id()).decode()

    def heap_free(self):
        """Return how many bytes are free for the program, and for the system (TLS, Wi-Fi)."""
        return gc.mem_free(), sum([region[1] for region in esp32.idf_heap_info(esp32.HEAP_DATA)])

    def flash_free(self):
        """Return how many bytes are free on the flash."""
        of_flash = os.statvfs("/")
        return of_flash[0] * of_flash[3]
