"""What other programs hand in over HTTP, message by message: the hooks of brokers, and Golioth's pipelines."""

from gateway.access import Access
from gateway.callers import Callers
from gateway.clock import Clock
from gateway.config import Settings
from gateway.golioth_doors import golioth_webhook
from gateway.ingest import Ingest
from gateway.integrations import RunningIntegrations
from gateway.login_delay import LoginDelay
from gateway.rate_limit import RateLimits
from gateway.storage.log import Log
from gateway.web.authorization import Authorization
from gateway.web.mqtt_listener import MqttListener
from gateway.web.publishing import Publishes
from gateway.web.routes import Routes

_BURST = 200


def hook_routes(
    settings: Settings,
    callers: Callers,
    login_delay: LoginDelay,
    publish: Publishes,
    integrations: RunningIntegrations,
    access: Access,
    ingest: Ingest,
    log: Log,
    clock: Clock,
) -> list[Routes]:
    """Return their routes; each has limits of its own, as it sends what many devices say, a request a message."""

    def authorization() -> Authorization:
        limits = RateLimits(clock, per_minute=settings.ingest.hook_rate_limit_per_minute, burst=_BURST)
        return Authorization(callers, limits, login_delay)

    listener = MqttListener(
        authorization(),
        publish,
        ingest,
        organization_id=settings.gateway.organization_id,
        secret=settings.ingest.hook_secret.get_secret_value(),
    )
    return [listener, golioth_webhook(settings, authorization(), integrations, access, ingest, log, clock)]
