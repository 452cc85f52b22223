"""What comes in by a parser, and whose readings these are: the sender's, or whoever's the message says."""

from dataclasses import dataclass

from gateway.access.known_devices import Device, KnownDevices
from gateway.model.errors import BadInput
from gateway.model.topics import is_name
from gateway.parsers.contract import Found, Parser


@dataclass(slots=True, frozen=True)
class Routed:
    """What a client publishes on a topic that a parser has been chosen for."""

    parser: Parser
    organization_id: str
    sender: Device | None
    """In whose name it is published; None when a hub does and the topic names no device: then the message must."""
    devices: KnownDevices
    hardware_id: str | None = None
    """By this alone the sender is known, and it speaks for itself; None when it may speak for others."""

    def device_of(self, found: Found) -> Device:
        """Return whose reading it is. Raises BadInput when it is nobody's, or not the sender's."""
        name, sender = found.device_id, self.sender
        if self.hardware_id is not None and name not in (None, self.hardware_id):
            return self._itself(self.hardware_id, found)
        if name is None:
            if sender is None:
                raise BadInput(
                    "no_device",
                    "The message does not say whose reading it is, and it was not sent as a device.",
                    hint="Let the parser find a device id, or send it with the device's own credential.",
                )
            return sender
        if sender is not None and name == sender.device_id:
            return sender
        known = self.devices.meant(self.organization_id, found)
        if sender is not None:
            if known is sender:
                return sender
            raise BadInput(
                "foreign_device",
                f"The payload says it is from {name[:100]!r}, but it was sent as {sender.device_id}.",
                hint="A hub has the credential of an organisation; or register this as the device's hardware id.",
            )
        if known is not None:
            return known
        if not is_name(name):
            raise BadInput(
                "invalid_device_id",
                f"{name[:100]!r} cannot be a device's id.",
                hint="Register it under another: neurogate device add NAME --hardware-id ID",
            )
        return self.devices.discover(self.organization_id, found, name)

    def _itself(self, hardware_id: str, found: Found) -> Device:
        """Return the device of that hardware id, if the message calls it by its name."""
        known = self.devices.by_hardware_id(self.organization_id, hardware_id)
        if known is not None and found.device_id == known.device_id:
            return known
        raise BadInput(
            "foreign_device",
            f"The payload says it is from {(found.device_id or '')[:100]!r}, but it was sent by {hardware_id[:100]!r}.",
            hint="Register the latter as hardware id of that device, or let it speak for others: webhook_gateways.",
        )
