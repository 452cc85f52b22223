"""MQTT over WebSocket (MQTT 3.1.1, section 6): an upgraded HTTP request becomes a connection of the front door.

It only carries bytes: binary frames in, binary frames out, wherever the packets begin and end. What comes in, how much
of it and from whom, is the door's affair, exactly as on the TCP port. The HTTP servers are not ours: whoever has one
may serve this at `paths`.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from gateway.broker.connection import TURN_S, Connection
from gateway.broker.door import Door
from gateway.model.errors import BadInput

_SUBPROTOCOL = "mqtt"  # MQTT-6.0.0-3 and -4
_ROOM_BYTES = 65_536  # beside one packet of the largest size: a message may hold several
_CLOSE_S = 1.0  # for the client's half of the closing handshake
_LOOK_S = 0.05  # whether a slow peer has caught up
_HINT = "Connect an MQTT client to it over WebSocket, with the subprotocol mqtt."


class WebSockets:
    """Where on one HTTP server MQTT is spoken."""

    def __init__(self, door: Door, *paths: str) -> None:
        self._door = door
        self.paths = paths
        self._open: set[Connection] = set()
        self._is_stopping = False

    async def stop(self) -> None:
        """End every connection, and let no new one begin."""
        self._is_stopping = True
        for connection in list(self._open):
            connection.end("stopping")
        if self._open:
            await asyncio.wait([connection.lost for connection in self._open], timeout=2 * _CLOSE_S)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Speak MQTT with whoever asks for it, until one of the two has enough."""
        if self._is_stopping:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(
            protocols=(_SUBPROTOCOL,),
            timeout=_CLOSE_S,
            autoping=False,  # or a flood of pings would be answered without a pause
            compress=False,  # a third of a megabyte for each connection, and a few bytes could become many
            max_msg_size=self._door.settings.max_packet_bytes + _ROOM_BYTES,
        )
        ready = socket.can_prepare(request) if _offers_mqtt(request.headers) else None
        if not ready:
            what = "a WebSocket" if ready is not None else f"the subprotocol {_SUBPROTOCOL}"
            raise BadInput(
                "not_mqtt", f"Only MQTT over WebSocket is spoken here, and this did not ask for {what}.", hint=_HINT
            )
        await socket.prepare(request)
        if request.transport is None:
            raise ConnectionResetError
        connection = Connection(self._door)
        self._open.add(connection)
        try:
            await _Wire(socket, request.transport, request.remote).carry(connection)
        finally:
            self._open.discard(connection)
        return socket


def _offers_mqtt(headers: Mapping[str, str]) -> bool:
    offered = headers.get("Sec-WebSocket-Protocol", "")
    return _SUBPROTOCOL in (one.strip() for one in offered.split(","))


class _Wire(asyncio.Transport):
    """A WebSocket that looks to a connection like its socket."""

    def __init__(self, socket: web.WebSocketResponse, below: asyncio.Transport, client: str | None) -> None:
        super().__init__()
        self._client = client
        self._socket = socket
        self._below = below
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._code = WSCloseCode.OK
        self._closing: asyncio.Task[Any] | None = None
        self._most_unread = 0
        self._unread: asyncio.TimerHandle | None = None
        """Set while the peer reads slower than it is sent to: then its connection is told to send no more."""
        self._connection: Connection

    async def carry(self, connection: Connection) -> None:
        """Bring the connection what comes in, until it ends."""
        self._connection = connection
        connection.connection_made(self)
        try:
            await self._take_in(connection)
            if self._closing is not None:
                await self._closing
        finally:
            if self._unread is not None:
                self._unread.cancel()
            self._below.abort()  # what the peer has not read by now, it does not want
            connection.connection_lost(None)

    async def _take_in(self, connection: Connection) -> None:
        ends = time.monotonic() + TURN_S
        while not self.is_closing():
            await self._may_read.wait()
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                if message.data:  # an empty frame is no sign of life: the keepalive is MQTT's
                    connection.data_received(message.data)
            elif message.type is WSMsgType.PING:
                with suppress(ConnectionError):  # it has gone meanwhile
                    await self._socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:  # MQTT-6.0.0-1
                self._code = WSCloseCode.UNSUPPORTED_DATA
                connection.end("malformed", "a text frame")
            elif message.type is WSMsgType.ERROR:  # and the library has closed it
                is_too_big = (
                    isinstance(message.data, WebSocketError) and message.data.code == WSCloseCode.MESSAGE_TOO_BIG
                )
                connection.end("packet_too_big" if is_too_big else "malformed", str(message.data))
            elif message.type is not WSMsgType.PONG:
                return
            if time.monotonic() >= ends:  # what waits is there at once: others need their turn
                await asyncio.sleep(0)
                ends = time.monotonic() + TURN_S

    # What a connection asks of its socket

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's own signature
        """Return what is known of the socket below; the peer is the client, also behind a proxy that is trusted."""
        known = self._below.get_extra_info(name, default)
        if name == "peername" and known and self._client and self._client != known[0]:
            return (self._client, 0)  # a proxy does not say the port
        return known

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send the bytes as one frame, at once; the library's own way may wait, and a connection never does."""
        if not self.is_closing():
            self._below.write(_frame(bytes(data)))
            if self._unread is None and self.get_write_buffer_size() > self._most_unread:
                self._look_later()
                self._connection.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002 - asyncio's signature
        """Set how much the peer may leave unread; the socket below tells only the library when it has read."""
        self._most_unread = high or 0

    def _look_later(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(_LOOK_S, self._look_at_unread)

    def _look_at_unread(self) -> None:
        if self.is_closing():
            return
        if self.get_write_buffer_size() > self._most_unread // 4:
            self._look_later()
            return
        self._unread = None
        self._connection.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the peer has not read yet."""
        return self._below.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Take in no more; the library then stops reading the socket when its queue is full."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._may_read.set()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing is not None or self._socket.closed or self._below.is_closing()

    def close(self) -> None:
        """Say goodbye after what is written, and close."""
        if not self.is_closing():
            self._closing = asyncio.create_task(self._say_goodbye(), name="close WebSocket")
        self._may_read.set()

    async def _say_goodbye(self) -> None:
        await self._socket.close(code=self._code)

    def abort(self) -> None:
        """Close at once."""
        self._below.abort()
        self._may_read.set()


def _frame(data: bytes) -> bytes:
    """Return the bytes as one unmasked binary frame (RFC 6455, 5.2)."""
    size = len(data)
    if size < 126:
        return bytes((0x82, size)) + data
    if size < 65_536:
        return b"\x82\x7e" + size.to_bytes(2, "big") + data
    return b"\x82\x7f" + size.to_bytes(8, "big") + data
