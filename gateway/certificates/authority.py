"""A certificate authority, and what it signs (RFC 5280)."""

import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOT_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
"""Of every certificate. A board's clock may stand at the beginning of its time, and must not keep it out."""

_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 A.1
_DEVICE_URI = "neurogate:device"

PrivateKey = ec.EllipticCurvePrivateKey
Certificate = x509.Certificate


@dataclass(slots=True, frozen=True)
class ClientIdentity:
    """Whom a client certificate names: a credential as it was made at that moment, not a later one of its name."""

    username: str
    created_at_ms: int
    ends_at_ms: int = field(default=0, compare=False)
    """When the certificate that was shown ends; it is no part of who that is."""

    @classmethod
    def of(cls, certificate: Certificate) -> Self | None:
        """Return whom it names, None if it names nobody."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return None
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            scheme, _, rest = uri.rpartition(":")
            username, _, created = rest.partition("@")
            if scheme == _DEVICE_URI and created.isdecimal() and created.isascii():
                ends_at_ms = round(certificate.not_valid_after_utc.timestamp() * 1000)
                return cls(urllib.parse.unquote(username), int(created), ends_at_ms)
        return None

    @property
    def uri(self) -> str:
        """As it stands in a certificate."""
        return f"{_DEVICE_URI}:{urllib.parse.quote(self.username, safe='')}@{self.created_at_ms}"


@dataclass(slots=True, frozen=True)
class Issued:
    """A key and the certificate for it."""

    key: PrivateKey = field(repr=False)
    certificate: Certificate

    @property
    def ends(self) -> datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc


@dataclass(slots=True, frozen=True)
class Authority(Issued):
    """A key that signs, and its own certificate, which boards pin."""

    @classmethod
    def new(cls, name: str, ends: datetime) -> Self:
        """Make one. The name must be no other authority's: who verifies a certificate finds its issuer by name."""
        key = new_key()
        subject = _name(name)
        public = key.public_key()
        builder = _builder(subject, public, ends).issuer_name(subject)
        certificate = _as_authority(builder, public, public).sign(key, hashes.SHA256())
        return cls(key, certificate)

    def vouch_for(self, other: Certificate) -> Certificate:
        """Return a certificate of another authority's key: whoever pinned only this one comes to trust that one too."""
        public = _ec_key(other)
        builder = _builder(other.subject, public, min(self.ends, other.not_valid_after_utc))
        builder = builder.issuer_name(self.certificate.subject)
        return _as_authority(builder, public, self.key.public_key()).sign(self.key, hashes.SHA256())

    def issue_server(self, names: Iterable[str], ends: datetime) -> Issued:
        """Make a key, and its certificate for a server that is reached by these host names and addresses."""
        listed = list(names)
        alternatives = [_general_name(name) for name in listed]
        return self._issue(listed[0], alternatives, ExtendedKeyUsageOID.SERVER_AUTH, ends)

    def issue_client(self, identity: ClientIdentity, ends: datetime) -> Issued:
        """Make a key, and its certificate for the client that has this identity."""
        alternatives = [x509.UniformResourceIdentifier(identity.uri)]
        return self._issue(identity.username, alternatives, ExtendedKeyUsageOID.CLIENT_AUTH, ends)

    def _issue(
        self, name: str, alternatives: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier, ends: datetime
    ) -> Issued:
        key = new_key()
        public = key.public_key()
        builder = (
            _builder(_name(name), public, min(ends, self.ends))
            .issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        return Issued(key, builder.sign(self.key, hashes.SHA256()))


def new_key() -> PrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def names_of(certificate: Certificate) -> tuple[str, ...]:
    """Return the host names and addresses that a server certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def normal_name(name: str) -> str:
    """Return a host name or address as `names_of` does."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")


def fingerprint(certificate: Certificate) -> str:
    """Return its SHA-256, as every tool shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def certificate_pem(certificate: Certificate) -> bytes:
    """Return it as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_der(certificate: Certificate) -> bytes:
    """Return it as DER, all that MicroPython reads."""
    return certificate.public_bytes(serialization.Encoding.DER)


def key_pem(key: PrivateKey) -> bytes:
    """Return it as PEM (PKCS #8), not encrypted: the file's permissions protect it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_der(key: PrivateKey) -> bytes:
    """Return it as DER (SEC 1), which every mbedTLS reads."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def days(count: int) -> timedelta:
    """Return so many days."""
    return timedelta(days=count)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_LONGEST_COMMON_NAME])])


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    if key == issuer:
        return builder
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)


def _usage(*, digital_signature: bool = False, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ec_key(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key
