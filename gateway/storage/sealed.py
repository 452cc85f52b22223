"""One file, encrypted with a passphrase, that is either read whole and as it was written, or not at all.

Format, version 1
- header: `NGBACKUP`, version, the cost of scrypt (log2 n, r, p; a byte each), 16 bytes salt, 16 bytes key check
- chunks of 1 MiB, each AES-256-GCM with 16 bytes tag; the nonce is the chunk's number and, in its last byte, whether it
  is the last; the header is authenticated with every chunk

A chunk that was changed, moved, left out or cut off does not open. The key is scrypt's, of the passphrase and a new
salt, so no two files share one and the numbers can be nonces. The key check tells a wrong passphrase from a damaged
file; it is scrypt's too, and as expensive to guess at.
"""

import hmac
import os
from typing import IO, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gateway.model.errors import BadInput

CHUNK = 1 << 20

_MAGIC = b"NGBACKUP"
_VERSION = 1
_COST = bytes((16, 8, 2))  # 64 MiB, which a small Pi has; as dear as n = 2**17, r = 8, p = 1
_MOST = bytes((20, 8, 4))  # what a header may ask of us
_SALT = 16
_CHECK = 16
_TAG = 16
_HEADER = len(_MAGIC) + 1 + len(_COST) + _SALT + _CHECK


class SealedWriter:
    """Encrypts into a file; without `finish` the file is not whole."""

    def __init__(self, file: IO[bytes], passphrase: bytes) -> None:
        self._file = file
        start = _MAGIC + bytes((_VERSION,)) + _COST
        salt = os.urandom(_SALT)
        key, check = _keys(passphrase, salt, _COST)
        self._header = start + salt + check
        self._aead = AESGCM(key)
        self._number = 0
        self._waiting = bytearray()
        file.write(self._header)

    def write(self, content: bytes) -> None:
        """Take more content."""
        self._waiting += content
        while len(self._waiting) > CHUNK:
            self._seal(bytes(self._waiting[:CHUNK]), is_last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Write what is left, and that it is the end."""
        self._seal(bytes(self._waiting), is_last=True)

    def _seal(self, content: bytes, *, is_last: bool) -> None:
        self._file.write(self._aead.encrypt(_nonce(self._number, is_last=is_last), content, self._header))
        self._number += 1


class SealedReader:
    """Decrypts a file; what it returns is authentic, but only after `finish` is it known to be whole."""

    def __init__(self, file: IO[bytes], header: bytes, key: bytes) -> None:
        self._file = file
        self._header = header
        self._aead = AESGCM(key)
        self._number = 0
        self._coming = file.read(CHUNK + _TAG)
        self._content = b""

    @classmethod
    def open(cls, file: IO[bytes], passphrase: bytes) -> Self:
        """Read the header. Raises BadInput: no such file, a newer format, or a wrong passphrase."""
        header = file.read(_HEADER)
        if not header.startswith(_MAGIC) or len(header) < _HEADER:
            raise BadInput("no_backup", "This is no backup.", hint="Name a file that neurogate backup made.")
        version, *cost = header[len(_MAGIC) :][: 1 + len(_COST)]
        if version != _VERSION:
            raise BadInput("backup_too_new", f"The backup has format {version}.", hint="Install the newer release.")
        if not all(0 < one <= most for one, most in zip(cost, _MOST, strict=True)):
            raise _damaged()
        key, check = _keys(passphrase, header[-_CHECK - _SALT : -_CHECK], bytes(cost))
        if not hmac.compare_digest(check, header[-_CHECK:]):
            raise BadInput("wrong_passphrase", "The passphrase is wrong.", hint="Nothing was changed: try again.")
        reader = cls(file, header, key)
        if not reader._coming:  # even an empty one has a last chunk
            raise _damaged()
        return reader

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end. Raises BadInput when the file is damaged."""
        while len(self._content) < size and self._coming:
            self._content += self._next_chunk()
        content, self._content = self._content[:size], self._content[size:]
        return content

    def finish(self) -> None:
        """Make sure that nothing is left, and nothing missing. Raises BadInput."""
        if self.read(1) or self._coming:
            raise _damaged()

    def _next_chunk(self) -> bytes:
        sealed, self._coming = self._coming, self._file.read(CHUNK + _TAG)
        nonce = _nonce(self._number, is_last=not self._coming)
        self._number += 1
        try:
            return self._aead.decrypt(nonce, sealed, self._header)
        except InvalidTag:
            raise _damaged() from None


def _keys(passphrase: bytes, salt: bytes, cost: bytes) -> tuple[bytes, bytes]:
    log2_n, r, p = cost
    made = Scrypt(salt=salt, length=32 + _CHECK, n=1 << log2_n, r=r, p=p).derive(passphrase)
    return made[:32], made[32:]


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((is_last,))


def _damaged() -> BadInput:
    return BadInput("damaged_backup", "The backup is damaged or cut off.", hint="Nothing was changed: use another.")
