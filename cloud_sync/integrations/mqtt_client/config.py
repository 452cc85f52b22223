"""Settings of `mqtt`, and what they mean: where it connects, as which client, and what cannot be meant."""

import secrets
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cloud_sync.integrations.http.line import Line
from cloud_sync.integrations.mqtt_client.address import Address, address_of
from cloud_sync.integrations.mqtt_client.broker_config import BrokerConfig
from cloud_sync.integrations.mqtt_client.connection import Broker
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Login
from cloud_sync.integrations.mqtt_client.properties import LONGEST_TEXT
from cloud_sync.payload.template import PayloadTemplate, Template
from cloud_sync.payload.topic_template import READING_FIELDS, TopicTemplate
from gateway.model.topics import is_topic_filter, matches

STABLE_NAME = "neurogate-{gateway_id}-{integration_id}"
"""The client id of one that listens, if it has no other."""
FIELDS = (*READING_FIELDS, "sensor")
"""Of `topic`."""
_LEVELS = {"3.1.1": MQTT_311, "5": MQTT_5}


class MqttConfig(BrokerConfig):
    """Settings of `mqtt`."""

    leads_by: ClassVar[tuple[str, ...]] = ("broker_url", "protocol", "use_tls", "proxy", "ca")

    protocol: Literal["mqtt", "mqtts", "ws", "wss"] | None = Field(
        None, description="How it is spoken to; by default what `broker_url` begins with, else `mqtt`."
    )
    client_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What it knows us as; by default a name of chance, and always the same where `topics` are "
        "heard. Then what is published comes from this name and `-out`. No two clients of a broker may have one.",
    )
    topic: str | None = Field(
        None,
        description="Where readings are published, such as `neurogate/{organization_id}/{device_id}`; "
        "`{device_id}`, `{organization_id}`, `{gateway_id}` and `{sensor}` are filled in. With `{sensor}` each "
        "sensor of a reading has a message of its own. Without a topic no reading is forwarded.",
    )
    payload_template: PayloadTemplate = Field(
        None,
        description="A message as the receiver wants it: JSON with fields such as `{{device_id}}`; by default it "
        "is one reading, as a webhook gets it. With `$each_reading` a message holds all of a topic.",
    )
    retain: bool = Field(default=False, description="The broker keeps the last message of each topic.")
    max_message_bytes: int = Field(
        131_072, ge=1_000, le=268_435_455, description="What the broker takes as one message, at most."
    )
    in_flight_max: int = Field(
        100, ge=1, le=65_535, description="Messages on their way that it has not acknowledged, at most."
    )
    rate_limit_per_minute: int = Field(0, ge=0, description="Messages per minute; 0 lifts the limit.")
    status_topic: str | None = Field(
        None,
        description="Where it is told, retained, whether the gateway is connected; `{gateway_id}` is filled in.",
    )
    birth: str = Field('{"status":"online"}', max_length=1_000, description="What is said there when it is.")
    will: str = Field('{"status":"offline"}', max_length=1_000, description="What is said there when it is not.")
    home_assistant: bool = Field(
        default=False,
        description="A Home Assistant at this broker is told of each device whose readings are forwarded (MQTT "
        "discovery), with or without a `topic`.",
    )
    discovery_prefix: str = Field(
        "homeassistant", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Home Assistant's discovery prefix."
    )
    silent_after_s: int = Field(
        300, ge=1, description="To Home Assistant, a device of which nothing came for so long is unavailable."
    )

    @field_validator("topic")
    @classmethod
    def _can_be_published_to(cls, topic: str | None) -> str | None:
        return topic if topic is None else _published(topic, FIELDS)

    @field_validator("status_topic")
    @classmethod
    def _can_be_told(cls, status_topic: str | None) -> str | None:
        return status_topic if status_topic is None else _published(status_topic, ("gateway_id",))

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        address = self.address
        if self.password is not None and self.username is None and self.version == "3.1.1":
            raise ValueError("a password needs a username (MQTT 3.1.1, 3.1.2.9).")
        if self.password is not None and len(self.password.get_secret_value().encode()) > LONGEST_TEXT:
            raise ValueError(f"a password has at most {LONGEST_TEXT:,} bytes.")
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("a certificate needs its key: set client_cert and client_key.")
        if not address.uses_tls and (self.ca or self.client_cert):
            raise ValueError("certificates are for TLS: set protocol to mqtts or wss.")
        if not address.uses_tls and self.alpn:
            raise ValueError("alpn is said in TLS: set protocol to mqtts or wss.")
        if self.proxy is not None and address.websocket_path is not None and not address.uses_tls:
            raise ValueError("a proxy leads to mqtt, mqtts and wss; ws without TLS does not go by one.")
        if self.payload_parser == "custom" and self.mapping is None:
            raise ValueError("the parser custom needs a mapping: which device, and which sensors.")
        if self.payload_parser not in ("custom", "vmark") and self.mapping is not None:
            raise ValueError(f"the parser {self.payload_parser} takes no mapping; only custom and vmark do.")
        if self.topics:
            self.refuse_bringing_for_several("what is heard")
        self.way().tls()
        return self

    @model_validator(mode="after")
    def _does_not_go_round(self) -> Self:
        if self.topic is None or self.payload_template is None:
            return self
        template = Template(self.payload_template)
        if template.tells_ids and (self.payload_parser != "standard" or template.names_ids):
            return self
        topic = TopicTemplate(self.topic, FIELDS)
        if any(map(topic.may_match, self.topics)):
            raise ValueError(
                "what is published would come in again, and go round for ever: let topics not match topic, or "
                "payload_template hold {{reading}}, or {{id}} as `id`, by which our own readings are known."
            )
        return self

    @model_validator(mode="after")
    def _tells_home_assistant_alone(self) -> Self:
        if self.home_assistant and self.status_topic is not None:
            raise ValueError("home_assistant says itself whether the gateway is there: leave out status_topic.")
        told = ("neurogate/g/o/devices/d/state", f"{self.discovery_prefix}/device/g/config")
        if self.home_assistant and any(matches(one, heard) for heard in self.topics for one in told):
            raise ValueError("what Home Assistant is told would come in again: name topics of others.")
        return self

    @property
    def address(self) -> Address:
        """Where it is. Raises ValueError."""
        return address_of(self.broker_url, port=self.port, protocol=self.protocol, use_tls=self.use_tls)

    @property
    def takes_readings(self) -> bool:
        """Whether readings go to it."""
        return self.topic is not None or self.home_assistant

    def way(self) -> Line:
        """Return the way there."""
        key = None if self.client_key is None else self.client_key.get_secret_value()
        return self.line(client_cert=self.client_cert, client_key=key, alpn=self.alpn)

    def listens_as(self, gateway_id: str) -> str:
        """Return the client id that hears `topics`: the same after each start."""
        name = (self.client_id or STABLE_NAME).replace("{gateway_id}", gateway_id)
        return name.replace("{integration_id}", self.name)

    def claims(self, gateway_id: str) -> tuple[str, ...]:
        """Return which clients of which broker it is, as far as their names are no chance."""
        at, names = self.address, []
        if self.topics:
            names.append(self.listens_as(gateway_id))
        if self.publishes_as is not None:
            names.append(self.publishes_as)
        return tuple(f"the client {name} of {at.host.lower()}:{at.port}" for name in names)

    @property
    def publishes_as(self) -> str | None:
        """The client id that publishes; None for one of chance."""
        return f"{self.client_id}-out" if self.client_id and self.topics else self.client_id

    def broker(self, client_id: str | None, *, session_s: int = 0) -> Broker:
        """Return whom to connect to, and who we are there; without a name it is one of chance.

        The broker keeps the session for so long, as far as it listens to that.
        """
        at = self.address
        password = None if self.password is None else self.password.get_secret_value()
        login = Login(
            client_id or _by_chance(),
            self.username,
            password,
            keepalive_s=self.keepalive_s,
            is_clean=not session_s,
            session_s=session_s,
        )
        return Broker(at.host, at.port, at.uses_tls, at.websocket_path, login, _LEVELS[self.version], line=self.way())


def _published(topic: str, fields: Sequence[str]) -> str:
    """Return a template of topics. Raises ValueError for one of topics that nothing can be published to."""
    example = TopicTemplate(topic, fields).example
    if not is_topic_filter(example) or {"+", "#"} & {*example} or len(example.encode()) > LONGEST_TEXT:
        raise ValueError("it is empty, or has a wildcard or another part that no topic can have.")
    return topic


def _by_chance() -> str:
    return f"neurogate-{secrets.token_hex(6)}"
