"""Publish readings to an MQTT broker that is not the gateway's own, and receive such from it.

By TCP or WebSocket, with or without TLS, and MQTT 3.1.1 or 5. Each message is published at QoS 1: the broker has it
when it answers. By default a message is one reading as a webhook gets it; its `id` tells a repetition. What is heard is
acknowledged when it is on disk. Publishing and hearing are two clients at the broker: neither holds up the other.

Sources: https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html and
https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence

from cloud_sync.contract import Batch, Forwards, Hearing, Inbox, Integration, Outcome, Receives, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.server_check import reach_server
from cloud_sync.integrations.mqtt_client.config import FIELDS, MqttConfig
from cloud_sync.integrations.mqtt_client.connection import open_connection
from cloud_sync.integrations.mqtt_client.kept_connection import Status
from cloud_sync.integrations.mqtt_client.packets import Message
from cloud_sync.integrations.mqtt_client.properties import Properties, Property, Value
from cloud_sync.integrations.mqtt_client.publisher import Limits, Publisher
from cloud_sync.integrations.mqtt_client.reasons import Failed
from cloud_sync.integrations.mqtt_client.receiving import Receiving
from cloud_sync.payload.home_assistant import HomeAssistantMessages, Said
from cloud_sync.payload.in_parts import Part
from cloud_sync.payload.messages import Messages
from cloud_sync.payload.template import Template
from cloud_sync.payload.topic_template import TopicTemplate
from cloud_sync.rate_limit import RateLimit
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine
from gateway.model.home_assistant import BIRTH, OFFLINE, ONLINE

_PATIENCE_S = 5.0
_SESSION_S = 30 * 24 * 3600
_JSON = "application/json"


class Mqtt(Integration, Forwards, Receives, Tests):
    """Publish readings to an MQTT broker of yours, and receive such from it."""

    type = "mqtt"
    Config = MqttConfig

    def __init__(self, config: MqttConfig, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        topic = TopicTemplate(config.topic or "x", FIELDS)
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
                if lacking := [*_lacking(connection.properties, config, heard)]:
                    return [*reached.findings, *lacking]
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


def _lacking(said: Properties, config: MqttConfig, heard: Sequence[str]) -> Iterator[Finding]:
    """Yield what a broker of MQTT 5 says that it cannot do (3.2.2.3), and we need."""
    if config.takes_readings and not said.number(Property.MAXIMUM_QOS, 1):
        yield broken("It does not support QoS 1.", "Readings need QoS 1: use another broker.")
    if not said.number(Property.RETAIN_AVAILABLE, 1):
        asked = {"retain": config.retain, "status_topic": config.status_topic, "home_assistant": config.home_assistant}
        if names := [f"`{name}`" for name, value in asked.items() if value]:
            yield broken("It retains nothing.", f"Leave out {' and '.join(names)}, or use another broker.")
    if any({"+", "#"} & {*one} for one in heard) and not said.number(Property.WILDCARDS_AVAILABLE, 1):
        yield broken("It takes no topic filter with a wildcard.", "Name whole topics in `topics`.")


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
