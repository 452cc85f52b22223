"""Every route of the HTTP API with what each role may expect of it: the table that the tests of rights read."""

from dataclasses import dataclass, field
from typing import Any

READ = frozenset({"owner", "admin", "member"})
CHANGE = frozenset({"owner", "admin"})
HAND_IN = frozenset({"owner", "admin", "device"})
NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Route:
    """A request; in its path `{id}` is the id of something that only one organisation has."""

    method: str
    path: str
    roles: frozenset[str]
    """Of an organisation, that may ask it."""
    body: dict[str, Any] = field(default_factory=dict)
    ok: int = 200
    site_only: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.body.get('operation', '')}".strip()


def _mqtt(roles: frozenset[str], operation: str, ok: int = 200, **more: Any) -> Route:
    return Route("POST", "mqtt-broker", roles, {"operation": operation, **more}, ok)


_INTEGRATION = {"integration_type": "webhook", "settings": {"url": "http://127.0.0.1:1/"}}
_MESSAGE = {"topic": "devices/shed/config", "payload": {}}

ROUTES = [
    Route("GET", "readings", READ),
    Route("GET", "readings?bucket=1h&from=2025-11-20T00:00:00Z", READ),
    Route("GET", "activity-log", READ),
    Route("GET", "quarantine", READ),
    Route("GET", "dead-letters", READ),
    Route("POST", "dead-letters/replay", CHANGE, {"destination": "cloud"}, 202),
    Route("GET", "devices", READ),
    Route("POST", "devices", CHANGE, {"id": "fresh"}, 201),
    Route("GET", "devices/{device}", READ),
    Route("PATCH", "devices/{device}", CHANGE, {"name": "Shed"}),
    Route("POST", "devices/metadata", CHANGE, {"device_id": "{device}", "metadata": {"a": 1}}),
    Route("GET", "devices/{device}/credentials", READ),
    Route("POST", "devices/{device}/credentials", CHANGE, {"overlap_h": 0}, 201),
    Route("PATCH", "devices", CHANGE, {"id": "{device}", "serial_number": "7"}),
    Route("POST", "devices/{device}/transfer", NOBODY, {"target_organization_id": "third"}, site_only=True),
    Route("POST", "devices/{device}/commands", CHANGE, {"method": "identify", "id": "fresh"}, 202),
    Route("GET", "devices/{device}/commands", READ),
    Route("GET", "devices/{device}/commands/{command_id}", READ),
    Route("DELETE", "devices/{device}/credentials", CHANGE, ok=204),
    Route("DELETE", "devices/{device}", CHANGE, ok=204),
    Route("DELETE", "devices?id={device}", CHANGE, ok=204),
    Route("GET", "integrations", READ),
    Route("POST", "integrations", CHANGE, _INTEGRATION | {"name": "fresh", "status": "inactive"}, 201),
    Route("GET", "integrations/types", READ),
    Route("POST", "integrations/test", CHANGE, _INTEGRATION),
    Route("GET", "integrations/{integration}", READ),
    Route("PATCH", "integrations/{integration}", CHANGE, {"settings": {"gzip": True}}),
    Route("PATCH", "integrations", CHANGE, {"id": "{integration}", "name": "Shed"}),
    Route("POST", "integrations/{integration}/test", CHANGE),
    Route("DELETE", "integrations/{integration}", CHANGE, ok=204),
    Route("DELETE", "integrations", CHANGE, {"id": "{integration}"}, 204),
    Route("GET", "alerts", READ),
    Route("GET", "alerts/{alert}", READ),
    Route("POST", "alerts/{alert}/acknowledge", CHANGE),
    Route("POST", "alerts/{alert}/resolve", CHANGE),
    Route("GET", "tokens", CHANGE),
    Route("POST", "tokens", CHANGE, {"name": "fresh"}, 201),
    Route("GET", "tokens/{token}", CHANGE),
    Route("DELETE", "tokens/{token}", CHANGE, ok=204),
    Route("DELETE", "tokens", CHANGE, {"id": "{token}"}, 204),
    Route("GET", "organizations", NOBODY, site_only=True),
    Route("POST", "organizations", NOBODY, {"id": "fourth"}, 201, site_only=True),
    Route("GET", "organizations/{organization}", NOBODY, site_only=True),
    Route("PATCH", "organizations/{organization}", NOBODY, {"name": "A"}, site_only=True),
    Route("PATCH", "organizations", NOBODY, {"id": "{organization}", "name": "A"}, site_only=True),
    Route("DELETE", "organizations/third", NOBODY, ok=204, site_only=True),
    Route("DELETE", "organizations", NOBODY, {"id": "third"}, 204, site_only=True),
    Route("POST", "mqtt-hybrid/subscribe", CHANGE, {"topics": ["devices/#"]}, 201),
    Route("POST", "mqtt-hybrid/test", CHANGE),
    Route("POST", "mqtt-hybrid/credentials", CHANGE, {"action": "list"}),
    _mqtt(CHANGE, "publish", messages=[_MESSAGE]),
    _mqtt(CHANGE, "subscribe", 201, topics=["devices/#"]),
    _mqtt(CHANGE, "test"),
    _mqtt(CHANGE, "credentials", action="list"),
    _mqtt(CHANGE, "credentials", 201, action="create"),
    _mqtt(CHANGE, "credentials", action="rotate", username="{hub}"),
    _mqtt(CHANGE, "credentials", action="revoke", username="{hub}"),
    Route("POST", "mqtt-hybrid/publish", CHANGE, {"messages": [_MESSAGE]}),
    Route("GET", "mqtt-broker/subscriptions", READ),
    Route("DELETE", "mqtt-broker/subscriptions/{subscription}", CHANGE, ok=204),
    Route("GET", "mqtt-broker/messages?subscription_id={subscription}", READ),
    Route("POST", "send-notification", CHANGE, {"integration_type": "email", "message": "The pump is off."}, 202),
    Route("GET", "notification-log?status=failed", READ),
    Route("GET", "notification-log/{notification}", READ),
    Route("POST", "notification-log/{notification}/resend", CHANGE),
    Route("POST", "mqtt-listener", HAND_IN, {"topic": "devices/shed/status", "payload": "on"}),
]

WITHOUT_TOKENS = {"/health", "/ready", "/metrics", "/mqtt"}
"""They ask nobody who they are; at `/mqtt` the CONNECT does."""
DOCUMENT = {"/api/openapi.json"}
"""For whoever has a token; it says nothing of anybody."""
BY_PASSWORD = {"/api/v1/sensor-data", "/functions/v1/sensor-data"}
"""For a device's password, and no token."""
BY_SECRET = {"/api/v1/golioth-webhook", "/functions/v1/golioth-webhook"}
"""For an integration's secret, and no token."""
LIVE = {"/ws"}
"""A WebSocket: see test_live.py."""
