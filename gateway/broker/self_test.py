"""Whether the broker works, as a client sees it: a real login, a subscription, and a message that comes back.

And whether it refuses what it must: what an organisation has no right to hear, and whoever brings no password. Nothing
is published that is a reading.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode

from gateway.model.finding import Finding, broken, fine
from gateway.operations.credentials import SELF_TEST
from gateway.operations.devices import take_effect
from gateway.operations.site import Site
from gateway.parsers.routes import ParserRoutes
from gateway.storage.credentials import Credentials, NewPassword

_PATIENCE_S = 5.0
_REFUSED = 0x80  # in a SUBACK (MQTT 3.1.1, 3.9.3)
_BROKER_HINT = "See the gateway's log; if it says nothing, restart the gateway."
_RIGHTS_HINT = "Stop the gateway and report this: nobody's readings are private until it is mended."


class Listens(Protocol):
    """The broker's port."""

    @property
    def address(self) -> tuple[str, int]:
        """Where a client on this machine reaches it."""
        ...


@dataclass(slots=True, frozen=True)
class SelfTest:
    """What came of it."""

    success: bool
    message: str
    round_trip_ms: float | None = None


class BrokerTest:
    """Tests one broker; one test at a time."""

    def __init__(self, site: Site, broker: Listens) -> None:
        self._site = site
        self._broker = broker
        self._turn = asyncio.Lock()

    async def run(self) -> SelfTest:
        """Log in over TCP, subscribe, publish with QoS 1 and wait for the message. Raises StoreFailed."""
        async with self._turn, self._credential() as who:
            host, port = self._broker.address
            topic = f"{who.username}/devices/none/commands/1"  # of no organisation: nobody else's
            try:
                async with (
                    asyncio.timeout(_PATIENCE_S),
                    aiomqtt.Client(host, port, username=who.username, password=who.password) as client,
                ):
                    await client.subscribe(topic, qos=1)
                    began = time.perf_counter()
                    await client.publish(topic, b"?", qos=1)
                    await anext(aiter(client.messages))
                    taken_ms = (time.perf_counter() - began) * 1000
            except TimeoutError:
                return SelfTest(success=False, message=f"The broker did not answer within {_PATIENCE_S:g} s.")
            except aiomqtt.MqttError as error:
                return SelfTest(success=False, message=f"The broker refused or broke off: {error}.")
        words = "Logged in, subscribed, and a message came back."
        return SelfTest(success=True, message=words, round_trip_ms=round(taken_ms, 1))

    async def findings(self) -> list[Finding]:
        """Return what works, what is refused, and what should be. Raises StoreFailed."""
        test = await self.run()
        if not test.success:
            return [broken(test.message, _BROKER_HINT)]
        worked = fine(f"{test.message} It took {test.round_trip_ms} ms.")
        try:
            async with asyncio.timeout(2 * _PATIENCE_S):  # a login that fails is answered late
                too_much = [*await self._heard_too_much(), *await self._let_in_without_password()]
        except (TimeoutError, aiomqtt.MqttError) as error:
            why = str(error) or "no answer"
            return [worked, broken(f"Whether rights are kept could not be tried: {why}.", _BROKER_HINT)]
        return [worked, *too_much] if too_much else [worked, fine("What nobody has a right to was refused.")]

    async def _heard_too_much(self) -> list[Finding]:
        organization_id = self._site.settings.gateway.organization_id
        foreign = f"org_{SELF_TEST}{secrets.token_hex(8)}/devices/#"
        async with self._turn, self._credential(organization_id) as who, self._client(who) as client:
            found = []
            rights = ParserRoutes.of(self._site.settings).rights_of(organization_id, None)  # a route may be `#`
            for topic_filter in (foreign, *(one for one in ("#", "$SYS/#") if not rights.may_subscribe(one))):
                (answer,) = await client.subscribe(topic_filter)
                if _code(answer) != _REFUSED:
                    found.append(broken(f"An organisation may subscribe to {topic_filter}.", _RIGHTS_HINT))
            return found

    async def _let_in_without_password(self) -> list[Finding]:
        try:
            async with self._client(None):
                return [broken("The broker lets clients in without a password.", _RIGHTS_HINT)]
        except aiomqtt.MqttCodeError:
            return []

    def _client(self, who: NewPassword | None) -> aiomqtt.Client:
        host, port = self._broker.address
        username, password = (None, None) if who is None else (who.username, who.password)
        return aiomqtt.Client(host, port, username=username, password=password, timeout=2 * _PATIENCE_S)

    @asynccontextmanager
    async def _credential(self, organization_id: str | None = None) -> AsyncIterator[NewPassword]:
        """Make a credential of the site or an organisation for the test; what a killed gateway has left goes, too."""
        credentials = Credentials(await self._site.state())
        who = await credentials.add(SELF_TEST + secrets.token_hex(8), organization_id, by=None)
        await take_effect(self._site)
        try:
            yield who
        finally:
            for one in await credentials.all():
                if one.username.startswith(SELF_TEST):
                    await credentials.revoke(one.username, by=None)
            await take_effect(self._site)


def _code(answer: int | ReasonCode) -> int:
    """Return a SUBACK's code, which aiomqtt hands on as a number or as an object with one."""
    return answer if isinstance(answer, int) else answer.value
