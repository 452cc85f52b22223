"""`neurogate config`: look at the configuration as the gateway sees it."""

import json
import os
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

import typer

from cloud_sync.registry import check_config
from gateway.cli.options import ConfigFile
from gateway.config import IntegrationTable, LoadedConfig, load
from gateway.config.masking import MASK, masked
from gateway.config.schema import as_toml

app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)


@app.callback()
def _config() -> None:
    """Make `config` a group, even of one command."""


@app.command()
def show(
    config: ConfigFile = None,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show every setting with its value; secrets stay hidden."""
    loaded = load(config, os.environ)
    rows = [(key, _visible(key, value, loaded), _origin(key, loaded)) for key, value in _values(loaded)]
    if as_json:
        values = {key: {"value": value, "origin": source} if origin else value for key, value, source in rows}
        print(json.dumps(values, indent=2))
        return
    for key, value, source in rows:
        text = "(not set)" if value is None else as_toml(value)
        print(f"{key} = {text}  # {source}" if origin else f"{key} = {text}")


def _values(loaded: LoadedConfig) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every setting, also of each integration's own."""
    settings = loaded.settings.model_dump(exclude={"integrations", "serial"})
    routes = loaded.settings.ingest.routes
    # What is written there; the rest of a route are keys it does without.
    settings["ingest"]["routes"] = [route.model_dump(exclude_unset=True) for route in routes]
    lines = (_leaves(f"serial[{i}]", table.model_dump()) for i, table in enumerate(loaded.settings.serial))
    tables = (
        _leaves(f"integrations[{table.name}]", _integration(table, loaded)) for table in loaded.settings.integrations
    )
    return chain(_leaves("", settings), chain.from_iterable(lines), chain.from_iterable(tables))


def _integration(table: IntegrationTable, loaded: LoadedConfig) -> dict[str, Any]:
    """Return its settings; where only the vault's secrets tell whether they are good, those that are written there."""
    return (table.model_extra or {}) | check_config(table, loaded.origins).model_dump()


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - settings
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list | tuple) and value and all(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(f"{key}[{index}]", inner)
    else:
        yield key, value


def _origin(key: str, loaded: LoadedConfig) -> str:
    whole = key.removesuffix(".path")  # a field of a mapping may be only its path
    return next(chain(_origins(key, loaded), _origins(whole, loaded)), "default")


def _visible(key: str, value: Any, loaded: LoadedConfig) -> Any:  # noqa: ANN401 - settings
    return MASK if any("${" in origin for origin in _origins(key, loaded)) else masked(key, value)


def _origins(key: str, loaded: LoadedConfig) -> Iterator[str]:
    """Yield where a value came from, and, of a list of tables, all that is in it."""
    return (origin for name, origin in loaded.origins.items() if name == key or name.startswith(f"{key}["))
