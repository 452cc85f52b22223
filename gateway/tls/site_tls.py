"""What the listeners over TLS show and ask for, always the newest.

New certificates take effect for new connections; those that are open go on with what they began with. A certificate of
the owner's own is read again when its file changes; while it cannot be used, the one before stays. Nothing stops
because a certificate ends: that is said, and clients decide.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509

from gateway.certificates.authority import Certificate, certificate_pem
from gateway.clock import Clock
from gateway.config import TlsSettings
from gateway.metrics import Metrics
from gateway.model.errors import ConfigError, NeurogateError, PortInUse
from gateway.storage.certificates import SiteCertificates
from gateway.storage.data_dir import DataDir
from gateway.tls.handshake import Handshake, Handshakes

logger = logging.getLogger(__name__)

Purpose = Literal["mqtt", "http"]

_LOOK_EVERY_S = 60.0
_DAY_S = 86_400.0
_SOON_S = {"server": 30 * _DAY_S, "authority": 365 * _DAY_S, "next_authority": 365 * _DAY_S}
"""What is left when it is worth a notice: all of it should have been made anew before."""


@dataclass(slots=True, frozen=True)
class Expiry:
    """When one of the site's certificates ends."""

    name: str
    """`server`, `authority` or `next_authority`."""
    left_s: float
    is_soon: bool
    """Sooner than it would be if all went well."""
    words: str


class SiteTls:
    """See the module's own words."""

    def __init__(
        self,
        settings: TlsSettings,
        certificates: SiteCertificates,
        data_dir: DataDir,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._certificates = certificates
        self._data_dir = data_dir
        self._clock = clock
        self._metrics = metrics
        self._contexts: Mapping[Purpose, ssl.SSLContext] = {}
        self._ends: Mapping[str, datetime] = {}
        self._seen: object = None
        self._trouble = ""
        self._unopened: list[str] = []
        self._changing = asyncio.Lock()
        self.handshakes = Handshakes(
            timeout_s=settings.handshake_timeout_s, at_most=settings.max_handshakes, metrics=metrics
        )

    @property
    def asks_certificates(self) -> bool:
        """Whether MQTT is spoken over TLS only with those who show a certificate."""
        return self._settings.client_certificates == "required"

    def over(self, purpose: Purpose, make_above: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """Return the protocol for a socket: after the handshake whoever is made has the connection."""
        return Handshake(self.handshakes, self._contexts[purpose], make_above)

    def do_without(self, setting: str, port_in_use: PortInUse) -> None:
        """Say that a port is not open which nobody has asked for: an upgrade must not stop what runs without it."""
        words = f"{port_in_use.message} Nothing is served there, as {setting} is not in the configuration"
        self._unopened.append(f"{words}; stop what uses it and restart the gateway, or set {setting} (0 opens none).")
        logger.warning("a port over TLS is not open: %s", port_in_use.message, extra={"setting": setting})

    async def open(self) -> None:
        """Make what is missing, and read it. Raises ConfigError and StoreFailed."""
        async with self._changing:
            await asyncio.to_thread(self._look)

    async def apply(self) -> None:
        """Let what has been made take effect. Raises as `open`."""
        await self.open()

    async def keep_fresh(self) -> None:
        """Make certificates anew when it is time, and read again what has changed, for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.open()
                self._trouble = ""
            except NeurogateError as error:
                self._trouble = str(error)
                logger.warning("certificates are not made anew: %s", error)

    def _look(self) -> None:
        own = self._settings.certificate_file
        if (not own or self._settings.client_certificates != "off") and self._certificates.ensure():
            logger.info("certificates made", extra={"folder": str(self._data_dir.path)})
        seen = self._fingerprint()
        if seen != self._seen:
            self._read()
            self._seen = seen

    def _files(self) -> tuple[Path, Path | None]:
        own = self._settings
        if own.certificate_file:
            return Path(own.certificate_file), Path(own.key_file) if own.key_file else None
        return self._data_dir.server_certificate, None

    def _fingerprint(self) -> object:
        paths = [self._data_dir.site_ca, *(one for one in self._files() if one is not None)]
        try:
            found = [path.stat() for path in paths if path.exists()]
        except OSError:  # it has gone meanwhile
            return None
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    def _read(self) -> None:
        certificate_file, key_file = self._files()
        trusted: tuple[Certificate, ...] = ()
        if self._settings.client_certificates != "off":
            trusted = self._certificates.site_ca().trusted
        is_required = self._settings.client_certificates == "required"
        shown = shown_certificate(certificate_file)
        self._contexts = {
            "mqtt": server_context(certificate_file, key_file, trusted, is_required=is_required),
            "http": server_context(certificate_file, key_file, trusted, protocol="http/1.1"),
        }
        self._ends = {"server": shown.not_valid_after_utc} | self._ends_of_authorities()

    def _ends_of_authorities(self) -> dict[str, datetime]:
        if not self._data_dir.site_ca.exists():
            return {}
        ca = self._certificates.site_ca()
        return {"authority": ca.current.ends, "next_authority": ca.next.ends}

    def notices(self) -> list[str]:
        """Return what ends soon and should not, and what is not open, and bring the metric up to date."""
        said = [f"Certificates are not made anew: {self._trouble}"] if self._trouble else []
        said += self._unopened
        for one in self.expiries():
            self._metrics.certificate_expiry.labels(one.name).set(one.left_s)
            if one.is_soon:
                said.append(one.words)
        return said

    def expiries(self) -> list[Expiry]:
        """Return when each certificate ends."""
        is_own = bool(self._settings.certificate_file)
        return [
            Expiry(name, left_s, left_s < _SOON_S[name], _words(name, left_s, is_own=is_own))
            for name, left_s in self._left_s().items()
        ]

    def _left_s(self) -> dict[str, float]:
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        return {name: (ends - now).total_seconds() for name, ends in self._ends.items()}


def shown_certificate(file: Path) -> Certificate:
    """Return the first certificate in a file. Raises ConfigError."""
    with _explained(file):
        return x509.load_pem_x509_certificates(file.read_bytes())[0]


def server_context(
    certificate_file: Path,
    key_file: Path | None,
    trusted: tuple[Certificate, ...] = (),
    *,
    is_required: bool = False,
    protocol: str = "",
) -> ssl.SSLContext:
    """Return what handshakes begin from. `trusted` sign client certificates. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    with _explained(certificate_file):
        context.load_cert_chain(certificate_file, key_file, password=_no_passphrase)
    if protocol:
        context.set_alpn_protocols([protocol])
    if trusted:
        context.load_verify_locations(cadata=b"".join(map(certificate_pem, trusted)).decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
    return context


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        why = str(error) if isinstance(error, ssl.SSLError | ValueError) else error.strerror
        raise ConfigError(
            f"The certificate {file} or its key cannot be used ({why}).",
            hint="tls.certificate_file is a PEM file with the chain, tls.key_file its key without a passphrase,"
            " both readable by the gateway's user.",
        ) from None


def _no_passphrase() -> str:
    """Refuse an encrypted key: OpenSSL would ask for the passphrase on the terminal."""
    msg = "the key is encrypted"
    raise ValueError(msg)


def _words(name: str, left_s: float, *, is_own: bool) -> str:
    what = {"server": "The server's certificate", "authority": "The site's CA", "next_authority": "The site's next CA"}
    when = f"ends in {left_s / _DAY_S:.0f} days" if left_s > 0 else "has ended: clients refuse it"
    hint = "put a new one in its place" if is_own and name == "server" else "run neurogate certs renew, and see the log"
    return f"{what[name]} {when}; {hint}."
