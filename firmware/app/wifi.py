"""The network: joined again whenever it is lost, with longer and longer pauses, in which the radio is off."""

import os

from micropython import const

from app.supervisor import Part

_JOIN_MS = const(20_000)
_LOOK_MS = const(500)
_LONGEST_MS = const(60_000)


def backoff_ms(failures):
    """Return how long to wait after so many failures: a second, two, four … a minute, and up to a half more by chance.

    By chance, so that a hundred boards do not come at once after a power cut.
    """
    ms = min(1_000 << min(failures, 10) - 1, _LONGEST_MS)
    return ms + ms * os.urandom(1)[0] // 512


class Wifi(Part):
    """`station` is a network.WLAN of the ESP32, or what behaves like one."""

    name = "wifi"

    def __init__(self, clock, station, ssid, password):
        super().__init__(clock)
        self._station = station
        self._ssid = ssid
        self._password = password
        self.losses = 0
        """How often it was lost since the start."""

    @property
    def is_connected(self):
        """Whether there is a network."""
        return self._station.isconnected()

    def rssi_dbm(self):
        """Return how well the access point is heard; None when it is not."""
        if not self._station.isconnected():
            return None
        try:
            return self._station.status("rssi")
        except (OSError, ValueError):
            return None

    async def run(self):
        """Stay in the network for ever."""
        failures = 0
        while True:
            if await self._join():
                failures = 0
                while self._station.isconnected():
                    await self.pause(_LOOK_MS)
                self.losses += 1
                print("wifi: lost")
            failures += 1
            self._station.active(False)
            await self.pause(backoff_ms(failures))

    async def _join(self):
        self._station.active(True)
        try:
            if not self._station.isconnected():
                self._station.connect(self._ssid, self._password)
        except OSError as error:  # the radio is in a state that only switching it off ends
            print("wifi:", error)
            return False
        for _ in range(_JOIN_MS // _LOOK_MS):
            if self._station.isconnected():
                print("wifi: connected")
                return True
            await self.pause(_LOOK_MS)
        print("wifi: no connection to %s" % self._ssid)
        return False
