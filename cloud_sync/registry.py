"""Which integrations there are, and the typed configuration of each table or row that names one.

The ones that come with neurogate are listed here; other packages add theirs through the entry-point group
`neurogate.integrations`. A package cannot take a name that is taken, and one that is broken stops nothing but itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue, ValidationError

from cloud_sync.config_schema import OF_THE_ROW, is_secret, joined
from cloud_sync.contract import Integration, IntegrationConfig
from gateway.config import IntegrationTable
from gateway.config.problems import Problem, config_error, did_you_mean, explain, nearest, origin_of, place
from gateway.config.schema import Location
from gateway.config.substitution import FromVault, with_secrets
from gateway.model.errors import ConfigError
from gateway.storage.integrations import IntegrationRow

GROUP = "neurogate.integrations"
BUILT_IN = MappingProxyType(
    {
        "aws_iot": "cloud_sync.integrations.aws_iot:AwsIot",
        "azure_iot": "cloud_sync.integrations.azure_iot:AzureIot",
        "email": "cloud_sync.integrations.email:Email",
        "golioth": "cloud_sync.integrations.golioth:Golioth",
        "google_iot": "cloud_sync.integrations.google_iot:GoogleIot",
        "mqtt": "cloud_sync.integrations.mqtt:Mqtt",
        "mqtt_external": "cloud_sync.integrations.mqtt_external:MqttExternal",
        "slack": "cloud_sync.integrations.slack:Slack",
        "webhook": "cloud_sync.integrations.webhook:Webhook",
    }
)

_STAND_IN = "a-secret-of-32-characters-length"
"""For a secret of the vault while that is not open: most keys take it."""
_WHATEVER_THE_VALUE = ("extra_forbidden", "missing")

_NO_ORIGINS: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True, frozen=True)
class Known:
    """Every integration there is."""

    classes: dict[str, type[Integration]]
    """By type."""
    problems: list[str]
    """What is wrong with those of other packages that cannot be used; each as a sentence."""


def known_integrations() -> Known:
    """Import every integration there is."""
    known = Known({}, [])
    for name in (*BUILT_IN, *sorted({entry.name for entry in entry_points(group=GROUP)})):
        try:
            if (found := _named(name)) is not None:
                known.classes[name] = found
        except ConfigError as error:
            known.problems.append(str(error))
    known.problems.extend(str(_taken(entry)) for entry in entry_points(group=GROUP) if entry.name in BUILT_IN)
    return known


def integration_classes() -> dict[str, type[Integration]]:
    """Import every integration that can be used; the key is its type."""
    return known_integrations().classes


def integration_class(table: IntegrationTable, origins: Mapping[str, str] = _NO_ORIGINS) -> type[Integration]:
    """Import the class a table names. Raises ConfigError for an unknown type."""
    return class_of(table.type, f"integrations[{table.name}].type", origins)


def class_of(name: str, key: str = "integration_type", origins: Mapping[str, str] = _NO_ORIGINS) -> type[Integration]:
    """Import the class of that type; `key` is where it was named. Raises ConfigError for an unknown type."""
    if (found := _named(name)) is not None:
        return found
    where = f" in {place(origin)}" if (origin := origin_of(key, origins)) else ""
    names = sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})
    hint = did_you_mean(nearest(name, names)) or f"There are: {', '.join(names)}."
    raise ConfigError(f"{key}{where} names an unknown integration, {name[:100]}.", hint=hint)


def config_of(row: IntegrationRow, secrets: Mapping[str, JsonValue]) -> IntegrationConfig:
    """Validate a row with what is secret of it. Raises ConfigError with every problem of it, without its values.

    It has its organisation's readings only, and its id is the name of its cursor.
    """
    model = class_of(row.integration_type).Config
    taken = [key for key in OF_THE_ROW if key in row.settings]
    if taken:
        raise ConfigError(f"{taken[0]} is no setting of an integration that an organisation has.", hint="Leave it out.")
    given = {
        "type": row.integration_type,
        "name": row.id,
        "status": "active" if row.is_wanted else "inactive",
        "organizations": (row.organization_id,),
    }
    try:
        return model.model_validate(joined(row.settings, secrets) | given)
    except ValidationError as error:
        found = explain(error, model, {}, lambda location: _dotted(location) or "settings", partial(is_secret, model))
        problems = [problem for _, problem in found]
    raise config_error(problems)


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
        return f"{whole}.{_dotted(location)}" if location else whole

    origins = origins or {**dict(_from_vault(whole, own)), whole: ""}  # what the vault gave is never repeated
    try:
        return model.model_validate(common | with_secrets(own, secret_of)), []
    except ValidationError as error:
        kinds = [details["type"] for details in error.errors(include_url=False)]
        found = explain(error, model, origins, key_of, partial(is_secret, model))
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


def _dotted(location: Location) -> str:
    return "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in location).removeprefix(".")


def _named(name: str) -> type[Integration] | None:
    """Return the class of that type; None when there is none. Raises ConfigError when it cannot be used."""
    if name in BUILT_IN:  # nobody else can have that name, so nobody has to be looked for
        return _loaded(EntryPoint(name, BUILT_IN[name], GROUP))
    entries = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not entries:
        return None
    if len({entry.value for entry in entries}) > 1:
        packages = " and ".join(sorted(_package(entry) for entry in entries))
        raise ConfigError(
            f"Several packages bring an integration {name}: {packages}.", hint="Uninstall all of them but one."
        )
    return _checked(entries[0], _loaded(entries[0]))


def _loaded(entry: EntryPoint) -> type[Integration]:
    try:
        loaded: type[Integration] = entry.load()
    except Exception as error:  # whatever a module of somebody else raises as it is imported
        raise ConfigError(
            f"The integration {entry.name} cannot be imported: {error}.",
            hint="Install the package that brings it again, with its dependencies.",
        ) from error
    return loaded


def _checked(entry: EntryPoint, loaded: Any) -> type[Integration]:  # noqa: ANN401 - whatever its package has there
    """Refuse what is no integration, or not the one that its package says."""
    if not (isinstance(loaded, type) and issubclass(loaded, Integration)):
        wrong = "is no integration: its class is none of cloud_sync.contract.Integration"
    elif getattr(loaded, "type", None) != entry.name:
        wrong = "calls itself otherwise in its class: the two must be the same"
    else:
        return loaded
    raise ConfigError(f"The integration {entry.name} of the package {_package(entry)} {wrong}.", hint="Tell its maker.")


def _taken(entry: EntryPoint) -> ConfigError:
    return ConfigError(
        f"The package {_package(entry)} brings an integration {entry.name}, a name that is taken: it is not used.",
        hint="Its maker has to call it otherwise.",
    )


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
