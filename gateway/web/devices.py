"""`POST …/devices/metadata`: what is known of a device beside what it measures; under `/api/v1` and `/functions/v1`.

`{"device_id", "metadata": {"location": …, "zone": …}}` changes the keys that it names; `null` takes one away. It goes
out with the readings that come in from then on. A device that is unknown is registered: whoever manages devices
elsewhere tells of one before it is heard.
"""

from collections.abc import Iterable

from pydantic import ConfigDict, JsonValue
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.operations.devices import set_metadata
from gateway.operations.site import Site
from gateway.web.authorization import Authorization
from gateway.web.requests import Request
from gateway.web.routes import Route


class MetadataRequest(Request):
    """What is to change; `null` takes a key away."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_id": "esp32-kitchen", "metadata": {"location": "kitchen", "zone": 2}}]}
    )

    device_id: str
    metadata: dict[str, JsonValue]


class DeviceMetadata(TypedDict):
    """All that is known of a device beside what it measures."""

    organization_id: str
    device_id: str
    status: str
    metadata: dict[str, JsonValue]


class Devices:
    """The route and its handler."""

    def __init__(self, authorization: Authorization, site: Site) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the route."""
        yield Route("POST", "devices/metadata", self.change_metadata, self._authorization.changes)

    async def change_metadata(self, who: Caller, body: MetadataRequest) -> DeviceMetadata:
        """Change a device's metadata and return all of it."""
        device = await set_metadata(
            self._site,
            organization_id=who.organization_id,
            device_id=body.device_id,
            metadata=dict(body.metadata),
        )
        return {
            "organization_id": device.organization_id,
            "device_id": device.device_id,
            "status": device.status,
            "metadata": device.metadata,
        }
