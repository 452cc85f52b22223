"""The site's certificates on disk: who makes them, and when they are made anew.

- the authorities lie in `site-ca.key`, what the listeners show in `server.key`: keys and certificates of one purpose
  in one file, its owner's alone, so that a power cut never leaves a key without its certificate
- a server's certificate lasts a year and is made anew, with a new key, when a third of that is left, or when the
  machine is reached by a name that is not in it. Boards pin the authority, so they notice nothing
- a gateway whose clock is wrong must not make certificates that end before they are used: no time before the release
  is believed, and what was made by a wrong clock is made anew when the clock is right

What is done here blocks: it belongs into a thread.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509

from gateway.certificates.authority import (
    Certificate,
    ClientIdentity,
    Issued,
    certificate_pem,
    days,
    key_pem,
    names_of,
    normal_name,
)
from gateway.certificates.site_ca import SiteCa, damaged, private_keys, require_match
from gateway.clock import Clock
from gateway.config import Settings
from gateway.machine_names import host_label, machine_names
from gateway.model.errors import AlreadyExists, NotFound, StoreFailed
from gateway.storage.data_dir import DataDir, read_private
from gateway.storage.disk import replace_private

SERVER_LIFE = days(365)
CLIENT_LIFE_DAYS = 3_650

_RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
_MOST_BYTES = 1_000_000


@dataclass(slots=True, frozen=True)
class ServerCertificate:
    """What the listeners show."""

    issued: Issued = field(repr=False)
    chain: tuple[Certificate, ...]
    """What leads from it to authorities that boards may still have instead of the current one."""

    @property
    def certificate(self) -> Certificate:
        """The certificate itself."""
        return self.issued.certificate


class SiteCertificates:
    """See the module's own words. `names` are all by which the machine is reached, now."""

    def __init__(self, data_dir: DataDir, clock: Clock, gateway_id: str, names: Callable[[], Sequence[str]]) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._gateway_id = gateway_id
        self._names = names
        self._writing = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self:
        """Return those of a gateway."""
        announced = f"{host_label(settings.gateway.id)}.local"
        names = lambda: (*machine_names(), announced, *settings.tls.names)  # noqa: E731 - as it is asked each time
        return cls(DataDir(settings.gateway.data_dir), clock, settings.gateway.id, names)

    def site_ca(self) -> SiteCa:
        """Return the authorities. Raises NotFound when there are none, ConfigError when they cannot be used."""
        if (known := self._read_ca()) is None:
            raise NotFound("There is no site CA yet.", hint="Make it: neurogate certs init")
        return known

    def server(self) -> ServerCertificate | None:
        """Return what the listeners show; None when there is none that can be used: `ensure` makes one."""
        path = self._data_dir.server_certificate
        try:
            content = read_private(path, _MOST_BYTES)
            certificate, *chain = x509.load_pem_x509_certificates(content)
            (key,) = private_keys(content)
            issued = Issued(key, certificate)
            require_match(issued)
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:
            raise damaged(path, error.strerror) from None
        return ServerCertificate(issued, tuple(chain))

    def init(self, *, replace: bool = False) -> None:
        """Make everything. Raises AlreadyExists when it is there and is not to be replaced."""
        with self._writing:
            if not replace and self._data_dir.site_ca.exists():
                raise AlreadyExists(
                    "There is a site CA already.",
                    hint="neurogate certs renew makes a new server certificate. Only if its key is in wrong hands:"
                    " neurogate certs init --replace, and give every board the new CA.",
                )
            self._data_dir.ensure()
            self._make_server(self._new_ca())

    def ensure(self) -> bool:
        """Make what is missing, and anew what it is time for. Returns whether anything was made.

        Raises ConfigError for authorities that cannot be used, StoreFailed when the disk takes nothing.
        """
        with self._writing:
            ca, changed = self._read_ca(), False
            if ca is None:
                ca, changed = self._new_ca(), True
            elif ca.is_to_be_followed(self._now()):
                ca, changed = self._succeed(ca), True
            if changed or self._is_due(self.server(), ca):
                self._make_server(ca)
                changed = True
            return changed

    def renew(self, *, authority: bool = False) -> None:
        """Make a new server certificate; if asked for, by the next authority from now on. Raises as `ensure`."""
        with self._writing:
            ca = self.site_ca()
            if authority:
                ca = self._succeed(ca)
            self._make_server(ca)

    def issue_client(self, identity: ClientIdentity, life: timedelta) -> Issued:
        """Make a key and certificate for a client; neither is kept. Raises NotFound and ConfigError."""
        return self.site_ca().current.issue_client(identity, self._now() + life)

    def _read_ca(self) -> SiteCa | None:
        path = self._data_dir.site_ca
        try:
            return SiteCa.from_pem(read_private(path, _MOST_BYTES))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise damaged(path, error) from None
        except OSError as error:
            raise damaged(path, error.strerror) from None

    def _new_ca(self) -> SiteCa:
        return self._keep(SiteCa.new(self._gateway_id, self._now()))

    def _succeed(self, ca: SiteCa) -> SiteCa:
        return self._keep(ca.succeeded(self._gateway_id, self._now()))

    def _keep(self, ca: SiteCa) -> SiteCa:
        self._write(self._data_dir.site_ca, ca.to_pem())
        return ca

    def _make_server(self, ca: SiteCa) -> None:
        issued = ca.current.issue_server(self._wanted(), self._now() + SERVER_LIFE)
        chain = (issued.certificate, *ca.vouching)
        self._write(self._data_dir.server_certificate, key_pem(issued.key) + b"".join(map(certificate_pem, chain)))

    def _is_due(self, server: ServerCertificate | None, ca: SiteCa) -> bool:
        if server is None or server.certificate.issuer != ca.current.certificate.subject:
            return True
        if not {*self._wanted()} <= {*names_of(server.certificate)}:
            return True
        left = server.issued.ends - self._now()
        return left < SERVER_LIFE / 3 or (self._clock.is_synced() and left > SERVER_LIFE + days(1))

    def _wanted(self) -> list[str]:
        return list(dict.fromkeys(map(normal_name, self._names())))

    def _now(self) -> datetime:
        return max(datetime.fromtimestamp(self._clock.now_ms() // 1000, UTC), _RELEASED)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            replace_private(path, content)
        except OSError as error:
            raise StoreFailed(f"{path} cannot be written ({error.strerror}).") from error
