"""Handshakes: bounded in time and number, in turns with everybody else, and never silent about why one failed.

- a client that says nothing costs a socket; OpenSSL's state for it is made with its first byte
- handshakes take 5 ms of the event loop at a time, then others have their turn: signing costs a thousand times what
  storing a reading does
- when too many are under way, the address that has most of them loses its oldest; where each has one, the newest goes
- whoever is refused is told by an alert, and has a moment to read it: closing at once would throw it away
"""

import asyncio
import logging
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from gateway.login_delay import network_of
from gateway.metrics import Metrics
from gateway.tls.reasons import reason_of
from gateway.tls.stream import TlsStream

logger = logging.getLogger(__name__)

_TURN_S = 0.005
_LINGER_S = 1.0


class Handshakes:
    """All handshakes that are under way."""

    def __init__(self, *, timeout_s: float, at_most: int, metrics: Metrics) -> None:
        self.timeout_s = timeout_s
        self._at_most = at_most
        self._metrics = metrics
        self._under_way: dict[Handshake, str] = {}
        """With the network of each, the oldest first."""
        self._networks: Counter[str] = Counter()
        self._waiting: deque[Handshake] = deque()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._under_way)

    def begin(self, one: "Handshake", address: str) -> None:
        """Count it in; one that is too many is closed, perhaps another."""
        network = network_of(address)
        self._under_way[one] = network
        self._networks[network] += 1
        if len(self._under_way) > self._at_most:
            busiest, count = self._networks.most_common(1)[0]
            of_it = (other for other, where in self._under_way.items() if where == busiest)
            one = next(of_it) if count > 1 else one
            self.end(one)  # at once: others may come in before its socket is closed
            one.give_up("tls_too_many_handshakes", "")

    def end(self, one: "Handshake") -> None:
        """Count it out."""
        network = self._under_way.pop(one, None)
        if network is not None:
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]

    def stop(self) -> None:
        """Close all of them."""
        for one in list(self._under_way):
            one.stop()

    def ask_turn(self, one: "Handshake") -> None:
        """Let it go on, soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._take_turns)
        self._waiting.append(one)

    def _take_turns(self) -> None:
        ends = time.monotonic() + _TURN_S
        try:
            while self._waiting:
                self._waiting.popleft().go_on()
                if time.monotonic() >= ends:
                    break
        finally:  # a fault of ours in one keeps no other waiting
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._take_turns)

    def refused(self, peer: str, reason: str, detail: str) -> None:
        """Count it and say why."""
        self._metrics.refused.labels(reason).inc()
        logger.warning("connection closed: %s", reason, extra={"peer": peer, "client": "", "detail": detail})


class Handshake(asyncio.Protocol):
    """One of them: has the socket until it is done or has failed."""

    def __init__(
        self, handshakes: Handshakes, context: ssl.SSLContext, make_above: Callable[[], asyncio.Protocol]
    ) -> None:
        self._handshakes = handshakes
        self._context = context
        self._make_above = make_above
        self._loop = asyncio.get_running_loop()
        self._below: asyncio.Transport
        self._session: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._timer: asyncio.TimerHandle
        self._peer = "unknown"
        self._is_waiting = False
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._below = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        self._peer = f"{name[0]}:{name[1]}" if name else "unknown"
        self._timer = self._loop.call_later(self._handshakes.timeout_s, self.give_up, "tls_handshake_timeout", "")
        self._handshakes.begin(self, name[0] if name else "")

    def data_received(self, data: bytes) -> None:
        """Go on with it when it is its turn."""
        if self._is_over:  # it lingers; what comes is of no use
            return
        self._incoming.write(data)
        if self._session is None:
            self._session = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        if not self._is_waiting:
            self._is_waiting = True
            self._below.pause_reading()  # a client in a handshake has nothing to say that must wait in memory
            self._handshakes.ask_turn(self)

    def go_on(self) -> None:
        """Take one step."""
        self._is_waiting = False
        if self._is_over or self._session is None:
            return
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            self._below.resume_reading()
        except ssl.SSLError as error:
            self._flush()
            self._below.resume_reading()
            self._refuse(*reason_of(error))
        else:
            self._flush()
            self._done(self._session)

    def _done(self, session: ssl.SSLObject) -> None:
        self._is_over = True
        self._timer.cancel()
        self._handshakes.end(self)
        stream = TlsStream(self._below, session, self._incoming, self._outgoing)
        self._below.set_protocol(stream)
        self._below.resume_reading()
        stream.begin(self._make_above())

    def _refuse(self, reason: str, detail: str) -> None:
        """Close, when the client has had a moment to read why."""
        self._is_over = True
        self._timer.cancel()
        self._handshakes.refused(self._peer, reason, detail)
        with suppress(OSError):  # the client has gone first
            self._below.write_eof()
        self._timer = self._loop.call_later(_LINGER_S, self._below.abort)

    def give_up(self, reason: str, detail: str) -> None:
        """Close at once, and say so."""
        if not self._is_over:
            self._handshakes.refused(self._peer, reason, detail)
        self.stop()

    def stop(self) -> None:
        """Close at once."""
        self._is_over = True
        self._below.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._timer.cancel()
        self._handshakes.end(self)
        if self._is_over:
            return
        self._is_over = True
        if self._session is not None:  # else it was only a look whether somebody listens
            self._handshakes.refused(self._peer, "tls_handshake_lost", "" if exc is None else str(exc))

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())
