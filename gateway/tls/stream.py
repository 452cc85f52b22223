"""A connection over TLS after its handshake: a protocol to the socket below, a transport to whoever is above.

It behaves as a socket does: what arrives at once is handed on at once, whoever reads slowly stops the socket, and
nothing waits here. So every limit above counts what it would count without TLS.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Any, cast

from cryptography import x509

from gateway.certificates.authority import ClientIdentity

_RECORD_BYTES = 16_384  # what one read returns at most


class TlsStream(asyncio.Transport, asyncio.Protocol):
    """See the module's own words."""

    def __init__(
        self, below: asyncio.Transport, session: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        super().__init__()
        self._below = below
        self._session = session
        self._incoming = incoming
        self._outgoing = outgoing
        self._above: asyncio.Protocol
        self._closing = False
        self._identity = _identity(session)

    def begin(self, above: asyncio.Protocol) -> None:
        """Let it have the connection, and what came behind the handshake."""
        self._above = above
        above.connection_made(self)
        self._take()

    # What the socket below says

    def data_received(self, data: bytes) -> None:
        """Decrypt, and hand on."""
        if not self._closing:
            self._incoming.write(data)
            self._take()

    def eof_received(self) -> bool:
        """Hear that nothing more comes; with TLS neither does anything more go."""
        if not self._closing:
            self._above.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so above."""
        self._closing = True
        self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """Say so above."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """Say so above."""
        self._above.resume_writing()

    def _take(self) -> None:
        records: list[bytes] = []
        is_over = False
        try:
            while record := self._session.read(_RECORD_BYTES):
                records.append(record)
            is_over = True  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            is_over = True  # not what was encrypted with our key: nothing behind it can be believed
        self._flush()
        if records:
            self._above.data_received(b"".join(records))
        if is_over and not self._closing:
            self._above.eof_received()
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # What whoever is above asks of its socket

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's own signature
        """Return what is known of the TLS session (`client_identity` is who the client's certificate names)."""
        if name == "client_identity":
            return self._identity
        if name == "ssl_object":
            return self._session
        if name == "sslcontext":
            return self._session.context
        return self._below.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._closing:
            return
        left = memoryview(data)
        try:
            while left:
                left = left[self._session.write(left) :]
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def close(self) -> None:
        """Say goodbye after what is written, and close."""
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):  # it wants to read the other side's goodbye, which nobody waits for
            self._session.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self._below.is_closing()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is above."""
        return self._above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another have it."""
        self._above = cast("asyncio.Protocol", protocol)

    def is_reading(self) -> bool:
        """Whether the socket is read."""
        return self._below.is_reading()

    def pause_reading(self) -> None:
        """Stop reading the socket."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Read it again."""
        self._below.resume_reading()

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connection."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much the peer may leave unread."""
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return these limits."""
        return self._below.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes, encrypted, the peer has not read yet."""
        return self._below.get_write_buffer_size()


def _identity(session: ssl.SSLObject) -> ClientIdentity | None:
    if session.context.verify_mode is ssl.CERT_NONE:
        return None
    shown = session.getpeercert(binary_form=True)
    return None if shown is None else ClientIdentity.of(x509.load_der_x509_certificate(shown))
