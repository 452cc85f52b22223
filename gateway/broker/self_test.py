"""Whether the broker works, as a client sees it: a real login, a subscription, and a message that comes back."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import aiomqtt

from gateway.operations.credentials import add_credential, list_credentials, revoke_credential
from gateway.operations.site import Site
from gateway.storage.credentials import NewPassword

PREFIX = "self-test-"
"""How the names of the credentials begin that live for one test."""

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


async def self_test(site: Site, broker: Listens, organization_id: str) -> SelfTest:
    """Log in over TCP, subscribe, publish with QoS 1 and wait for the message. Raises StoreFailed."""
    host, port = broker.address
    topic = f"{organization_id}/devices/{PREFIX}/commands/{secrets.token_hex(8)}"
    async with _credential(site) as who:
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
    return SelfTest(
        success=True, message="Logged in, subscribed, and a message came back.", round_trip_ms=round(taken_ms, 1)
    )


@asynccontextmanager
async def _credential(site: Site) -> AsyncIterator[NewPassword]:
    """Make a credential of the site for the test; one that a killed gateway has left goes as well."""
    who = await add_credential(site, name=PREFIX + secrets.token_hex(8), organization_id=None)
    try:
        yield who
    finally:
        for one in await list_credentials(site):
            if one.username.startswith(PREFIX):
                await revoke_credential(site, username=one.username)
