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
from collections.abc import Iterable

from pydantic import Field

from gateway.callers import Caller
from gateway.model.errors import BadInput
from gateway.operations.buckets import BUCKETS_AT_MOST, BucketsPage, read_buckets
from gateway.operations.readings import READINGS_AT_MOST, ReadingsPage, read_readings
from gateway.operations.site import Site
from gateway.web.authorization import Authorization
from gateway.web.parameters import Above0, LengthMs, TimeMs
from gateway.web.requests import Query
from gateway.web.routes import Route


class ReadingsQuery(Query):
    """Which readings."""

    device_id: str | None = Field(None, description="Of that device only.")
    sensor: str | None = Field(None, description="With that sensor only.")
    from_ms: TimeMs | None = Field(None, alias="from", description="Of this time and later; buckets need it.")
    to_ms: TimeMs | None = Field(None, alias="to", description="Before this time.")
    bucket: LengthMs | None = Field(None, description="Figures of each bucket of time instead of readings.")
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before, with the same question.")


class Readings:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: Site) -> None:
        self._authorization = authorization
        self._site = site
        # One of each kind at a time: it takes from those who send.
        self._readings_turn = asyncio.Lock()
        self._buckets_turn = asyncio.Lock()

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield Route("GET", "readings", self.get, self._authorization.reads, is_large=True)

    async def get(self, who: Caller, query: ReadingsQuery) -> ReadingsPage | BucketsPage:
        """Return a page of what is stored, the newest arrival first."""
        device_id, sensor, cursor = query.device_id or None, query.sensor or None, query.cursor or None
        async with self._readings_turn if query.bucket is None else self._buckets_turn:
            if query.bucket is None:
                return await read_readings(
                    self._site,
                    organization_id=who.organization_id,
                    device_id=device_id,
                    sensor=sensor,
                    from_ms=query.from_ms,
                    to_ms=query.to_ms,
                    limit=min(query.limit, READINGS_AT_MOST),
                    cursor=cursor,
                )
            if query.from_ms is None:
                raise BadInput("invalid_parameter", "from is missing.", hint="Buckets need a beginning.")
            return await read_buckets(
                self._site,
                organization_id=who.organization_id,
                bucket_ms=query.bucket,
                device_id=device_id,
                sensor=sensor,
                from_ms=query.from_ms,
                to_ms=query.to_ms,
                limit=min(query.limit, BUCKETS_AT_MOST),
                cursor=cursor,
            )
