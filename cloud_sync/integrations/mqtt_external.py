"""A long-lived connection to a customer's own MQTT broker: what is published there becomes readings.

It is what `mqtt` is, with the names of the platform's documents, and only listens. A message is acknowledged to the
broker when it is on disk, and the client id stays the same, so nothing is lost that the broker keeps for us while we
are away. A V-Mark hub gets its `{"result": 0}` when its report is stored.
"""

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from cloud_sync.contract import Hearing, Inbox, Integration, Ok, Outcome, Receives, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt import Mqtt
from cloud_sync.integrations.mqtt_client.broker_config import BrokerConfig
from cloud_sync.integrations.mqtt_client.config import STABLE_NAME, MqttConfig
from gateway.clock import Clock
from gateway.model.finding import Finding

_NAMES = {
    "broker_url": "brokerUrl",
    "use_tls": "useTls",
    "client_id": "clientId",
    "payload_parser": "payloadParser",
}
"""What settings are called by `mqtt`, and here."""
_ELSEWHERE = {"type", "device_id", "speaks_for_others"}


class MqttExternal(Integration, Receives, Tests):
    """Listen at a customer's own MQTT broker: what is published there becomes readings."""

    type = "mqtt_external"

    class Config(BrokerConfig):
        """Settings of a customer's broker."""

        model_config = ConfigDict(alias_generator=lambda name: _NAMES.get(name, name))

        leads_by: ClassVar[tuple[str, ...]] = ("brokerUrl", "useTls", "proxy", "ca")

        client_id: str = Field(
            STABLE_NAME,
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
        device_id: str | None = Field(
            None,
            alias="deviceId",
            min_length=1,
            max_length=100,
            description="The device whose connection this is, and that alone speaks by it: when it moves to another "
            "organisation, this moves along.",
        )
        speaks_for_others: bool = Field(
            default=True,
            alias="speaksForOthers",
            description="Whether the device of `deviceId`, if it is a V-Mark hub, speaks for the devices that its "
            "reports name. Its move to another organisation sets this to false: there it could name any device.",
        )

        @model_validator(mode="after")
        def _are_good(self) -> Self:
            try:
                self.of_mqtt()
            except ValidationError as error:
                found = [one["msg"].removeprefix("Value error, ") for one in error.errors(include_url=False)]
                raise ValueError(_as_called_here(" ".join(found))) from None
            return self

        def of_mqtt(self) -> MqttConfig:
            """Return the same as settings of `mqtt`. Raises ValidationError."""
            given = {name: getattr(self, name) for name in self.model_fields_set - _ELSEWHERE}
            topics = ",".join(self.topics)
            return MqttConfig.model_validate(given | {"type": "mqtt", "client_id": self.client_id, "topics": topics})

        def claims(self, gateway_id: str) -> tuple[str, ...]:
            """Return which client of which broker it is."""
            at, name = (mqtt := self.of_mqtt()).address, mqtt.listens_as(gateway_id)
            return (f"the client {name} of {at.host.lower()}:{at.port}",)

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._mqtt = Mqtt(config.of_mqtt(), clock, egress)
        speaks_for_others, heard = config.speaks_for_others, self._mqtt.hears()
        self._heard = replace(heard, device_id=config.device_id, speaks_for_others=speaks_for_others)

    def hears(self) -> Hearing:
        """Return what it listens to."""
        return self._heard

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
