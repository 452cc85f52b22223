"""The standard telemetry payload: what a board sends (one JSON object a reading)."""

from typing import Annotated, Any, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from gateway.model.sensors import Ld2410, Mq134, Pir
from gateway.model.wire import WIRE, Json

_BIGGEST_SQLITE_INTEGER = 2**63 - 1


@with_config(WIRE)
class Sensors(TypedDict, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """The sensors of a reading by wire name; others than these may be there too."""

    ld2410: NotRequired[Ld2410]
    pir: NotRequired[Pir]
    mq134: NotRequired[Mq134]


@with_config(WIRE)
class Envelope(TypedDict, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """Everything of a reading but what its sensors say."""

    device_id: Annotated[str, Field(min_length=1, max_length=100)]
    timestamp: NotRequired[str | int | float | None]
    """RFC 3339, or unix seconds or milliseconds."""
    age_ms: NotRequired[int | float | None]
    """How long ago it was measured, from a board without a clock."""
    boot_id: NotRequired[Annotated[str, Field(max_length=64)] | None]
    seq: NotRequired[Annotated[int, Field(ge=0, le=_BIGGEST_SQLITE_INTEGER)] | None]
    firmware: NotRequired[str | None]
    sensors: Annotated[dict[str, Any], Field(min_length=1)]
    health: NotRequired[dict[str, Json] | None]


@with_config(WIRE)
class Telemetry(Envelope, extra_items=Json):  # type: ignore[call-arg]  # PEP 728
    """A whole reading whose sensors are all valid.

    Whether there is any, its reader asks: pydantic would ask in Python, which is a tenth of what validation costs.
    """

    sensors: Sensors  # type: ignore[misc]  # narrowed on purpose
