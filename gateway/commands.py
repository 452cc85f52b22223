"""Commands to devices: each is told once, and its result is awaited until its deadline.

- a command waits here until its device is there, and not in the broker's outbox: what is too late is never told. What
  is in an outbox all the same, sent and not acknowledged, is taken out at the deadline, and after a restart
- it is marked as sent before it leaves. A gateway that dies in between leaves one that expires, not one that a device
  is told twice; what MQTT sends again (QoS 1) has the same id, by which a device knows it
- no more than four at once are on their way to a device: our firmware keeps so many waiting and refuses more
- an answer is acknowledged to its device when it is on disk. One that comes after the deadline is noted as late, and
  the command stays `expired`

Deadlines are held by the monotonic clock. After a restart the wall clock says how much is left; where it stands before
a command was made, nobody knows, and the command is over.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.metrics import Metrics
from gateway.model.command import LONGEST_MS, SHORTEST_MS, Answer, Command, check_command
from gateway.model.errors import BadInput, NotFound, StoreFailed
from gateway.storage.commands import Commands as Store

logger = logging.getLogger(__name__)

ON_THEIR_WAY_AT_MOST = 4
_LOOK_AGAIN_S = 1.0
_STORE_WAIT_S = 5.0

Key = tuple[str, str, str]
"""Organisation, device, command."""
Done = Callable[[StoreFailed | None], None]


class Boards(Protocol):
    """How devices are reached."""

    def is_listening(self, command: Command) -> bool:
        """Whether its device is there, and would hear it."""
        ...

    async def tell(self, command: Command) -> None:
        """Tell a device. Raises StoreFailed."""
        ...

    def withdraw(self, keys: Collection[Key]) -> None:
        """Let none of these be told any more."""
        ...


@dataclass(slots=True)
class _Pending:
    command: Command
    ends_ms: int
    """Its deadline by the monotonic clock."""


@dataclass(slots=True, frozen=True)
class _Heard:
    key: Key
    answer: Answer
    at_ms: int
    """By the monotonic clock."""
    done: Done


class Commands:
    """See the module's own words."""

    def __init__(self, store: Store, boards: Boards, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._boards = boards
        self._clock = clock
        self._finished = metrics.commands
        self._pending: dict[Key, _Pending] = {}
        self._heard: list[_Heard] = []
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Take up what is on disk, before any device can come in. Raises StoreFailed."""
        now_ms, monotonic_ms = self._clock.now_ms(), self._clock.monotonic_ms()
        for command in await self._store.pending():
            is_credible = now_ms >= command.created_at_ms
            left_ms = command.deadline_ms - now_ms if is_credible else 0
            self._pending[command.key] = _Pending(command, monotonic_ms + left_ms)
        self._boards.withdraw(await self._store.over())
        with suppress(StoreFailed):  # it is tried again; the message is taken back first
            await self._expire()

    async def send(
        self,
        organization_id: str,
        device_id: str,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout_ms: int,
        command_id: str | None,
        actor: str,
    ) -> Command:
        """Return the command when it is on disk; with an id that was used for the same before, that one.

        Raises BadInput for what no device could be told, Conflict and StoreFailed.
        """
        if not SHORTEST_MS <= timeout_ms <= LONGEST_MS:
            raise BadInput(
                "invalid_timeout",
                f"A device cannot have {timeout_ms / 1000:g} s.",
                hint=f"Give it 1 to {LONGEST_MS // 1000:,} s.",
            )
        now_ms = self._clock.now_ms()
        deadline_ms = -(-(now_ms + timeout_ms) // 1000) * 1000
        new = Command(
            0,
            organization_id,
            device_id,
            secrets.token_hex(8) if command_id is None else command_id,
            method,
            dict(params),
            actor,
            now_ms,
            deadline_ms,
        )
        check_command(new)
        ends_ms = self._clock.monotonic_ms() + deadline_ms - now_ms
        command, is_new = await self._store.add(new)
        if is_new:
            self._pending[command.key] = _Pending(command, ends_ms)
            self.look_again()
        return command

    async def finished(self, command: Command, timeout_s: float) -> Command:
        """Return the command as it is when nothing more becomes of it, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while command.is_pending:
                    command = await self.changed(command)
        return command

    async def changed(self, command: Command) -> Command:
        """Return the command as soon as it is not as given; one that is over stays as it is. Raises NotFound."""
        while True:
            change = self._changed
            known = self._pending.get(command.key)
            now = await self._store.get(*command.key) if known is None else known.command
            if now != command or not now.is_pending:
                return now
            await change.wait()

    def answered(self, key: Key, payload: bytes, done: Done) -> None:
        """Take what a device says; `done` is called when it is on disk, or could not be written."""
        answer = Answer.read(payload)
        if answer is None:
            logger.warning("no answer to a command: %s", "/".join(key))
            done(None)
            return
        self._heard.append(_Heard(key, answer, self._clock.monotonic_ms(), done))
        self.look_again()

    def look_again(self) -> None:
        """Hear that a device may have come, or time has passed."""
        self._wake.set()

    async def run(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.turn()
            except StoreFailed as error:
                logger.warning("what becomes of commands cannot be noted: %s", error.message)
                await asyncio.sleep(_STORE_WAIT_S)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience_s())

    def _patience_s(self) -> float | None:
        """Until the next deadline, but for no longer than a machine may have slept; for ever when nothing waits."""
        if not self._pending:
            return None
        left_ms = min(one.ends_ms for one in self._pending.values()) - self._clock.monotonic_ms()
        return min(max(left_ms, 1) / 1000, _LOOK_AGAIN_S)

    async def turn(self) -> None:
        """Do what is due. Raises StoreFailed; what was not done is done in the next turn."""
        await self._take_answers()
        await self._expire()
        await self._tell()

    async def _take_answers(self) -> None:
        heard, self._heard = self._heard, []
        if not heard:
            return
        try:
            changed: dict[Key, Command] = {}
            for one in heard:
                command = changed.get(one.key) or await self._known(one.key)
                pending = self._pending.get(one.key)
                is_late = pending is not None and one.at_ms >= pending.ends_ms
                after = None if command is None else command.answered(one.answer, self._clock.now_ms(), is_late=is_late)
                if after is not None:
                    changed[one.key] = after
            await self._record(changed.values())
        except Exception as error:  # a defect of ours, too: nobody may wait for ever to be acknowledged
            failure = error if isinstance(error, StoreFailed) else StoreFailed("An answer could not be noted.")
            for one in heard:
                one.done(failure)
            raise
        for one in heard:
            one.done(None)

    async def _known(self, key: Key) -> Command | None:
        if (pending := self._pending.get(key)) is not None:
            return pending.command
        with suppress(NotFound):
            return await self._store.get(*key)
        return None

    async def _expire(self) -> None:
        now_ms = self._clock.monotonic_ms()
        over = [one.command for one in self._pending.values() if one.ends_ms <= now_ms]
        if over:
            self._boards.withdraw({command.key for command in over})
            await self._record([command.expired(self._clock.now_ms()) for command in over])

    async def _tell(self) -> None:
        """Tell devices that are there, each in order and no more than they keep."""
        waiting = [one for one in self._pending.values() if one.command.state == "queued"]
        if not waiting:
            return
        away: set[tuple[str, str]] = set()
        told = Counter(key[:2] for key, one in self._pending.items() if one.command.state != "queued")
        due = []
        for one in sorted(waiting, key=lambda one: one.command.number):
            device = one.command.key[:2]
            if device in away or told[device] >= ON_THEIR_WAY_AT_MOST:
                continue
            if not self._boards.is_listening(one.command):
                away.add(device)
                continue
            told[device] += 1
            due.append(replace(one.command, state="sent", sent_at_ms=self._clock.now_ms()))
        await self._record(due)
        await asyncio.gather(*map(self._tell_one, due))  # each begins in its turn, and all share a commit

    async def _tell_one(self, command: Command) -> None:
        if self._pending[command.key].ends_ms <= self._clock.monotonic_ms():  # writing took too long
            return
        try:
            await self._boards.tell(command)
        except StoreFailed as error:  # it expires, or is told after all: nobody knows
            logger.warning("a command may not be told: %s", error.message, extra={"command": command.id})

    async def _record(self, commands: Collection[Command]) -> None:
        if not commands:
            return
        await self._store.record(list(commands))
        for command in commands:
            if command.is_pending:
                self._pending[command.key].command = command
            elif self._pending.pop(command.key, None) is not None:
                self._finished.labels(command.state).inc()
        self._changed.set()
        self._changed = asyncio.Event()
