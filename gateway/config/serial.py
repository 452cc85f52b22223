"""What is attached to this machine by a serial line: the tables `[[serial]]`.

How it is read is in gateway/sources; here is only what its owner writes down about it.
"""

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gateway.config.section import Section
from gateway.model.text import is_clean_text
from gateway.model.topics import is_name


class SerialTable(Section):
    """A board on USB that writes a reading a line, or an LD2410 radar on a UART of this machine. One table each."""

    port: str = Field(
        description="Its path; `*` may stand for a part. `/dev/serial/by-id/…` is the same in whichever socket it is.",
    )
    device_id: str = Field(description="The device it is; a board must say the same in its readings.")
    organization_id: str = Field("", description="Whose device it is; empty means `gateway.organization_id`.")
    format: Literal["lines", "ld2410"] = Field(
        "lines", description="`lines`: one JSON reading a line; `ld2410`: the frames of that radar."
    )
    baud_rate: int = Field(
        0, ge=0, le=4_000_000, description="0 takes what is usual: 115200 for `lines`, 256000 for `ld2410`."
    )
    acknowledge: bool = Field(
        default=False,
        description='`lines`: answer each reading that has a `seq` with `{"ack": seq}`, once it is on disk.',
    )
    max_line_bytes: int = Field(16_384, ge=128, le=1_000_000, description="`lines`: a longer line is thrown away.")
    heartbeat_s: float = Field(60.0, gt=0, description="`ld2410`: a reading at least so often, though nothing changes.")
    min_interval_s: float = Field(
        1.0, ge=0, description="`ld2410`: the least time between readings, unless somebody comes or goes."
    )
    dead_band_cm: int = Field(20, ge=0, description="`ld2410`: a smaller change of a distance is none.")
    lost_after_s: float = Field(5.0, gt=0, description="`ld2410`: without a frame for so long, the radar is lost.")

    @field_validator("port")
    @classmethod
    def _refuse_no_path(cls, value: str) -> str:
        if not value.startswith("/") or not is_clean_text(value):
            msg = "it must be a whole path, such as /dev/ttyUSB0 or /dev/serial/by-id/usb-*."
            raise ValueError(msg)
        return value

    @field_validator("device_id", "organization_id")
    @classmethod
    def _refuse_no_name(cls, value: str, info: ValidationInfo) -> str:
        if not is_name(value) and (value or info.field_name == "device_id"):
            msg = "it must be letters, digits and _ . : -, at most 100, and begin with a letter or digit."
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _refuse_the_other_formats_keys(self) -> Self:
        for_lines, for_radar = {"acknowledge", "max_line_bytes"}, set(_RADAR_KEYS)
        wrong = self.model_fields_set & (for_radar if self.format == "lines" else for_lines)
        if wrong:
            other = "ld2410" if self.format == "lines" else "lines"
            msg = f'{min(wrong)} is only for format = "{other}"; remove it.'
            raise ValueError(msg)
        return self

    @property
    def speed(self) -> int:
        """Bits per second."""
        return self.baud_rate or {"lines": 115_200, "ld2410": 256_000}[self.format]


_RADAR_KEYS = ("heartbeat_s", "min_interval_s", "dead_band_cm", "lost_after_s")
