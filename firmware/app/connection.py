"""The connection to the gateway: found by name, over TLS with the site's own CA, held, made again when it breaks."""

import asyncio
import gc
import ssl

from micropython import const

from app.mqtt import MqttError
from app.supervisor import Part
from app.wifi import backoff_ms

_CONNECT_MS = const(10_000)
_GOOD_MS = const(60_000)
_LOGIN_FAILURES = const(7)
"""A wrong password goes straight to the longest pause."""

_WORDS = (
    ("common name", "the certificate is for another name than %s"),
    ("cn does not match", "the certificate is for another name than %s"),
    ("has expired", "the certificate of %s has expired"),
    ("in the future", "the certificate of %s is not valid yet: is the clock right?"),
    ("not correctly signed by the trusted", "the certificate of %s was not issued by this site's CA"),
    ("ca_chain_required", "the board has no CA to check %s with"),
    ("ca chain required", "the board has no CA to check %s with"),
)


def explain(error, server_name):
    """Return in words why a connection failed."""
    text = str(error)
    for part, words in _WORDS:
        if part in text.lower():
            return words % server_name
    if isinstance(error, MqttError):
        return text
    return "%s: %s" % (type(error).__name__, text)


def tls(ca_der):
    """Return what TLS is made with: the peer must have a certificate of one of these CAs (DER, one after another).

    Raises ValueError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    while ca_der:  # DER begins with 0x30 0x82 and two bytes of length
        size = 4 + (ca_der[2] << 8 | ca_der[3])
        context.load_verify_locations(cadata=ca_der[:size])
        ca_der = ca_der[size:]
    return context


class Connection(Part):
    """`gateway` is that of config.json; `resolve` finds an address by name; `ca_der` is needed for TLS only.

    `connected()` is called whenever the gateway has let the board in.
    """

    name = "connection"

    def __init__(self, clock, wifi, timekeeper, client, gateway, resolve, ca_der, connected):
        super().__init__(clock)
        self._wifi = wifi
        self._timekeeper = timekeeper
        self._client = client
        self._gateway = gateway
        self._resolve = resolve
        self._ca_der = ca_der
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
                self._say(explain(error, self._gateway.get("server_name") or self._gateway["host"]))
            failures = 0 if self.connected_ms() >= _GOOD_MS else failures
            self._since_ms = None
            failures = _LOGIN_FAILURES if is_login else failures + 1
            gc.collect()  # sockets that nobody holds any more, and room for the next handshake
            await self.pause(backoff_ms(failures))

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
        arguments = {}
        if self._gateway.get("tls"):
            arguments = {"ssl": tls(self._ca_der), "server_hostname": self._gateway["server_name"]}
        try:
            reader, writer = await asyncio.wait_for_ms(
                asyncio.open_connection(address, self._gateway["port"], **arguments), _CONNECT_MS
            )
        except asyncio.TimeoutError:
            raise OSError("%s does not answer" % address) from None
        await self._client.serve(reader, writer, self._connected, self.beat)

    def _connected(self):
        self._since_ms = self._clock.uptime_ms()
        self.count += 1
        self.problem = ""
        print("connection: connected")
        self._on_connected()
