"""Settings of an integration from a command line: `KEY=VALUE`, and secrets from where nobody else reads them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from cloud_sync.config_schema import IntegrationSchema, SettingSchema
from gateway.cli.secret_input import ask_for, decoded, from_stdin, is_asked
from gateway.config.problems import did_you_mean, nearest
from gateway.model.errors import BadInput
from gateway.storage.secrets import MOST_BYTES


def settings_from(
    schema: IntegrationSchema, said: Iterable[str], secrets: Iterable[str], environ: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Return the settings as the integration takes them; null for one that is to go. Raises BadInput."""
    found: dict[str, Any] = {}
    for one in said:
        key, is_said, text = one.partition("=")
        if not is_said:  # not repeated: it may be a secret that was typed in the wrong place
            raise BadInput("invalid_setting", "--set takes KEY=VALUE.", hint="For example --set timeout_s=10.")
        setting = _setting(schema, key)
        if setting.secret and text:
            raise BadInput(
                "secret_on_the_command_line",
                f"{key} is a secret: every user of this machine can read what is among the arguments.",
                hint=f"Use --secret {key}, or --secret {key}=env:NAME, {key}=file:PATH, {key}=- .",
            )
        _put(found, key, _value(setting, text))
    for one in secrets:
        key, _, source = one.partition("=")
        if not _setting(schema, key).secret:
            raise BadInput("invalid_setting", f"{key} is no secret.", hint=f"Use --set {key}=VALUE.")
        _put(found, key, _secret(key, source, environ))
    return found


def _setting(schema: IntegrationSchema, key: str) -> SettingSchema:
    known = {one.key: one for one in schema.settings}
    if key not in known:
        hint = did_you_mean(nearest(key, known)) or f"neurogate integration types {schema.type} shows what there is."
        raise BadInput("unknown_setting", f"{schema.type} has no setting {key[:100]}.", hint=hint)
    return known[key]


def _value(setting: SettingSchema, text: str) -> JsonValue:
    """Return a text as it is where the setting is one, else what it says in JSON, else the text."""
    if not text:
        return None
    if setting.type == "string":
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def _secret(key: str, source: str, environ: Mapping[str, str]) -> str:
    kind, _, where = source.partition(":")
    match kind:
        case "env" if where in environ:
            text = environ[where]
        case "env":
            raise BadInput("no_secret", f"There is no {where} in the environment.", hint=f"export {where}=… first.")
        case "file":
            text = _read(Path(where))
        case "-" if not where:
            text = from_stdin()
        case "" if is_asked():
            text = ask_for(key)
        case "":
            raise BadInput("no_secret", "There is no terminal to ask on.", hint=f"Use --secret {key}=- or env:NAME.")
        case _:  # not repeated: it may be the secret itself
            raise BadInput("invalid_secret", f"{key} comes from nowhere like that.", hint="env:NAME, file:PATH or -.")
    if not 0 < len(text.encode()) <= MOST_BYTES:
        raise BadInput("invalid_secret", f"{key} has 1 to {MOST_BYTES:,} bytes.", hint="Nothing was changed.")
    return text


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return decoded(file.read(MOST_BYTES + 2))
    except OSError as error:
        raise BadInput("unusable_file", f"{path} cannot be read ({error.strerror}).", hint="See its path.") from None


def _put(found: dict[str, Any], path: str, value: JsonValue) -> None:
    """Put in what a dotted key names."""
    *tables, key = path.split(".")
    table = found
    for name in tables:
        table = table.setdefault(name, {})
    table[key] = value
