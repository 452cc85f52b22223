"""Through which integrations `golioth` a pipeline hands in data: those that run and have a `webhook_secret`."""

from collections.abc import Iterator

from cloud_sync.integrations.golioth import Golioth
from gateway.access import Access
from gateway.clock import Clock
from gateway.config import Settings
from gateway.ingest import Ingest
from gateway.integrations import RunningIntegrations
from gateway.storage.log import Log
from gateway.web.authorization import Authorization
from gateway.web.golioth_webhook import GoliothDoor, GoliothWebhook


def golioth_webhook(
    settings: Settings,
    authorization: Authorization,
    integrations: RunningIntegrations,
    access: Access,
    ingest: Ingest,
    log: Log,
    clock: Clock,
) -> GoliothWebhook:
    """Return the route for them."""
    home, ours = settings.gateway.organization_id, f"{settings.gateway.id}:"

    def is_ours(name: str) -> bool:
        return name.startswith(f"{ours}{log.uuid}:")

    def doors() -> Iterator[GoliothDoor]:
        return _doors(integrations, home)

    return GoliothWebhook(authorization, doors, access, ingest, clock, is_ours=is_ours)


def _doors(integrations: RunningIntegrations, home: str) -> Iterator[GoliothDoor]:
    """Yield them."""
    for one in integrations.running():
        if not isinstance(one.config, Golioth.Config) or one.config.webhook_secret is None:
            continue
        secret, gateways = one.config.webhook_secret.get_secret_value(), one.config.webhook_gateways
        yield GoliothDoor(one.id, one.wanted.brings_for(home), one.config.project_id, secret, gateways)
