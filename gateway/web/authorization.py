"""Who asks: the bearer token of a request, what its holder may do, and in which organisation.

A token is for its organisation. One of the site is for each: a request names it (`organization_id` in the query or the
body), else it is the gateway's own.

A wrong token waits for its answer, longer with each failure from its address; a right one never does.
"""

import asyncio

from aiohttp import web

from gateway.callers import Caller, Callers
from gateway.login_delay import LoginDelay
from gateway.model.errors import NeurogateError
from gateway.model.roles import may_change, may_hand_in, may_read
from gateway.rate_limit import RateLimits
from gateway.storage.organizations import no_organization
from gateway.web.requests import Query, Request, named_organization
from gateway.web.routes import BEARER, Guard


class Unauthorized(NeurogateError):
    """Nobody's token."""

    code = "unauthorized"
    http_status = 401


class Forbidden(NeurogateError):
    """Somebody who may not do this."""

    code = "forbidden"
    http_status = 403


class TooManyRequests(NeurogateError):
    """Somebody who asks too often."""

    code = "rate_limited"
    http_status = 429

    def __init__(self, retry_after_s: int, *, hint: str = "") -> None:
        super().__init__("Too many requests.", hint=hint or f"Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class Authorization:
    """See the module's own words."""

    def __init__(self, callers: Callers, limits: RateLimits, delay: LoginDelay) -> None:
        self._callers = callers
        self._limits = limits
        self._delay = delay

    @property
    def reads(self) -> Guard[Caller]:
        """Who may look at what there is."""
        return Guard(self._reader, (BEARER,), "a member, an admin or an owner", self.within)

    @property
    def changes(self) -> Guard[Caller]:
        """Who may change things."""
        return Guard(self._changer, (BEARER,), "an admin or an owner", self.within)

    @property
    def manages(self) -> Guard[Caller]:
        """Who may manage the site's organisations."""
        return Guard(self._manager, (BEARER,), "an admin or an owner of the site", self.within)

    @property
    def hands_in(self) -> Guard[Caller]:
        """Who may hand in what devices say."""
        return Guard(self._hands_in, (BEARER,), "a device, an admin or an owner", self.within)

    @property
    def is_known(self) -> Guard[Caller]:
        """Whoever has a token."""
        return Guard(self._caller, (BEARER,), "whoever has a token", self.within)

    async def _reader(self, request: web.Request) -> Caller:
        caller = await self._caller(request)
        if not may_read(caller.role):
            raise Forbidden(
                f"A token of the role {caller.role} may not ask this.",
                hint="Use one of a member, an admin or an owner.",
            )
        return caller

    async def _changer(self, request: web.Request) -> Caller:
        caller = await self._reader(request)
        if not may_change(caller.role):
            raise Forbidden(
                f"A token of the role {caller.role} may change nothing.", hint="Use one of an admin or an owner."
            )
        return caller

    async def _manager(self, request: web.Request) -> Caller:
        return self.of_site(await self._changer(request))

    def of_site(self, caller: Caller) -> Caller:
        """Return the caller, if their token is the site's. Raises Forbidden."""
        if not caller.is_of_site:
            raise Forbidden(
                "A token of an organisation may not ask this.",
                hint="Use one of the site: neurogate token create --site.",
            )
        return caller

    def within(self, caller: Caller, organization_id: str) -> Caller:
        """Return the caller as they act in the organisation that a request names.

        Raises Forbidden when it is not theirs, NotFound when there is none.
        """
        if organization_id == caller.organization_id:
            return caller
        if not caller.is_of_site:
            raise Forbidden(
                f"The token is for {caller.organization_id}.", hint="Leave organization_id out, or name that."
            )
        if not self._callers.is_organization(organization_id):
            raise no_organization(organization_id)
        return caller.within(organization_id)

    def within_query(self, caller: Caller, request: web.Request) -> Caller:
        """Return the caller as `within`, for what has no guard that does it: the query alone names an organisation."""
        named = named_organization(request.query, None)
        return caller if named is None else self.within(caller, named)

    async def _hands_in(self, request: web.Request) -> Caller:
        caller = await self._caller(request)
        if not may_hand_in(caller.role):
            raise Forbidden(
                f"A token of the role {caller.role} may hand nothing in.", hint="Use one of the role device."
            )
        return caller

    async def _caller(self, request: web.Request) -> Caller:
        token = bearer_token(request)
        caller = self._callers.authenticate(token) if token else None
        if caller is None:
            if token:
                await self.wait_after_failure(request)
            raise Unauthorized(
                "The token is missing, wrong or over.",
                hint="Send it as `Authorization: Bearer …`; neurogate token create makes one.",
            )
        self.take_turn(caller.key)
        return caller

    def take_turn(self, name: str) -> None:
        """Count a request. Raises TooManyRequests."""
        wait_s = self._limits.take(name)
        if wait_s > 0:
            raise TooManyRequests(int(wait_s) + 1)

    async def wait_after_failure(self, request: web.Request) -> None:
        """Wait before a wrong secret is answered."""
        await wait_after_failure(self._delay, request)


def whose(who: Caller, query: Query | None = None, body: Request | None = None) -> str | None:
    """Return whose rows a request means; None for everybody's: one of the site that names no organisation."""
    named = any(asked is not None and asked.organization_id for asked in (query, body))
    return None if who.is_of_site and not named else who.organization_id


def bearer_token(request: web.Request) -> str:
    """Return the bearer token of a request, nothing if it has none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def wait_after_failure(delay: LoginDelay, request: web.Request) -> None:
    """Wait before a wrong secret is answered."""
    with delay.failed(request.remote or "", None) as wait_s:
        await asyncio.sleep(wait_s)
