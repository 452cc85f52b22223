"""What `integrations` is asked, in the documented fields; unknown ones are refused.

Its configuration may come as `settings`, as `api_key_encrypted` (a JSON object in a text, as the documents have it;
what is secret of it is encrypted here), in the columns that the documents give some settings, or in all of them.
"""

from typing import Any

from pydantic import ConfigDict, Field
from pydantic_core import from_json

from gateway.model.errors import BadInput
from gateway.model.json_values import is_finite
from gateway.operations.integrations import IntegrationFields
from gateway.web.integration_columns import SETTING_OF, Settings, put
from gateway.web.requests import Query, Request

_ID = "0b8f2c1e-7d7b-4f6e-9a55-3c1d2e4f5a6b"
_SETTINGS = {"url": "http://receiver.invalid/readings", "secret": "at-least-24-bytes-of-a-secret"}


def _example(**body: Any) -> ConfigDict:  # noqa: ANN401 - JSON
    return ConfigDict(json_schema_extra={"examples": [body]})


class IntegrationsQuery(Query):
    """Which integrations."""

    integration_type: str | None = Field(None, description="Of this type only.")


class NamedIntegration(Request):
    """Which integration, where the path does not say it."""

    model_config = _example(id=_ID)

    id: str | None = None


class Configured(IntegrationFields, Request):
    """What may be said of an integration."""

    settings: Settings | None = Field(None, description="Its configuration, secrets and all; null takes one away.")
    api_key_encrypted: str | Settings | None = Field(
        None, description="The same, as a JSON object in a text: as existing clients send it."
    )
    project_id: str | None = Field(None, description="The setting of this name.")
    base_url: str | None = Field(None, description="The setting of this name, or the one that says where it is.")
    webhook_secret: str | None = Field(None, description="The setting of this name, or the one that signs.")

    def configuration(self) -> Settings:
        """Return what is said of its configuration, but for columns. Raises BadInput."""
        found: Settings = {}
        for one in (self.settings, _parsed(self.api_key_encrypted)):
            for key, value in (one or {}).items():
                put(found, key, value)
        if not is_finite(found):
            raise BadInput("invalid_request", "settings: a number in it is too large to be one.", hint="Correct it.")
        return found

    def columns(self) -> Settings:
        """Return the columns that are, or may be, settings; null takes one away."""
        return {name: getattr(self, name) for name in SETTING_OF if name in self.model_fields_set}

    def fields(self, left: Settings) -> IntegrationFields:
        """Return what it has besides; `left` are columns that are no settings of it."""
        names = (IntegrationFields.model_fields.keys() & self.model_fields_set) - SETTING_OF.keys()
        return IntegrationFields.model_validate({name: getattr(self, name) for name in names} | left)


class NewIntegration(Configured):
    """An integration that is to be made."""

    model_config = _example(integration_type="webhook", name="Building API", settings=_SETTINGS, status="inactive")

    integration_type: str
    name: str


class IntegrationChanges(Configured):
    """What is to change of an integration; what is not named stays."""

    model_config = _example(id=_ID, name="Building B", settings={"gzip": True})

    id: str | None = None
    name: str | None = None
    integration_type: str | None = Field(None, description="What it is: another type is another integration.")


class Trial(Configured):
    """Settings that are to be tried, and kept nowhere."""

    model_config = _example(integration_type="webhook", settings=_SETTINGS)

    integration_type: str
    name: str | None = None


def _parsed(text: str | Settings | None) -> Settings:
    if not isinstance(text, str):
        return text or {}
    try:
        value = from_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadInput(
            "invalid_request",
            "api_key_encrypted: it is no JSON object in a text.",
            hint='Send the configuration as it is, as "{\\"url\\": …}": it is encrypted here.',
        )
    return value
