"""A long-lived connection to a customer's own MQTT broker: what is published there becomes readings.

Its settings are as the platform's documents call them. A message is acknowledged to the broker when it is on disk, and
the client id stays the same, so nothing is lost that the broker keeps for us while we are away. A V-Mark hub gets its
`{"result": 0}` when its report is stored. It forwards nothing: that is the integration `mqtt`.
"""

import secrets
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from cloud_sync.contract import Hearing, Inbox, Integration, Ok, Outcome, Receives, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import HttpConfig, certificate_pem, private_key_pem
from cloud_sync.integrations.http.reach import reach
from cloud_sync.integrations.mqtt_client.address import Address, address_of
from cloud_sync.integrations.mqtt_client.connection import Broker, open_connection
from cloud_sync.integrations.mqtt_client.filters import checked_filters, listed
from cloud_sync.integrations.mqtt_client.packets import MQTT_5, MQTT_311, Login
from cloud_sync.integrations.mqtt_client.reasons import Failed
from cloud_sync.integrations.mqtt_client.receiving import Receiving
from gateway.clock import Clock
from gateway.config.routes import Mapping
from gateway.model.finding import Finding, broken, fine
from gateway.model.secret import Secret

_PATIENCE_S = 10.0
_SESSION_S = 30 * 24 * 3600
_FIELDS = ("{gateway_id}", "{integration_id}")
_NAMES = {"broker_url": "brokerUrl", "use_tls": "useTls", "client_id": "clientId"}
"""What the client calls settings, and how they are called here."""


class MqttExternal(Integration, Receives, Tests):
    """Listen at a customer's own MQTT broker: what is published there becomes readings."""

    type = "mqtt_external"

    class Config(HttpConfig):
        """Settings of a customer's broker."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("brokerUrl", "port", "useTls", "proxy", "ca")

        broker_url: str = Field(
            alias="brokerUrl",
            min_length=1,
            max_length=500,
            description="Where it is: a name or an address, or `mqtt://`, `mqtts://`, `ws://` or `wss://` and one.",
        )
        port: int | None = Field(None, ge=1, le=65_535, description="Its port; by default what is usual.")
        use_tls: bool | None = Field(None, alias="useTls", description="Speak TLS; by default as `brokerUrl` begins.")
        version: Literal["3.1.1", "5"] = Field("3.1.1", description="Which MQTT is spoken.")
        username: str | None = Field(None, min_length=1, max_length=500, description="Who we are there.")
        password: Secret | None = Field(None, description="Its password.")
        client_cert: str | None = Field(
            None, description="A certificate of ours, where the broker asks for one, in PEM, by `${file:…}`."
        )
        client_key: Secret | None = Field(None, description="The private key of that certificate, in PEM.")
        client_id: str = Field(
            "neurogate-{gateway_id}-{integration_id}",
            alias="clientId",
            min_length=1,
            max_length=200,
            description="What it knows us as, always the same: by it, it keeps what comes while we are away. No two "
            "clients of a broker may have one; `{gateway_id}` and `{integration_id}` are filled in.",
        )
        topics: tuple[str, ...] = Field(
            min_length=1,
            max_length=100,
            description="Topic filters to hear: a list, or a text with commas; `#` does not match `$…`.",
        )
        payload_parser: Literal["standard", "vmark", "custom"] = Field(
            "standard",
            alias="payloadParser",
            description="What reads the messages: our own payload, a V-Mark hub's reports, or what `mapping` says.",
        )
        mapping: Mapping | None = Field(
            None,
            description="What becomes which field, as in `[ingest.routes.mapping]`: for `custom`, and for `vmark` "
            "where reports look otherwise.",
        )
        device_id: str | None = Field(
            None,
            alias="deviceId",
            min_length=1,
            max_length=100,
            description="The device whose connection this is: when it moves to another organisation, this moves along.",
        )

        @field_validator("topics", mode="before")
        @classmethod
        def _list_or_text(cls, topics: Any) -> Any:  # noqa: ANN401 - what stands in the file
            return listed(topics)

        @field_validator("topics")
        @classmethod
        def _are_filters(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
            return checked_filters(topics)

        @field_validator("client_cert")
        @classmethod
        def _is_certificate(cls, text: str | None) -> str | None:
            return None if text is None else certificate_pem(text)

        @field_validator("client_key")
        @classmethod
        def _is_key(cls, secret: Secret | None) -> Secret | None:
            return None if secret is None else private_key_pem(secret)

        @model_validator(mode="after")
        def _fits_together(self) -> Self:
            _ = self.address
            if self.password is not None and self.username is None:
                raise ValueError("a password needs a username.")
            if (self.client_cert is None) != (self.client_key is None):
                raise ValueError("client_cert and client_key belong together.")
            if (self.payload_parser == "custom") and self.mapping is None:
                raise ValueError("the parser custom needs a mapping: which device, and which sensors.")
            if self.payload_parser == "standard" and self.mapping is not None:
                raise ValueError("the parser standard takes no mapping; only custom and vmark do.")
            if len(self.organizations) > 1:
                raise ValueError("what comes belongs to one organisation: name one in organizations.")
            return self

        @property
        def address(self) -> Address:
            """Where it is. Raises ValueError."""
            try:
                return address_of(self.broker_url, port=self.port, protocol=None, use_tls=self.use_tls)
            except ValueError as error:
                raise ValueError(_as_called_here(str(error))) from None

        def client_of(self, gateway_id: str) -> str:
            """Return the client id."""
            name = self.client_id
            for field, value in zip(_FIELDS, (gateway_id, self.name), strict=True):
                name = name.replace(field, value)
            return name

        def claim(self, gateway_id: str) -> str:
            """Return which client of which broker it is."""
            at = self.address
            return f"the client {self.client_of(gateway_id)} of {at.host.lower()}:{at.port}"

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config
        self._receiving: Receiving | None = None

    def hears(self) -> Hearing:
        """Return what it listens to."""
        return Hearing(self._config.topics, self._config.payload_parser, self._config.mapping)

    async def receive(self, inbox: Inbox) -> Outcome:
        """Connect once, hand in what comes, and return why that has ended."""
        config = self._config
        if self._receiving is None:
            broker = self._broker(config.client_of(inbox.gateway_id), is_clean=False)
            self._receiving = Receiving(broker, config.topics, self.egress, timeout_s=config.timeout_s)
        outcome = await self._receiving.receive(inbox)
        return outcome if isinstance(outcome, Ok) else replace(outcome, reason=_as_called_here(outcome.reason))

    async def check(self) -> list[Finding]:
        """Log in as the settings say, subscribe to the topics, and leave."""
        at, config = self._config.address, self._config
        findings: list[Finding] = []
        if config.proxy is None:
            tls = config.line(**self._identity()).tls()
            reached = await reach(at.host, at.port, self.egress, self.clock, uses_tls=at.uses_tls, tls=tls)
            findings = reached.findings
            if not reached.is_connected:
                return findings
        # Never under the real name: the broker would end the connection that is there under it.
        broker = self._broker(f"{config.client_of('test')[:60]}-test-{secrets.token_hex(3)}", is_clean=True)
        patience_s = min(_PATIENCE_S, config.timeout_s)
        try:
            async with aclosing(await open_connection(broker, self.egress, timeout_s=patience_s)) as connection:
                answers = await connection.subscribe(config.topics)
        except Failed as error:
            return [*findings, broken(f"{error.reason[:1].upper()}{error.reason[1:]}.", _as_called_here(error.hint))]
        refused = [topic for topic, answer in zip(config.topics, answers, strict=True) if answer.is_refusal]
        words = "Correct `topics`, or our rights there."
        found = [broken(f"It does not let us hear {topic}.", words) for topic in refused]
        return [*findings, *(found or [fine("It lets us in and hear the topics.")])]

    def _broker(self, client_id: str, *, is_clean: bool) -> Broker:
        config, at = self._config, self._config.address
        password = None if config.password is None else config.password.get_secret_value()
        login = Login(client_id, config.username, password, is_clean=is_clean, session_s=_SESSION_S)
        level = MQTT_5 if config.version == "5" else MQTT_311
        line = config.line(**self._identity())
        return Broker(at.host, at.port, at.uses_tls, at.websocket_path, login, level, line)

    def _identity(self) -> dict[str, str | None]:
        key = self._config.client_key
        return {"client_cert": self._config.client_cert, "client_key": None if key is None else key.get_secret_value()}


def _as_called_here(words: str) -> str:
    for theirs, ours in _NAMES.items():
        words = words.replace(theirs, ours)
    return words
