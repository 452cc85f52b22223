"""An active integration: what it is, what goes on while it is entered, and who may use it."""

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from cloud_sync.contract import Integration, IntegrationConfig
from cloud_sync.forwarder import Forwarder
from cloud_sync.health import Health
from gateway.inbound.engine import Inbound
from gateway.wanted_integrations import Wanted


@dataclass(slots=True, eq=False)
class Running:
    """See the module's own words."""

    wanted: Wanted
    config: IntegrationConfig
    integration: Integration
    forwarder: Forwarder | None
    """None for one that does not forward."""
    inbound: Inbound | None
    """None for one that does not receive."""
    health: Health
    """How it does, as whoever sends through it says."""
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it can be used."""
    task: "asyncio.Task[None] | None" = None

    @property
    def id(self) -> str:
        """What names it, in the API and in metrics."""
        return self.wanted.id

    @property
    def name(self) -> str:
        """What its owner calls it."""
        return self.wanted.name

    @property
    def organization_id(self) -> str:
        """Whose it is; empty for one of the file."""
        return self.wanted.organization_id

    @property
    def origin(self) -> Literal["api", "file"]:
        """Where it is managed."""
        return self.wanted.origin

    @property
    def part(self) -> str:
        """What the supervisor calls it."""
        return f"{'integration' if self.forwarder is None else 'forwarder'} {self.id}"

    def engines(self) -> Iterator[Awaitable[None]]:
        """Yield what is to go on while it is entered: at least something."""
        if self.forwarder is not None:
            yield self.forwarder.deliver()
        if self.inbound is not None:
            yield self.inbound.run()
        if self.forwarder is None and self.inbound is None:
            yield asyncio.get_running_loop().create_future()

    @property
    def error(self) -> str:
        """What its owner must mend; empty when nothing."""
        return next((one.error for one in (self.forwarder, self.inbound) if one is not None and one.error), "")

    def serves(self, organization_id: str) -> bool:
        """Whether that organisation may use it."""
        if self.origin == "api":
            return self.organization_id == organization_id
        return not self.config.organizations or organization_id in self.config.organizations
