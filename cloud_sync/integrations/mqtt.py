"""An MQTT broker that is not the gateway's own: where it is, and whether it would let us in.

Its settings are as the platform's documents call them. That it forwards or reads is not built yet: `check` logs in and
subscribes, and that is all there is.
"""

import asyncio
import re
import secrets
import ssl
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import aiohttp
from pydantic import ConfigDict, Field, field_validator, model_validator
from yarl import URL

from cloud_sync.contract import Integration, IntegrationConfig, Tests
from cloud_sync.egress import Egress
from cloud_sync.integrations.http.reach import reach
from cloud_sync.integrations.mqtt_client.login import Broker, NoMqtt, Refused, log_in
from gateway.clock import Clock
from gateway.model.finding import Finding, broken, fine
from gateway.model.secret import Secret
from gateway.model.topics import is_topic_filter

_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_PATIENCE_S = 5.0
_REFUSALS = {
    1: ("It does not speak MQTT 3.1.1.", "Is it a broker for MQTT 5 only? That is not spoken yet."),
    2: ("It refuses the client id.", "Set another `client_id`, or leave it out."),
    3: ("It says that it is not available.", "See the broker's own log."),
    4: ("It refuses the username or the password.", "Correct `username` and `password`."),
    5: ("It does not let us in.", "Set `username` and `password`, or look at what they may at the broker."),
}


@dataclass(slots=True, frozen=True)
class Address:
    """Where a broker is."""

    host: str
    port: int
    uses_tls: bool
    websocket_path: str | None


class Mqtt(Integration, Tests):
    """An MQTT broker of yours. So far it can be tested; it neither forwards nor reads yet."""

    type = "mqtt"

    class Config(IntegrationConfig):
        """Settings of a broker."""

        model_config = ConfigDict(hide_input_in_errors=True)

        leads_by: ClassVar[tuple[str, ...]] = ("broker_url", "protocol", "use_tls")

        broker_url: str = Field(
            min_length=1,
            max_length=500,
            description="Where it is: a name or an address, or `mqtt://`, `mqtts://`, `ws://` or `wss://` and one.",
        )
        port: int | None = Field(None, ge=1, le=65_535, description="Its port; by default what is usual.")
        protocol: Literal["mqtt", "mqtts", "ws", "wss"] | None = Field(
            None, description="How it is spoken to; by default what `broker_url` begins with, else `mqtt`."
        )
        username: str | None = Field(None, min_length=1, max_length=500, description="Who we are there.")
        password: Secret | None = Field(None, description="Its password.")
        client_id: str | None = Field(
            None, min_length=1, max_length=200, description="What it knows us as; by default a name of chance."
        )
        use_tls: bool | None = Field(None, description="Speak TLS; by default as `protocol` says.")
        topics: tuple[str, ...] = Field((), description="Topic filters to hear: a list, or a text with commas.")

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

        @model_validator(mode="after")
        def _leads_somewhere(self) -> Self:
            _ = self.address
            if self.password is not None and self.username is None:
                raise ValueError("a password needs a username (MQTT 3.1.1, 3.1.2.9).")
            return self

        @property
        def address(self) -> Address:
            """Where it is. Raises ValueError."""
            scheme, mark, rest = self.broker_url.partition("://")
            if not mark:
                scheme, rest = "", self.broker_url
            url = URL(f"mqtt://{rest}")
            if url.user or url.password:
                raise ValueError("broker_url contains credentials: use username and password.")
            if not url.host or not re.fullmatch(r"[^\s/?#@\[\]]+", url.host):
                raise ValueError("broker_url names no host.")
            protocol = _one("protocol", scheme.lower() or None, self.protocol) or "mqtt"
            if protocol not in _PORTS:
                raise ValueError(f"broker_url begins with {protocol[:20]}://, not {', '.join(_PORTS)}.")
            uses_tls = protocol in ("mqtts", "wss")
            if uses_tls and self.use_tls is False:
                raise ValueError(f"{protocol} speaks TLS, and use_tls says that it does not.")
            is_websocket = protocol in ("ws", "wss")
            port = _one("port", url.explicit_port, self.port) or _PORTS[protocol]
            path = (url.raw_path_qs if url.raw_path != "/" else "/mqtt") if is_websocket else None
            return Address(url.host, port, uses_tls or bool(self.use_tls), path)

    def __init__(self, config: Config, clock: Clock, egress: Egress) -> None:
        super().__init__(config, clock, egress)
        self._config = config

    async def check(self) -> list[Finding]:
        """Log in as the settings say, subscribe to the topics, and leave."""
        at = self._config.address
        reached = await reach(at.host, at.port, self.egress, self.clock, uses_tls=at.uses_tls)
        if not reached.is_connected:
            return reached.findings
        try:
            async with asyncio.timeout(min(_PATIENCE_S, self._config.timeout_s)):
                refused = await log_in(self._broker(at, reached.address), self._config.topics, self.egress)
        except Refused as error:
            words, hint = _REFUSALS.get(error.code, (f"It refuses us with the code {error.code}.", "See its log."))
            return [*reached.findings, broken(words, hint)]
        except TimeoutError:
            return [*reached.findings, broken("It takes connections, but does not answer.", "Is it a broker?")]
        except (NoMqtt, OSError, aiohttp.ClientError):
            hint = "Is it a broker, and are `protocol`, `port` and `use_tls` right? See its log."
            return [*reached.findings, broken("It ends the connection when MQTT is spoken to it.", hint)]
        found = [broken(f"It does not let us hear {one}.", "Correct `topics`, or its rights.") for one in refused]
        heard = " and hear the topics" if self._config.topics else ""
        return [*reached.findings, *(found or [fine(f"It lets us in{heard}.")])]

    def _broker(self, at: Address, address: str) -> Broker:
        config = self._config
        # Never under the real name: the broker would end the connection that is there under it.
        client_id = f"{config.client_id or 'neurogate'}-test-{secrets.token_hex(3)}"
        password = None if config.password is None else config.password.get_secret_value()
        tls = ssl.create_default_context() if at.uses_tls else None
        return Broker(at.host, at.port, address, tls, at.websocket_path, client_id, config.username, password)


def _one(what: str, *said: Any) -> Any:  # noqa: ANN401 - a name or a number
    """Return the one that is said. Raises ValueError where there are two."""
    told = {one for one in said if one is not None}
    if len(told) > 1:
        raise ValueError(f"broker_url and {what} say different things.")
    return told.pop() if told else None
