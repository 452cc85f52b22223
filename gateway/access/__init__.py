"""Who may come in, what each may touch, and whose readings they send."""

from gateway.access.access import Access
from gateway.access.credential import Credential
from gateway.access.known_devices import Device, KnownDevices
from gateway.access.publication import Publication
from gateway.access.routed import Routed

__all__ = ["Access", "Credential", "Device", "KnownDevices", "Publication", "Routed"]
