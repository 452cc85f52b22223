"""One client's HTTP connection: aiohttp's own, with the bounds that it lacks.

- the headers of a request, from their first byte on, have `headers_timeout_s`
- its body has `body_timeout_s`; then whoever reads it finds BodyTooSlow
- its answer has to be read within `answer_timeout_s`. aiohttp would wait for a reader for ever, and is content with
  64 KiB that are not read: closed with that, a connection stays for ever. Here an answer has to leave wholly
- an address may have `max_connections_per_address`, unless a trusted proxy's: those are of many clients. A connection
  that has switched protocols is none of these any more
- what cannot be read as HTTP is answered in the documented shape, and does not fill the log
"""

import asyncio
from collections import Counter
from typing import Any, cast

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from gateway.web.errors import error_response, in_documented_shape
from gateway.web.limits import BodyTooSlow, Limits
from gateway.web.proxies import TrustedProxies
from gateway.web.security import add_headers


class Connections:
    """Those of one port."""

    def __init__(self, limits: Limits, proxies: TrustedProxies) -> None:
        self.limits = limits
        self._proxies = proxies
        self._of_address: Counter[str] = Counter()

    def accept(self, server: web.Server, address: str) -> str:
        """Return why a connection is one too many, nothing when it may stay: then it is counted until `leave`."""
        if len(server.connections) >= self.limits.max_connections:
            return "too_many_http_connections"
        most = self.limits.http.max_connections_per_address
        if most and self._of_address[address] >= most and not self._proxies.trusts(address):
            return "too_many_of_address"
        self._of_address[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """Count it no longer."""
        self._of_address[address] -= 1
        if self._of_address[address] <= 0:
            del self._of_address[address]


class Connection(RequestHandler):
    """See the module's own words."""

    __slots__ = ("_address", "_all", "_body_timer", "_header_timer", "_is_busy", "_server")

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._all = connections
        self._server = server
        self._address: str | None = None
        self._is_busy = False
        self._header_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None

    # As asyncio calls it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or turn it away: the files that it would take belong to others."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else ""
        if reason := self._all.accept(self._server, address):
            self._all.limits.count(reason)
            self._manager = None  # else it would be one of the server's as soon as it is lost
            transport.close()
            return
        self._address = address
        # An answer is sent when all of it has left. (uvloop's are no subclasses of asyncio's.)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._end_timers()
        self._leave()
        if exc is not None and not isinstance(exc, ConnectionError):  # no route, say: for who reads it is all the same
            exc = ConnectionResetError(str(exc))
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; with the first byte of a request its time begins."""
        if self._address is not None and not self._is_busy and self._header_timer is None:
            self._header_timer = self._loop.call_later(self._all.limits.http.headers_timeout_s, self._headers_too_slow)
        super().data_received(data)

    # As the server's middleware calls it

    def begin(self, request: web.Request) -> None:
        """Its headers are there, and it is dealt with: now its body has time."""
        self._is_busy = True
        self._end_timers()
        if not request.content.is_eof():
            self._body_timer = self._loop.call_later(
                self._all.limits.http.body_timeout_s, self._body_too_slow, request.content
            )

    def switched(self) -> None:
        """From here on another protocol is spoken, which has bounds of its own."""
        self._end_timers()
        self._leave()
        if self.transport is not None:
            self.transport.set_write_buffer_limits()

    # As aiohttp calls it

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer, and wait until it has been read."""
        if self._body_timer is not None:
            self._body_timer.cancel()
        resp = in_documented_shape(resp)
        if not request.content.is_eof():
            resp.force_close()  # the rest of its body stands before the next request, and may never come
        try:
            async with asyncio.timeout(self._all.limits.http.answer_timeout_s):
                sent = await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self._all.limits.count("slow_reader")
            if self.transport is not None:
                self.transport.abort()
            return resp, True
        except ConnectionError:
            return resp, True
        self._is_busy = False
        return sent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what was sent
    ) -> web.StreamResponse:
        """Answer what cannot be read as HTTP; what our own faults bring here is none of a client's affair."""
        if isinstance(exc, ConnectionError) and self.transport is None:
            raise exc  # the client has left, and nobody is answered: aiohttp goes no further
        self._is_busy = True
        self._end_timers()
        if request.writer.output_size > 0:
            raise ConnectionError("A part of the answer is sent already.")
        if status != web.HTTPBadRequest.status_code:
            self.log_exception("an answer could not be made", exc_info=exc)
            answer = error_response(500, "internal_error", "The gateway failed to handle this.", hint="See its log.")
            answer.force_close()
            return answer
        self._all.limits.count("malformed_http")
        if isinstance(exc, http_exceptions.LineTooLong):
            answer = error_response(
                431, "headers_too_large", "A line of the request is too long.", hint="8,190 bytes at most."
            )
        else:
            answer = error_response(400, "bad_request", "This is not HTTP as it is understood here.")
        add_headers(answer, is_secure=request.secure)
        answer.force_close()
        return answer

    # Time that is over

    def _headers_too_slow(self) -> None:
        self._header_timer = None
        self._all.limits.count("slow_headers")
        if self.transport is not None:
            self.transport.abort()

    def _body_too_slow(self, content: Any) -> None:  # noqa: ANN401 - aiohttp's reader
        self._body_timer = None
        if not content.is_eof():
            self._all.limits.count("slow_body")
            self._lingering_time = 0.0  # there is nothing to wait for any more
            content.set_exception(
                BodyTooSlow("The body did not come in time.", hint="Send less at once, or set http.body_timeout_s.")
            )

    def _end_timers(self) -> None:
        for timer in (self._header_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = self._body_timer = None

    def _leave(self) -> None:
        if self._address is not None:
            self._all.leave(self._address)
            self._address = None
