"""HLK-LD2410: 24 GHz mmWave presence radar.

Distances are in centimetres; energies are on the radar's own scale of 0 to 100 (LD2410 serial communication
protocol, report frame).
"""

from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from gateway.model.wire import WIRE, Json


@with_config(WIRE)
class Ld2410(TypedDict, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """What one report of the radar says."""

    presence: bool
    moving: NotRequired[bool | None]
    stationary: NotRequired[bool | None]
    distance_cm: NotRequired[float | None]
    moving_distance_cm: NotRequired[float | None]
    moving_energy: NotRequired[float | None]
    stationary_distance_cm: NotRequired[float | None]
    stationary_energy: NotRequired[float | None]
