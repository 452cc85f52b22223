"""The configuration as it may be shown: every setting with its origin, secrets masked; and which are secrets."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import SecretBytes, SecretStr

from cloud_sync.registry import check_config
from gateway.config import IntegrationTable, LoadedConfig
from gateway.config.masking import MASK, looks_secret, masked


@dataclass(slots=True, frozen=True)
class ShownSetting:
    """One setting by its dotted key."""

    key: str
    value: Any
    """As JSON may hold it; masked if it is secret."""
    origin: str


def shown_settings(loaded: LoadedConfig) -> list[ShownSetting]:
    """Return every setting, also of each integration's own. Raises ConfigError for an integration that is wrong."""
    return [ShownSetting(key, _visible(key, value, loaded), _origin(key, loaded)) for key, value in _values(loaded)]


def secret_settings(loaded: LoadedConfig) -> list[tuple[str, str, str]]:
    """Return (key, the secret itself, origin) of every setting that holds one. Raises ConfigError."""
    return [
        (key, secret, _origin(key, loaded))
        for key, value in _values(loaded)
        if not key.endswith("_header")  # its name is none
        if isinstance(value, SecretStr | SecretBytes) or looks_secret(key) or _visible(key, value, loaded) == MASK
        for secret in _texts(value)
        if secret
    ]


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - settings
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case SecretBytes():
            yield value.get_secret_value().decode(errors="replace")
        case str():
            yield value
        case dict():
            yield from chain.from_iterable(_texts(inner) for inner in value.values())
        case list() | tuple():
            yield from chain.from_iterable(_texts(inner) for inner in value)


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
