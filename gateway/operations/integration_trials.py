"""Trying an integration: connect, authenticate and say what is wrong, without sending anything that counts.

What it says goes no further than its own test; where it may connect to is egress's to say, as ever.
"""

import asyncio

from pydantic import JsonValue

from cloud_sync.config_schema import patched, refuse_masks, split
from cloud_sync.contract import IntegrationConfig, Tests
from cloud_sync.egress import Egress
from cloud_sync.registry import class_of, config_of
from gateway.model.errors import BadInput, ConfigError
from gateway.model.finding import Finding, broken, fine
from gateway.operations.site import Site
from gateway.storage.integrations import IntegrationRow

LONGEST_S = 25.0
"""What a test may take, whatever the `timeout_s` of what is tried."""


async def try_settings(
    site: Site, *, organization_id: str, integration_type: str, settings: dict[str, JsonValue]
) -> list[Finding]:
    """Try settings, and keep nothing of them. Raises BadInput for some that cannot be used."""
    try:
        model = class_of(integration_type).Config
        refuse_masks(model, settings)
        shown, secret = split(model, patched(model, {}, settings))
        config = config_of(IntegrationRow("test", organization_id, integration_type, "test", shown), secret)
    except ConfigError as error:
        raise BadInput("invalid_configuration", error.message, hint=error.hint) from None
    return await findings_of(site, config)


async def findings_of(site: Site, config: IntegrationConfig) -> list[Finding]:
    """Return what one finds that is configured like this; it ends in time."""
    integration = class_of(config.type)(config, site.clock, Egress(site.settings.egress))
    if not isinstance(integration, Tests):
        return [fine("Its configuration is good; it cannot be tried without sending something that counts.")]
    try:
        async with asyncio.timeout(LONGEST_S), integration:
            return await integration.check()
    except TimeoutError:
        return [broken(f"It did not answer within {LONGEST_S:g} s.", "See whether it runs.")]
