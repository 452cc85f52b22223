"""What the gateway says of itself: one snapshot, shown by /ready, the live table and `buffer status`."""

from dataclasses import dataclass, field


@dataclass(slots=True, frozen=True)
class DeviceActivity:
    """What came from one device since the gateway started."""

    organization_id: str
    device_id: str
    readings: int
    last_seen_ms: int
    """0 while nothing came."""
    connections: int = 0
    """Its open MQTT connections."""


@dataclass(slots=True, frozen=True)
class Loss:
    """What one destination will never get, because there was no room to keep it."""

    readings: int
    first_row: int
    last_row: int
    since_ms: int
    """When the first of them was lost (unix milliseconds)."""


@dataclass(slots=True, frozen=True)
class IntegrationHealth:
    """How one integration does; see `cloud_sync/health.py`."""

    up: bool
    """What the last attempt has shown; one that was not tried yet is taken for up."""
    last_success_ms: int | None
    last_error_ms: int | None
    error_kind: str | None
    """Of the last error: `authentication`, `quota`, `connection`, `configuration` or `refused`."""
    failures: int
    """Since the last success."""
    errors: int
    """Since the gateway started."""
    latency_s: float | None
    """Of an attempt, the mean of late ones; None before the first."""
    items_per_minute: float
    """Readings or messages that it has taken, over the last five minutes."""
    uptime: float
    """The share of the last 24 hours, or of the time since it began, that it was up: 0 to 1."""


@dataclass(slots=True, frozen=True)
class DestinationStatus:
    """How far one destination is."""

    name: str
    type: str
    state: str
    """`idle`, `sending`, `retrying` (waiting after a failure), `error` (its owner must act) or `inactive`."""
    position: int
    """Up to this row it has everything."""
    undelivered: int
    """Readings it still has to get."""
    oldest_seconds: float
    """Age of the oldest of these; 0 when there is none."""
    delivered: int
    """Readings delivered since the gateway started."""
    failures: int
    """Failed attempts since the last success."""
    delivery: str = "ok"
    """`ok`, `waiting after failures`, `trying` (after failures) or `stopped` (it wants nothing more)."""
    next_attempt_s: float | None = None
    """How long until the next attempt; None unless it waits."""
    backlog: int = 0
    """Of the undelivered, those of a backlog that newer readings overtake."""
    dead_letters: int = 0
    """Readings it refused for good; they can be replayed."""
    last_error: str = ""
    lost: Loss | None = None
    label: str = ""
    """What its owner calls one whose name is only an id; `/ready`, which everybody may ask, says the name again."""
    dead_letters_lost: Loss | None = None
    """Of the readings that it refused: what had to leave before it was replayed."""
    health: IntegrationHealth | None = None

    @property
    def title(self) -> str:
        """What people know it as."""
        return self.label or self.name


@dataclass(slots=True, frozen=True)
class ReceivingStatus:
    """How it goes with receiving through one integration."""

    name: str
    type: str
    state: str
    """`connecting`, `receiving`, `retrying` (waiting after a failure), `error` (its owner must act) or `full` (the
    store takes nothing: what comes waits on the other side)."""
    received: int
    """Messages on disk since the gateway started, or it began anew."""
    failures: int
    """Since it last received for a while."""
    next_attempt_s: float | None = None
    """How long until the next attempt; None unless it waits."""
    last_error: str = ""
    label: str = ""
    """What its owner calls one whose name is only an id; `/ready`, which everybody may ask, says the name again."""
    health: IntegrationHealth | None = None

    @property
    def title(self) -> str:
        """What people know it as."""
        return self.label or self.name


@dataclass(slots=True, frozen=True)
class BufferStatus:
    """The log on disk."""

    readings: int
    oldest_row: int
    newest_row: int
    quarantined: int
    bytes: int


@dataclass(slots=True, frozen=True)
class GatewayStatus:
    """The whole gateway at one moment."""

    gateway_id: str
    version: str
    uptime_seconds: float
    mqtt_port: int
    http_port: int
    problems: list[str]
    """What keeps it from being ready, each as a sentence; empty when all is well."""
    connections: int
    ingested: int
    duplicates: int
    quarantined: int
    buffer: BufferStatus
    devices: list[DeviceActivity] = field(default_factory=list)
    destinations: list[DestinationStatus] = field(default_factory=list)
    receiving: list[ReceivingStatus] = field(default_factory=list)
    mqtt_tls_port: int = 0
    """0 when MQTT is not spoken over TLS."""
    notices: list[str] = field(default_factory=list)
    """What its owner should know although it works, for example damage that was repaired; each as a sentence."""
