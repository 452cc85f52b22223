"""What `integrations` answers: the columns that the platform's documents give a row, and nothing that is secret."""

from collections.abc import Iterable
from typing import Literal

from typing_extensions import TypedDict

from cloud_sync.config_schema import IntegrationSchema
from gateway.model.finding import Finding, Level
from gateway.model.reading import rfc3339_or_null
from gateway.model.status import IntegrationHealth
from gateway.model.wire import Json
from gateway.operations.integrations import IntegrationView
from gateway.web.integration_columns import SETTING_OF


class Health(TypedDict):
    """How a running integration does; `uptime` is the share of the last 24 hours, or since it began."""

    up: bool
    last_success_at: str | None
    last_error_at: str | None
    error_kind: str | None
    failures: int
    errors: int
    latency_s: float | None
    items_per_minute: float
    uptime: float


class Integration(TypedDict):
    """An integration. Of its secrets it says which are set."""

    id: str
    organization_id: str | None
    integration_type: str
    name: str
    origin: Literal["api", "file"]
    capabilities: list[str]
    settings: dict[str, Json]
    secrets_set: list[str]
    project_id: Json
    base_url: Json
    status: str
    sync_enabled: bool
    sync_interval_seconds: int
    sync_direction: str
    conflict_resolution: str
    webhook_enabled: bool
    webhook_url: Json
    last_sync_at: str | None
    last_sync_status: str | None
    sync_error: str | None
    created_at: str | None
    updated_at: str | None
    health: Health | None


class IntegrationList(TypedDict):
    """Integrations."""

    integrations: list[Integration]


class Setting(TypedDict):
    """One setting of a type, for people."""

    key: str
    type: str
    required: bool
    default: Json
    description: str
    secret: bool


class IntegrationType(TypedDict):
    """A kind of integration; `schema` is JSON Schema 2020-12 of its settings."""

    type: str
    description: str
    capabilities: list[str]
    settings: list[Setting]
    schema: dict[str, Json]


class IntegrationTypes(TypedDict):
    """Every kind of integration that there is."""

    types: list[IntegrationType]


class Found(TypedDict):
    """One thing that a test has found, and what to do about it."""

    level: Level
    message: str
    hint: str


class Tested(TypedDict):
    """What came of a test; `message` is the worst of it."""

    success: bool
    message: str
    findings: list[Found]


def shown(one: IntegrationView) -> Integration:
    """Return an integration as it is answered."""
    return {
        "id": one.id,
        "organization_id": one.organization_id or None,
        "integration_type": one.integration_type,
        "name": one.name,
        "origin": one.origin,
        "capabilities": one.capabilities,
        "settings": one.settings,
        "secrets_set": one.secret_names,
        "project_id": _column(one, "project_id"),
        "base_url": _column(one, "base_url"),
        "status": one.status,
        "sync_enabled": one.sync_enabled,
        "sync_interval_seconds": one.sync_interval_seconds,
        "sync_direction": one.sync_direction,
        "conflict_resolution": one.conflict_resolution,
        "webhook_enabled": one.webhook_enabled,
        "webhook_url": one.webhook_url or _column(one, "webhook_url"),
        "last_sync_at": rfc3339_or_null(one.last_sync_at_ms),
        "last_sync_status": one.last_sync_status,
        "sync_error": one.error or None,
        "created_at": rfc3339_or_null(one.created_at_ms),
        "updated_at": rfc3339_or_null(one.updated_at_ms),
        "health": None if one.health is None else _health(one.health),
    }


def type_shown(one: IntegrationSchema) -> IntegrationType:
    """Return a kind of integration as it is answered."""
    return {
        "type": one.type,
        "description": one.description,
        "capabilities": list(one.capabilities),
        "settings": [
            {
                "key": setting.key,
                "type": setting.type,
                "required": setting.required,
                "default": setting.default,
                "description": setting.description,
                "secret": setting.secret,
            }
            for setting in one.settings
        ],
        "schema": one.json_schema,
    }


def tested(findings: Iterable[Finding]) -> Tested:
    """Return what a test has found as it is answered."""
    ranked = sorted(findings, key=lambda one: ("broken", "warning", "ok").index(one.level))
    worst = ranked[0] if ranked else Finding("ok", "It works.")
    return {
        "success": worst.level != "broken",
        "message": worst.words,
        "findings": [{"level": one.level, "message": one.words, "hint": one.hint} for one in findings],
    }


def _health(one: IntegrationHealth) -> Health:
    return {
        "up": one.up,
        "last_success_at": rfc3339_or_null(one.last_success_ms),
        "last_error_at": rfc3339_or_null(one.last_error_ms),
        "error_kind": one.error_kind,
        "failures": one.failures,
        "errors": one.errors,
        "latency_s": one.latency_s,
        "items_per_minute": one.items_per_minute,
        "uptime": one.uptime,
    }


def _column(one: IntegrationView, column: str) -> Json:
    return next((one.settings[name] for name in SETTING_OF[column] if name in one.settings), None)
