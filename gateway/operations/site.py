"""What an operation works on: a running gateway, or what one has left on disk."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # most operations need few of these, and a command that asks for one has to import no more than that
    from cloud_sync.notifier import Notifier
    from gateway.clock import Clock
    from gateway.commands import Commands
    from gateway.config import Settings
    from gateway.model.finding import Finding
    from gateway.model.status import DeviceActivity, GatewayStatus, IntegrationHealth
    from gateway.model.topics import KeptTopics
    from gateway.model.vitals import Trace, Vitals
    from gateway.storage.certificates import SiteCertificates
    from gateway.storage.log import Log
    from gateway.storage.log_reader import LogReader
    from gateway.storage.state import State


class Live(Protocol):
    """What only a running gateway knows and can do."""

    async def status(self) -> "GatewayStatus":
        """Return a snapshot of the whole."""
        ...

    def activity(self, organization_id: str, device_id: str) -> "DeviceActivity":
        """Return what came from a device since the start, and whether it is connected."""
        ...

    def vitals(self) -> "Vitals":
        """Return how the process does."""
        ...

    def trace(self) -> "Trace":
        """Return what it has said lately, and what it does now."""
        ...

    async def try_broker(self) -> "list[Finding]":
        """Try the broker as its clients do: what they may, and what they may not."""
        ...

    async def apply_access(self) -> None:
        """Let the credentials in the state take effect; returns when whoever has lost access is gone."""
        ...

    async def apply_certificates(self) -> None:
        """Let the certificates on disk take effect for new connections. Raises ConfigError."""
        ...

    async def write_down_access(self) -> None:
        """Bring into the state what is known of how credentials are used, and which devices were seen."""
        ...

    async def forget_messages(self, topics: "KeptTopics") -> None:
        """Let go of what is kept in memory under these topics; on return all of it that is on disk is there."""
        ...

    async def end_retained(self, topics: "KeptTopics") -> None:
        """End the retained messages on these topics. Raises StoreFailed."""
        ...

    @property
    def commands(self) -> "Commands":
        """What tells devices what to do."""
        ...

    @property
    def newest_row(self) -> int:
        """The newest committed reading's row."""
        ...

    async def wait_beyond(self, row: int) -> bool:
        """Return True when there is a committed row beyond `row`, False when the gateway stops."""
        ...

    @property
    def notifier(self) -> "Notifier":
        """What sends notifications."""
        ...

    def replay(self, destinations: Iterable[str]) -> None:
        """Let these look for dead letters whose replay was requested; those that are not active are left out."""
        ...

    async def apply_integrations(self, *, anew: str | None = None) -> None:
        """Let the integrations in the state take effect; those that did not change go on undisturbed.

        The one of the id `anew` is started again, whether it changed or not.
        """
        ...

    def integration_errors(self) -> Mapping[str, str]:
        """Return what its owner must know of each integration that is in error, by id."""
        ...

    def integration_health(self, integration_id: str) -> "IntegrationHealth | None":
        """Return how an integration does; None when it does not run."""
        ...

    async def wait_settled(self, settled: int) -> bool:
        """Return True when `DeadLetters.settled` is beyond `settled`, False when the gateway stops."""
        ...


class Site(Protocol):
    """A gateway and its data directory. The stores are opened when they are first asked for."""

    @property
    def settings(self) -> "Settings":
        """The whole configuration."""
        ...

    @property
    def clock(self) -> "Clock":
        """The time."""
        ...

    @property
    def actor(self) -> str:
        """Who acts, as the activity log names them."""
        ...

    @property
    def live(self) -> Live | None:
        """The running gateway; None when there is none, and the operation has the stores to itself."""
        ...

    @property
    def certificates(self) -> "SiteCertificates":
        """The site's own certificates, on disk: to be asked in a thread."""
        ...

    async def state(self) -> "State":
        """Return the devices and credentials."""
        ...

    async def log(self) -> "LogReader":
        """Return the readings. Raises NotFound when there are none yet."""
        ...

    async def writable_log(self) -> "Log":
        """Return the readings, for whoever changes what is kept of them. Raises NotFound when there are none yet."""
        ...


class SharedSite(Site, Protocol):
    """A site on which several act."""

    def acting(self, actor: str) -> Site:
        """Return the site as it is for somebody who acts, as the activity log names them."""
        ...
