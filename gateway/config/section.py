"""A table of the configuration file, and a list in it that the environment can hold as well."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """A table of the configuration file: read-only once loaded, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _split_at_commas(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    """Take a list from the environment, too: with commas."""
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
