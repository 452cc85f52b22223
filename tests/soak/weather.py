"""What may happen to an installation at any time: each event is a method, and is over when it returns.

Any of them may come while the gateway's clock is wrong. The clock is right, and synchronised, when the event is over.
It does not: touch the system's clock.
"""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from gateway.model.reading import rfc3339
from tests.faulty_link import FaultyLink
from tests.promises.boards import Board
from tests.promises.false_clock import DAY_MS, ClockFile
from tests.promises.gateway_process import GatewayProcess
from tests.promises.receiver_process import ReceiverProcess

SMALL_JUMP_MS = 5_000
"""The receiver takes what is signed meanwhile; not after a longer one."""
_JUMPS_MS = {
    "5 seconds fast": SMALL_JUMP_MS,
    "5 seconds slow": -SMALL_JUMP_MS,
    "an hour fast": 3_600_000,
    "an hour slow": -3_600_000,
    "a day fast": DAY_MS,
    "a day slow": -DAY_MS,
    "400 days fast": 400 * DAY_MS,
}
_WRONG_CLOCK_SHARE = 0.35
_LEARNED_S = 20.0

_PIECE_BYTES = 65_536
_FULL_DISK_TRIES = 3
_SLOW_STEP_S = 0.5


class PatientBoard(Board):
    """A board that comes back also when the door is closed as the store is full; every other reading has its time."""

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self._began_ms = time.time_ns() // 1_000_000

    def time_of(self, seq: int) -> str | None:
        """Return the time that the board itself gave a reading."""
        return rfc3339(self._began_ms + seq) if seq % 2 else None

    def _payload(self, seq: int) -> bytes:
        body, taken_at = super()._payload(seq), self.time_of(seq)
        return body if taken_at is None else b'{"timestamp": "%b", %b' % (taken_at.encode(), body[1:])

    async def run(self) -> None:
        while True:
            try:
                await super().run()
            except AssertionError as error:
                if error.args:  # anything but a CONNACK that refuses
                    raise
                await asyncio.sleep(0.2)
            else:
                return


@dataclass(slots=True)
class Weather:
    """Chooses what happens next; the same seed chooses the same."""

    dice: Random
    gateway: GatewayProcess
    receiver: ReceiverProcess
    link: FaultyLink
    """Between the two."""
    disk: Path | None
    """A small one, that others may fill; None: the machine's own."""
    clock: ClockFile
    """The gateway's."""
    log_db: Path
    longest_s: float
    happened: int = 0
    frozen: set[str] = field(default_factory=set)
    """Ids of the batches that were under way when a wrong clock became right: they keep the times they have."""

    def next_event(self) -> tuple[str, Callable[[], Awaitable[None]]]:
        """Return the next one, with its name."""
        events = [
            self.the_receiver_is_away,
            self.the_receiver_is_slow,
            self.answers_are_lost,
            self.the_gateway_is_killed,
            self.the_gateway_is_killed_while_the_receiver_is_away,
            self.the_gateway_is_killed_when_answers_were_lost,
            self.the_gateway_is_restarted,
        ]
        if self.disk is not None:
            events += [self.others_fill_the_disk, self.the_gateway_is_killed_on_a_full_disk]
        event = self.dice.choice(events)
        name = event.__name__.replace("_", " ")
        self.happened += 1
        if self.dice.random() > _WRONG_CLOCK_SHARE:
            return name, event
        wrong = self.dice.choice([*_JUMPS_MS, *["in 1970 after a power cut"] * 3])
        return f"{name}; its clock is {wrong}", lambda: self._by_a_wrong_clock(wrong, event)

    async def _by_a_wrong_clock(self, wrong: str, event: Callable[[], Awaitable[None]]) -> None:
        """Let it happen meanwhile; perhaps the gateway is killed before it has noticed that its clock is right."""
        if wrong in _JUMPS_MS:
            self.clock.set(_JUMPS_MS[wrong], synced=False)
        else:
            await self._clock_is_learned()  # else what is stored can never be corrected
            await self.gateway.kill()
            self.clock.set_to_1970()
            self.clock.reboot()
            await self.gateway.start()
        await event()
        self._note_frozen()
        self.clock.set(0, synced=True)
        self._note_frozen()
        if self.dice.random() < 0.5:
            await self.the_gateway_is_killed()

    async def _clock_is_learned(self) -> None:
        async with asyncio.timeout(_LEARNED_S):
            while self._ask("SELECT epoch_ms FROM gateway_boots ORDER BY id DESC LIMIT 1") == {None}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    def _note_frozen(self) -> None:
        self.frozen |= self._ask("SELECT batch_id FROM cursors WHERE batch_id IS NOT NULL")

    def _ask(self, sql: str) -> set[Any]:
        with closing(sqlite3.connect(f"{self.log_db.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            return {value for (value,) in db.execute(sql)}

    async def the_receiver_is_away(self) -> None:
        await self.receiver.stop()
        await self._a_while()
        await self.receiver.start()

    async def the_receiver_is_slow(self) -> None:
        """It stands still most of the time."""
        process = self.receiver._process
        assert process is not None
        for _ in range(self.dice.randint(2, 8)):
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(_SLOW_STEP_S)
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(_SLOW_STEP_S / 10)

    async def answers_are_lost(self) -> None:
        self.link.fault = "loses answers"
        await self._a_while()
        self.link.fault = None

    async def the_gateway_is_killed(self) -> None:
        await self.gateway.kill()
        await self.gateway.start()

    async def the_gateway_is_killed_while_the_receiver_is_away(self) -> None:
        await self.receiver.stop()
        await self._a_while()
        await self.the_gateway_is_killed()
        await self.receiver.start()

    async def the_gateway_is_killed_when_answers_were_lost(self) -> None:
        self.link.fault = "loses answers"
        await self._a_while()
        await self.gateway.kill()
        self.link.fault = None
        await self.gateway.start()

    async def the_gateway_is_restarted(self) -> None:
        assert await self.gateway.stop() == 0
        await self.gateway.start()

    async def others_fill_the_disk(self) -> None:
        other = self._take_everything()
        await self._a_while()
        other.unlink()

    async def the_gateway_is_killed_on_a_full_disk(self) -> None:
        """It may not be able to start there; then it must when there is room again."""
        other = self._take_everything()
        await self._a_while()
        await self.gateway.kill()
        for _ in range(_FULL_DISK_TRIES):
            try:
                await self.gateway.start()
            except AssertionError:
                await self.gateway._ended()
                print(
                    "      it does not start while the disk is full:", self.gateway.said[-1].get("message"), flush=True
                )
            else:
                other.unlink()
                return
        other.unlink()
        await self.gateway.start()

    async def _a_while(self) -> None:
        await asyncio.sleep(self.dice.uniform(0.2, self.longest_s))

    def _take_everything(self) -> Path:
        assert self.disk is not None
        other = self.disk / "of-somebody-else"
        with other.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"z" * _PIECE_BYTES)
            except OSError:
                pass  # that was the last of it
        return other
