"""Every setting, with its default, its bounds and its meaning.

This is the one source: validation, the commented file that `neurogate init` writes and the reference in
README.md are all made from these models. A name carries its unit. What listens (`listeners`), the serial lines
(`serial`) and the routes (`routes`) have files of their own; whoever needs a section imports it from `gateway.config`.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.config.hosts import is_host_name, is_network
from gateway.config.listeners import HttpSettings, MqttSettings, TlsSettings
from gateway.config.routes import Route
from gateway.config.section import Section, Texts
from gateway.config.serial import SerialTable
from gateway.model.secret import Secret

_SECRET_CHARACTERS = 24
_IDENTITY = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


class GatewaySettings(Section):
    """Who this gateway is and where it keeps its data."""

    id: str = Field("site-1", pattern=_IDENTITY, description="Name of this gateway; each reading's id begins with it.")
    organization_id: str = Field(
        "default", pattern=_IDENTITY, description="The organisation of devices that name none."
    )
    data_dir: Path = Field(
        Path("data"),
        description="Folder of databases and key; if relative, next to the configuration file.",
    )


class StorageSettings(Section):
    """The log on disk."""

    synchronous: Literal["full", "normal"] = Field(
        "full", description="`full`: an acknowledged reading survives a power cut; `normal`: only a crash."
    )
    commit_max_delay_ms: int = Field(
        0, ge=0, le=10_000, description="More means fewer writes on an SD card and later acknowledgements."
    )
    max_commit_readings: int = Field(5_000, ge=1, description="Readings in one commit at most.")
    max_bytes: int = Field(
        2_000_000_000, ge=50_000_000, description="What both databases may take on disk, with all that belongs to them."
    )
    min_free_bytes: int = Field(200_000_000, ge=0, description="What the disk must keep free for others.")
    overflow: Literal["drop_oldest", "reject"] = Field(
        "drop_oldest",
        description="When there is no room: lose the oldest readings and count them, or take no more until there is.",
    )
    retention_days: float = Field(
        30.0, ge=0, description="Delivered readings older than this leave; 0 keeps them until their room is needed."
    )
    quarantine_max_bytes: int = Field(
        20_000_000, ge=0, description="Quarantined input kept; beyond, the oldest leaves."
    )
    dead_letters_max_bytes: int = Field(
        50_000_000,
        ge=0,
        description="Dead letters kept, of all destinations together; beyond, the oldest leave and are counted.",
    )


class EgressSettings(Section):
    """Where the gateway may connect to: its destinations, and the callbacks that the HTTP API was given."""

    policy: Literal["any", "lan", "public"] = Field(
        "lan",
        description="`public`: only the internet; `lan`: private networks too; `any`: also this machine itself, "
        "link-local addresses and those of cloud metadata.",
    )
    allow: Texts = Field(
        (),
        description="Host names, addresses and networks that are allowed besides, such as `127.0.0.1`.",
    )

    @field_validator("allow")
    @classmethod
    def _refuse_what_is_no_host(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not is_host_name(entry) and not is_network(entry):
                msg = f"{entry} is no host name, address or network; write them like api.local, ::1 or 10.1.0.0/16."
                raise ValueError(msg)
        return value


class ClockSettings(Section):
    """What is believed about time."""

    max_skew_s: int = Field(
        300, ge=0, description="A device's time further in the future than this is replaced by the gateway's."
    )


class IngestSettings(Section):
    """How readings come in."""

    dedupe_window_s: int = Field(
        60, ge=0, description="A repeat without boot_id and seq counts as one within this time."
    )
    routes: tuple[Route, ...] = Field((), description="Which parser reads what is published on which topics.")
    hook_secret: Secret = Field(
        Secret(""), description="What a broker's HTTP hook signs with, 24 characters or more; empty: tokens only."
    )
    hook_rate_limit_per_minute: int = Field(
        6_000, ge=0, description="Requests of one HTTP hook (`mqtt-listener`, `golioth-webhook`); 0 lifts the limit."
    )

    @field_validator("hook_secret")
    @classmethod
    def _refuse_a_short_secret(cls, value: Secret) -> Secret:
        if 0 < len(value.get_secret_value()) < _SECRET_CHARACTERS:
            msg = f"it must have at least {_SECRET_CHARACTERS} characters."
            raise ValueError(msg)
        return value


class NotificationSettings(Section):
    """How notifications go out, and how long it is kept what became of them."""

    attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="How often one is tried before it has failed; `neurogate notify resend` begins anew.",
    )
    first_wait_s: float = Field(
        30.0, gt=0, description="How long it waits at most after the first failure; then twice as long each time."
    )
    keep_trying_s: float = Field(
        86_400.0,
        ge=0,
        description="For so long it costs no attempt that the other side cannot be reached, or asks for patience.",
    )
    alone: int = Field(
        5, ge=0, description="Notifications of one priority that go alone within a minute; further ones go together."
    )
    digest_interval_s: float = Field(30.0, ge=0, description="How long those are gathered that go together.")
    dedupe_key_window_s: float = Field(300.0, ge=0, description="Within this time a `dedupe_key` is told once.")
    log_max_count: int = Field(
        20_000,
        ge=100,
        description="Notifications kept of one organisation; so many may wait, and of others the oldest leave.",
    )
    log_max_bytes: int = Field(20_000_000, ge=100_000, description="What these may take, of one organisation.")
    log_max_age_days: float = Field(30.0, gt=0, description="How long one is kept after it was sent or has failed.")


class HomeAssistantSettings(Section):
    """What Home Assistant is told by the embedded broker (MQTT discovery)."""

    enabled: bool = Field(default=False, description="Whether it is told of the devices; off takes them back.")
    discovery_prefix: str = Field(
        "homeassistant", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Its discovery prefix."
    )
    offline_after_s: float = Field(
        300.0, gt=0, description="A device that is not connected and was not heard for so long is offline."
    )

    @field_validator("discovery_prefix")
    @classmethod
    def _is_nobody_elses(cls, value: str) -> str:
        if value in {"neurogate", "neurobuild", "devices"} or value.startswith("org_"):
            msg = f"{value} is where devices or the gateway speak; Home Assistant's own is homeassistant."
            raise ValueError(msg)
        return value


class MdnsSettings(Section):
    """How the local network finds this gateway: as `neurogate-ID.local`, with `_mqtt._tcp` and `_http._tcp`."""

    enabled: bool = Field(default=True, description="Whether it is told at all (multicast DNS).")
    interfaces: Texts = Field(
        (), description="Where it is told, such as `eth0`; none named: all but bridges of containers and tunnels (VPN)."
    )


class LogSettings(Section):
    """What the gateway writes about itself."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least shown.")
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto` is text on a terminal and JSON lines otherwise."
    )


class IntegrationTable(BaseModel):
    """One `[[integrations]]` table. Its other keys stay raw: the integration's own class knows them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="Which integration this is.")
    name: str = Field(pattern=_IDENTITY, description="Its identity: the name of its cursor.")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Leave out the raw keys: a secret may be among them."""
        return [("type", self.type), ("name", self.name)]


class Settings(Section):
    """The whole configuration."""

    version: Literal[1] = Field(1, description="Version of this file's format.")
    gateway: GatewaySettings = GatewaySettings()
    mqtt: MqttSettings = MqttSettings()
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    storage: StorageSettings = StorageSettings()
    egress: EgressSettings = EgressSettings()
    clock: ClockSettings = ClockSettings()
    ingest: IngestSettings = IngestSettings()
    notifications: NotificationSettings = NotificationSettings()
    home_assistant: HomeAssistantSettings = HomeAssistantSettings()
    mdns: MdnsSettings = MdnsSettings()
    log: LogSettings = LogSettings()
    serial: tuple[SerialTable, ...] = Field((), description="What is attached to this machine by a serial line.")
    integrations: tuple[IntegrationTable, ...] = Field((), description="The destinations.")

    @property
    def organizations(self) -> frozenset[str]:
        """Every organisation that it names, but for those in filters."""
        serial = (table.organization_id for table in self.serial)
        routes = (route.organization_id for route in self.ingest.routes)
        return frozenset(filter(None, (self.gateway.organization_id, *serial, *routes)))

    @field_validator("integrations")
    @classmethod
    def _refuse_equal_names(cls, tables: tuple[IntegrationTable, ...]) -> tuple[IntegrationTable, ...]:
        repeated = [name for name, count in Counter(table.name for table in tables).items() if count > 1]
        if repeated:
            msg = f"the name {repeated[0]} is used more than once; a name is one destination's identity."
            raise ValueError(msg)
        return tables

    @field_validator("serial")
    @classmethod
    def _refuse_equal_ports(cls, tables: tuple[SerialTable, ...]) -> tuple[SerialTable, ...]:
        repeated = [port for port, count in Counter(table.port for table in tables).items() if count > 1]
        if repeated:
            msg = f"the port {repeated[0]} is there more than once; one program can read it, once."
            raise ValueError(msg)
        return tables
