"""A table of the configuration file, and what stands in several of them."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A table of the configuration file: read-only once loaded, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _split_at_commas(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    """Take a list from the environment, too: with commas."""
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""A list that the environment can hold as well."""

Port = Annotated[int, Field(ge=0, le=65_535)]
"""A port to listen on; each setting says what 0 is to it: any free one, or none."""
