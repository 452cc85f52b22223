"""`POST …/devices/metadata`: what is known of a device beside what it measures; under `/api/v1` and `/functions/v1`.

`{"device_id", "metadata": {"location": …, "zone": …}}` changes the keys that it names; `null` takes one away. It goes
out with the readings that come in from then on. A device that is unknown is registered: whoever manages devices
elsewhere tells of one before it is heard.
"""

from aiohttp import web
from pydantic import JsonValue

from gateway.operations.devices import set_metadata
from gateway.operations.site import Site
from gateway.web.authorization import Authorization
from gateway.web.requests import Request, parsed


class MetadataRequest(Request):
    """What is to change."""

    device_id: str
    metadata: dict[str, JsonValue]


class Devices:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: Site) -> None:
        self._authorization = authorization
        self._site = site

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register the route."""
        for prefix in ("/api/v1", "/functions/v1"):
            router.add_post(f"{prefix}/devices/metadata", self.change_metadata)

    async def change_metadata(self, request: web.Request) -> web.Response:
        """Change a device's metadata and return all of it."""
        caller = self._authorization.changer(await self._authorization.reader(request))
        asked = parsed(MetadataRequest, await request.read(), caller)
        device = await set_metadata(
            self._site,
            organization_id=caller.organization_id,
            device_id=asked.device_id,
            metadata=dict(asked.metadata),
        )
        return web.json_response(
            {
                "organization_id": device.organization_id,
                "device_id": device.device_id,
                "status": device.status,
                "metadata": device.metadata,
            }
        )
