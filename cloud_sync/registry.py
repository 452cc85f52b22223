"""Which integrations there are, and the typed configuration of each table that names one.

The ones that come with neurogate are listed here; other packages add theirs through the entry-point group
`neurogate.integrations`. Only what a configuration names is imported.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from cloud_sync.contract import Integration, IntegrationConfig
from gateway.config.problems import Problem, config_error, did_you_mean, explain, nearest, origin_of, place
from gateway.config.schema import Location
from gateway.config.settings import IntegrationTable
from gateway.config.substitution import FromVault, with_secrets
from gateway.model.errors import ConfigError

GROUP = "neurogate.integrations"
BUILT_IN = MappingProxyType({"webhook": "cloud_sync.integrations.webhook:Webhook"})

_STAND_IN = "a-secret-of-32-characters-length"
"""For a secret of the vault while that is not open: most keys take it."""
_WHATEVER_THE_VALUE = ("extra_forbidden", "missing")

_NO_ORIGINS: Mapping[str, str] = MappingProxyType({})


def integration_classes() -> dict[str, type[Integration]]:
    """Import every integration there is; the key is its type."""
    return {name: _loaded(entry) for name, entry in _entries().items()}


def integration_class(table: IntegrationTable, origins: Mapping[str, str] = _NO_ORIGINS) -> type[Integration]:
    """Import the class a table names. Raises ConfigError for an unknown type."""
    entries = _entries()
    if table.type not in entries:
        key = f"integrations[{table.name}].type"
        where = f" in {place(origin)}" if (origin := origin_of(key, origins)) else ""
        hint = did_you_mean(nearest(table.type, entries)) or f"There are: {', '.join(sorted(entries))}."
        raise ConfigError(f"{key}{where} names an unknown integration, {table.type}.", hint=hint)
    return _loaded(entries[table.type])


def load_config(
    table: IntegrationTable,
    origins: Mapping[str, str] = _NO_ORIGINS,
    secret_of: Callable[[str], str] | None = None,
) -> IntegrationConfig:
    """Validate a table against the integration it names. Raises ConfigError with every problem of it.

    `secret_of` returns the vault's secrets; it is needed for a table with some in it.
    """
    config, problems = _validated(table, origins, secret_of or _no_vault)
    if config is None:
        raise config_error([problem for _, problem, _ in problems])
    return config


def check_config(table: IntegrationTable, origins: Mapping[str, str] = _NO_ORIGINS) -> IntegrationConfig:
    """Validate a table as far as that is possible without the vault. Raises ConfigError.

    Where secrets of the vault decide whether it is good, only what every integration has is returned.
    """
    config, problems = _validated(table, origins, lambda _: _STAND_IN)
    whole = f"integrations[{table.name}]"
    common, own = _keys(table)
    unknown = dict(_from_vault(whole, own))
    certain = [
        problem
        for key, problem, kind in problems
        if kind in _WHATEVER_THE_VALUE or key == whole or not any(_are_nested(key, other) for other in unknown)
    ]
    if certain:
        raise config_error(certain)
    return config or IntegrationConfig.model_validate(common)


def _validated(
    table: IntegrationTable, origins: Mapping[str, str], secret_of: Callable[[str], str]
) -> tuple[IntegrationConfig | None, list[tuple[str, Problem, str]]]:
    """Return the configuration, or every (key, problem, kind of problem)."""
    model = integration_class(table, origins).Config

    whole = f"integrations[{table.name}]"
    common, own = _keys(table)

    def key_of(location: Location) -> str:
        return whole + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in location)

    origins = origins or {**dict(_from_vault(whole, own)), whole: ""}  # what the vault gave is never repeated
    try:
        return model.model_validate(common | with_secrets(own, secret_of)), []
    except ValidationError as error:
        kinds = [details["type"] for details in error.errors(include_url=False)]
        found = explain(error, model, origins, key_of)
    return None, [(key, problem, kind) for (key, problem), kind in zip(found, kinds, strict=True)]


def _keys(table: IntegrationTable) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what every integration has, and what is this one's own, where alone secrets of the vault may be."""
    raw = {"type": table.type, "name": table.name} | (table.model_extra or {})
    common = {key: value for key, value in raw.items() if key in IntegrationConfig.model_fields}
    return common, {key: value for key, value in raw.items() if key not in common}


def _from_vault(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the key of each string with secrets of the vault in it, and how that is written."""
    if isinstance(value, FromVault):
        yield key, str(value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _from_vault(f"{key}.{name}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _from_vault(f"{key}[{index}]", inner)


def _are_nested(one: str, other: str) -> bool:
    """Tell whether one key is the other, or in it."""
    return one == other or one.startswith((f"{other}.", f"{other}[")) or other.startswith((f"{one}.", f"{one}["))


def _no_vault(name: str) -> str:
    raise ConfigError(f"The secret {name} is in the vault, which is not open here.")


def _entries() -> dict[str, EntryPoint]:
    """Return the installed ones over the built-in ones: these work from a plain source tree, too."""
    built_in = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
    return built_in | {entry.name: entry for entry in entry_points(group=GROUP)}


def _loaded(entry: EntryPoint) -> type[Integration]:
    try:
        loaded: type[Integration] = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"The integration {entry.name} cannot be imported: {error}.",
            hint="Install the package that brings it again, with its dependencies.",
        ) from error
    return loaded
