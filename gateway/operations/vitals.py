"""How a running gateway does, and what it does at this moment: for whoever looks for a fault."""

from gateway.model.errors import NotFound
from gateway.model.finding import Finding
from gateway.model.vitals import Trace, Vitals
from gateway.operations.site import Live, Site


async def gateway_vitals(site: Site) -> Vitals:
    """Return how the process does. Raises NotFound when none runs."""
    return _live(site).vitals()


async def gateway_trace(site: Site) -> Trace:
    """Return what the process has said lately, and where it is. Raises NotFound when none runs."""
    return _live(site).trace()


async def try_broker(site: Site) -> list[Finding]:
    """Return what a client of the broker meets. Raises NotFound when no gateway runs, and StoreFailed."""
    return await _live(site).try_broker()


def _live(site: Site) -> Live:
    if site.live is None:
        raise NotFound("No gateway is running.", hint="Start it: neurogate run")
    return site.live
