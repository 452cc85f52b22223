"""AWS Signature Version 4: HMAC-SHA256 over the request as AWS will write it down again.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

The path is encoded once on the wire, and what is signed is that path encoded once more (`%2F` becomes `%252F`), as for
every service but S3. So the URL must be sent exactly as it was signed.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

TOLERANCE_S = 900
"""A signature whose time is further away than this is refused."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True, frozen=True)
class Keys:
    """Who signs."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    """Goes along with temporary keys."""


def signed_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    keys: Keys,
    region: str,
    service: str,
    now_s: float,
) -> dict[str, str]:
    """Return the headers to add to a request. All of `headers` are signed; the URL is as it goes out, encoded."""
    moment = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": moment}
    if keys.session_token is not None:
        added["x-amz-security-token"] = keys.session_token
    names, canonical = _canonical(method, url, {**headers, **added}, body)
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    identity = f"{_ALGORITHM} Credential={keys.access_key_id}/{scope}"
    return {**added, "authorization": f"{identity}, SignedHeaders={names}, Signature={key.hex()}"}


def _canonical(method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return the names of the signed headers, and the request as it is signed."""
    parts = urlsplit(url)
    plain = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    plain["host"] = _host(url)
    names = ";".join(sorted(plain))
    lines = "".join(f"{name}:{plain[name]}\n" for name in sorted(plain))
    query = "&".join(sorted(parts.query.split("&"), key=lambda pair: pair.partition("=")[::2])) if parts.query else ""
    path = quote(parts.path or "/", safe="/-_.~")
    return names, "\n".join((method, path, query, lines, names, sha256(body).hexdigest()))


def _host(url: str) -> str:
    """Return the Host header: the port is only there when it is not the scheme's own."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    return name if parts.port in (None, _USUAL_PORTS.get(parts.scheme)) else f"{name}:{parts.port}"
