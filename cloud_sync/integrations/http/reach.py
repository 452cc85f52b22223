"""Whether a server can be reached, step by step: its name, an address that egress allows, TCP, TLS.

Says where it fails and why, in words for whoever has to mend it. Sends nothing beyond what TLS itself sends. Each step
has a time limit, and a name server that hangs holds up neither the event loop nor the end of the process.
"""

import asyncio
import errno
import socket
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509

from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import speaks_none_of_alpn
from gateway.clock import Clock
from gateway.daemon_thread import in_daemon_thread
from gateway.model.finding import Finding, broken, fine, warning

_PATIENCE_S = 4.0
_ADDRESSES_AT_MOST = 3
_SOON_S = 14 * 24 * 3600
_EXPIRED, _NOT_YET, _NAME_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64  # X509_V_ERR_… of OpenSSL
_CLOCK_HINT = "This machine's clock is not synchronised: set it first (timedatectl set-ntp true)."
_RENEW_HINT = "Whoever runs that server must renew its certificate."


@dataclass(slots=True)
class Reached:
    """How far it went."""

    findings: list[Finding] = field(default_factory=list)
    is_connected: bool = False
    """Whether a request may be sent."""
    address: str = ""
    """To which of the host's addresses, which egress allows."""
    allowed: list[str] = field(default_factory=list)
    """The host's addresses that egress allows, the first few."""


async def reach(
    host: str, port: int, egress: Egress, clock: Clock, *, uses_tls: bool, tls: ssl.SSLContext | None = None
) -> Reached:
    """Go as far as possible. Never raises for what the other side does. `tls` is what TLS needs besides the usual."""
    reached = await addresses_of(host, port, egress)
    if not reached.allowed:
        return reached
    reached.is_connected = await _connected(host, port, reached.allowed, reached)
    if reached.is_connected and uses_tls:
        reached.is_connected = await _secured(host, port, reached.address, clock, tls, reached)
    return reached


async def addresses_of(host: str, port: int, egress: Egress) -> Reached:
    """Go as far as its addresses, of which egress must allow one."""
    reached = Reached()
    addresses = await _resolved(host, port, reached)
    reached.allowed = [address for address in addresses if egress.allows(host, address)][:_ADDRESSES_AT_MOST]
    if addresses and not reached.allowed:
        words = f"Egress does not allow the addresses of {host}."
        reached.findings.append(broken(words, f'If it is right, set egress.allow = ["{host}"].'))
    return reached


async def _resolved(host: str, port: int, reached: Reached) -> list[str]:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            found = await in_daemon_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        words = f"no name server has answered within {_PATIENCE_S:g} s"
        hint = "See /etc/resolv.conf, and whether the internet is there: ping -c 3 9.9.9.9."
        reached.findings.append(broken(f"The name {host} cannot be resolved: {words}.", hint))
        return []
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, socket.gaierror) else "it is no name"
        hint = "Correct the name in the configuration, or see whether DNS works: getent hosts debian.org."
        reached.findings.append(broken(f"The name {host} cannot be resolved ({why}).", hint))
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connected(host: str, port: int, addresses: list[str], reached: Reached) -> bool:
    failures: list[OSError] = []
    for address in addresses:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                _, writer = await asyncio.open_connection(address, port)
        except OSError as error:  # a timeout is one
            failures.append(error)
            continue
        writer.close()
        reached.address = address
        if failures:
            hint = "Perhaps it has an IPv6 address and this network none that works; deliveries only begin later by it."
            reached.findings.append(warning(f"{len(failures)} addresses of {host} do not answer, another does.", hint))
        reached.findings.append(fine(f"{host} takes connections on port {port}."))
        return True
    reached.findings.append(_unreached(host, port, failures[0]))
    return False


def _unreached(host: str, port: int, error: OSError) -> Finding:
    where = f"{host}, port {port},"
    if isinstance(error, TimeoutError):
        return broken(f"{where} does not answer.", "It is off, or a firewall is between: try from another machine.")
    if isinstance(error, ConnectionRefusedError):
        return broken(f"{where} refuses connections: nothing listens there.", "Start it, or correct the port.")
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        hint = "Is this machine on the network? ip route must show a default one."
        return broken(f"{where} cannot be reached: there is no way to it.", hint)
    return broken(f"{where} cannot be connected to ({error.strerror or type(error).__name__}).", "See the network.")


async def _secured(
    host: str, port: int, address: str, clock: Clock, tls: ssl.SSLContext | None, reached: Reached
) -> bool:
    context = tls or ssl.create_default_context()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        dates = await _dates(host, port, address)
        reached.findings.append(_refused(host, error, dates, clock))
        return False
    except OSError as error:
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        reason = "no answer" if isinstance(error, TimeoutError) else why or type(error).__name__
        hint = "Is it really TLS that is spoken there? An address with http:// speaks none."
        if speaks_none_of_alpn(error):
            reason, hint = "it speaks none of what `alpn` names", "Correct `alpn`."
        reached.findings.append(broken(f"TLS with {host} fails: {reason}.", hint))
        return False
    session = writer.get_extra_info("ssl_object")
    ends_s = ssl.cert_time_to_seconds(str(session.getpeercert()["notAfter"]))
    writer.close()
    left_s = ends_s - clock.now_ms() / 1000
    words = (
        f"The certificate of {host} is good until {datetime.fromtimestamp(ends_s, UTC):%Y-%m-%d} ({session.version()})."
    )
    reached.findings.append(warning(words, _RENEW_HINT) if left_s < _SOON_S else fine(words))
    return True


def _refused(
    host: str, error: ssl.SSLCertVerificationError, dates: tuple[datetime, datetime] | None, clock: Clock
) -> Finding:
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    code = error.verify_code
    if code in (_EXPIRED, _NOT_YET):
        word = "has expired" if code == _EXPIRED else "is not valid yet"
        until = "" if dates is None else f" (it is valid from {dates[0]:%Y-%m-%d} to {dates[1]:%Y-%m-%d})"
        words = f"The certificate of {host} {word}{until}; this machine says it is {now:%Y-%m-%d}."
        return broken(words, _RENEW_HINT if clock.is_synced() else _CLOCK_HINT)
    if code in (_NAME_MISMATCH, _ADDRESS_MISMATCH):
        hint = "Use the name that its certificate has, or have one made for this name."
        return broken(f"The certificate is not for {host}.", hint)
    hint = (
        "If it is your own, set `ca` to its authority's certificate, or add that to this machine: "
        "/usr/local/share/ca-certificates, update-ca-certificates."
    )
    return broken(f"The certificate of {host} is of nobody that this machine trusts ({error.verify_message}).", hint)


async def _dates(host: str, port: int, address: str) -> tuple[datetime, datetime] | None:
    """Return between when a certificate that is not accepted is valid."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only looked at; nothing is sent
    try:
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    except OSError:
        return None
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    try:
        certificate = x509.load_der_x509_certificate(raw)
    except ValueError:
        return None
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
