"""The connection that batches are published by: made when there is something to send, and kept.

With a status topic, the broker tells who is there: we say so when we have come and when we go, and it does, retained,
when we are gone without a word. So that it does not say for hours that we are gone, another connection is then made
also when there is nothing to send.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from cloud_sync.backoff import Backoff
from cloud_sync.contract import AuthFailed, NotConnected, Ok, Outcome
from cloud_sync.egress import Egress
from cloud_sync.integrations.mqtt_client.connection import Broker, Connection, open_connection
from cloud_sync.integrations.mqtt_client.packets import Will
from cloud_sync.integrations.mqtt_client.reasons import Failed, outcome_of_message
from cloud_sync.integrations.mqtt_client.suspect import Dispensable

_LASTS_S = 60.0
"""A connection that has lasted so long was none of the failures in a row."""
_GOODBYE_S = 1.0


@dataclass(slots=True, frozen=True)
class Status:
    """Where the broker is told whether we are there, and in which words."""

    topic: str
    birth: bytes
    will: bytes


class KeptConnection:
    """See the module's own words; to one broker."""

    def __init__(
        self,
        broker: Broker,
        egress: Egress,
        dispensable: Dispensable,
        *,
        timeout_s: float,
        window: int,
        random: Callable[[], float],
    ) -> None:
        """`dispensable`: what it does without when the connection ends at it."""
        self._broker = broker
        self._egress = egress
        self._dispensable = dispensable
        self._timeout_s = timeout_s
        self._window = window
        self._backoff = Backoff(random)
        self._status: Status | None = None
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._stays: asyncio.Task[None] | None = None

    async def connected(self, status: Status | None) -> Connection:
        """Return the one that is there, or another. Raises Failed, and TimeoutError."""
        async with self._connecting:
            connection = await self._kept_or_new(status)
        if status is not None and self._stays is None:
            self._stays = asyncio.create_task(self._stay(status))
        return connection

    async def _stay(self, status: Status) -> None:
        """Come back whenever the connection has ended; the longer it has not lasted, the later."""
        loop = asyncio.get_running_loop()
        outcome: Outcome = NotConnected("it has ended")
        failures = 0
        while True:
            since_s = loop.time()
            if self._connection is not None:
                await self._connection.gone()
            failures = 1 if loop.time() - since_s > _LASTS_S else failures + 1
            await asyncio.sleep(self._backoff.seconds(outcome, failures))
            outcome = NotConnected("it has ended")
            with suppress(TimeoutError):
                try:
                    async with self._connecting:
                        await self._kept_or_new(status)
                except Failed as error:
                    outcome = error.outcome

    async def _kept_or_new(self, status: Status | None) -> Connection:
        if self._connection is not None and self._connection.ended is None:
            return self._connection
        await self.drop(self._connection)
        broker = self._broker
        if status is not None:
            broker = replace(broker, login=replace(broker.login, will=Will(status.topic, status.will)))
        connection = await open_connection(broker, self._egress, timeout_s=self._timeout_s, window=self._window)
        try:
            if status is not None:
                await self._say_we_are_there(connection, status)
        except BaseException:
            await connection.aclose()
            raise
        self._connection, self._status = connection, status
        return connection

    async def _say_we_are_there(self, connection: Connection, status: Status) -> None:
        words = f"we say at {status.topic} that we are there"
        if self._dispensable.is_left_out(words):
            return
        with self._dispensable.trying(words):
            async with asyncio.timeout(self._timeout_s):
                answer = await (await connection.publish(status.topic, status.birth, retain=True))
        outcome = outcome_of_message(answer)
        if not isinstance(outcome, Ok):
            raise Failed(AuthFailed(f"{outcome.reason}, for the topic {status.topic}"))

    async def drop(self, connection: Connection | None) -> None:
        """Close it; another that has taken its place stays."""
        if connection is not None:
            await connection.aclose()
        if self._connection is connection:
            self._connection = None

    async def close(self) -> None:
        """Say that we go, and end the connection."""
        if self._stays is not None:
            self._stays.cancel()
            await asyncio.wait((self._stays,))
            self._stays = None
        connection, status = self._connection, self._status
        try:
            if connection is not None and connection.ended is None and status is not None:
                with suppress(Failed, TimeoutError):
                    async with asyncio.timeout(_GOODBYE_S):
                        await (await connection.publish(status.topic, status.will, retain=True))
        finally:  # the time limit ends a task that is being cancelled with CancelledError (Python 3.11)
            await self.drop(connection)
