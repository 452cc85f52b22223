"""What an integration promises to the engines.

An integration is one file: a class with a `type`, a typed `Config`, and the capabilities it has. It only translates,
sends once, and classifies what came back into an `Outcome`. Retry, backoff, rate limits, batching, order and cursors
belong to the engines, so that every integration gets them alike.
"""

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from cloud_sync.egress import Egress
from gateway.clock import Clock
from gateway.config import routes
from gateway.model.finding import Finding
from gateway.model.priorities import Priority
from gateway.model.reading import StoredReading
from gateway.model.selection import Selection

Name = Annotated[str, Field(min_length=1, max_length=100)]
SensorField = Annotated[str, Field(pattern=r"^.+\..+$", max_length=200)]
"""`sensor.field`, for example `ld2410.presence`."""


class Report(BaseModel):
    """Report on change: a reading that says nothing new is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on_change: bool = Field(
        default=True, description="Leave out a reading that says nothing new since the last one sent."
    )
    dead_band: dict[SensorField, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description='By "sensor.field": a value that differs by no more says nothing new.'
    )
    heartbeat_s: float = Field(300.0, gt=0, description="After so long, a reading goes out even without a change.")


class IntegrationConfig(BaseModel):
    """Settings that every integration has; an integration adds its own. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    leads_by: ClassVar[tuple[str, ...]] = ()
    """Settings that say to whom the secrets go: when one changes, whoever changes it has to know them."""

    type: str = Field(description="Which integration this is.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Its identity: the name of its cursor. A new name is a new destination.",
    )
    status: str = Field(
        "active",
        pattern="^(active|inactive)$",
        description="`inactive` stops forwarding and gives up its place in the log.",
    )
    start: str = Field(
        "now",
        pattern="^(now|oldest)$",
        description="Where a new destination begins: at the next reading, or at the oldest stored one.",
    )
    catch_up: str = Field(
        "oldest_first",
        pattern="^(oldest_first|newest_first)$",
        description="After an outage: everything in order, or what comes now first and the backlog beside it.",
    )
    timeout_s: float = Field(30.0, gt=0, le=3_600, description="How long one request may take.")
    rate_limit_per_minute: int = Field(100, ge=0, description="Requests per minute; 0 lifts the limit.")
    batch_max_readings: int = Field(5_000, ge=1, le=5_000, description="Readings in one request at most.")
    batch_max_bytes: int = Field(1_000_000, ge=1_000, description="Payload bytes in one request at most.")
    min_interval_s: float = Field(0.0, ge=0, description="Least time between two requests.")
    devices: tuple[Name, ...] = Field(
        (), description="Only readings of these devices: ids, or patterns such as `kitchen-*`; none means all."
    )
    organizations: tuple[Name, ...] = Field((), description="Only readings of these organisations; none means all.")
    sensors: tuple[Name, ...] = Field(
        (),
        description="Only these sensors, such as `pir`: a reading is reduced to them, and left out if it has none;"
        " none means all.",
    )
    events: tuple[SensorField, ...] = Field(
        (),
        description="Only what happens: readings in which one of these fields has changed, such as `ld2410.presence` or"
        " `mq134.state`; none means all. The heartbeat of `report` does not hold, unless `report` is set as well.",
    )
    report: Report = Field(
        Report(on_change=False),
        description="If it is there, only readings that say something new: see its own settings.",
    )

    def claims(self, gateway_id: str) -> tuple[str, ...]:  # noqa: ARG002 - others need it
        """Return what one of all integrations alone can be elsewhere, such as a client of a broker, in words."""
        return ()

    def refuse_several_organizations(self, what: str) -> None:
        """Refuse readings of several organisations, where the device id decides as whom one is sent. Raises ValueError.

        Each organisation names its devices as it likes, so one's would speak in the name of another's. One that an
        organisation manages is for that one anyhow.
        """
        if len(self.organizations) != 1:
            raise ValueError(
                f"{what} by device id, and each organisation names its devices as it likes: say whose they are, one "
                'organisation, as in organizations = ["default"].'
            )

    def refuse_bringing_for_several(self, what: str) -> None:
        """Refuse several organisations, where something comes in that is one's. Raises ValueError."""
        if len(self.organizations) > 1:
            raise ValueError(f"{what} belongs to one organisation: name no more than one in organizations.")

    @property
    def takes_readings(self) -> bool:
        """Whether one that forwards is handed readings: not, where its settings only say how others reach us."""
        return True

    @property
    def selection(self) -> Selection:
        """Which readings it wants."""
        return Selection(self.devices, frozenset(self.organizations), frozenset(self.sensors))


@dataclass(slots=True, frozen=True)
class Batch:
    """What is sent in one attempt. It is frozen: a retry has the same id, readings and bytes."""

    id: str
    """The idempotency key, the same on every retry, also after a restart."""
    readings: Sequence[StoredReading]
    gateway_id: str
    log_uuid: str


@dataclass(slots=True, frozen=True)
class Notification:
    """What people, or programs for them, are told in one message. A retry has the same id and says the same."""

    id: str
    """The receiver's key against repetitions, the same on every retry, also after a restart."""
    gateway_id: str
    organization_id: str
    kind: str
    """What has happened, in words with dots between: `message` (somebody has written it), `test`, `digest`."""
    subject: str
    """One line, or nothing."""
    message: str
    priority: Priority
    at_ms: int
    """When it was handed in."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What programs may want to know."""
    recipients: tuple[str, ...] = ()
    """For whom, where a channel knows such; none: whoever its settings say."""
    parts: tuple["Notification", ...] = ()
    """Of a digest: what it holds, the most urgent first. `subject` and `message` sum it up."""


@dataclass(slots=True, frozen=True)
class Ok:
    """The destination has it."""


@dataclass(slots=True, frozen=True)
class RetryAfter:
    """The destination asked for patience (429, 503); `seconds` is None when it did not say how much."""

    seconds: float | None
    reason: str


@dataclass(slots=True, frozen=True)
class NotConnected:
    """It could not be reached, hung, broke off or failed (5xx); a later try may work."""

    reason: str
    sent: bool = field(default=True, compare=False)
    """Whether a byte of the batch may have left; False only when that is certain."""


@dataclass(slots=True, frozen=True)
class AuthFailed:
    """It does not accept who we are (401, 403)."""

    reason: str


@dataclass(slots=True, frozen=True)
class WrongAddress:
    """Nobody there takes readings (3xx, 404, 405), or egress forbids it: the destination's error, not a record's."""

    reason: str


@dataclass(slots=True, frozen=True)
class Gone:
    """It wants nothing more, for ever (410)."""

    reason: str


@dataclass(slots=True, frozen=True)
class TooLarge:
    """The batch is too big for it (413)."""

    reason: str


@dataclass(slots=True, frozen=True)
class Rejected:
    """It understood and refused the content (400, 422); `rows` are the culprits where it named them."""

    reason: str
    rows: Sequence[int] = ()
    is_certain: bool = False
    """Whether it is known that the destination works and has nothing against any other reading: a reading that is
    refused so, alone, is not one of those of which ten in a row are the destination's own error."""


Outcome = Ok | RetryAfter | NotConnected | AuthFailed | WrongAddress | Gone | TooLarge | Rejected


@dataclass(slots=True, frozen=True)
class PartlyDelivered:
    """Of a notification: it has been answered for each recipient, and not for all alike."""

    reason: str
    again: tuple[str, ...]
    """Who may take it later: it is sent again to these alone."""
    refused: Mapping[str, str]
    """Who will never take it, and why."""


class Integration:
    """Base of every integration; an async context manager: entering opens sessions, leaving closes them."""

    type: ClassVar[str]
    """Its name in a configuration."""
    Config: ClassVar[builtins.type[IntegrationConfig]] = IntegrationConfig
    """Its settings: one model for validation, documentation and forms."""

    def __init__(self, config: IntegrationConfig, clock: Clock, egress: Egress) -> None:
        """Keep the settings; nothing is opened yet. It connects only to where `egress` allows."""
        self.config = config
        self.clock = clock
        self.egress = egress

    @classmethod
    def lacks(cls, config: IntegrationConfig) -> str:  # noqa: ARG003 - for those that lack something
        """Say what this machine lacks for these settings, and what to install; nothing when it can be started."""
        return ""

    async def __aenter__(self) -> Self:
        """Open what is needed to talk to the other side; must not fail when it is away."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""


@runtime_checkable
class Forwards(Protocol):
    """Delivers readings."""

    def encode(self, batch: Batch) -> bytes:
        """Return the body for this batch; the same batch gives the same bytes."""
        ...

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Try once to deliver. Never raises for what the other side does."""
        ...


@runtime_checkable
class Notifies(Protocol):
    """Tells somebody something."""

    def wants(self, kind: str, priority: Priority) -> bool:
        """Whether it is to be told by itself what happens of this kind; what it is sent by name it gets anyhow."""
        ...

    def preview(self, notification: Notification) -> str:
        """Return what would be sent, for a person to read; nothing secret."""
        ...

    async def notify(self, notification: Notification) -> Outcome | PartlyDelivered:
        """Try once to deliver, within `config.timeout_s`. Never raises for what the other side does."""
        ...


@dataclass(slots=True, frozen=True)
class Hearing:
    """What is listened to, and how it is read."""

    topics: tuple[str, ...]
    """Topic filters; what matches none of them is an older subscription's."""
    parser: routes.ParserName = "standard"
    mapping: routes.Mapping | None = None
    device_id: str | None = None
    """The only device that speaks there; None: any of the organisation."""
    speaks_for_others: bool = True
    """Whether that device, if it is a hub, also speaks for what its reports name."""


@dataclass(slots=True, frozen=True, eq=False)
class Incoming:
    """One message that has come. It comes again until it is acknowledged."""

    topic: str
    payload: bytes
    maybe_repeated: bool = False
    """Whether it may have come before: sent again, or kept by the other side for whoever asks."""
    cut_bytes: int = 0
    """More than 0: it had so many bytes, too many to keep, and the payload is left out."""
    source: object = None
    """What the integration knows it by."""


class Line(Protocol):
    """The connection that messages come by. When it has ended, nothing is sent, and they come again by the next."""

    async def acknowledge(self, messages: Sequence[Incoming]) -> bool:
        """Let the other side forget these, in the order in which they came; return False when the line has ended."""
        ...

    async def reply(self, topic: str, payload: bytes) -> bool:
        """Answer; returns, within `config.timeout_s`, whether the other side has the answer."""
        ...


class Inbox(Protocol):
    """Where an integration hands in what comes by one connection."""

    gateway_id: str

    def opened(self, line: Line, problem: str = "") -> None:
        """Hear that messages can come from now on; `problem` is what its owner must mend all the same."""
        ...

    async def take(self, messages: Sequence[Incoming]) -> None:
        """Take these in, and acknowledge each when it is on disk. Returns when there is room for more."""
        ...

    async def settled(self) -> None:
        """Return when nothing is owed any more, soon: for whoever is about to close the line in peace."""
        ...


@runtime_checkable
class Receives(Protocol):
    """Gets messages from elsewhere that become readings."""

    def hears(self) -> Hearing:
        """Return what it listens to; without topics it receives nothing."""
        ...

    async def receive(self, inbox: Inbox) -> Outcome:
        """Connect once, hand in what comes, and return why that has ended. Never raises for what the other side does.

        While it waits for the inbox it reads nothing more, so that the other side waits, too.
        """
        ...


@runtime_checkable
class Tests(Protocol):
    """Can be tried, without sending anything that its destination would take for a reading."""

    async def check(self) -> list[Finding]:
        """Return what works and what does not, up to where the first thing fails.

        While it is entered. Never raises for what the other side does; ends by itself, within `config.timeout_s`.
        """
        ...


CAPABILITIES: Mapping[str, builtins.type] = MappingProxyType(
    {"forwards": Forwards, "receives": Receives, "notifies": Notifies, "tests": Tests}
)
"""Every capability, by what the API and the documentation call it."""


def capabilities(integration: builtins.type[Integration]) -> tuple[str, ...]:
    """Return what an integration can do, in words."""
    return tuple(name for name, capability in CAPABILITIES.items() if issubclass(integration, capability))
