"""Publish readings to an MQTT broker that is not the gateway's own, and receive such from it.

By TCP or WebSocket, with or without TLS, and MQTT 3.1.1 or 5. Each message is published at QoS 1: the broker has it
when it answers. By default a message is one reading as a webhook gets it; its `id` tells a repetition. What is heard is
acknowledged when it is on disk. Publishing and hearing are two clients at the broker: neither holds up the other.

Sources: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html and
https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from cloud_sync.contract import Batch, Forwards, Hearing, Inbox, Integration, Outcome, Receives, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import CertificatePem, HttpConfig, Line, PrivateKeyPem
from cloud_sync.integrations.http.server_check import reach_server
from cloud_sync.integrations.mqtt_client.address import Address, address_of
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Login, Message
from cloud_sync.integrations.mqtt_client.properties import LONGEST_TEXT, Property, Value
from cloud_sync.integrations.mqtt_client.publisher import Limits, Publisher, Status
from cloud_sync.integrations.mqtt_client.reasons import Failed
from cloud_sync.integrations.mqtt_client.receiving import Receiving
from cloud_sync.payload.home_assistant import HomeAssistantMessages, Said
from cloud_sync.payload.in_parts import Part
from cloud_sync.payload.messages import Messages
from cloud_sync.payload.template import Template
from cloud_sync.payload.topic_template import READING_FIELDS, TopicTemplate
from cloud_sync.rate_limit import RateLimit
from gateway.clock import Clock
from gateway.config.routes import Mapping
from gateway.model.finding import Finding, broken, fine
from gateway.model.home_assistant import BIRTH, OFFLINE, ONLINE
from gateway.model.secret import Secret
from gateway.model.topics import is_topic_filter, matches

_PATIENCE_S = 5.0
_SESSION_S = 30 * 24 * 3600
STABLE_NAME = "neurogate-{gateway_id}-{integration_id}"
"""The client id of one that listens, if it has no other."""
_JSON = "application/json"
_FIELDS = (*READING_FIELDS, "sensor")
_LEVELS = {"3.1.1": MQTT_311, "5": MQTT_5}


class Mqtt(Integration, Forwards, Receives, Tests):
    """Publish readings to an MQTT broker of yours, and receive such from it."""

    type = "mqtt"

    class Config(HttpConfig):
        """Settings of a broker."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("broker_url", "protocol", "use_tls", "proxy", "ca")

        broker_url: str = Field(
            min_length=1,
            max_length=500,
            description="Where it is: a name or an address, or `mqtt://`, `mqtts://`, `ws://` or `wss://` and one.",
        )
        port: int | None = Field(None, ge=1, le=65_535, description="Its port; by default what is usual.")
        protocol: Literal["mqtt", "mqtts", "ws", "wss"] | None = Field(
            None, description="How it is spoken to; by default what `broker_url` begins with, else `mqtt`."
        )
        use_tls: bool | None = Field(None, description="Speak TLS; by default as `protocol` says.")
        version: Literal["3.1.1", "5"] = Field(
            "3.1.1", description="Of MQTT. By 5 the broker says why it refuses a message."
        )
        username: str | None = Field(None, min_length=1, max_length=500, description="Who we are there.")
        password: Secret | None = Field(None, description="Its password.")
        client_id: str | None = Field(
            None,
            min_length=1,
            max_length=200,
            description="What it knows us as; by default a name of chance, and always the same where `topics` are "
            "heard. Then what is published comes from this name and `-out`. No two clients of a broker may have one.",
        )
        client_cert: CertificatePem | None = Field(
            None, description="A certificate that the broker asks for, in PEM, by `${file:…}`."
        )
        client_key: PrivateKeyPem | None = Field(None, description="The private key of that certificate, in PEM.")
        keepalive_s: int = Field(
            60, ge=5, le=65_535, description="A broker that is silent for half as long again is gone."
        )
        topic: str | None = Field(
            None,
            description="Where readings are published, such as `neurogate/{organization_id}/{device_id}`; "
            "`{device_id}`, `{organization_id}`, `{gateway_id}` and `{sensor}` are filled in. With `{sensor}` each "
            "sensor of a reading has a message of its own. Without a topic no reading is forwarded.",
        )
        payload_template: JsonValue = Field(
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
        topics: tuple[str, ...] = Field(
            (),
            max_length=100,
            description="Topic filters to hear, a list or a text with commas: what comes there becomes readings.",
        )
        payload_parser: Literal["standard", "vmark", "senml", "custom"] = Field(
            "standard",
            description="What reads that: our own payload, a V-Mark hub's reports, SenML, or what `mapping` says.",
        )
        mapping: Mapping | None = Field(
            None,
            description="What becomes which field, as in `[ingest.routes.mapping]`: for `custom`, and for `vmark` "
            "where reports look otherwise.",
        )
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

        @field_validator("topic")
        @classmethod
        def _can_be_published_to(cls, topic: str | None) -> str | None:
            return topic if topic is None else _published(topic, _FIELDS)

        @field_validator("status_topic")
        @classmethod
        def _can_be_told(cls, status_topic: str | None) -> str | None:
            return status_topic if status_topic is None else _published(status_topic, ("gateway_id",))

        @field_validator("payload_template")
        @classmethod
        def _is_a_template(cls, template: JsonValue) -> JsonValue:
            if template is not None:
                Template(template)
            return template

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
            if self.proxy is not None and address.websocket_path is not None and not address.uses_tls:
                raise ValueError("a proxy leads to mqtt, mqtts and wss; ws without TLS does not go by one.")
            if self.payload_parser == "custom" and self.mapping is None:
                raise ValueError("the parser custom needs a mapping: which device, and which sensors.")
            if self.payload_parser not in ("custom", "vmark") and self.mapping is not None:
                raise ValueError(f"the parser {self.payload_parser} takes no mapping; only custom and vmark do.")
            if self.topics and len(self.organizations) > 1:
                raise ValueError("what is heard belongs to one organisation: name no more than one in organizations.")
            self.way().tls()
            return self

        @model_validator(mode="after")
        def _does_not_go_round(self) -> Self:
            if self.topic is None or self.payload_template is None or Template(self.payload_template).tells_ids:
                return self
            topic = TopicTemplate(self.topic, _FIELDS)
            if any(map(topic.may_match, self.topics)):
                raise ValueError(
                    "what is published would come in again, and go round for ever: let topics not match topic, or "
                    "payload_template hold {{id}} or {{reading}}, by which our own readings are known."
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
            return self.line(client_cert=self.client_cert, client_key=key)

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
            return Broker(
                at.host, at.port, at.uses_tls, at.websocket_path, login, _LEVELS[self.version], line=self.way()
            )

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        topic = TopicTemplate(config.topic or "x", _FIELDS)
        template = None if config.payload_template is None else Template(config.payload_template)
        self._messages = Messages(topic, template, config.max_message_bytes)
        self._receiving: Receiving | None = None
        self._home_assistant: _HomeAssistant | None = None
        if config.home_assistant:
            messages = HomeAssistantMessages(config.discovery_prefix, config.silent_after_s)
            self._home_assistant = _HomeAssistant(messages, clock)
        self._publisher = Publisher(
            config.broker(config.publishes_as),
            egress,
            RateLimit(clock, asyncio.sleep, per_minute=config.rate_limit_per_minute),
            Limits(config.timeout_s, config.in_flight_max, config.max_message_bytes),
            retain=config.retain,
            one_topic=not topic.has("device_id", "organization_id", "sensor"),
            beside=self._home_assistant,
        )

    async def __aexit__(self, *exc: object) -> None:
        """Say that we go, and close the connection."""
        await self._publisher.close()

    def encode(self, batch: Batch) -> bytes:
        """Return the messages, a line each."""
        return b"" if self._config.topic is None else self._messages.encode(batch)

    async def send(self, batch: Batch, body: bytes) -> Outcome:
        """Publish what the broker does not have yet, and classify what it says."""

        def told(part: Part) -> Sequence[tuple[Property, Value]]:
            said: list[tuple[Property, Value]] = [(Property.CONTENT_TYPE, _JSON)]
            if len(part.rows) == 1:
                reading_id = f"{batch.gateway_id}:{batch.log_uuid}:{part.rows[0]}"
                said.append((Property.USER, ("id", reading_id)))
            return said

        if self._home_assistant is not None:
            self._home_assistant.messages.take(batch)
        parts = [] if self._config.topic is None else self._messages.of(batch, body)
        return await self._publisher.send(parts, told, self._status(batch.gateway_id))

    def _status(self, gateway_id: str) -> Status | None:
        config = self._config
        if config.home_assistant:
            return Status(HomeAssistantMessages.status_topic(gateway_id), ONLINE.encode(), OFFLINE.encode())
        if config.status_topic is None:
            return None
        topic = config.status_topic.replace("{gateway_id}", gateway_id)
        return Status(topic, config.birth.encode(), config.will.encode())

    def hears(self) -> Hearing:
        """Return what it listens to."""
        return Hearing(self._config.topics, self._config.payload_parser, self._config.mapping)

    async def receive(self, inbox: Inbox) -> Outcome:
        """Connect once, hand in what comes, and return why that has ended."""
        config = self._config
        if self._receiving is None:
            broker = config.broker(config.listens_as(inbox.gateway_id), session_s=_SESSION_S)
            self._receiving = Receiving(broker, config.topics, self.egress, timeout_s=config.timeout_s)
        return await self._receiving.receive(inbox)

    async def check(self) -> list[Finding]:
        """Log in as the settings say, subscribe to the topics, and leave."""
        config, patience_s = self._config, min(_PATIENCE_S, self._config.timeout_s)
        reached = await reach_server(config.address.url, config.way(), self.egress, self.clock)
        if not reached.is_connected:
            return reached.findings
        # Never under the real name: the broker would end the connection that is there under it.
        name = f"{config.listens_as('trial') if config.client_id else 'neurogate'}-test-{secrets.token_hex(3)}"
        births = [] if self._home_assistant is None else self._home_assistant.filters
        heard = [*config.topics, *births]
        try:
            connection = await open_connection(config.broker(name), self.egress, timeout_s=patience_s)
            try:
                async with asyncio.timeout(patience_s):
                    answers = await connection.subscribe(heard) if heard else []
            finally:
                await connection.aclose()
        except TimeoutError:
            return [*reached.findings, broken("It lets us in, and then it does not answer.", "See its own log.")]
        except Failed as error:
            return [*reached.findings, broken(f"{error.reason[0].upper()}{error.reason[1:]}.", error.hint)]
        refused = [one for one, answer in zip(heard, answers, strict=True) if answer.is_refusal]
        found = [
            broken(f"It does not let us hear {one}.", "Correct its rights, or what is to be heard.") for one in refused
        ]
        words = " and hear the topics" if heard else ""
        return [*reached.findings, *(found or [fine(f"It lets us in{words}.")])]


class _HomeAssistant:
    """What a Home Assistant at the broker is told: everything, when it has come or we have."""

    def __init__(self, messages: HomeAssistantMessages, clock: Clock) -> None:
        self.messages = messages
        self._clock = clock

    @property
    def filters(self) -> Sequence[str]:
        return self.messages.births

    def due(self, heard: Sequence[Message], *, is_new: bool) -> Sequence[Said]:
        if is_new or any(one.payload == BIRTH for one in heard):
            self.messages.again()
        return list(self.messages.due(self._clock.now_ms()))

    def told(self) -> None:
        self.messages.told()


def _published(topic: str, fields: Sequence[str]) -> str:
    """Return a template of topics. Raises ValueError for one of topics that nothing can be published to."""
    example = TopicTemplate(topic, fields).example
    if not is_topic_filter(example) or {"+", "#"} & {*example} or len(example.encode()) > LONGEST_TEXT:
        raise ValueError("it is empty, or has a wildcard or another part that no topic can have.")
    return topic


def _by_chance() -> str:
    return f"neurogate-{secrets.token_hex(6)}"
