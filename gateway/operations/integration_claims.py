"""What only one integration can be elsewhere: two clients of one name at a broker end each other's connections.

Whoever adds or changes one is told; of two that have come about all the same, as by the file, only the first runs. It
is not told whose the other is: it may be another organisation's.
"""

from contextlib import suppress

from cloud_sync.contract import IntegrationConfig
from cloud_sync.registry import class_of
from gateway.model.errors import AlreadyExists, ConfigError, NeurogateError
from gateway.operations.integration_configs import config_of_row, config_of_table
from gateway.operations.site import Site
from gateway.storage.integrations import Integrations

Claims = dict[str, str]
"""What is claimed, and by the integration of which id."""


async def claims(site: Site) -> Claims:
    """Return what the active integrations of the file and of all organisations claim."""
    state, found = await site.state(), Claims()
    for table in site.settings.integrations:
        if _may_claim(table.type):
            with suppress(NeurogateError):  # then it does not run
                _note(found, table.name, await config_of_table(table, state), site)
    for row in await Integrations(state).list():
        if row.is_wanted and _may_claim(row.integration_type):
            with suppress(NeurogateError):  # as above
                _note(found, row.id, await config_of_row(row, state), site)
    return found


def refuse_taken(found: Claims, config: IntegrationConfig, site: Site) -> None:
    """Raise AlreadyExists if another one is what this would be."""
    if config.status != "active":
        return
    for claim in config.claims(site.settings.gateway.id):
        if found.get(claim, config.name) != config.name:
            raise AlreadyExists(TAKEN, hint="Give each its own client id, or leave it out.")


TAKEN = "It cannot have this client id at this broker: another client may have it, and they would end each other."
"""Whose that is, and which, is not told: it may be another organisation's."""


def _may_claim(integration_type: str) -> bool:
    try:
        return class_of(integration_type).Config.claims is not IntegrationConfig.claims
    except ConfigError:
        return False


def _note(found: Claims, name: str, config: IntegrationConfig, site: Site) -> None:
    if config.status == "active":
        for claim in config.claims(site.settings.gateway.id):
            found.setdefault(claim, name)
