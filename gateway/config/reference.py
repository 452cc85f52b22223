"""The settings written down for people, from the models: a Markdown reference and a commented file.

`python -m gateway.config.reference > gateway/config/README.md` renews the reference.
"""

import inspect
import sys
from collections.abc import Iterator
from itertools import chain, starmap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.load import environment_name
from gateway.config.routes import FieldSource, Mapping, Route
from gateway.config.schema import as_toml, settings_of
from gateway.config.serial import SerialTable
from gateway.config.settings import Settings

_README_HEAD = """\
# Settings

<!-- Made by `python -m gateway.config.reference`; do not edit. -->

The file is the one given by `--config`, else by `NEUROGATE_CONFIG`, else `./neurogate.toml`, else
`/etc/neurogate/neurogate.toml`, else none: everything has a default. It begins with `version = 1`. An
environment variable wins over the file. Strings may contain `${env:NAME}` and `${file:/path}`. An unknown key
is an error.

`neurogate init` writes a commented file, `neurogate check` checks it, and `neurogate config show --origin`
says where each value came from.
"""

_ROUTES = """
## `[[ingest.routes]]`

{route}

{route_keys}
### `[ingest.routes.mapping]`

{mapping}

{mapping_keys}
Each of its fields is a path, such as `"station.values[0].t"`, or a table:

{source_keys}"""

_README_TAIL = """
## `[[integrations]]`

One table per destination: `type`, `name` (unique), and the settings of the integration that `type` names, which are in
[their own reference](../../cloud_sync/integrations/README.md).
"""

_FILE_HEAD = """\
# The configuration of neurogate.
#
# Each setting stands here with its default: to change one, remove the # before it.
# NEUROGATE_SECTION__KEY in the environment wins over this file, e.g. NEUROGATE_MQTT__PORT=1884.
# "${env:NAME}", "${file:/path}" and, in integrations, "${vault:NAME}" keep secrets out of this file.
# After a change: neurogate check

version = 1
"""

_FILE_TAIL = """
# Other payloads than our own: which parser reads what is published on a topic.

#[[ingest.routes]]
#topic = "factory/+/measurements"
#parser = "custom"
#[ingest.routes.mapping]
#device_id = "station.id"
#[ingest.routes.mapping.sensors.climate]
#temperature_c = "values.t"
#humidity_percent = { path = "values.rh", scale = 0.1 }

# What is attached to this machine by a serial line: a board on USB, or an LD2410 radar (format = "ld2410") on a UART.

#[[serial]]
#port = "/dev/serial/by-id/usb-Silicon_Labs_CP2102*"
#device_id = "esp32-usb"
#acknowledge = true

# Where readings go. Each destination has its own place in the log; a new name is a new destination.

#[[integrations]]
#type = "webhook"
#name = "building-api"
#url = "https://api.example.com/webhook"
#secret = "${env:WEBHOOK_SECRET}"
"""

_KINDS = {"object": "table", "password": "secret"}
_BOUNDS = {"minimum": "at least {}", "exclusiveMinimum": "more than {}", "maximum": "at most {}"}


def markdown() -> str:
    """Return README.md of this folder."""
    sections = (*starmap(_markdown_section, _sections()), _markdown_table("serial", SerialTable))
    routes = _ROUTES.format(
        route=inspect.getdoc(Route),
        route_keys=_table_of_keys(Route),
        mapping=inspect.getdoc(Mapping),
        source_keys=_table_of_keys(FieldSource),
        mapping_keys=_table_of_keys(Mapping),
    )
    return _README_HEAD + "".join(chain.from_iterable(sections)) + routes + _README_TAIL


def commented_file() -> str:
    """Return a `neurogate.toml` in which every setting is commented out and shows its default."""
    return _FILE_HEAD + "".join(chain.from_iterable(starmap(_file_section, _sections()))) + _FILE_TAIL


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _markdown_section(name: str, section: type[BaseModel]) -> Iterator[str]:
    meaning, schemas = inspect.getdoc(section), section.model_json_schema()["properties"]
    yield f"\n## `[{name}]`\n\n{meaning}\n\n"
    yield "| key | type | default | meaning | environment |\n|---|---|---|---|---|\n"
    for key, field in _settings(section):
        full, kind, default = f"{name}.{key}", kind_of(schemas[key]), as_toml(field.default)
        yield f"| `{full}` | {kind} | `{default}` | {field.description} | `{environment_name(full)}` |\n"


def _markdown_table(name: str, table: type[BaseModel]) -> Iterator[str]:
    """Describe a table of which there may be several: only the file can hold it."""
    meaning, schemas = inspect.getdoc(table), table.model_json_schema()["properties"]
    yield f"\n## `[[{name}]]`\n\n{meaning}\n\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    for key, field in table.model_fields.items():
        default = "required" if field.is_required() else f"`{as_toml(field.default)}`"
        yield f"| `{key}` | {kind_of(schemas[key])} | {default} | {field.description} |\n"


def _file_section(name: str, section: type[BaseModel]) -> Iterator[str]:
    yield f"\n# {inspect.getdoc(section)}\n[{name}]\n"
    for key, field in _settings(section):
        yield f"\n# {field.description}\n#{key} = {as_toml(field.default)}\n"


def _settings(section: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield what can stand in a line of its own: lists of tables are written otherwise."""
    for key, field in settings_of(section):
        if "." not in key:
            yield key, field


def _table_of_keys(table: type[BaseModel]) -> str:
    lines = (f"| `{key}` | {field.description} |\n" for key, field in table.model_fields.items())
    return "| key | meaning |\n|---|---|\n" + "".join(lines)


def kind_of(schema: dict[str, Any], definitions: dict[str, Any] | None = None) -> str:
    """Say what a value may be, such as "integer, at least 0"; `definitions` are those of the whole schema."""
    if "$ref" in schema:
        schema = (definitions or {})[schema["$ref"].rpartition("/")[2]] | schema
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        kinds = (kind_of(one, definitions) for one in schema["anyOf"] if one.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    kind = schema.get("format", schema.get("type", "anything"))
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {kind_of(schema['items'], definitions)}"
    bounds = (words.format(schema[name]) for name, words in _BOUNDS.items() if name in schema)
    return ", ".join((_KINDS.get(kind, kind), *bounds))


if __name__ == "__main__":
    sys.stdout.write(markdown())
