"""Integrations: where an organisation's readings and notifications go. A change holds when it returns.

- those of the configuration file are shown to whom they serve, and only the file changes them
- a secret goes in and never comes out: `secret_names` says which there are. A form may send back what it was shown of
  one, which changes nothing
- settings are changed key by key, and null takes one away
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cloud_sync.config_schema import (
    IntegrationSchema,
    joined,
    patched,
    place,
    refuse_masks,
    schema_of,
    split,
    without_masks,
)
from cloud_sync.contract import capabilities
from cloud_sync.registry import class_of, config_of, known_integrations
from gateway.config import IntegrationTable
from gateway.model.errors import AlreadyExists, BadInput, ConfigError, Conflict, NeurogateError
from gateway.model.finding import Finding, broken
from gateway.model.status import IntegrationHealth
from gateway.operations.integration_claims import claims, refuse_taken
from gateway.operations.integration_configs import config_of_row, config_of_table
from gateway.operations.integration_trials import findings_of
from gateway.operations.site import Site
from gateway.storage.integrations import IntegrationRow, Integrations, Values
from gateway.storage.vault import Unreadable

_T = TypeVar("_T")


class IntegrationFields(BaseModel):
    """What an integration has besides its name and settings; None leaves it as it is, or as it is by default."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["active", "inactive"] | None = None
    sync_enabled: bool | None = None
    sync_interval_seconds: int | None = Field(None, ge=10, le=604_800)
    sync_direction: Literal["import", "export", "bidirectional"] | None = None
    conflict_resolution: Literal["manual", "local_wins", "remote_wins", "newest_wins"] | None = None
    webhook_enabled: bool | None = None
    webhook_url: str | None = Field(None, max_length=500)


NOTHING_ELSE = IntegrationFields()


@dataclass(slots=True, frozen=True)
class IntegrationView:
    """One integration, as it may be shown."""

    id: str
    organization_id: str
    """Empty for one of the file."""
    integration_type: str
    name: str
    origin: Literal["api", "file"]
    status: str
    """`active`, `inactive`, or `error`: its owner must act, and `error` says what is wrong."""
    error: str = ""
    settings: dict[str, JsonValue] = field(default_factory=dict)
    """Without what is secret; of one of the file, none."""
    secret_names: list[str] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)
    sync_enabled: bool = False
    sync_interval_seconds: int = 300
    sync_direction: str = "bidirectional"
    conflict_resolution: str = "manual"
    webhook_enabled: bool = False
    webhook_url: str | None = None
    last_sync_at_ms: int | None = None
    last_sync_status: str | None = None
    created_at_ms: int | None = None
    updated_at_ms: int | None = None
    health: IntegrationHealth | None = None
    """How it does; None when it does not run."""


async def list_integrations(site: Site, *, organization_id: str | None = None) -> list[IntegrationView]:
    """Return the integrations of an organisation (None: all), those of the file that serve it first."""
    rows = await Integrations(await site.state()).list(organization_id)
    errors = {} if site.live is None else site.live.integration_errors()
    views = [_view_of_table(table, errors, organization_id) for table in _tables(site, organization_id)]
    views += [_view(row, errors) for row in rows]
    return [_with_health(site, one, organization_id) for one in views]


async def show_integration(site: Site, *, integration_id: str, organization_id: str | None = None) -> IntegrationView:
    """Return one integration, of any organisation or as this one sees it. Raises NotFound."""
    errors = {} if site.live is None else site.live.integration_errors()
    if (table := _table(site, integration_id, organization_id)) is not None:
        return _with_health(site, _view_of_table(table, errors, organization_id), organization_id)
    row = await Integrations(await site.state()).get(integration_id, organization_id)
    return _with_health(site, _view(row, errors), organization_id)


async def integration_schemas(site: Site) -> list[IntegrationSchema]:  # noqa: ARG001 - an operation has one
    """Return what kinds of integrations there are, and the settings of each."""
    known = await asyncio.to_thread(known_integrations)
    return [schema_of(one) for one in known.classes.values()]


async def add_integration(
    site: Site,
    *,
    organization_id: str,
    integration_type: str,
    name: str,
    settings: dict[str, JsonValue],
    fields: IntegrationFields = NOTHING_ELSE,
) -> IntegrationView:
    """Add an integration, which begins at once. Raises BadInput and AlreadyExists."""
    _refuse_name_of_file(site, name)
    model = _told(lambda: class_of(integration_type).Config)
    _told(lambda: refuse_masks(model, settings))
    shown, secret = split(model, patched(model, {}, settings))
    row = replace(IntegrationRow("new", organization_id, integration_type, name, shown), **_columns(fields))
    refuse_taken(await claims(site), _told(lambda: config_of(row, secret)), site)
    added = await Integrations(await site.state()).add(row, secret, by=site.actor)
    await _take_effect(site)
    return await show_integration(site, integration_id=added.id)


async def change_integration(
    site: Site,
    *,
    integration_id: str,
    organization_id: str | None = None,
    name: str | None = None,
    settings: dict[str, JsonValue] | None = None,
    fields: IntegrationFields = NOTHING_ELSE,
) -> IntegrationView:
    """Change what is named of an integration; nothing else is disturbed.

    The status `active` starts it again also if it was that: after its owner has mended what was wrong.

    Raises NotFound, BadInput, AlreadyExists, Conflict for one of the file, and Unreadable when secrets that stay cannot
    be read.
    """
    _refuse_files(site, integration_id, organization_id)
    columns = _columns(fields) | ({} if name is None else {"name": name})
    if columns.get("status") is not None:
        columns["sync_error"] = None

    claimed = await claims(site)

    def edit(row: IntegrationRow, secrets: Values | Unreadable) -> tuple[IntegrationRow, Values | None]:
        new = replace(row, **columns)
        if new.name != row.name:
            _refuse_name_of_file(site, new.name)
        changed, kept = (new, None) if settings is None else _with_settings(new, secrets, settings)
        with suppress(ConfigError):  # it does not run: what is wrong with it is said elsewhere
            known = kept if kept is not None else {} if isinstance(secrets, Unreadable) else secrets
            refuse_taken(claimed, config_of(changed, known), site)
        return changed, kept

    state = await site.state()
    await Integrations(state).change(integration_id, edit, organization_id=organization_id, by=site.actor)
    await _take_effect(site, anew=integration_id if fields.status == "active" else None)
    return await show_integration(site, integration_id=integration_id)


def _with_settings(
    row: IntegrationRow, secrets: Values | Unreadable, settings: Values
) -> tuple[IntegrationRow, Values | None]:
    model = _told(lambda: class_of(row.integration_type).Config)
    changes = without_masks(settings, row.settings, row.secret_names)
    _told(lambda: refuse_masks(model, changes))
    if isinstance(secrets, Unreadable):  # what cannot be read and is not said anew would be lost
        kept = [path for path in row.secret_names if not _says(changes, path.split("."))]
        if kept:
            raise Unreadable(
                f"{', '.join(kept)} of this integration cannot be read: {secrets.message}",
                hint="Put the vault's key back, or set these again in the same change.",
            )
    readable = {} if isinstance(secrets, Unreadable) else secrets
    old = joined(row.settings, readable)
    raw = patched(model, old, changes)
    shown, secret = split(model, raw)
    new = replace(row, settings=shown)
    _told(lambda: config_of(new, secret))
    elsewhere = [key for key in model.leads_by if place(old.get(key)) != place(raw.get(key))]
    kept = [path for path in readable if path in secret and not _says(changes, path.split("."))]
    if elsewhere and (unsaid := [path for path in kept if path not in model.leads_by]):
        raise BadInput(
            "secrets_needed",
            f"{', '.join(elsewhere)} would take {', '.join(unsaid)} to somebody else.",
            hint="Set these again in the same change, or take them away: what is kept only goes where it went.",
        )
    return new, None if secret == secrets else secret


def _says(changes: JsonValue | Values, path: list[str]) -> bool:
    """Tell whether changes say something of that key."""
    if not isinstance(changes, Mapping) or path[0] not in changes:
        return False
    return len(path) == 1 or changes[path[0]] is None or _says(changes[path[0]], path[1:])


async def remove_integration(site: Site, *, integration_id: str, organization_id: str | None = None) -> None:
    """Remove an integration, with its place in the log and what it has refused.

    Raises NotFound, and Conflict for one of the file.
    """
    _refuse_files(site, integration_id, organization_id)
    state = await site.state()
    await Integrations(state).remove(integration_id, organization_id=organization_id, by=site.actor)
    await _take_effect(site)


async def try_integration(site: Site, *, integration_id: str, organization_id: str | None = None) -> list[Finding]:
    """Connect, authenticate and say what is wrong, without sending anything that counts. Raises NotFound."""
    state = await site.state()
    table = _table(site, integration_id, organization_id)
    known = table or await Integrations(state).get(integration_id, organization_id)
    try:
        if isinstance(known, IntegrationRow):
            config = await config_of_row(known, state)
        else:
            config = await config_of_table(known, state)
        return await findings_of(site, config)
    except NeurogateError as error:
        return [broken(error.message, error.hint)]


def _columns(fields: IntegrationFields) -> dict[str, Any]:
    return fields.model_dump(exclude_none=True)


def _told(work: Callable[[], _T]) -> _T:
    """Do it; a configuration that cannot be used is what was asked wrongly. Raises BadInput."""
    try:
        return work()
    except ConfigError as error:
        raise BadInput("invalid_configuration", error.message, hint=error.hint) from None


async def _take_effect(site: Site, *, anew: str | None = None) -> None:
    if site.live is not None:
        await site.live.apply_integrations(anew=anew)


def _tables(site: Site, organization_id: str | None) -> list[IntegrationTable]:
    """Return those of the file that serve an organisation (None: all)."""
    return [table for table in site.settings.integrations if organization_id is None or _serves(table, organization_id)]


def _serves(table: IntegrationTable, organization_id: str) -> bool:
    wanted = (table.model_extra or {}).get("organizations") or ()
    return not wanted or organization_id in wanted


def _table(site: Site, integration_id: str, organization_id: str | None) -> IntegrationTable | None:
    return next((table for table in _tables(site, organization_id) if table.name == integration_id), None)


def _refuse_files(site: Site, integration_id: str, organization_id: str | None) -> None:
    if _table(site, integration_id, organization_id) is not None:
        raise Conflict(
            f"The integration {integration_id} is declared in the configuration file: only that changes it.",
            hint="Change the file, and restart the gateway.",
        )


def _refuse_name_of_file(site: Site, name: str) -> None:
    if any(name == table.name for table in site.settings.integrations):
        raise AlreadyExists(f"The configuration has an integration {name} already.", hint="Call this one otherwise.")


def _view_of_table(table: IntegrationTable, errors: Mapping[str, str], organization_id: str | None) -> IntegrationView:
    """Show one of the file; to an organisation it is not told what went wrong: the site's owner has to mend it."""
    status = str((table.model_extra or {}).get("status", "active"))
    error = errors.get(table.name, "")
    return IntegrationView(
        table.name,
        "",
        table.type,
        table.name,
        "file",
        "error" if error else status,
        error if organization_id is None else "",
        capabilities=_capabilities(table.type),
    )


def _view(row: IntegrationRow, errors: Mapping[str, str]) -> IntegrationView:
    error = errors.get(row.id) or (row.sync_error or "" if row.status == "error" else "")
    return IntegrationView(
        row.id,
        row.organization_id,
        row.integration_type,
        row.name,
        "api",
        "error" if error and row.is_wanted else row.status,
        error,
        dict(row.settings),
        list(row.secret_names),
        _capabilities(row.integration_type),
        row.sync_enabled,
        row.sync_interval_seconds,
        row.sync_direction,
        row.conflict_resolution,
        row.webhook_enabled,
        row.webhook_url,
        row.last_sync_at_ms,
        row.last_sync_status,
        row.created_at_ms,
        row.updated_at_ms,
    )


def _with_health(site: Site, view: IntegrationView, organization_id: str | None) -> IntegrationView:
    """Say how it does; of one of the file, which serves others too, to nobody but the site."""
    if site.live is None or (view.origin == "file" and organization_id is not None):
        return view
    return replace(view, health=site.live.integration_health(view.id))


def _capabilities(integration_type: str) -> list[str]:
    try:
        return list(capabilities(class_of(integration_type)))
    except ConfigError:  # its package is gone
        return []
