"""A notification for programs: `{"type":"notification","id":…,"kind":…,"subject":…,"message":…,…}`.

A digest is one too, with all that is in it as `notifications`.
"""

from collections.abc import Mapping
from typing import Any

from cloud_sync.contract import Notification
from gateway.model.reading import rfc3339

EVENT_TYPE = "com.netneural.notification.v1"


def wire_notification(notification: Notification) -> dict[str, Any]:
    """Return it as every receiver sees it."""
    wire: dict[str, Any] = {
        "type": "notification",
        "id": notification.id,
        "gateway_id": notification.gateway_id,
        "organization_id": notification.organization_id,
        "kind": notification.kind,
        "priority": notification.priority,
        "subject": notification.subject,
        "message": notification.message,
        "time": rfc3339(notification.at_ms),
        "data": dict(notification.data),
    }
    if notification.parts:
        wire["notifications"] = [_part(part) for part in notification.parts]
    return wire


def as_event(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Return it as a CloudEvent 1.0; see `cloud_events.py`."""
    return {
        "id": wire["id"],
        "source": f"/gateways/{wire['gateway_id']}",
        "type": EVENT_TYPE,
        "specversion": "1.0",
        "time": wire["time"],
        "datacontenttype": "application/json",
        "data": dict(wire),
    }


def _part(notification: Notification) -> dict[str, Any]:
    wire = wire_notification(notification)
    return {name: value for name, value in wire.items() if name not in ("type", "gateway_id", "organization_id")}
