"""PIR motion sensor, for example the HC-SR501."""

from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from gateway.model.wire import WIRE, Json


@with_config(WIRE)
class Pir(TypedDict, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """Whether anything moved since the last reading, and how many pulses said so."""

    motion_detected: bool
    pulses: NotRequired[int | None]
