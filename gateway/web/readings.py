"""`GET …/readings`: what is stored of the token's organisation, the newest arrival first.

Under `/api/v1` and `/functions/v1`.

- `device_id`, `sensor`: of that device only, with that sensor only
- `from`, `to`: of this time and later, and before that one; RFC 3339 (UTC where it names no zone), unix seconds or
  milliseconds
- `bucket`, for example `30s`, `5m`, `1h`, `1d`: figures of each bucket of time instead of readings; needs `from`
- `limit`: in one page, 1,000 at most; `cursor`: the `next_cursor` of the page before, with the same question. There is
  more as long as there is a `next_cursor`, however little is in a page
"""

import asyncio
import re

from aiohttp import web
from pydantic_core import to_json

from gateway.model.errors import BadInput
from gateway.operations.buckets import BUCKETS_AT_MOST, BucketsPage, read_buckets
from gateway.operations.readings import READINGS_AT_MOST, ReadingsPage, read_readings
from gateway.operations.site import Site
from gateway.parsers.timestamp import number_ms, text_ms
from gateway.web.authorization import Authorization

_DEFAULT = 100
_PARAMETERS = ("device_id", "sensor", "from", "to", "bucket", "limit", "cursor")
_BUCKET = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LIMIT = re.compile(r"[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


class Readings:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: Site) -> None:
        self._authorization = authorization
        self._site = site
        # One of each kind at a time: it takes from those who send.
        self._readings_turn = asyncio.Lock()
        self._buckets_turn = asyncio.Lock()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the route."""
        for prefix in ("/api/v1", "/functions/v1"):
            router.add_get(f"{prefix}/readings", self.get)

    async def get(self, request: web.Request) -> web.Response:
        """Return one page."""
        caller = await self._authorization.reader(request)
        query = request.query
        for name in query:
            if name not in _PARAMETERS:
                raise _invalid(name, "is no parameter", f"Use {', '.join(_PARAMETERS)}.")
            if len(query.getall(name)) > 1:
                raise _invalid(name, "stands there more than once", "Name one.")
        limit = _limit(query.get("limit"))
        from_ms, to_ms = _time("from", query.get("from")), _time("to", query.get("to"))
        device_id, sensor, cursor = (query.get(name) or None for name in ("device_id", "sensor", "cursor"))
        bucket = query.get("bucket")
        async with self._readings_turn if bucket is None else self._buckets_turn:
            page: ReadingsPage | BucketsPage
            if bucket is None:
                page = await read_readings(
                    self._site,
                    organization_id=caller.organization_id,
                    device_id=device_id,
                    sensor=sensor,
                    from_ms=from_ms,
                    to_ms=to_ms,
                    limit=min(limit, READINGS_AT_MOST),
                    cursor=cursor,
                )
            else:
                if from_ms is None:
                    raise _invalid("from", "is missing", "Buckets need a beginning.")
                page = await read_buckets(
                    self._site,
                    organization_id=caller.organization_id,
                    bucket_ms=_length(bucket),
                    device_id=device_id,
                    sensor=sensor,
                    from_ms=from_ms,
                    to_ms=to_ms,
                    limit=min(limit, BUCKETS_AT_MOST),
                    cursor=cursor,
                )
            body = await asyncio.to_thread(to_json, page, inf_nan_mode="null")
        return web.Response(body=body, content_type="application/json")


def _time(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    ms = number_ms(float(text)) if _NUMBER.fullmatch(text) else text_ms(text)
    if ms is None:
        raise _invalid(
            name,
            f"is {text[:50]!r}, not a time",
            "Use RFC 3339, as 2026-11-20T12:00:00Z (write + as %2B), or unix seconds or milliseconds.",
        )
    return ms


def _limit(text: str | None) -> int:
    if text is None:
        return _DEFAULT
    if not _LIMIT.fullmatch(text):
        raise _invalid("limit", f"is {text[:50]!r}, not a number above 0", "Leave it out, or correct it.")
    return int(text)


def _length(text: str) -> int:
    found = _BUCKET.fullmatch(text)
    if found is None:
        raise _invalid("bucket", f"is {text[:50]!r}, not a length of time", "For example 30s, 5m, 1h or 1d.")
    return int(found[1]) * _UNIT_MS[found[2]]


def _invalid(name: str, what: str, hint: str) -> BadInput:
    return BadInput("invalid_parameter", f"{name[:50]} {what}.", hint=hint)
