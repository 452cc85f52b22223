"""Which parser reads what is published on which topics: the tables `[[ingest.routes]]`.

The parsers themselves are in gateway/parsers; here is only what their owner writes down about them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gateway.config.section import Section
from gateway.model.json_path import parse_path
from gateway.model.topics import is_name, is_topic_filter

ParserName = Literal["standard", "custom", "senml", "vmark"]


class FieldSource(Section):
    """Where the value of one field comes from: exactly one of `path`, `topic_level` and `value`."""

    path: str | None = Field(None, description="A path into the message, such as `station.values[0].t`.")
    topic_level: int | None = Field(None, ge=1, description="A level of the topic; the first one is 1.")
    value: str | int | float | bool | None = Field(None, description="Always this, such as a unit.")
    scale: float | None = Field(None, allow_inf_nan=False, description="What a number is multiplied by.")
    offset: float | None = Field(None, allow_inf_nan=False, description="What is added to it then.")
    optional: bool = Field(default=False, description="Whether the field is left out where there is no value.")

    @field_validator("path")
    @classmethod
    def _is_path(cls, path: str | None) -> str | None:
        if path is not None:
            parse_path(path)
        return path

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if sum(source is not None for source in (self.path, self.topic_level, self.value)) != 1:
            msg = "a field comes from exactly one of path, topic_level and value."
            raise ValueError(msg)
        return self


def _as_table(value: Any) -> Any:  # noqa: ANN401 - TOML
    return {"path": value} if isinstance(value, str) else value


Source = Annotated[FieldSource, BeforeValidator(_as_table)]
"""A text alone is a path."""


class Mapping(Section):
    """What of a message becomes which field of a reading."""

    each: str | None = Field(
        None,
        description="Path to an array of which each item is one reading; the other paths begin there, but for `$.…`.",
    )
    device_id: Source | None = Field(None, description="Whose reading it is; without it, the sender's.")
    timestamp: Source | None = Field(None, description="RFC 3339, or unix seconds or milliseconds.")
    age_ms: Source | None = Field(None, description="How long ago it was measured, without a timestamp.")
    boot_id: Source | None = Field(None, description="With `seq`, what makes a reading the same when it comes again.")
    seq: Source | None = Field(None, description="Counts the readings of one boot.")
    firmware: Source | None = Field(None, description="What runs on the device.")
    sensors: dict[str, dict[str, Source]] = Field(min_length=1, description="The fields of each sensor.")
    health: dict[str, Source] = Field({}, description="How the device itself is doing.")

    @field_validator("each")
    @classmethod
    def _is_path(cls, path: str | None) -> str | None:
        if path is not None:
            parse_path(path)
        return path

    @field_validator("sensors")
    @classmethod
    def _have_fields(cls, sensors: dict[str, dict[str, Source]]) -> dict[str, dict[str, Source]]:
        for name, fields in sensors.items():
            if not fields:
                msg = f"the sensor {name} has no field."
                raise ValueError(msg)
        return sensors


class Route(Section):
    """One `[[ingest.routes]]` table; the first whose topic matches counts."""

    topic: str = Field(description="Topic filter, in the names that a client of the organisation uses.")
    parser: ParserName = Field(description="What reads it: `standard`, `custom`, `senml` or `vmark`.")
    organization_id: str | None = Field(
        None, description="Whose clients may publish there; without it, those of `gateway.organization_id`."
    )
    mapping: Mapping | None = Field(
        None,
        description="What becomes which field: for `custom`, and for `vmark` where reports look otherwise.",
    )

    @field_validator("topic")
    @classmethod
    def _is_routable(cls, topic: str) -> str:
        if not is_topic_filter(topic):
            msg = f"{topic!r} is no topic filter: + and # stand alone in a level, # only in the last."
            raise ValueError(msg)
        if topic[0] in "+#":
            msg = "a route begins with a level that is written out; else it would take the devices' own topics, too."
            raise ValueError(msg)
        if topic.partition("/")[0] in {"$SYS", "$share"}:
            msg = f"{topic!r} is the broker's own."
            raise ValueError(msg)
        return topic

    @field_validator("organization_id")
    @classmethod
    def _is_organization(cls, name: str | None) -> str | None:
        if name is not None and not is_name(name):
            msg = f"{name!r} cannot be an organisation."
            raise ValueError(msg)
        return name

    @model_validator(mode="after")
    def _has_its_mapping(self) -> Self:
        if self.parser == "custom" and self.mapping is None:
            msg = "the parser custom needs a mapping: add [ingest.routes.mapping] with device_id and sensors."
            raise ValueError(msg)
        if self.parser not in {"custom", "vmark"} and self.mapping is not None:
            msg = f"the parser {self.parser} takes no mapping; only custom and vmark do."
            raise ValueError(msg)
        return self
