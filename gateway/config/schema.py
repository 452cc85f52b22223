"""Walk the models of a configuration: which keys there are, and what stands where."""

import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Location = tuple[int | str, ...]
"""A path into a configuration, as pydantic gives it: names of keys, and indices in lists."""


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted key, field) of every single setting, in the models' order, without lists of tables."""
    for name, field in fields_of(model).items():
        table = table_in(field.annotation)
        is_section = table is field.annotation
        if table is None:
            yield prefix + name, field
        elif is_section:
            yield from settings_of(table, f"{prefix}{name}.")


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields by the names that a configuration calls them: aliases, where there are."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def table_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """Return the model of the table at `location`, or None where there is none."""
    table: type[BaseModel] | None = model
    for name in location:
        if isinstance(name, str) and table is not None:
            field = fields_of(table).get(name)
            table = table_in(field.annotation) if field else None
    return table


def as_toml(value: Any) -> str:  # noqa: ANN401 - a setting may be anything that JSON can hold
    """Write a value as it stands in the file. TOML's simple values and lists look like JSON's."""
    return json.dumps(value, default=str, ensure_ascii=False)


def table_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - an annotation may be anything
    """Return the model in `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(table_in, get_args(annotation))), None)
