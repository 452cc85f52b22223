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
    """`gateway_address()` returns an address or None; `http_port` is where the gateway answers, if NTP does not."""

    name = "clock"

    def __init__(self, clock, wifi, ntp_host, gateway_address, http_port):
        super().__init__(clock)
        self._wifi = wifi
        self._ntp_host = ntp_host
        self._gateway_address = gateway_address
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
        self._is_asking = True
        try:
            if not await self._ask_ntp() and self._clock.source != "ntp":  # which is better, however long ago
                await self._ask_gateway()
        finally:
            self._is_asking = False
            forget("time_sources")

    async def _ask_ntp(self):
        from app.time_sources import ask_ntp

        try:
            self._clock.set(await ask_ntp(self._ntp_host), "ntp")
        except (OSError, ValueError) as error:
            print("clock: %s:" % self._ntp_host, error)
            return False
        return True

    async def _ask_gateway(self):
        from app.time_sources import ask_gateway

        address = self._gateway_address()
        try:
            if address is None:
                return
            unix_ms, is_right = await ask_gateway(address, self._http_port)
            if is_right:
                self._clock.set(unix_ms, "gateway")
            elif not self._clock.is_set:
                print("clock: the gateway's own clock is not set by NTP")
                self._clock.suppose(unix_ms)
        except (OSError, ValueError) as error:
            print("clock:", error)
