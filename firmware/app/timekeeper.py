"""Keeps the clock right: asked before the first connection, every minute until somebody answers, daily then.

The gateway's time is taken for readings only when its own clock is right; else for TLS alone, as a site without NTP
must work too. As long as the gateway's is all there is, NTP is asked every hour.
"""

from micropython import const

from app.on_demand import forget
from app.supervisor import Part

_DAILY_MS = const(86_400_000)
_HOURLY_MS = const(3_600_000)
_MINUTE_MS = const(60_000)


class Timekeeper(Part):
    """`http_port` is where the gateway answers, if NTP does not."""

    name = "clock"

    def __init__(self, clock, wifi, ntp_host, http_port):
        super().__init__(clock)
        self._wifi = wifi
        self._ntp_host = ntp_host
        self.gateway_address = None
        """Returns the gateway's address, or None."""
        self._http_port = http_port
        self._is_asking = False

    async def run(self):
        """Ask for ever."""
        while True:
            while not self._wifi.is_connected:
                await self.pause(1_000)
            await self.ask()
            if self._clock.source == "ntp":
                await self.pause(_DAILY_MS)
            else:
                await self.pause(_HOURLY_MS if self._clock.is_set else _MINUTE_MS)

    async def ask(self):
        """Ask once, unless it is being asked; the clock is set if somebody answers."""
        if self._is_asking:
            while self._is_asking:
                await self.pause(50)
            return
        from app.time_sources import ask

        forget("app.time_sources")
        self._is_asking = True
        try:
            await ask(self._clock, self._ntp_host, self.gateway_address, self._http_port)
        finally:
            self._is_asking = False
