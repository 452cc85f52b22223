"""The settings of what listens: MQTT, HTTP, and TLS over either.

Its ports, and how much of the gateway one client may take.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from gateway.config.hosts import is_address, is_host_name, is_network
from gateway.config.section import Port, Section, Texts
from gateway.model.secret import Secret

_JWT_SECRET_BYTES = 32  # as long as what HS256 makes of it (RFC 7518, 3.2)


class MqttSettings(Section):
    """The MQTT broker that the sensors talk to."""

    host: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - sensors come from the network
    port: Port = Field(1883, description="Port to listen on; 0 takes any free one.")
    tls_port: Port = Field(8883, description="Port for MQTT over TLS; 0 opens none. Taken and not set: a notice.")
    websocket_port: Port = Field(
        9001, description="Port for MQTT over WebSocket; 0 opens none. `/mqtt` on the HTTP port stays."
    )
    websocket_tls_port: Port = Field(
        0,
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
    port: Port = Field(8080, description="Port to listen on; 0 takes any free one.")
    tls_port: Port = Field(
        8443,
        description="Port for HTTPS, with all that `http.port` has; 0 opens none. Taken and not set: a notice.",
    )
    websocket_port: Port = Field(0, description="A port for `/ws` alone, beside `http.port`; 0 opens none.")
    metrics_port: Port = Field(
        0, description="A port for `/metrics` and health alone, beside `http.port`; 0 opens none."
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
            if not is_network(network, strict=False):
                msg = f"{network!r} is neither an address nor a network."
                raise ValueError(msg)
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
            if not is_host_name(name) and not is_address(name):
                msg = f"{name} is no host name or address; write them like gateway.example.com or 10.1.0.2."
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _refuse_half_a_pair(self) -> Self:
        if self.key_file and not self.certificate_file:
            msg = "key_file needs certificate_file."
            raise ValueError(msg)
        return self
