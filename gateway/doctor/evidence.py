"""What all checks share: what was asked of the gateway, once, before they begin."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import Clock
from gateway.config import LoadedConfig, Settings
from gateway.model.errors import NeurogateError
from gateway.model.finding import Finding
from gateway.model.status import GatewayStatus
from gateway.model.vitals import Vitals
from gateway.operations.buffer import BufferReport
from gateway.operations.integrations import IntegrationView
from gateway.operations.troubles import Troubles
from gateway.storage.data_dir import DataDir


@dataclass(slots=True, frozen=True)
class Machine:
    """Where the system says how it is; a test says otherwise."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")


@dataclass(slots=True, frozen=True)
class Evidence:
    """What is known. A field that could not be learned is None, and `complaints` say why."""

    loaded: LoadedConfig
    clock: Clock
    machine: Machine = Machine()
    is_running: bool = False
    """Whether a gateway answers."""
    complaints: tuple[NeurogateError, ...] = ()
    vitals: Vitals | None = None
    status: GatewayStatus | None = None
    buffer: BufferReport | None = None
    troubles: Troubles | None = None
    integrations: tuple[IntegrationView, ...] = ()
    """Those of the file and those of organisations."""
    try_broker: Callable[[], Awaitable[list[Finding]]] | None = None
    try_integration: Callable[[str], Awaitable[list[Finding]]] | None = None
    """By the id of an organisation's."""

    @property
    def settings(self) -> Settings:
        """The whole configuration."""
        return self.loaded.settings

    @property
    def data_dir(self) -> DataDir:
        """Where the gateway keeps its data."""
        return DataDir(self.loaded.settings.gateway.data_dir)


Check = Callable[[Evidence], Awaitable[list[Finding]]]
"""One idea, in a file of its own; its name is the function's. It changes nothing and may hang: it has a time limit."""
