"""DTLS 1.2 with a pre-shared key over one UDP socket, as a client (RFC 6347, RFC 4279).

The protocol itself is OpenSSL's, which the package cryptography brings and pyOpenSSL makes accessible; pyOpenSSL is the
extra `golioth`. It has no function of its own for pre-shared keys, so one of OpenSSL's is called by hand: cryptography
keeps it in its bindings for just that (https://github.com/pyca/cryptography/pull/4084).

A server may be silent about a wrong key: what it gets is noise, and noise is dropped. So who waits here knows how far
the handshake has come. A server that has answered until the key counts, and not after it, may have refused the key; or
its answers are lost, or it has been started anew meanwhile. Only an alert is certain.
"""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ECONNRESET
from typing import Any

from cloud_sync.integrations.coap.udp_route import UdpRoute

NOT_INSTALLED = ""
"""What is missing on this machine; empty when nothing is."""
try:
    from OpenSSL import SSL
except Exception as error:  # noqa: BLE001 - whatever a version raises that does not fit the cryptography here
    NOT_INSTALLED = f"pyOpenSSL, which CoAP over DTLS needs, is not installed or does not fit ({error})"
else:
    if not hasattr(vars(SSL)["_lib"], "SSL_CTX_set_psk_client_callback"):
        NOT_INSTALLED = "The OpenSSL of the package cryptography here was built without pre-shared keys"
INSTALL = "Install it: pipx inject neurogate 'pyopenssl>=25,<27' (or pip install 'neurogate[golioth]')."

_SUITES = (
    "PSK-AES128-GCM-SHA256:PSK-AES128-CCM:PSK-AES128-CCM8:PSK-AES128-CBC-SHA256:ECDHE-PSK-AES128-CBC-SHA256:@SECLEVEL=0"
)
"""What the common DTLS servers for devices have. Level 0 is for the eight bytes of CCM8, which RFC 7252 (9.1.3.1) asks
each of them for."""
_DTLS_1_2 = 0xFEFD
_MTU = 1280
"""What IPv6 carries anywhere; a record stays below it."""
_DATAGRAM = 65_535
_CALLBACK = "unsigned int(SSL *, const char *, char *, unsigned int, unsigned char *, unsigned int)"


class KeyRefused(Exception):
    """The server does not take the key, or does not know whose it is."""


class KeyUnanswered(TimeoutError):
    """The server has answered until the key counts, and then no more."""


@dataclass(slots=True, frozen=True)
class Psk:
    """Who we are to a server."""

    identity: str
    key: str = field(repr=False)


class DtlsSocket:
    """See the module's own words. Nothing has a time limit of its own."""

    def __init__(self, udp: socket.socket, psk: Psk) -> None:
        self._udp = udp
        self._waits_for_finish = False
        self._callback = _key_callback(psk, self._note_key)
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_cipher_list(_SUITES.encode())
        handle = context._context  # noqa: SLF001 - see the module's own words
        vars(SSL)["_lib"].SSL_CTX_set_psk_client_callback(handle, self._callback)
        self._dtls = SSL.Connection(context, None)
        self._dtls.set_ciphertext_mtu(_MTU)
        self._dtls.set_connect_state()

    @classmethod
    async def open(cls, route: UdpRoute, psk: Psk, *, timeout_s: float) -> "DtlsSocket":
        """Return one that is secured. When nobody answers, the route's next address is for the next attempt.

        Raises KeyRefused; TimeoutError when there is no answer, KeyUnanswered when there is none any more; other
        OSError, NotAllowed among them; UnicodeError.
        """
        it: DtlsSocket | None = None
        turn = route.turn
        try:
            async with asyncio.timeout(timeout_s):
                it = cls(await route.open(), psk)
                await it._shake_hands()
        except TimeoutError:
            if it is not None:
                it.drop()
                if it._waits_for_finish:
                    raise KeyUnanswered from None
            route.leave(turn)
            raise
        except BaseException as error:
            if it is not None:
                it.drop()
            if isinstance(error, OSError):
                route.leave(turn)
            raise
        return it

    def send(self, data: bytes) -> None:
        """Send one message. Raises OSError."""
        try:
            self._dtls.send(data)
        except SSL.Error as error:
            raise _broken(error) from error
        self._flush()

    async def receive(self) -> bytes:
        """Return the next message. Raises OSError, when the server has ended it, too."""
        while True:
            try:
                return self._dtls.recv(_DATAGRAM)
            except SSL.WantReadError:
                self._flush()
            except SSL.Error as error:
                raise _broken(error) from error
            self._dtls.bio_write(await self._datagram())

    def close(self) -> None:
        """Take leave."""
        with suppress(SSL.Error, OSError):
            self._dtls.shutdown()
            self._flush()
        self.drop()

    def drop(self) -> None:
        """Leave without a word."""
        self._udp.close()

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._dtls.do_handshake()
            except SSL.WantReadError:
                self._flush()
            except SSL.Error as error:
                self._flush()  # why, in an alert
                if self._waits_for_finish:
                    raise KeyRefused from error
                raise _broken(error) from error
            else:
                self._flush()
                return
            try:
                async with asyncio.timeout(self._dtls.DTLSv1_get_timeout()):
                    self._dtls.bio_write(await self._datagram())
            except TimeoutError:
                self._dtls.DTLSv1_handle_timeout()

    async def _datagram(self) -> bytes:
        while not (datagram := await asyncio.get_running_loop().sock_recv(self._udp, _DATAGRAM)):
            pass  # an empty one is nothing
        return datagram

    def _flush(self) -> None:
        while True:
            try:
                datagram = self._dtls.bio_read(_DATAGRAM)
            except SSL.WantReadError:
                return
            try:
                self._udp.send(datagram)
            except BlockingIOError:  # it is lost, as any may be
                return

    def _note_key(self) -> None:
        self._waits_for_finish = True


def _key_callback(psk: Psk, tell: Any) -> Any:  # noqa: ANN401 - of cffi
    """Return what OpenSSL calls when the server has asked who we are."""
    ffi = vars(SSL)["_ffi"]
    identity, key = psk.identity.encode() + b"\0", psk.key.encode()

    def say(_: Any, __: Any, to_identity: Any, most: int, to_key: Any, most_key: int) -> int:  # noqa: ANN401 - of cffi
        tell()
        if len(identity) > most or len(key) > most_key:
            return 0
        ffi.memmove(to_identity, identity, len(identity))
        ffi.memmove(to_key, key, len(key))
        return len(key)

    return ffi.callback(_CALLBACK, say)


def _broken(error: "SSL.Error") -> ConnectionResetError:
    """Return it as what happens to any connection; OpenSSL's own word for it goes along."""
    stack = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reason = str(stack[-1][2]) if stack else "it has ended the session"
    return ConnectionResetError(ECONNRESET, reason)
