"""POST to a CoAP server over one DTLS session (RFC 7252, 4 and 5; RFC 7959 for what is larger than a block).

- one request at a time (NSTART is 1), confirmable: sent again after 2 to 3 s, then after twice as long each time
- the session is kept. Where nothing was sent for a while it is made anew: a NAT may have forgotten it, and then the
  server would be silent, as it is to a stranger
- a request that fails ends the session, so the next attempt begins with a handshake
- a server that is silent about the key has refused it only when it was so several times in a row, over some time: one
  silence may be a line that broke, or a server that was started anew
"""

import asyncio
import random
import secrets
from dataclasses import dataclass
from errno import ECONNRESET

from cloud_sync.integrations.coap.dtls_psk import DtlsSocket, KeyRefused, KeyUnanswered, Psk
from cloud_sync.integrations.coap.message import (
    BLOCK1,
    CONTENT_FORMAT,
    CONTINUE,
    MAX_AGE,
    POST,
    SUCCESS,
    TOO_LARGE,
    URI_PATH,
    Kind,
    Message,
    number,
)
from cloud_sync.integrations.coap.udp_route import UdpRoute

BLOCK_BYTES = 1024
"""The largest that there is."""

_HANDSHAKE_S = 10.0
"""A server that does not take the key may say nothing at all."""
_REFUSED_AFTER = 3
"""So many silences about the key, and between the first of them and the last:"""
_REFUSED_AFTER_S = 60.0
_ACK_TIMEOUT_S = 2.0
_ACK_RANDOM_FACTOR = 1.5
_MAX_RETRANSMIT = 4
_KEPT_S = 25.0
_TEXT_BYTES = 200
_LARGEST = 6
"""The exponent of blocks of 1,024 bytes, 16 << 6."""


@dataclass(slots=True, frozen=True)
class Response:
    """What the server has answered."""

    code: int
    max_age_s: int | None
    text: str
    """Its words about what is wrong (5.5.2): one line, the beginning."""


class CoapSession:
    """See the module's own words; for one identity."""

    def __init__(self, route: UdpRoute, psk: Psk, *, timeout_s: float, least_s: float) -> None:
        """There are at least `least_s` between two requests."""
        self._route = route
        self.psk = psk
        self._timeout_s = timeout_s
        self._least_s = least_s
        self._socket: DtlsSocket | None = None
        self._message_id = secrets.randbits(16)
        self._last_s = 0.0
        self._silences = 0
        """About the key, in a row."""
        self._silent_since_s = 0.0

    async def open(self) -> None:
        """Have a session. Raises as `DtlsSocket.open`; of many silences about the key comes KeyRefused, too."""
        loop = asyncio.get_running_loop()
        if self._socket is not None and loop.time() - self._last_s > _KEPT_S:
            self.close()
        if self._socket is None:
            self._socket = await self._secured()
            self._last_s = loop.time() - self._least_s

    async def post(self, path: str, content_format: int, payload: bytes) -> Response:
        """Send it, in blocks if need be, and return the answer to all of it; after `open`. Raises OSError."""
        options = [(URI_PATH, part.encode()) for part in path.split("/")]
        options.append((CONTENT_FORMAT, number(content_format)))
        try:
            exponent = _LARGEST
            if len(payload) <= BLOCK_BYTES:
                answer = await self._request(options, payload)
                smaller = _smaller(answer, _LARGEST + 1)
                if smaller is None or 16 << smaller >= len(payload):
                    return _response(answer)
                exponent = smaller
            return _response(await self._in_blocks(options, payload, exponent))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session; the next request begins another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _secured(self) -> DtlsSocket:
        limit_s = min(self._timeout_s, _HANDSHAKE_S)
        try:
            secured = await DtlsSocket.open(self._route, self.psk, timeout_s=limit_s)
        except KeyUnanswered:
            now_s = asyncio.get_running_loop().time()
            if not self._silences:
                self._silent_since_s = now_s
            self._silences += 1
            if self._silences >= _REFUSED_AFTER and now_s - self._silent_since_s >= _REFUSED_AFTER_S:
                raise KeyRefused from None
            raise
        except Exception:
            self._silences = 0
            raise
        self._silences = 0
        return secured

    async def _in_blocks(self, options: list[tuple[int, bytes]], payload: bytes, exponent: int) -> Message:
        at = 0
        while True:
            size = 16 << exponent
            block, more = payload[at : at + size], at + size < len(payload)
            value = at // size << 4 | more << 3 | exponent
            answer = await self._request([*options, (BLOCK1, number(value))], block)
            if (smaller := _smaller(answer, exponent)) is not None:
                exponent, at = smaller, 0
                continue
            if not more or answer.code >> 5 != SUCCESS:
                return answer
            wanted = answer.option(BLOCK1)
            if answer.code != CONTINUE and wanted is None:  # it took the block for all of it: the rest would be lost
                raise ConnectionResetError(ECONNRESET, "it takes no messages in blocks (RFC 7959)")
            at += size
            if wanted is not None:
                exponent = min(exponent, wanted & 7)  # it may want smaller ones

    async def _request(self, options: list[tuple[int, bytes]], payload: bytes) -> Message:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._last_s + self._least_s - loop.time())
        self._last_s = loop.time()
        self._message_id = (self._message_id + 1) & 0xFFFF
        token = secrets.token_bytes(4)
        request = Message(Kind.CONFIRMABLE, POST, self._message_id, token, tuple(options), payload)
        async with asyncio.timeout(self._timeout_s):
            return await self._answer_to(request, self._socket)

    async def _answer_to(self, request: Message, dtls: DtlsSocket) -> Message:
        data, wait_s = request.encode(), _ACK_TIMEOUT_S * random.uniform(1, _ACK_RANDOM_FACTOR)  # noqa: S311 - no secret
        for _ in range(1 + _MAX_RETRANSMIT):
            dtls.send(data)
            try:
                async with asyncio.timeout(wait_s) as limit:
                    return await _heard(request, dtls, limit)
            except TimeoutError:
                if limit.when() is None:
                    raise
                wait_s *= 2
        raise TimeoutError


async def _heard(request: Message, dtls: DtlsSocket, limit: asyncio.Timeout) -> Message:
    """Return the answer. Once it is acknowledged that it will come, nothing is sent again: then `limit` is lifted."""
    while True:
        message = _read(await dtls.receive())
        if message is None:
            continue
        if message.token == request.token and message.code:
            if message.kind == Kind.CONFIRMABLE:
                dtls.send(Message(Kind.ACKNOWLEDGEMENT, 0, message.id).encode())
            return message
        if message.kind == Kind.CONFIRMABLE:  # of another request, an answer that comes too late
            dtls.send(Message(Kind.RESET, 0, message.id).encode())
        elif message.id == request.id and message.kind == Kind.RESET:
            raise ConnectionResetError(ECONNRESET, "it does not know what to do with the request")
        elif message.id == request.id and message.kind == Kind.ACKNOWLEDGEMENT:
            limit.reschedule(None)


def _smaller(answer: Message, exponent: int) -> int | None:
    """Return in which smaller blocks the server would take what was too large (RFC 7959, 2.9.3); None for others."""
    wanted = answer.option(BLOCK1)
    if answer.code != TOO_LARGE or wanted is None or wanted & 7 >= exponent:
        return None
    return wanted & 7


def _read(data: bytes) -> Message | None:
    try:
        return Message.decode(data)
    except ValueError:  # what is no message is ignored (3)
        return None


def _response(message: Message) -> Response:
    words = message.payload[:_TEXT_BYTES].decode(errors="replace")
    text = "".join(character if character.isprintable() else " " for character in words).strip()
    return Response(message.code, message.option(MAX_AGE), text)
