"""JWTs (RFC 7519) as tokens: signed with HS256 by whoever shares the secret, and nothing is kept of them here.

- HS256 and nothing else: neither `none` nor a public key that is taken for a secret lets anybody in
- `exp`, `sub`, `role` and `organization_id` must be there; `exp` and `nbf` are held against the gateway's clock
- while that clock cannot be right, none is good: one that ended long ago would be
- one can be taken back only by its end, or with all others by another secret
"""

from dataclasses import dataclass
from typing import Any

import jwt

from gateway.clock import Clock
from gateway.model.roles import ROLES, Role
from gateway.model.text import is_clean_text
from gateway.parsers.timestamp import FIRST_CREDIBLE_MS

_LONGEST = 8_192  # as long as a header may be
_LONGEST_SUBJECT = 200
_LAST_S = 253_402_300_799  # the last second of the year 9999; beyond, nobody means a time
# The times are compared here: the library knows only the machine's clock. Who it is for (`aud`) was never agreed on.
_OPTIONS: Any = {
    "require": ["exp", "sub", "role", "organization_id"],
    **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud"), False),
}


@dataclass(slots=True, frozen=True)
class Claims:
    """What a good JWT says."""

    subject: str
    organization_id: str
    role: Role
    expires_at_ms: int


class SignedTokens:
    """See the module's own words. With an empty secret none is good."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def read(self, token: str) -> Claims | None:
        """Return what a token says; None when it is no good one."""
        now_ms = self._clock.now_ms()
        if not self._secret or not token.isascii() or len(token) > _LONGEST or now_ms < FIRST_CREDIBLE_MS:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(token, self._secret, algorithms=["HS256"], options=_OPTIONS)
        except jwt.PyJWTError:
            return None
        ends_ms, begins_ms = _milliseconds(claims["exp"]), _milliseconds(claims.get("nbf", 0))
        if ends_ms is None or begins_ms is None or not begins_ms <= now_ms < ends_ms:
            return None
        subject, organization_id, role = claims["sub"], claims["organization_id"], claims["role"]
        if not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST_SUBJECT and is_clean_text(subject)):
            return None
        if role not in ROLES or not isinstance(organization_id, str):
            return None
        return Claims(subject, organization_id, role, ends_ms)


def _milliseconds(seconds: object) -> int | None:
    """Return unix milliseconds of a NumericDate, in seconds; None when it is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) <= _LAST_S:
        return None
    return int(seconds * 1000)
