"""Whether the certificates that the gateway shows are valid, and for the name by which boards reach it."""

import asyncio
import ssl
from datetime import UTC, datetime

from cryptography import x509

from gateway.doctor.evidence import Evidence
from gateway.doctor.listeners import Listener, listeners
from gateway.doctor.sockets import own_address
from gateway.model.finding import Finding, broken, fine, warning

_PATIENCE_S = 5.0
_SOON_DAYS = 14
_CLOCK_HINT = "This machine's clock is not synchronised: set it first (timedatectl set-ntp true)."


async def certificates(evidence: Evidence) -> list[Finding]:
    """Shake hands with each port that speaks TLS, and look at what it shows."""
    if evidence.status is None:
        return []
    ports = [one for one in listeners(evidence) if one.uses_tls]
    shown = await asyncio.gather(*(_shown(one) for one in ports))
    found = [
        broken(f"Port {port.port} ({port.setting}) takes no TLS connection: {one}.", "See the gateway's log.")
        for port, one in zip(ports, shown, strict=True)
        if isinstance(one, str)
    ]
    different = {one for one in shown if isinstance(one, bytes)}
    return [*found, *(_judged(x509.load_der_x509_certificate(one), evidence) for one in different)]


async def _shown(one: Listener) -> bytes | str:
    """Return the certificate (DER), or why there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only looked at; nothing is sent
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(one.local, one.port, ssl=context)
    except OSError as error:  # a timeout is one
        return getattr(error, "strerror", None) or "no answer"
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


def _judged(certificate: x509.Certificate, evidence: Evidence) -> Finding:
    now = datetime.fromtimestamp(evidence.clock.now_ms() / 1000, UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    words = f"The gateway's certificate is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
    renew = (
        "Renew the file that tls.certificate_file names."
        if evidence.settings.tls.certificate_file
        else "Run: neurogate certs renew"
    )
    if not begins <= now <= ends:
        hint = renew if evidence.clock.is_synced() else _CLOCK_HINT
        return broken(f"{words}, and this machine says it is {now:%Y-%m-%d}: no board accepts it.", hint)
    if (ends - now).days < _SOON_DAYS:
        return warning(f"{words}.", renew)
    names, address = _names(certificate), own_address()
    if address is not None and address not in names:
        hint = f'Unless boards use one of these names: set tls.names = ["{address}"], then: neurogate certs renew'
        return warning(f"{words}, for {', '.join(names)}, but not for {address}.", hint)
    return fine(f"{words}, for {', '.join(names)}.")


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
