"""What an integration's `Config` says besides validating: what people are told of it, and what of it is secret.

One model drives the validation, the API, the command line, the documentation and the forms. A field is secret when a
`Secret` is anywhere in its type. One that is not shown by `repr` (an address with a token in it) is secret in parts.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, JsonValue, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from cloud_sync.contract import Integration, IntegrationConfig, capabilities
from gateway.config.masking import MASK, without_tokens
from gateway.config.reference import kind_of
from gateway.config.schema import Location, fields_of, table_in
from gateway.model.errors import ConfigError

Values = Mapping[str, JsonValue]

OF_THE_ROW = ("type", "name", "status", "organizations")
"""What an integration that is managed over the API has from its row, and not from its settings."""


@dataclass(slots=True, frozen=True)
class SettingSchema:
    """One setting, for people."""

    key: str
    """With dots, where it stands in a table."""
    type: str
    """What it may be, in words."""
    required: bool
    default: JsonValue
    description: str
    secret: bool
    """It is kept in the vault and never shown."""


@dataclass(slots=True, frozen=True)
class IntegrationSchema:
    """One integration, for people and for the forms that are made for them."""

    type: str
    description: str
    capabilities: tuple[str, ...]
    settings: list[SettingSchema]
    json_schema: dict[str, JsonValue]
    """The same as JSON Schema (2020-12); what is secret is `writeOnly`."""


def schema_of(integration: type[Integration], *, without: tuple[str, ...] = OF_THE_ROW) -> IntegrationSchema:
    """Describe an integration, but for some of its settings."""
    whole = integration.Config.model_json_schema(by_alias=True)
    definitions = whole.get("$defs", {})
    for key in without:
        whole["properties"].pop(key, None)
    whole["required"] = [key for key in whole.get("required", ()) if key not in without]
    for key, field in fields_of(integration.Config).items():
        if key in whole["properties"] and holds_secret(field.annotation):
            whole["properties"][key]["writeOnly"] = True
    words = (integration.__doc__ or "").strip().partition("\n")[0]
    settings = [*_settings(integration.Config, whole["properties"], definitions)]
    return IntegrationSchema(integration.type, words, capabilities(integration), settings, whole)


def _settings(
    model: type[BaseModel], properties: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> Iterator[SettingSchema]:
    for key, field in fields_of(model).items():
        if key not in properties:
            continue
        if (table := section_in(field)) is not None:
            yield SettingSchema(prefix + key, "table", field.is_required(), None, field.description or "", secret=False)
            inner = definitions[table.__name__]["properties"]
            yield from _settings(table, inner, definitions, f"{prefix}{key}.")
            continue
        schema = properties[key]
        yield SettingSchema(
            prefix + key,
            kind_of(schema, definitions),
            field.is_required(),
            schema.get("default"),
            field.description or "",
            holds_secret(field.annotation),
        )


def section_in(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is one table, or none of it."""
    is_choice = get_origin(field.annotation) in (Union, UnionType)
    kinds = [kind for kind in (get_args(field.annotation) if is_choice else [field.annotation]) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 and table_in(kinds[0]) is kinds[0] else None


def holds_secret(annotation: Any) -> bool:  # noqa: ANN401 - an annotation may be anything
    """Tell whether there is a secret anywhere in what a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(holds_secret(field.annotation) for field in annotation.model_fields.values())
    return any(map(holds_secret, get_args(annotation)))


def is_secret(model: type[IntegrationConfig], location: Location) -> bool:
    """Tell whether what stands there is never repeated: it is a secret, or may have one in it."""
    table: type[BaseModel] | None = model
    for step in location:
        field = fields_of(table).get(str(step)) if table is not None else None
        if field is None:
            return False
        table = section_in(field)
        if table is None:
            return holds_secret(field.annotation) or not field.repr
    return False


def split(model: type[BaseModel], raw: Values, prefix: str = "") -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """Return what may be shown of raw settings, as they are nested, and what is secret, by dotted keys.

    An address with a token in it is in both: the first has it masked. An empty list or table has no secret in it.
    """
    shown: dict[str, JsonValue] = {}
    secret: dict[str, JsonValue] = {}
    fields = fields_of(model)
    for key, value in raw.items():
        field, path = fields.get(key), prefix + key
        table = None if field is None else section_in(field)
        if table is not None and isinstance(value, dict):
            shown[key], inner = split(table, value, f"{path}.")
            secret |= inner
        elif field is not None and holds_secret(field.annotation) and _as_table(value) not in ([], {}):
            secret[path] = value
        elif field is not None and not field.repr and isinstance(value, str):
            shown[key] = without_tokens(value)
            if shown[key] != value:
                secret[path] = value
        else:
            shown[key] = value
    return shown, secret


def joined(shown: Values, secret: Values) -> dict[str, JsonValue]:
    """Return the raw settings that `split` has made two of."""
    raw: dict[str, Any] = deepcopy(dict(shown))
    for path, value in secret.items():
        *tables, key = path.split(".")
        table = raw
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return raw


def patched(model: type[BaseModel], raw: Values, changes: Values) -> dict[str, JsonValue]:
    """Return settings with changes: a table is changed key by key, and null takes a key away (as RFC 7386).

    What the integration takes as a whole, such as a template, is replaced.
    """
    merged, fields = dict(raw), fields_of(model)
    for key, value in changes.items():
        field, was = fields.get(key), _as_table(merged.get(key))
        if value is None:
            merged.pop(key, None)
        elif field is None or not isinstance(was, dict) or not isinstance(table := _as_table(value), dict):
            merged[key] = value
        elif (section := section_in(field)) is not None:
            merged[key] = patched(section, was, table)
        elif get_origin(field.annotation) is dict:
            merged[key] = {name: inner for name, inner in (was | table).items() if inner is not None}
        else:
            merged[key] = value
    return merged


def place(value: JsonValue) -> JsonValue:
    """Return who is meant by an address: of a URL its scheme, host and port, anything else as it is."""
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value.strip().lower())
    return f"{parts.scheme}://{parts.netloc}"


def refuse_masks(model: type[BaseModel], changes: Values, prefix: str = "") -> None:
    """Raise ConfigError for a secret, or an address with one in it, of which only what is shown is said.

    It would replace the secret. What a form sends back unchanged is left out before (`without_masks`).
    """
    fields = fields_of(model)
    for key, value in changes.items():
        if (field := fields.get(key)) is None:
            continue
        table = section_in(field)
        if table is not None and isinstance(value, dict):
            refuse_masks(table, value, f"{prefix}{key}.")
        elif (value == MASK and holds_secret(field.annotation)) or (
            not field.repr and isinstance(value, str) and MASK in value
        ):
            raise ConfigError(
                f"{prefix}{key}: {MASK} only stands for what is not shown.",
                hint="Say the whole of it, or leave it out: then it stays as it is.",
            )


def _as_table(value: JsonValue) -> JsonValue:
    """Return a table that was written as a JSON text, as the documents have it for headers."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError):
            table: JsonValue = json.loads(value)
            return table
    return value


def without_masks(changes: Values, shown: Values, secret_names: tuple[str, ...], prefix: str = "") -> Values:
    """Leave out of changes what only says what was shown of a secret: a form sends back what it got."""
    left: dict[str, JsonValue] = {}
    for key, value in changes.items():
        path, was = prefix + key, shown.get(key)
        if path in secret_names and (value == MASK or (value == was and was is not None)):
            continue
        if isinstance(value, dict):
            inner = without_masks(value, was if isinstance(was, dict) else {}, secret_names, f"{path}.")
            left[key] = dict(inner)
        else:
            left[key] = value
    return left
