"""A long-lived connection to a customer's own MQTT broker: what is published there becomes readings.

It is what `mqtt` is, with the names of the platform's documents, and only listens. A message is acknowledged to the
broker when it is on disk, and the client id stays the same, so nothing is lost that the broker keeps for us while we
are away. A V-Mark hub gets its `{"result": 0}` when its report is stored.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from cloud_sync.contract import Hearing, Inbox, Integration, Ok, Outcome, Receives, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.line import CertificatePem, HttpConfig, PrivateKeyPem
from cloud_sync.integrations.mqtt import STABLE_NAME, Mqtt
from gateway.clock import Clock
from gateway.config.routes import Mapping
from gateway.model.finding import Finding
from gateway.model.secret import Secret

_NAMES = {
    "broker_url": "brokerUrl",
    "use_tls": "useTls",
    "client_id": "clientId",
    "payload_parser": "payloadParser",
}
"""What settings are called by `mqtt`, and here."""
_ELSEWHERE = {"type", "device_id"}


class MqttExternal(Integration, Receives, Tests):
    """Listen at a customer's own MQTT broker: what is published there becomes readings."""

    type = "mqtt_external"

    class Config(HttpConfig):
        """Settings of a customer's broker."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("brokerUrl", "useTls", "proxy", "ca")

        broker_url: str = Field(
            alias="brokerUrl",
            min_length=1,
            max_length=500,
            description="Where it is: a name or an address, or `mqtt://`, `mqtts://`, `ws://` or `wss://` and one.",
        )
        port: int | None = Field(None, ge=1, le=65_535, description="Its port; by default what is usual.")
        use_tls: bool | None = Field(None, alias="useTls", description="Speak TLS; by default as `brokerUrl` begins.")
        version: Literal["3.1.1", "5"] = Field(
            "3.1.1", description="Of MQTT. By 5 the broker may send more ahead of what is acknowledged: it is faster."
        )
        username: str | None = Field(None, min_length=1, max_length=500, description="Who we are there.")
        password: Secret | None = Field(None, description="Its password.")
        client_cert: CertificatePem | None = Field(
            None, description="A certificate that the broker asks for, in PEM, by `${file:…}`."
        )
        client_key: PrivateKeyPem | None = Field(None, description="The private key of that certificate, in PEM.")
        keepalive_s: int = Field(
            60, ge=5, le=65_535, description="A broker that is silent for half as long again is gone."
        )
        client_id: str = Field(
            STABLE_NAME,
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
        payload_parser: Literal["standard", "vmark", "senml", "custom"] = Field(
            "standard",
            alias="payloadParser",
            description="What reads messages: our own payload, a V-Mark hub's reports, SenML, or what `mapping` says.",
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
            return topics.split(",") if isinstance(topics, str) else topics

        @model_validator(mode="after")
        def _are_good(self) -> Self:
            try:
                self.of_mqtt()
            except ValidationError as error:
                found = [one["msg"].removeprefix("Value error, ") for one in error.errors(include_url=False)]
                raise ValueError(_as_called_here(" ".join(found))) from None
            return self

        def of_mqtt(self) -> Mqtt.Config:
            """Return the same as settings of `mqtt`. Raises ValidationError."""
            given = {name: getattr(self, name) for name in self.model_fields_set - _ELSEWHERE}
            topics = ",".join(self.topics)
            return Mqtt.Config.model_validate(given | {"type": "mqtt", "client_id": self.client_id, "topics": topics})

        def claims(self, gateway_id: str) -> tuple[str, ...]:
            """Return which client of which broker it is."""
            at, name = (mqtt := self.of_mqtt()).address, mqtt.listens_as(gateway_id)
            return (f"the client {name} of {at.host.lower()}:{at.port}",)

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._mqtt = Mqtt(config.of_mqtt(), clock, egress)

    def hears(self) -> Hearing:
        """Return what it listens to."""
        return self._mqtt.hears()

    async def receive(self, inbox: Inbox) -> Outcome:
        """Connect once, hand in what comes, and return why that has ended."""
        outcome = await self._mqtt.receive(inbox)
        return outcome if isinstance(outcome, Ok) else replace(outcome, reason=_as_called_here(outcome.reason))

    async def check(self) -> list[Finding]:
        """Log in as the settings say, subscribe to the topics, and leave."""
        return [replace(one, hint=_as_called_here(one.hint)) for one in await self._mqtt.check()]


def _as_called_here(words: str) -> str:
    for theirs, ours in _NAMES.items():
        words = words.replace(theirs, ours)
    return words
