"""The configuration of an integration with its secrets: what the vault has is put in."""

from cloud_sync.contract import IntegrationConfig
from cloud_sync.registry import config_of, load_config
from gateway.config import IntegrationTable
from gateway.config.substitution import vault_names
from gateway.storage.integrations import IntegrationRow, Integrations
from gateway.storage.secrets import Secrets
from gateway.storage.state import State


async def config_of_table(table: IntegrationTable, state: State) -> IntegrationConfig:
    """Return that of one of the file. Raises NotFound, Unreadable, or ConfigError for what is no good."""
    secrets = Secrets(state)
    values = {name: (await secrets.value(name)).get_secret_value() for name in vault_names(table.model_extra)}
    return load_config(table, secret_of=values.__getitem__)


async def config_of_row(row: IntegrationRow, state: State) -> IntegrationConfig:
    """Return that of one of an organisation. Raises Unreadable, or ConfigError for what is no good."""
    return config_of(row, await Integrations(state).secrets(row))
