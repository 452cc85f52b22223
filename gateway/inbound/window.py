"""What has come by one connection and is owed for: acknowledged in order, when it is on disk, never more than fits.

- a message is acknowledged when its commit is on disk, reading or quarantine; one that is nothing to us in its turn
- what its sender waits for is sent before the message is acknowledged, or it might never be
- so much may be owed at a time. Then `take` waits, its caller reads nothing more, and the other side waits, too
- a reading that we have forwarded ourselves, and that has come back, is left out (`echoes.py`)
- when something cannot be stored, nothing more is acknowledged and `run` returns: the other side still has it, and
  sends it again by the next connection
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cloud_sync.contract import Inbox, Incoming, Line
from gateway.clock import Clock
from gateway.inbound.reader import LONGEST_TOPIC, Reader
from gateway.ingest import Ingest
from gateway.model.errors import StoreFailed
from gateway.parsers.contract import Reply

MOST_MESSAGES = 1_000
MOST_BYTES = 8_000_000
_SETTLES_WITHIN_S = 2.0


class _Owed(NamedTuple):
    message: Incoming
    taken_ms: int | None
    """When it was handed on to be stored; None when it waits for no commit, but only for its turn."""
    reply: Reply | None = None


class Window(Inbox):
    """See the module's own words."""

    def __init__(
        self,
        reader: Reader,
        ingest: Ingest,
        clock: Clock,
        gateway_id: str,
        *,
        opened: Callable[[str], None],
        stored: Callable[[int, float], None],
    ) -> None:
        """`opened` hears when messages can come; `stored` how many are on disk, and how long that took (s)."""
        self.gateway_id = gateway_id
        self._reader = reader
        self._ingest = ingest
        self._clock = clock
        self._opened = opened
        self._stored = stored
        self._line: Line
        self._owed: deque[_Owed] = deque()
        self._due: list[_Owed] = []
        """On disk, and not acknowledged yet."""
        self._acknowledging = 0
        """Of these, how many that is being done for."""
        self._bytes = 0
        self._failure: StoreFailed | None = None
        self._has_ended = False
        self._changed = asyncio.Event()
        """Set whenever something is owed no more, or there is something to do; whoever waits clears it first."""

    def opened(self, line: Line, problem: str = "") -> None:
        """Hear that messages can come from now on."""
        self._line = line
        self._opened(problem)

    async def take(self, messages: Sequence[Incoming]) -> None:
        """Take these in; returns when there is room for more."""
        for message in messages:
            self._take(message)
        while self._is_full and not self._has_ended:
            await self._change()

    @property
    def _is_full(self) -> bool:
        return len(self._owed) + len(self._due) + self._acknowledging >= MOST_MESSAGES or self._bytes >= MOST_BYTES

    def _take(self, message: Incoming) -> None:
        if self._has_ended:
            return
        self._bytes += len(message.payload)
        read = self._reader.read(message, f"{self.gateway_id}:{self._ingest.log_uuid}:")
        if read is None:
            self._owed.append(_Owed(message, None))
            self._release(0)
            return
        self._owed.append(_Owed(message, self._clock.monotonic_ms(), read.reply))
        topic, payload = message.topic, message.payload
        if read.problem is not None:
            source = topic[:LONGEST_TOPIC]
            self._ingest.put_aside(read.routed.organization_id, payload, read.problem, self, source=source)
        else:
            self._ingest.take_routed(read.routed, payload, self, source=topic, maybe_repeated=message.maybe_repeated)

    # What the log says

    def committed(self, count: int) -> None:
        """So many more are on disk."""
        if not self._has_ended:
            self._release(count)

    def failed(self, error: StoreFailed) -> None:
        """Something could not be stored: all from there on will come again."""
        self._failure = self._failure or error
        self.end()

    def end(self) -> None:
        """Acknowledge nothing more: the connection has ended, or has to."""
        self._has_ended = True
        self._owed.clear()
        self._due.clear()
        self._changed.set()

    def _release(self, stored: int) -> None:
        """Let be acknowledged what is due now that so many more are on disk."""
        released, oldest_ms = 0, None
        while self._owed and (stored or self._owed[0].taken_ms is None):
            one = self._owed.popleft()
            self._due.append(one)
            if one.taken_ms is not None:
                stored -= 1
                released += 1
                oldest_ms = one.taken_ms if oldest_ms is None else oldest_ms
        if oldest_ms is not None:
            self._stored(released, (self._clock.monotonic_ms() - oldest_ms) / 1000)
        self._changed.set()

    # What takes time

    async def run(self) -> StoreFailed | None:
        """Answer and acknowledge; returns when the connection has to end, and why, if it is the store."""
        while not self._has_ended:
            batch, self._due = self._due, []
            if not batch:
                await self._change()
                continue
            self._acknowledging = len(batch)
            if not await self._acknowledged(batch):
                self.end()
            self._acknowledging = 0
            self._bytes -= sum(len(one.message.payload) for one in batch)
            self._changed.set()
        return self._failure

    async def _acknowledged(self, batch: list[_Owed]) -> bool:
        replies = [self._line.reply(*one.reply) for one in batch if one.reply is not None]
        if not all(await asyncio.gather(*replies)) or self._has_ended:
            return False
        return await self._line.acknowledge([one.message for one in batch])

    async def settled(self) -> None:
        """Return when nothing is owed any more, or after a while."""
        try:
            async with asyncio.timeout(_SETTLES_WITHIN_S):
                while (self._owed or self._due or self._acknowledging) and not self._has_ended:
                    await self._change()
        except TimeoutError:
            pass
        finally:  # in a task that is being cancelled, the time limit may end as that
            self.end()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
