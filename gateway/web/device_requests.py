"""What `devices` is asked; unknown fields are refused. A device is named by `id`, or `device_id` as boards call it."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from gateway.operations.devices import OVERLAP_MS
from gateway.web.parameters import Above0
from gateway.web.requests import Query, Request

Metadata = dict[str, JsonValue]
HardwareIds = Annotated[list[str], Field(max_length=50)]
Status = Literal["active", "discovered", "registered", "revoked"]


def _example(**body: Any) -> ConfigDict:  # noqa: ANN401 - JSON
    return ConfigDict(json_schema_extra={"examples": [body]})


class DevicesQuery(Query):
    """Which devices."""

    status: Status | None = Field(None, description="Of this status only.")
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")


class NamedQuery(Query):
    """Which one, where the path does not say it."""

    id: str | None = Field(None, description="Which one, unless the body says it.")


class MetadataRequest(Request):
    """What is to change; `null` takes a key away."""

    model_config = _example(device_id="esp32-kitchen", metadata={"location": "kitchen", "zone": 2})

    device_id: str
    metadata: Metadata


class DeviceRequest(Request):
    """Which device, where the path does not say it."""

    model_config = _example(id="esp32-kitchen")

    id: str | None = None
    device_id: str | None = None


class NewDevice(DeviceRequest):
    """A device that is to be registered."""

    model_config = _example(id="hall", name="Hall", serial_number="4711", metadata={"floor": 1})

    name: str = ""
    serial_number: str = ""
    hardware_ids: HardwareIds = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)


class DeviceChanges(DeviceRequest):
    """What is to change of a device; what is not named stays, and null takes away."""

    model_config = _example(id="esp32-kitchen", name="Kitchen", metadata={"zone": None})

    name: str | None = None
    serial_number: str | None = None
    hardware_ids: HardwareIds | None = None
    metadata: Metadata | None = None
    status: Literal["active", "registered", "revoked"] | None = None

    def changes(self) -> dict[str, JsonValue]:
        """Return what is named; metadata is changed key by key, so null is no change of it."""
        nothing: dict[str, JsonValue] = {"name": "", "serial_number": "", "hardware_ids": [], "metadata": {}}
        named = self.model_dump(include=self.model_fields_set & {*nothing, "status"})
        return {name: nothing.get(name) if value is None else value for name, value in named.items()}


class CredentialRequest(DeviceRequest):
    """A password that is to be made."""

    model_config = _example(overlap_h=24)

    overlap_h: float = Field(
        OVERLAP_MS / 3_600_000, ge=0, le=8_760, description="For so long the one before stays good."
    )


class TransferRequest(DeviceRequest):
    """A device that is to move from `organization_id` to another organisation."""

    model_config = _example(target_organization_id="acme")

    target_organization_id: str
