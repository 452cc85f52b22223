"""Self-signed JWTs of a Google service account: no token has to be asked for, so no second server is needed.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#jwt-auth
"""

from dataclasses import dataclass, field

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from pydantic_core import from_json


@dataclass(slots=True, frozen=True)
class ServiceAccount:
    """What the key file of a service account says."""

    email: str
    key_id: str
    project_id: str
    key: RSAPrivateKey = field(repr=False)


def parse_service_account(text: str) -> ServiceAccount:
    """Read a key file. Raises ValueError, whose message never contains the key."""
    try:
        parts = from_json(text)
    except ValueError:
        parts = None
    if not isinstance(parts, dict) or parts.get("type") != "service_account":
        raise ValueError('it is not the JSON of a service account\'s key, with "type": "service_account".')
    wanted = [parts.get(name) for name in ("client_email", "private_key_id", "project_id", "private_key")]
    if not all(isinstance(one, str) and one for one in wanted):
        raise ValueError("it lacks client_email, private_key_id, project_id or private_key.")
    email, key_id, project_id, pem = map(str, wanted)
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("its private_key is no RSA key in PEM; copy the whole file.")  # noqa: TRY004 - it is a text
    return ServiceAccount(email, key_id, project_id, key)


def token(account: ServiceAccount, scope: str, *, issued_s: int, expires_s: int) -> str:
    """Return what goes behind `Bearer`. It holds for every host of the service that the scope is of."""
    claims = {"iss": account.email, "sub": account.email, "iat": issued_s, "exp": expires_s, "scope": scope}
    return jwt.encode(claims, account.key, algorithm="RS256", headers={"kid": account.key_id})
