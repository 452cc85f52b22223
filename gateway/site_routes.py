"""What people and programs ask of the site over HTTP: a group of routes a line."""

from collections.abc import Callable

from gateway.operations.site import SharedSite
from gateway.web.activity import Activity
from gateway.web.alerts import AlertRoutes
from gateway.web.authorization import Authorization
from gateway.web.commands import CommandRoutes
from gateway.web.dead_letters import DeadLetterRoutes
from gateway.web.devices import Devices
from gateway.web.integrations import IntegrationRoutes
from gateway.web.notifications import Notifications
from gateway.web.organizations import OrganizationRoutes
from gateway.web.quarantine import Quarantine
from gateway.web.readings import Readings
from gateway.web.routes import Routes
from gateway.web.tokens import TokenRoutes

_GROUPS: tuple[Callable[[Authorization, SharedSite], Routes], ...] = (
    Readings,
    Quarantine,
    DeadLetterRoutes,
    Devices,
    CommandRoutes,
    AlertRoutes,
    OrganizationRoutes,
    TokenRoutes,
    IntegrationRoutes,
    Activity,
    Notifications,
)


def site_routes(authorization: Authorization, site: SharedSite) -> list[Routes]:
    """Return them all."""
    return [group(authorization, site) for group in _GROUPS]
