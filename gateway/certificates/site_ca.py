"""The site's certificate authorities: the one that signs, the next, and what keeps boards of earlier ones.

Boards are given the current and the next authority. An authority is good for 30 years and signs for 20; the next one
was known for all of that time. When it takes over, the one before vouches for it until it ends itself. So

- a board that was given both is good for 30 years at least, however long it was away
- a board that was given only the current one is good for 10 years at least

All of it is one file, so that a power cut leaves it as it was or as it is to be.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.certificates.authority import Authority, Certificate, Issued, certificate_pem, days, key_pem
from gateway.model.errors import ConfigError

_YEAR = days(365)
AUTHORITY_LIFE = 30 * _YEAR
AUTHORITY_SIGNS = 20 * _YEAR
"""Then the next one does."""

_KEY_BLOCK = re.compile(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----", re.DOTALL)


@dataclass(slots=True, frozen=True)
class SiteCa:
    """See the module's own words."""

    current: Authority
    next: Authority
    vouching: tuple[Certificate, ...] = ()
    """Of authorities before, each for its successor, the newest first: they go out with the server's certificate."""
    former: tuple[Certificate, ...] = ()
    """Authorities before, whose device certificates are still good."""

    @classmethod
    def new(cls, gateway_id: str, now: datetime) -> Self:
        """Make both authorities."""
        ends = now + AUTHORITY_LIFE
        return cls(_authority(gateway_id, ends), _authority(gateway_id, ends + AUTHORITY_SIGNS))

    def is_to_be_followed(self, now: datetime) -> bool:
        """Whether it is time for the next authority to sign."""
        return self.current.ends - now < AUTHORITY_LIFE - AUTHORITY_SIGNS

    def succeeded(self, gateway_id: str, now: datetime) -> Self:
        """Return it with the next authority as the current one."""
        ends = max(self.next.ends, now + AUTHORITY_LIFE) + AUTHORITY_SIGNS
        voucher = self.current.vouch_for(self.next.certificate)
        return type(self)(
            self.next,
            _authority(gateway_id, ends),
            tuple(one for one in (voucher, *self.vouching) if one.not_valid_after_utc > now),
            tuple(one for one in (self.current.certificate, *self.former) if one.not_valid_after_utc > now),
        )

    @property
    def trusted(self) -> tuple[Certificate, ...]:
        """Every authority whose device certificates are good."""
        return (self.current.certificate, self.next.certificate, *self.former)

    @property
    def pinned(self) -> tuple[Certificate, ...]:
        """What a board is given."""
        return (self.current.certificate, self.next.certificate)

    def to_pem(self) -> bytes:
        """Return all of it, with the keys."""
        certificates = chain(self.pinned, self.vouching, self.former)
        keys = (self.current.key, self.next.key)
        return b"".join(chain(map(key_pem, keys), map(certificate_pem, certificates)))

    @classmethod
    def from_pem(cls, content: bytes) -> Self:
        """Read what `to_pem` returned. Raises ValueError for anything else."""
        keys = list(private_keys(content))
        certificates = x509.load_pem_x509_certificates(content)
        if len(keys) != 2 or len(certificates) < 2:  # noqa: PLR2004 - the current and the next
            msg = f"there are {len(keys)} keys and {len(certificates)} certificates in it"
            raise ValueError(msg)
        first, second, *others = certificates
        current, following = Authority(keys[0], first), Authority(keys[1], second)
        for one in (current, following):
            require_match(one)
        return cls(
            current,
            following,
            tuple(one for one in others if one.issuer != one.subject),
            tuple(one for one in others if one.issuer == one.subject),
        )


def private_keys(content: bytes) -> Iterator[ec.EllipticCurvePrivateKey]:
    """Yield the keys in a PEM file. Raises ValueError for one that is not of our kind."""
    for block in _KEY_BLOCK.findall(content):
        key = serialization.load_pem_private_key(block, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            msg = "a key in it is of another kind"
            raise ValueError(msg)  # noqa: TRY004 - the file is wrong, not the program
        yield key


def require_match(issued: Issued) -> None:
    """Raise ValueError when the certificate is another key's."""
    if issued.certificate.public_key() != issued.key.public_key():
        msg = "a key and its certificate do not match"
        raise ValueError(msg)


def damaged(path: object, why: object) -> ConfigError:
    """Return the error for a file of authorities that cannot be used."""
    return ConfigError(
        f"{path} cannot be used: {why}.",
        hint="Restore it from a backup. Without one: neurogate certs init --replace makes a new site CA, which every"
        " board that uses TLS must then be given.",
    )


def _authority(gateway_id: str, ends: datetime) -> Authority:
    return Authority.new(f"neurogate {gateway_id[:32]} CA {secrets.token_hex(4)}", ends)
