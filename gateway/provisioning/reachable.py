"""Whether a board would find the gateway where it is told to: asked from here, before anything is written."""

import re
import socket
import ssl
from dataclasses import dataclass

from gateway.provisioning.errors import FlashFailed

_TIMEOUT_S = 10
_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(slots=True, frozen=True)
class Address:
    """Where a board connects."""

    host: str
    """A name, also one that ends in `.local`, or an address."""
    port: int
    http_port: int
    """Where a board that has no clock yet asks for the time."""
    ca_der: bytes | None = None
    """The site's CA, and the one that will follow it, one after another; None for MQTT without TLS."""
    server_name: str = ""
    """What the certificate must be for; empty means the host."""

    def __str__(self) -> str:
        if self.ca_der is None:
            return f"{self.host}:{self.port}, without TLS: whoever is in that network can read along"
        return f"{self.host}:{self.port} over TLS, by the site's CA"

    @property
    def document(self) -> dict[str, object]:
        """What stands in the board's config.json."""
        plain = {"host": self.host, "port": self.port, "http_port": self.http_port, "tls": self.ca_der is not None}
        return plain if self.ca_der is None else plain | {"server_name": self.server_name or self.host}


def check_reachable(address: Address) -> None:
    """Connect as the board will. Raises FlashFailed."""
    place = f"{address.host}:{address.port}"
    try:
        with socket.create_connection((address.host, address.port), _TIMEOUT_S) as connection:
            if address.ca_der is not None:
                _check_tls(connection, address)
    except socket.gaierror:
        raise FlashFailed(
            f"The name {address.host} does not resolve.",
            hint="A .local name needs avahi-daemon on the gateway. Or give the gateway a fixed address and name that:"
            " --host 192.168.1.10",
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise FlashFailed(
            f"The board would refuse the gateway's certificate: {error.verify_message}.",
            hint="Is --ca this gateway's, and --server-name one that its certificate is for?",
        ) from None
    except ssl.SSLError as error:
        raise FlashFailed(
            f"{place} does not speak TLS: {error.reason}.", hint="Is it the TLS port (8883)? --plain does without."
        ) from None
    except OSError as error:
        raise FlashFailed(
            f"No gateway answers at {place}: {error.strerror or error}.",
            hint="Does it run, does it listen on this address (mqtt.host), and does no firewall stand between?",
        ) from None


def _check_tls(connection: socket.socket, address: Address) -> None:
    assert address.ca_der is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=address.ca_der)
    context.wrap_socket(connection, server_hostname=address.server_name or address.host).close()


def authority_der(content: bytes) -> bytes:
    """Return certificate authorities as a board takes them: DER, one after another. Raises FlashFailed."""
    text = content.decode("ascii", errors="replace")
    try:
        if found := _PEM.findall(text):
            content = b"".join(map(ssl.PEM_cert_to_DER_cert, found))
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content)
    except (ValueError, ssl.SSLError):
        raise FlashFailed(
            "What was given as the site's CA is no certificate.",
            hint="On the gateway: neurogate certs show --ca > ca.pem",
        ) from None
    return content
