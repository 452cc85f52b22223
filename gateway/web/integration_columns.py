"""Columns of the documents' `device_integrations` that are settings of an integration here."""

from types import MappingProxyType

from pydantic import JsonValue

from gateway.model.errors import BadInput

Settings = dict[str, JsonValue]

SETTING_OF = MappingProxyType(
    {
        "project_id": ("project_id",),
        "base_url": ("base_url", "url", "broker_url", "brokerUrl"),
        "webhook_secret": ("webhook_secret", "secret"),
        "webhook_url": ("webhook_url",),
    }
)
"""By column, what integrations call it; the first that one has is meant."""


def with_columns(settings: Settings, columns: Settings, keys: frozenset[str]) -> tuple[Settings, Settings]:
    """Return the settings of an integration that has these keys, with its columns among them; and what is left.

    Raises BadInput for a column that says what no setting can hold. The address for webhooks is one that stays.
    """
    whole, left = Settings(settings), Settings()
    for column, value in columns.items():
        key = next((name for name in SETTING_OF[column] if name in keys), None)
        if key is not None:
            put(whole, key, value)
        elif column == "webhook_url":
            left[column] = value or ""  # null takes it away
        elif value is not None:
            hint = "Leave it out; integrations/types says what it has."
            raise BadInput("invalid_request", f"{column}: this integration has no such setting.", hint=hint)
    return whole, left


def put(settings: Settings, key: str, value: JsonValue) -> None:
    """Add a setting. Raises BadInput when it is there and says something else."""
    if key in settings and settings[key] != value:
        raise BadInput("contradiction", f"{key[:100]} is said twice, and not the same.", hint="Say it once.")
    settings[key] = value
