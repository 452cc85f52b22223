"""The site's own certificates. A change holds for new connections when the operation returns; open ones live on."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from gateway.certificates.authority import (
    Certificate,
    ClientIdentity,
    certificate_pem,
    days,
    fingerprint,
    key_der,
    key_pem,
    names_of,
)
from gateway.model.errors import NotFound
from gateway.operations.activity import note_change
from gateway.operations.site import Site
from gateway.storage.certificates import CLIENT_LIFE_DAYS
from gateway.storage.credentials import Credentials
from gateway.storage.state import device_username

Role = Literal["authority", "next_authority", "server"]


@dataclass(slots=True, frozen=True)
class CertificateDetails:
    """One certificate of the site."""

    role: Role
    subject: str
    fingerprint: str
    """SHA-256."""
    names: tuple[str, ...]
    """Host names and addresses, of a server's."""
    ends_at_ms: int
    pem: str


@dataclass(slots=True, frozen=True)
class ClientCertificate:
    """A device's key and certificate; the only time that the key is seen."""

    username: str
    ends_at_ms: int
    certificate: str
    """PEM, as all of them."""
    key: str = field(repr=False)
    key_der_hex: str = field(repr=False)
    """The same, as MicroPython wants it."""
    authorities: tuple[str, ...]
    """By which the device knows the gateway: the current one, and the next."""


async def show_certificates(site: Site) -> list[CertificateDetails]:
    """Return the certificates of the site's own CA. Raises NotFound when there is none, ConfigError."""
    return await asyncio.to_thread(_details, site)


async def init_certificates(site: Site, *, replace: bool = False) -> list[CertificateDetails]:
    """Make the site's CA and a server certificate. Raises AlreadyExists, unless it is to be replaced, StoreFailed."""
    await asyncio.to_thread(site.certificates.init, replace=replace)
    return await _applied(site, "certificate.init", "authority", {"replace": replace})


async def renew_certificates(site: Site, *, authority: bool = False) -> list[CertificateDetails]:
    """Make a new server certificate, by the next authority if that is asked for. Raises NotFound, StoreFailed."""
    await asyncio.to_thread(site.certificates.renew, authority=authority)
    return await _applied(site, "certificate.renew", "authority" if authority else "server")


async def issue_certificate(
    site: Site, *, organization_id: str, device_id: str, life_days: int = CLIENT_LIFE_DAYS
) -> ClientCertificate:
    """Make a certificate by which a device comes in without a password, until it is revoked. Raises NotFound."""
    username = device_username(organization_id, device_id)
    for row in await Credentials(await site.state()).all():
        if row.username == username:
            identity = ClientIdentity(username, row.created_at_ms)
            break
    else:
        raise NotFound(
            f"There is no active device {device_id} in {organization_id}.",
            hint=f"neurogate device add {device_id} registers it.",
        )
    issued = await asyncio.to_thread(site.certificates.issue_client, identity, days(life_days))
    await note_change(site, organization_id, "certificate.issue", device_id, {"life_days": life_days})
    ca = await asyncio.to_thread(site.certificates.site_ca)
    return ClientCertificate(
        username,
        _unix_ms(issued.certificate),
        _pem(issued.certificate),
        key_pem(issued.key).decode("ascii"),
        key_der(issued.key).hex(),
        tuple(map(_pem, ca.pinned)),
    )


async def _applied(
    site: Site, action: str, subject: str, after: dict[str, bool] | None = None
) -> list[CertificateDetails]:
    if site.live is not None:
        await site.live.apply_certificates()
    await note_change(site, None, action, subject, after)
    return await show_certificates(site)


def _details(site: Site) -> list[CertificateDetails]:
    ca = site.certificates.site_ca()
    found: list[tuple[Role, Certificate]] = [
        ("authority", ca.current.certificate),
        ("next_authority", ca.next.certificate),
    ]
    if (server := site.certificates.server()) is not None:
        found.append(("server", server.certificate))
    return [_of(role, certificate) for role, certificate in found]


def _of(role: Role, one: Certificate) -> CertificateDetails:
    return CertificateDetails(
        role, one.subject.rfc4514_string(), fingerprint(one), names_of(one), _unix_ms(one), _pem(one)
    )


def _pem(certificate: Certificate) -> str:
    return certificate_pem(certificate).decode("ascii")


def _unix_ms(certificate: Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
