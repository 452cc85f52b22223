"""Every setting, with its default, its bounds and its meaning.

This is the one source: validation, the commented file that `neurogate init` writes and the reference in
README.md are all made from these models. A name carries its unit.
"""

import re
from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from gateway.config.routes import Route
from gateway.model.secret import Secret
from gateway.model.text import is_clean_text
from gateway.model.topics import is_name

_HOST_NAME = re.compile(r"(?=.*[a-z])[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
_JWT_SECRET_BYTES = 32  # as long as what HS256 makes of it (RFC 7518, 3.2)
_SECRET_CHARACTERS = 24
_IDENTITY = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def _split_at_commas(value: Any) -> Any:  # noqa: ANN401 - what stands in the file
    """Take a list from the environment, too: with commas."""
    return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]


class Section(BaseModel):
    """A table of the configuration file: read-only once loaded, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class MqttSettings(Section):
    """The MQTT broker that the sensors talk to."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - sensors come from the network
    port: int = Field(1883, ge=0, le=65_535, description="Port to listen on; 0 takes any free one.")
    tls_port: int = Field(
        8883, ge=0, le=65_535, description="Port for MQTT over TLS; 0 opens none. Taken and not set: a notice."
    )
    websocket_port: int = Field(
        9001, ge=0, le=65_535, description="Port for MQTT over WebSocket; 0 opens none. `/mqtt` on the HTTP port stays."
    )
    websocket_tls_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port for MQTT over WebSocket with TLS; 0 opens none. `/mqtt` on the HTTPS port stays.",
    )
    allow_anonymous: bool = Field(default=False, description="Only `false`: nothing listens without authentication.")
    max_packet_bytes: int = Field(65_536, ge=128, le=268_435_455, description="A larger packet closes its connection.")
    max_connections: int = Field(
        2_000, ge=1, description="Connections at once, on all ports together; further ones are refused."
    )
    connect_timeout_s: float = Field(10.0, gt=0, description="How long a new connection may take to authenticate.")
    max_inflight: int = Field(
        200, ge=1, description="Unacknowledged messages of one connection; then its socket is not read."
    )
    max_packets_per_second: int = Field(
        5_000,
        ge=0,
        description="Packets of one connection, so many at once too; then its socket is not read for a while."
        " 0 lifts the limit.",
    )
    max_subscriber_buffer_bytes: int = Field(
        1_000_000,
        ge=1_000,
        description="Bytes in the socket of a slow subscriber; beyond, QoS 0 is lost and the rest waits.",
    )
    subscriber_timeout_s: float = Field(
        10.0, gt=0, description="How long a subscriber may read nothing, while much waits for it, until it is dropped."
    )
    max_subscriptions: int = Field(50, ge=1, description="Topic filters of one client; further ones are refused.")
    max_home_assistant_subscriptions: int = Field(
        5_000, ge=1, description="Those of a client with Home Assistant's credential: it has one for each device."
    )
    max_filters_per_subscribe: int = Field(
        100, ge=1, description="Topic filters in one SUBSCRIBE or UNSUBSCRIBE; more close the connection."
    )
    max_topic_levels: int = Field(
        32, ge=8, le=200, description="Levels of a topic or filter; a deeper topic closes the connection."
    )
    max_topic_bytes: int = Field(
        1_024, ge=200, le=65_535, description="Length of a topic or filter; a longer topic closes the connection."
    )
    buffers_max_bytes: int = Field(
        100_000_000,
        ge=1_000_000,
        description="What all connections hold together: half of it for incomplete packets and what clients have not"
        " read (beyond, those who hold most are closed), half for what waits for the disk (beyond, nobody's PUBLISH is"
        " read).",
    )
    retained_max_messages: int = Field(
        5_000, ge=0, description="Topics with a retained message; further ones are lost."
    )
    retained_max_bytes: int = Field(
        5_000_000, ge=0, description="What retained messages may take together; further ones are lost."
    )
    outbox_max_messages: int = Field(
        10_000, ge=0, le=60_000, description="QoS 1 and 2 messages that wait for one client; further ones are lost."
    )
    outbox_max_bytes: int = Field(
        10_000_000,
        ge=0,
        description="What waits for all clients together; one may take no more of it than it leaves to the others.",
    )
    outbox_max_age_s: float = Field(
        604_800.0, gt=0, description="How long a message waits for a client before it is given up."
    )
    messages_max_count: int = Field(
        10_000, ge=1, description="Messages kept for subscriptions of the HTTP API; then the oldest leave."
    )
    messages_max_bytes: int = Field(10_000_000, ge=100_000, description="What these may take together.")
    messages_max_age_s: float = Field(604_800.0, gt=0, description="How long such a message is kept.")

    @field_validator("allow_anonymous")
    @classmethod
    def _refuse_anonymous(cls, value: bool) -> bool:
        if value:
            msg = "only false is possible: nothing listens without authentication."
            raise ValueError(msg)
        return value


class HttpSettings(Section):
    """The HTTP door: readings in, health and metrics out."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - sensors come from the network
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0 takes any free one.")
    tls_port: int = Field(
        8443,
        ge=0,
        le=65_535,
        description="Port for HTTPS, with all that `http.port` has; 0 opens none. Taken and not set: a notice.",
    )
    websocket_port: int = Field(
        0, ge=0, le=65_535, description="A port for `/ws` alone, beside `http.port`; 0 opens none."
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="A port for `/metrics` and health alone, beside `http.port`; 0 opens none."
    )
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="A larger request is refused (413).")
    headers_timeout_s: float = Field(
        10.0, gt=0, description="How long the headers of a request may take, from their first byte."
    )
    body_timeout_s: float = Field(30.0, gt=0, description="How long its body may take after that (408).")
    request_timeout_s: float = Field(
        60.0, gt=0, description="How long the gateway may take to work out an answer (503), body included."
    )
    answer_timeout_s: float = Field(60.0, gt=0, description="How long a client may take to read an answer.")
    keepalive_timeout_s: float = Field(
        30.0, gt=0, description="How long a connection may be silent, before the first request and between two."
    )
    max_connections_per_address: int = Field(
        200,
        ge=0,
        description="Connections of one address at once, those with a WebSocket and those of trusted proxies not"
        " counted; further ones are closed. 0 lifts the limit.",
    )
    metrics_from: Texts = Field(
        (
            "127.0.0.0/8",
            "::1",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ),
        description="Addresses and networks that may ask for `/metrics`: those of the site, unless it says otherwise.",
    )
    rate_limit_per_minute: int = Field(100, ge=0, description="Requests per client; 0 lifts the limit.")
    rate_limit_burst: int = Field(20, ge=1, description="Requests a client may send at once.")
    trusted_proxies: Texts = Field(
        (),
        description="Addresses and networks (`10.0.0.0/8`) of proxies whose word on a client's address is believed.",
    )

    jwt_secret: Secret = Field(
        Secret(""),
        description="Signs the JWTs (HS256) that are taken as tokens, 32 bytes or more; empty: none are.",
    )

    @field_validator("jwt_secret")
    @classmethod
    def _refuse_a_short_jwt_secret(cls, value: Secret) -> Secret:
        if 0 < len(value.get_secret_value().encode()) < _JWT_SECRET_BYTES:
            msg = f"it must have at least {_JWT_SECRET_BYTES} bytes."
            raise ValueError(msg)
        return value

    @field_validator("trusted_proxies", "metrics_from")
    @classmethod
    def _refuse_what_is_no_network(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ip_network(network, strict=False)
            except ValueError:
                msg = f"{network!r} is neither an address nor a network."
                raise ValueError(msg) from None
        return value


class TlsSettings(Section):
    """What the listeners over TLS show, and what they ask for."""

    names: Texts = Field(
        (),
        description="Host names and addresses that the server's certificate is for, beside those of this machine.",
    )
    certificate_file: str = Field(
        "", description="A certificate of your own (PEM, with its chain) instead of one by the site's own CA."
    )
    key_file: str = Field("", description="Its key (PEM, not encrypted); empty when it is in the same file.")
    client_certificates: Literal["off", "optional", "required"] = Field(
        "off",
        description="Whether a device may, or over MQTT must, show a certificate of the site's own CA"
        " (`neurogate certs issue`); then it needs no password.",
    )
    handshake_timeout_s: float = Field(10.0, gt=0, description="How long a TLS handshake may take.")
    max_handshakes: int = Field(
        500,
        ge=1,
        description="TLS handshakes under way; beyond, the address with most of them loses its oldest.",
    )

    @field_validator("names")
    @classmethod
    def _refuse_what_is_no_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _HOST_NAME.fullmatch(name) and not _is_address(name):
                msg = f"{name} is no host name or address; write them like gateway.example.com or 10.1.0.2."
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _refuse_half_a_pair(self) -> Self:
        if self.key_file and not self.certificate_file:
            msg = "key_file needs certificate_file."
            raise ValueError(msg)
        return self


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
            if not _HOST_NAME.fullmatch(entry) and not _is_network(entry):
                msg = f"{entry} is no host name, address or network; write them like api.local, ::1 or 10.1.0.0/16."
                raise ValueError(msg)
        return value


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


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


class SerialTable(Section):
    """A board on USB that writes a reading a line, or an LD2410 radar on a UART of this machine. One table each."""

    port: str = Field(
        description="Its path; `*` may stand for a part. `/dev/serial/by-id/…` is the same in whichever socket it is.",
    )
    device_id: str = Field(description="The device it is; a board must say the same in its readings.")
    organization_id: str = Field("", description="Whose device it is; empty means `gateway.organization_id`.")
    format: Literal["lines", "ld2410"] = Field(
        "lines", description="`lines`: one JSON reading a line; `ld2410`: the frames of that radar."
    )
    baud_rate: int = Field(
        0, ge=0, le=4_000_000, description="0 takes what is usual: 115200 for `lines`, 256000 for `ld2410`."
    )
    acknowledge: bool = Field(
        default=False,
        description='`lines`: answer each reading that has a `seq` with `{"ack": seq}`, once it is on disk.',
    )
    max_line_bytes: int = Field(16_384, ge=128, le=1_000_000, description="`lines`: a longer line is thrown away.")
    heartbeat_s: float = Field(60.0, gt=0, description="`ld2410`: a reading at least so often, though nothing changes.")
    min_interval_s: float = Field(
        1.0, ge=0, description="`ld2410`: the least time between readings, unless somebody comes or goes."
    )
    dead_band_cm: int = Field(20, ge=0, description="`ld2410`: a smaller change of a distance is none.")
    lost_after_s: float = Field(5.0, gt=0, description="`ld2410`: without a frame for so long, the radar is lost.")

    @field_validator("port")
    @classmethod
    def _refuse_no_path(cls, value: str) -> str:
        if not value.startswith("/") or not is_clean_text(value):
            msg = "it must be a whole path, such as /dev/ttyUSB0 or /dev/serial/by-id/usb-*."
            raise ValueError(msg)
        return value

    @field_validator("device_id", "organization_id")
    @classmethod
    def _refuse_no_name(cls, value: str, info: ValidationInfo) -> str:
        if not is_name(value) and (value or info.field_name == "device_id"):
            msg = "it must be letters, digits and _ . : -, at most 100, and begin with a letter or digit."
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _refuse_the_other_formats_keys(self) -> Self:
        for_lines, for_radar = {"acknowledge", "max_line_bytes"}, set(_RADAR_KEYS)
        wrong = self.model_fields_set & (for_radar if self.format == "lines" else for_lines)
        if wrong:
            other = "ld2410" if self.format == "lines" else "lines"
            msg = f'{min(wrong)} is only for format = "{other}"; remove it.'
            raise ValueError(msg)
        return self

    @property
    def speed(self) -> int:
        """Bits per second."""
        return self.baud_rate or {"lines": 115_200, "ld2410": 256_000}[self.format]


_RADAR_KEYS = ("heartbeat_s", "min_interval_s", "dead_band_cm", "lost_after_s")


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
