"""Settings of another's broker that all have who hear or publish there."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from cloud_sync.integrations.http.line import CertificatePem, HttpConfig, PrivateKeyPem
from gateway.config.routes import Mapping
from gateway.model.secret import Secret
from gateway.model.topics import is_topic_filter

_LONGEST_PROTOCOL = 255  # bytes (RFC 7301, 3.1)


class BrokerConfig(HttpConfig):
    """Where it is, who we are there, and what is heard. What goes together is for `MqttConfig` to say."""

    model_config = ConfigDict(hide_input_in_errors=True)

    broker_url: str = Field(
        min_length=1,
        max_length=500,
        description="Where it is: a name or an address, or `mqtt://`, `mqtts://`, `ws://` or `wss://` and one.",
    )
    port: int | None = Field(None, ge=1, le=65_535, description="Its port; by default what is usual.")
    use_tls: bool | None = Field(None, description="Speak TLS; by default what the protocol says.")
    version: Literal["3.1.1", "5"] = Field(
        "3.1.1",
        description="Of MQTT. By 5 the broker says why it refuses something, and may send more ahead of what is "
        "acknowledged.",
    )
    username: str | None = Field(None, min_length=1, max_length=500, description="Who we are there.")
    password: Secret | None = Field(None, description="Its password.")
    client_cert: CertificatePem | None = Field(
        None, description="A certificate that the broker asks for, in PEM, by `${file:…}`."
    )
    client_key: PrivateKeyPem | None = Field(None, description="The private key of that certificate, in PEM.")
    alpn: tuple[str, ...] = Field(
        (),
        max_length=10,
        description="What TLS says is spoken in it (ALPN, RFC 7301), a name or a list, where a server tells by that: "
        "AWS IoT on port 443 wants `x-amzn-mqtt-ca` with a certificate, and `mqtt` with a custom authorizer.",
    )
    keepalive_s: int = Field(60, ge=5, le=65_535, description="A broker that is silent for half as long again is gone.")
    topics: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="Topic filters to hear, a list or a text with commas: what comes there becomes readings.",
    )
    payload_parser: Literal["standard", "vmark", "senml", "custom"] = Field(
        "standard",
        description="What reads messages: our own payload, a V-Mark hub's reports, SenML, or what `mapping` says.",
    )
    mapping: Mapping | None = Field(
        None,
        description="What becomes which field, as in `[ingest.routes.mapping]`: for `custom`, and for `vmark` "
        "where reports look otherwise.",
    )

    @field_validator("username", "client_id", check_fields=False)
    @classmethod
    def _can_be_sent(cls, text: str | None) -> str | None:
        if text is not None and "\0" in text:
            raise ValueError("no text of MQTT holds a NUL (3.1.1, 1.5.3).")
        return text

    @field_validator("alpn", mode="before")
    @classmethod
    def _list_or_name(cls, alpn: Any) -> Any:  # noqa: ANN401 - what stands in the file
        return [alpn] if isinstance(alpn, str) else alpn or ()

    @field_validator("alpn")
    @classmethod
    def _are_protocols(cls, alpn: tuple[str, ...]) -> tuple[str, ...]:
        for one in alpn:
            if not one.isascii() or not 1 <= len(one) <= _LONGEST_PROTOCOL:
                raise ValueError(f"{one[:100]!r} is no protocol: 1 to {_LONGEST_PROTOCOL} characters of ASCII.")
        return alpn

    @field_validator("topics", mode="before")
    @classmethod
    def _list_or_text(cls, topics: Any) -> Any:  # noqa: ANN401 - what stands in the file
        return [one.strip() for one in topics.split(",")] if isinstance(topics, str) else topics or ()

    @field_validator("topics")
    @classmethod
    def _are_filters(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for one in topics:
            if not is_topic_filter(one):
                raise ValueError(f"{one[:100]!r} is no topic filter.")
        return topics
