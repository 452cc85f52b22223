"""Whether the broker works, as a client sees it: a real login, a subscription, and a message that comes back."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiomqtt

from gateway.operations.credentials import SELF_TEST
from gateway.operations.devices import take_effect
from gateway.operations.site import Site
from gateway.storage.credentials import Credentials, NewPassword

_PATIENCE_S = 5.0


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

    @asynccontextmanager
    async def _credential(self) -> AsyncIterator[NewPassword]:
        """Make a credential of the site for the test; one that a killed gateway has left goes as well."""
        credentials = Credentials(await self._site.state())
        who = await credentials.add(SELF_TEST + secrets.token_hex(8), None)
        await take_effect(self._site)
        try:
            yield who
        finally:
            for one in await credentials.all():
                if one.username.startswith(SELF_TEST):
                    await credentials.revoke(one.username)
            await take_effect(self._site)
