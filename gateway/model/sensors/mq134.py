"""A generic MQ-13x gas channel (`mq134` is its name on the wire; no maker sells a part of that name).

The concentration is an estimate from a datasheet curve: never build a safety device on it.
"""

from typing import NotRequired

from pydantic import with_config
from typing_extensions import TypedDict

from gateway.model.wire import WIRE, Json


@with_config(WIRE)
class Mq134(TypedDict, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """One measurement of the gas channel."""

    gas_concentration: float
    unit: NotRequired[str | None]
    state: NotRequired[str | None]
    raw_uv: NotRequired[float | None]
    """Voltage at the load resistor, microvolts."""
    rs_ohm: NotRequired[float | None]
    ratio: NotRequired[float | None]
    """Rs / R0."""
