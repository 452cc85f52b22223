"""The connection to the gateway: found by name, over TLS with the site's own CA, held, made again when it breaks."""

import asyncio
import gc

from micropython import const

from app.mqtt import MqttError
from app.on_demand import forget
from app.supervisor import Part
from app.wifi import backoff_ms

_GOOD_MS = const(60_000)
_LOGIN_FAILURES = const(7)
"""A wrong password goes straight to the longest pause."""


class Connection(Part):
    """`gateway` is that of config.json; `resolve` finds an address by name; the file `ca_path` is needed for TLS only.

    `connected()` is called whenever the gateway has let the board in.
    """

    name = "connection"

    def __init__(self, clock, wifi, timekeeper, client, gateway, resolve, ca_path, connected):
        super().__init__(clock)
        self._wifi = wifi
        self._timekeeper = timekeeper
        self._client = client
        self._gateway = gateway
        self._resolve = resolve
        self._ca_path = ca_path
        self._tls = None
        self._on_connected = connected
        self._address = None
        self._since_ms = None
        self.problem = ""
        """Why there is no connection, or why the last one ended."""
        self.count = 0

    def address(self):
        """Return the gateway's address: as its name is found now, or was the last time."""
        try:
            self._address = self._resolve(self._gateway["host"])
        except OSError as error:
            if self._address is None:
                print("connection: %s is not found:" % self._gateway["host"], error)
        return self._address

    def connected_ms(self):
        """Return for how long it is connected, 0 when it is not."""
        if self._since_ms is None:
            return 0
        return self._clock.uptime_ms() - self._since_ms

    async def run(self):
        """Stay connected for ever."""
        failures = 0
        while True:
            while not self._wifi.is_connected:
                await self.pause(200)
            self.beat()
            is_login = False
            try:
                await self._connect_once()
            except (OSError, ValueError, EOFError, asyncio.TimeoutError, MqttError) as error:
                is_login = isinstance(error, MqttError) and error.is_login
                self._explain(error)
            failures = 0 if self.connected_ms() >= _GOOD_MS else failures
            self._since_ms = None
            failures = _LOGIN_FAILURES if is_login else failures + 1
            gc.collect()  # sockets that nobody holds any more, and room for the next handshake
            await self.pause(backoff_ms(failures))

    def _explain(self, error):
        from app.connecting import explain

        self._say(explain(error, self._gateway.get("server_name") or self._gateway["host"]))
        forget("app.connecting")

    def _say(self, problem):
        if problem != self.problem:
            print("connection:", problem)
        self.problem = problem

    async def _connect_once(self):
        address = self.address()
        if address is None:
            raise OSError("%s is not found" % self._gateway["host"])
        if not self._clock.is_set:
            await self._timekeeper.ask()
            self.beat()
        reader, writer = await self._open(address)
        await self._client.serve(reader, writer, self._connected, self.beat)

    async def _open(self, address):
        from app.connecting import connect, tls_context

        forget("app.connecting")
        if self._gateway.get("tls") and self._tls is None:
            self._tls = tls_context(self._ca_path)  # kept: a later heap may have no place for its 3 KB
        return await connect(self._gateway, address, self._tls, self.beat)

    def _connected(self):
        self._since_ms = self._clock.uptime_ms()
        self.count += 1
        self.problem = ""
        print("connection: connected")
        self._on_connected()
