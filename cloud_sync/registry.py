"""Which integrations there are, and the typed configuration of each table that names one.

The ones that come with neurogate are listed here; other packages add theirs through the entry-point group
`neurogate.integrations`. Only what a configuration names is imported.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from pydantic import ValidationError

from cloud_sync.contract import Integration, IntegrationConfig
from gateway.config.problems import config_error, did_you_mean, explain, nearest, origin_of, place
from gateway.config.schema import Location
from gateway.config.settings import IntegrationTable
from gateway.model.errors import ConfigError

GROUP = "neurogate.integrations"
BUILT_IN = MappingProxyType({"webhook": "cloud_sync.integrations.webhook:Webhook"})

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


def load_config(table: IntegrationTable, origins: Mapping[str, str] = _NO_ORIGINS) -> IntegrationConfig:
    """Validate a table against the integration it names. Raises ConfigError with every problem of it."""
    model = integration_class(table, origins).Config
    raw = {"type": table.type, "name": table.name} | (table.model_extra or {})

    def key_of(location: Location) -> str:
        steps = (f".{step}" if isinstance(step, str) else f"[{step}]" for step in location)
        return f"integrations[{table.name}]{''.join(steps)}"

    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = explain(error, model, origins, key_of)
    raise config_error([problem for _, problem in found])


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
