"""The signature existing receivers check: `X-Webhook-Signature: sha256=<hex HMAC-SHA256 of the body>`.

Its key is the configured secret as it is written, in UTF-8, also when it starts with `whsec_`: existing
receivers do `createHmac('sha256', secret)`. It proves neither time nor id: that is for `standard_webhooks`.
"""

import hmac

HEADER = "X-Webhook-Signature"


def sign(secret: str, body: bytes) -> str:
    """Return the value of the header."""
    return f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}"


def verify(secret: str, signature: str, body: bytes) -> bool:
    """Tell whether the header's value belongs to the body."""
    return hmac.compare_digest(sign(secret, body).encode(), signature.encode(errors="replace"))
