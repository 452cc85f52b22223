"""What a message is to us that a client publishes on a topic: somebody's reading, by whichever parser, or none."""

from typing import NamedTuple

from gateway.access.known_devices import Device
from gateway.access.routed import Routed


class Publication(NamedTuple):
    """What any message of one client on one topic is. One that is no reading is handed on as it is."""

    telemetry_of: Device | None = None
    """Whose reading it is, in the standard shape."""
    routed: Routed | None = None
    """How it is read, where a parser has been chosen for the topic and reads it."""
    is_unheard: bool = False
    """Whether nobody is to hear it, nor is it kept: it is acknowledged, and nothing else."""
    is_lasting: bool = True
    """Whether the next message is the same; not where its device is not registered (`Device.is_known`)."""
