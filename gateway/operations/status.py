"""What a running gateway says of itself."""

from gateway.model.errors import NotFound
from gateway.model.status import GatewayStatus
from gateway.operations.site import Site


async def gateway_status(site: Site) -> GatewayStatus:
    """Return a snapshot of the running gateway. Raises NotFound when none runs."""
    if site.live is None:
        raise NotFound("No gateway is running.", hint="Start it: neurogate run")
    return await site.live.status()
