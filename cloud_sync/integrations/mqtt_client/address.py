"""Where a broker is, as settings say it: a host or a URL, and perhaps a port, a protocol and whether TLS is spoken."""

import re
from dataclasses import dataclass
from typing import Any

from yarl import URL

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


@dataclass(slots=True, frozen=True)
class Address:
    """Where a broker is."""

    host: str
    port: int
    uses_tls: bool
    websocket_path: str | None
    """None for MQTT by TCP."""

    @property
    def url(self) -> URL:
        """The same as of a server: what matters for whether it can be reached."""
        return URL.build(scheme="https" if self.uses_tls else "http", host=self.host, port=self.port)


def address_of(broker_url: str, *, port: int | None, protocol: str | None, use_tls: bool | None) -> Address:
    """Return where it is. Raises ValueError, which repeats nothing of a URL with credentials."""
    scheme, mark, rest = broker_url.partition("://")
    if not mark:
        scheme, rest = "", broker_url
    try:
        url = URL(f"mqtt://{rest}")
        written = url.explicit_port
    except ValueError:
        written, url = 0, URL()
    if written == 0:
        raise ValueError("broker_url is no host or URL; a port in it is a number from 1 to 65535.")
    if url.user or url.password:
        raise ValueError("broker_url contains credentials: use username and password.")
    if not url.host or not re.fullmatch(r"[^\s/?#@\[\]]+", url.host):
        raise ValueError("broker_url names no host.")
    spoken = _one("protocol", scheme.lower() or None, protocol) or "mqtt"
    if spoken not in PORTS:
        raise ValueError(f"broker_url begins with {spoken[:20]}://, not {', '.join(PORTS)}.")
    uses_tls = spoken in ("mqtts", "wss")
    if uses_tls and use_tls is False:
        raise ValueError(f"{spoken} speaks TLS, and use_tls says that it does not.")
    path = (url.raw_path_qs if url.raw_path != "/" else "/mqtt") if spoken in ("ws", "wss") else None
    return Address(url.host, _one("port", written, port) or PORTS[spoken], uses_tls or bool(use_tls), path)


def _one(what: str, *said: Any) -> Any:  # noqa: ANN401 - a name or a number
    """Return the one that is said. Raises ValueError where there are two."""
    told = {one for one in said if one is not None}
    if len(told) > 1:
        raise ValueError(f"broker_url and {what} say different things.")
    return told.pop() if told else None
