"""Standard Webhooks 1.0: HMAC-SHA256 over the id, the time of the attempt and the very bytes of the body.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping

TOLERANCE_S = 300
"""A message whose timestamp is further away than this may be a recorded one, played again."""

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)


def parse_secret(text: str) -> bytes:
    """Return the key: what `whsec_<base64>` decodes to, or the UTF-8 bytes of any other text; 24 to 64 bytes.

    Raises ValueError, whose message never contains the secret.
    """
    if not text.startswith(_PREFIX):
        key = text.encode()
    else:
        encoded = text.removeprefix(_PREFIX)
        padding = "=" * (-len(encoded) % 4)  # often left out
        try:
            key = b64decode(encoded + padding, validate=True)
        except ValueError:
            raise ValueError(f"The secret starts with {_PREFIX} but what follows is not base64.") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError(
            f"The secret has {len(key)} bytes; 24 to 64 are needed. "
            f'Make one with: echo "{_PREFIX}$(openssl rand -base64 32)"'
        )
    return key


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one signature for the `webhook-signature` header; `timestamp` is in unix seconds."""
    mac = hmac.digest(secret, b"%b.%d.%b" % (message_id.encode(), timestamp, body), "sha256")
    return f"v1,{b64encode(mac).decode()}"


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, *, now_s: int) -> bool:
    """Tell whether one of the signatures in the headers is ours and at most TOLERANCE_S old.

    The headers' names are in lower case, or the mapping ignores case. A sender that changes its secret signs
    with both; versions other than v1 are passed over.
    """
    try:
        timestamp = int(headers["webhook-timestamp"])
        offered = headers["webhook-signature"].encode().split(b" ")
        expected = sign(secret, headers["webhook-id"], timestamp, body).encode()
    except (KeyError, ValueError):
        return False
    if abs(now_s - timestamp) > TOLERANCE_S:
        return False
    return any(hmac.compare_digest(expected, signature) for signature in offered)
