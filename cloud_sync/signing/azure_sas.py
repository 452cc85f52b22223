"""Shared access signatures, as Azure IoT Hub takes them: HMAC-SHA256 over what may be accessed, and until when.

Source: https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas

A token for `HUB/devices/ID` is that device's, signed with its key. One for `HUB/devices`, signed with the key of a
policy that may connect devices, speaks for all of them: Azure's own way for gateways.
"""

import hmac
from base64 import b64decode, b64encode
from urllib.parse import quote


def parse_key(text: str) -> bytes:
    """Return the key. Raises ValueError, whose message never contains it."""
    try:
        key = b64decode(text, validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("the SharedAccessKey is not base64; copy all of it, with the = at its end.")
    return key


def token(resource: str, key: bytes, expires_s: int, policy: str | None = None) -> str:
    """Return what the Authorization header says. `resource` has no scheme, `expires_s` is in unix seconds."""
    encoded = quote(resource, safe="")
    signature = b64encode(hmac.digest(key, f"{encoded}\n{expires_s}".encode(), "sha256")).decode()
    named = "" if policy is None else f"&skn={quote(policy, safe='')}"
    return f"SharedAccessSignature sr={encoded}&sig={quote(signature, safe='')}&se={expires_s}{named}"
