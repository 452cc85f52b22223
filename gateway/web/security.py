"""Headers that every answer has, whatever it says: what a browser must not do with it.

Nothing allows another origin to read (no CORS): programs need no leave, and pages of others have no business here.
"""

from aiohttp import hdrs, web

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    hdrs.CACHE_CONTROL: "no-store",
}
_HSTS = "max-age=86400"  # not a year: who gives TLS up again is locked out of the plain port for as long
_SERVER = "neurogate"  # without a version: that of the library would be there otherwise


def add_headers(response: web.StreamResponse, *, is_secure: bool) -> None:
    """Add them; what the answer says itself stays."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers[hdrs.SERVER] = _SERVER
    if is_secure:
        response.headers.setdefault("Strict-Transport-Security", _HSTS)
