"""The way to a server: directly or by a proxy, which authorities are trusted, and a certificate of our own.

Certificates and keys stand in the settings themselves, in PEM: `"${file:/etc/ssl/private/gateway.key}"` reads a file.
"""

import os
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from pydantic import AfterValidator, Field, HttpUrl, field_validator, model_validator
from yarl import URL

from cloud_sync.contract import IntegrationConfig
from gateway.model.secret import Secret


@dataclass(slots=True, frozen=True)
class Line:
    """See the module's own words."""

    proxy: URL | None = None
    proxy_headers: dict[str, str] = field(default_factory=dict, repr=False)
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = field(default=None, repr=False)
    alpn: tuple[str, ...] = ()
    """What is said to be spoken inside of TLS, where a server tells by that: names of ASCII, the best first."""

    @property
    def connects_to(self) -> str | None:
        """The host that is connected to, if it is another than the server."""
        return None if self.proxy is None else self.proxy.raw_host

    def tls(self) -> ssl.SSLContext | None:
        """Return what a TLS connection needs; None when that is nothing particular.

        Raises ValueError for a certificate or key that is none.
        """
        if self.ca is None and self.client_cert is None and not self.alpn:
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.client_cert is not None:
                _load_identity(context, self.client_cert, self.client_key or "")
        except ssl.SSLError as error:
            raise ValueError(f"the certificates, or the key to one, cannot be used ({error.reason}).") from None
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context


DIRECT = Line()


def speaks_none_of_alpn(error: Exception) -> bool:
    """Whether a server has refused TLS since it speaks none of what `alpn` names (RFC 7301, 3.2)."""
    # Python 3.11 does not know the reason of this alert, and has it in its words alone.
    return isinstance(error, ssl.SSLError) and "no application protocol" in str(error).replace("_", " ").lower()


def _load_identity(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give ssl the file it wants: one in memory alone, as there is a private key in it."""
    descriptor = os.memfd_create("identity")
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{key}\n{certificate}".encode())
        file.flush()
        # Without a password ssl would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")


def _certificate_pem(text: str) -> str:
    """Return it. Raises ValueError unless it is a certificate, or several, in PEM."""
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ValueError("it is no certificate in PEM; a file of one is read by ${file:/path}.") from None
    return text


def _private_key_pem(secret: Secret) -> Secret:
    """Return it. Raises ValueError unless it is a private key in PEM, without a passphrase."""
    try:
        serialization.load_pem_private_key(secret.get_secret_value().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it is no private key in PEM without a passphrase.") from None
    return secret


def _host_only(url: HttpUrl) -> HttpUrl:
    """Return the URL. Raises ValueError when it holds more than where to connect to."""
    if url.username or url.password or url.query or url.fragment or (url.path or "/") != "/":
        raise ValueError("it is a host, such as https://example.com, and nothing behind it.")
    return url


CertificatePem = Annotated[str, AfterValidator(_certificate_pem)]
"""A certificate, or several."""
PrivateKeyPem = Annotated[Secret, AfterValidator(_private_key_pem)]
"""A private key without a passphrase."""
HostUrl = Annotated[HttpUrl, AfterValidator(_host_only)]
"""Where to connect to, and nothing more."""


class HttpConfig(IntegrationConfig):
    """Settings of every integration that speaks HTTP."""

    leads_by: ClassVar[tuple[str, ...]] = ("url", "endpoint", "proxy", "ca")

    ca: CertificatePem | None = Field(
        None,
        description="Certificates of the authorities that are trusted instead of this machine's own, in PEM, such as "
        "`${file:/etc/neurogate/ca.pem}`.",
    )
    proxy: HttpUrl | None = Field(
        None, description="Connect by this HTTP proxy, such as `http://proxy.example.com:3128`."
    )
    proxy_credentials: Secret | None = Field(None, description="What the proxy is told: `user:password`.")

    @field_validator("proxy")
    @classmethod
    def _is_plain(cls, proxy: HttpUrl | None) -> HttpUrl | None:
        if proxy is not None and (proxy.username or proxy.password):
            raise ValueError("The URL contains credentials. Use `proxy_credentials`.")
        if proxy is not None and proxy.scheme != "http":
            raise ValueError("A proxy is spoken to by http://; what goes through it may be https all the same.")
        return proxy

    @model_validator(mode="after")
    def _have_a_proxy(self) -> Self:
        if self.proxy is None and self.proxy_credentials is not None:
            raise ValueError("proxy_credentials are for a proxy: set proxy as well.")
        return self

    def line(
        self, *, client_cert: str | None = None, client_key: str | None = None, alpn: tuple[str, ...] = ()
    ) -> Line:
        """Return the way to the server."""
        headers = {}
        if self.proxy_credentials is not None:
            encoded = b64encode(self.proxy_credentials.get_secret_value().encode()).decode()
            headers["proxy-authorization"] = f"Basic {encoded}"
        proxy = None if self.proxy is None else URL(str(self.proxy))
        return Line(proxy, headers, self.ca, client_cert, client_key, alpn)
