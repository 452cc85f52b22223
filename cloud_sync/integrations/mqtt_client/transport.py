"""The bytes between us and a broker: over TCP, TLS, WebSocket or WebSocket in TLS, by an HTTP proxy if there is one.

A connection leads only to an address that egress allows; that is decided where the socket is opened, when a name has
become an address and nothing can change it. With a proxy that is about the proxy's address, as the name is its matter.
"""

import asyncio
import socket
import ssl
from typing import Protocol

import aiohttp
from aiohttp import WSMsgType

from cloud_sync.contract import AuthFailed, NotConnected, WrongAddress
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.exchange import failure_of
from cloud_sync.integrations.http.guarded_connector import NotAllowed, guarded_connector
from cloud_sync.integrations.http.guarded_socket import open_socket
from cloud_sync.integrations.http.line import DIRECT, Line, speaks_none_of_alpn
from cloud_sync.integrations.mqtt_client.reasons import Failed

_READ_BYTES = 65_536
_PROXY_ANSWER_BYTES = 8_192
_BUFFERED_BYTES = 262_144
"""What is written and not yet sent, until who writes has to wait."""
_FRAME_BYTES = 16_777_216
_ABOUT_US = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")
"""Of TLS alerts: what a server says that wants a certificate of ours, or does not like it."""
_GOODBYE_S = 1.0
_NOT_FOUND, _PROXY_AUTHENTICATION = 404, 407
_NOT_ALLOWED = (401, 403)
_NETWORK_HINT = "Is it a broker, and are `protocol`, `port` and `use_tls` right? See the network, and its own log."


class Stream(Protocol):
    """Bytes both ways."""

    async def write(self, content: bytes) -> None:
        """Send; waits when the other side takes nothing."""
        ...

    async def read(self) -> bytes:
        """Return what has come, at least one byte. Raises ConnectionResetError at the end."""
        ...

    async def close(self) -> None:
        """End it; a side that hangs is waited for a second."""
        ...


async def open_stream(
    host: str, port: int, egress: Egress, *, uses_tls: bool, websocket_path: str | None, line: Line = DIRECT
) -> Stream:
    """Connect. Raises Failed. Has no time limit of its own."""
    try:
        if line.proxy is not None and egress.certainly_forbids(host):
            raise NotAllowed(host)
        tls = await asyncio.to_thread(_tls, line) if uses_tls else None
        if websocket_path is None:
            return await _Tcp.open(host, port, egress, tls, line)
        return await _WebSocket.open(host, port, egress, tls, websocket_path, line)
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        raise failed(error, host, port) from None


def _tls(line: Line) -> ssl.SSLContext:
    return line.tls() or ssl.create_default_context()


def failed(error: Exception, host: str, port: int) -> Failed:
    """Say what went wrong, and what it is for the engines."""
    outcome: NotConnected | WrongAddress | AuthFailed
    hint = _NETWORK_HINT
    match error:
        case NotAllowed():
            outcome = WrongAddress(f"{error.strerror}; to allow it, see egress.policy and egress.allow")
            hint = f'If it is right, set egress.allow = ["{host}"].'
        case aiohttp.WSServerHandshakeError(status=status):
            outcome, hint = _no_websocket(status), "Correct the path in `broker_url`: brokers often take /mqtt, or /."
        case aiohttp.ClientError():
            outcome = failure_of(error, 0)
        case ssl.SSLError():
            return _no_tls(error, host)
        case socket.gaierror() | UnicodeError():
            outcome = NotConnected(f"the name {host} cannot be resolved", sent=False)
            hint = "Correct `broker_url`, or see whether DNS works."
        case TimeoutError():
            outcome = NotConnected("it does not answer")
        case ConnectionRefusedError():
            outcome = NotConnected(f"cannot connect to {host}:{port}: {error.strerror}", sent=False)
            hint = "Start it, or correct the port."
        case ConnectionResetError():
            outcome = NotConnected("it ends the connection")
        case _:
            words = getattr(error, "strerror", None) or type(error).__name__
            outcome = NotConnected(f"the connection broke: {words}")
    return Failed(outcome, hint)


def _no_websocket(status: int) -> NotConnected | WrongAddress | AuthFailed:
    if status in _NOT_ALLOWED:
        return AuthFailed(f"the WebSocket is refused (HTTP {status})")
    words = f"there is no WebSocket for MQTT (HTTP {status})"
    return WrongAddress(words) if status == _NOT_FOUND else NotConnected(words)


def _no_tls(error: ssl.SSLError, host: str) -> Failed:
    if isinstance(error, ssl.SSLCertVerificationError):
        words = f"the certificate of {host} is not accepted: {error.verify_message}"
        return Failed(NotConnected(words, sent=False), "Set `ca` to the certificate of its authority.")
    reason = error.reason or "no reason given"
    if any(word in reason for word in _ABOUT_US):  # with TLS 1.3 it comes after the handshake
        words = f"it ends TLS ({reason}): it wants a client certificate, or another one"
        return Failed(AuthFailed(words), "Correct `client_cert` and `client_key`.")
    if speaks_none_of_alpn(error):
        return Failed(WrongAddress(f"{host} speaks none of what `alpn` names"), "Correct `alpn`.")
    return Failed(NotConnected(f"TLS with {host} fails ({reason})"), "Is it really TLS that is spoken there?")


class _Tcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.set_write_buffer_limits(high=_BUFFERED_BYTES)

    @classmethod
    async def open(cls, host: str, port: int, egress: Egress, tls: ssl.SSLContext | None, line: Line) -> "_Tcp":
        if line.proxy is None:
            connection = await open_socket(host, port, egress)
        else:
            connection = await open_socket(line.proxy.raw_host or "", line.proxy.port or 0, egress)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if line.proxy is not None:
                await _led_on(connection, host, port, line)
            server_hostname = None if tls is None else host
            reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=server_hostname)
        except BaseException:
            connection.close()
            raise
        return cls(reader, writer)

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await self._writer.drain()

    async def read(self) -> bytes:
        content = await self._reader.read(_READ_BYTES)
        if not content:
            raise ConnectionResetError("it has closed the connection")
        return content

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass  # it was gone before
        except asyncio.CancelledError:  # the time limit's, too, in a task that is being cancelled (Python 3.11)
            self._writer.transport.abort()
            raise


async def _led_on(connection: socket.socket, host: str, port: int, line: Line) -> None:
    """Ask an HTTP proxy to lead this connection on (RFC 9110, 9.3.6). Raises Failed."""
    loop = asyncio.get_running_loop()
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = "".join(f"{name}: {value}\r\n" for name, value in line.proxy_headers.items())
    await loop.sock_sendall(connection, f"CONNECT {where} HTTP/1.1\r\nhost: {where}\r\n{headers}\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what comes after it is the broker's
        more = await loop.sock_recv(connection, 1)
        if not more or len(answer) > _PROXY_ANSWER_BYTES:
            raise Failed(NotConnected("the proxy does not answer as one"), "Is `proxy` right?")
        answer += more
    status = answer.split(b" ", 2)[1][:3] if answer.startswith(b"HTTP/1.") else b""
    if status == str(_PROXY_AUTHENTICATION).encode():
        words = "the proxy does not accept who we are (HTTP 407): set proxy_credentials"
        raise Failed(WrongAddress(words), "Set `proxy_credentials`.")
    if not status.startswith(b"2"):
        words = f"the proxy does not lead there (HTTP {status.decode(errors='replace') or 'it is none'})"
        raise Failed(NotConnected(words, sent=False), "See what the proxy allows: many only lead to port 443.")


def _goes_nowhere_else() -> aiohttp.TraceConfig:
    """Return what ends a request that is led on: where, egress has not been asked, nor is it what the settings say."""

    async def refuse(_: object, __: object, led_on: aiohttp.TraceRequestRedirectParams) -> None:
        words = f"there is no WebSocket for MQTT: it leads on to another address (HTTP {led_on.response.status})"
        raise Failed(WrongAddress(words), "Set `broker_url` to where the WebSocket is.")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


class _WebSocket:
    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session, self._socket = session, socket

    @classmethod
    async def open(
        cls, host: str, port: int, egress: Egress, tls: ssl.SSLContext | None, path: str, line: Line
    ) -> "_WebSocket":
        connector = guarded_connector(egress, line.connects_to or host, keepalive_s=1.0, connections=1, tls=tls)
        named = f"[{host}]" if ":" in host else host
        session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[_goes_nowhere_else()]
        )
        try:
            opened = await session.ws_connect(
                f"{'ws' if tls is None else 'wss'}://{named}:{port}{path}",
                protocols=("mqtt",),
                max_msg_size=_FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE_S),
                proxy=line.proxy,
                proxy_headers=line.proxy_headers or None,
            )
        except BaseException:
            await session.close()
            raise
        return cls(session, opened)

    async def write(self, content: bytes) -> None:
        await self._socket.send_bytes(content)

    async def read(self) -> bytes:
        while True:
            frame = await self._socket.receive()
            if frame.type is not WSMsgType.BINARY:  # text is forbidden (MQTT 3.1.1, 6.0)
                raise ConnectionResetError("it has closed the connection")
            if frame.data:
                return bytes(frame.data)

    async def close(self) -> None:
        try:
            await self._socket.close()
        finally:
            await self._session.close()
