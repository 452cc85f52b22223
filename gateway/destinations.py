"""The integrations of the configuration, built: what is in the vault is put in, and what cannot be read stops no other.

A destination with a secret that cannot be read, or is no good, is not started. It keeps its place in the log, and
everything that waits for it, until the gateway is started with the secret.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cloud_sync.contract import Forwards, IntegrationConfig
from cloud_sync.egress import Egress
from cloud_sync.forwarder import Destination
from cloud_sync.registry import check_config, integration_class, load_config
from gateway.clock import Clock
from gateway.config import IntegrationTable, Settings
from gateway.config.substitution import vault_names
from gateway.metrics import Metrics
from gateway.model.errors import NeurogateError
from gateway.storage.secrets import Secrets
from gateway.storage.state import State
from gateway.storage.vault import Vault

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Destinations:
    """Where readings go."""

    active: list[Destination] = field(default_factory=list)
    closed: list[IntegrationConfig] = field(default_factory=list)
    """Not started, for want of a secret; their places are kept."""
    inactive: list[str] = field(default_factory=list)
    """Their owner has given them up."""
    notices: list[str] = field(default_factory=list)
    """Which are not started and why, and what is wrong with the vault; each as a sentence."""

    @property
    def wanting(self) -> list[IntegrationConfig]:
        """Who wants readings, and has a place in the log."""
        return [*(one.config for one in self.active), *self.closed]


def check_integrations(settings: Settings, origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Check them as far as that is possible before the vault is open. Raises ConfigError.

    Whoever knows where each setting came from says so: an error repeats no value that the environment or a file gave.
    """
    for table in settings.integrations:
        check_config(table, origins)


async def open_destinations(
    settings: Settings, state: State, clock: Clock, egress: Egress, metrics: Metrics
) -> Destinations:
    """Build the active ones. Raises ConfigError and StoreFailed."""
    found = Destinations(notices=await Vault(state).notices())
    for table in settings.integrations:
        common = check_config(table)
        if common.status == "inactive":
            found.inactive.append(common.name)
            continue
        known = integration_class(table)
        try:
            config = await _with_secrets(table, Secrets(state))
        except NeurogateError as error:
            if issubclass(known, Forwards):
                found.closed.append(common)
                metrics.delivery_state.labels(common.name, "stopped").set(1)
            found.notices.append(
                f"The integration {common.name} is not started (restart the gateway when this is mended): {error}"
            )
        else:
            integration = known(config, clock, egress)
            if isinstance(integration, Forwards):
                found.active.append(integration)
    for notice in found.notices:
        logger.error("%s", notice)
    return found


async def _with_secrets(table: IntegrationTable, secrets: Secrets) -> IntegrationConfig:
    """Raises NotFound, Unreadable, or ConfigError for a secret that is no good there."""
    values = {name: (await secrets.value(name)).get_secret_value() for name in vault_names(table.model_extra)}
    return load_config(table, secret_of=values.__getitem__)
