"""What may happen to an installation at any time: each event is a method, and is over when it returns.

It does not: touch the system's clock. What a clock that jumps does to the log is `tests/storage/test_log_model.py`.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.promises.boards import Board
from tests.promises.gateway_process import GatewayProcess
from tests.promises.lossy_link import LossyLink
from tests.promises.receiver_process import ReceiverProcess

_PIECE_BYTES = 65_536
_FULL_DISK_TRIES = 3
_SLOW_STEP_S = 0.5


class PatientBoard(Board):
    """A board that comes back also when the door is closed as the store is full."""

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
    link: LossyLink
    """Between the two."""
    disk: Path | None
    """A small one, that others may fill; None: the machine's own."""
    longest_s: float
    happened: int = 0

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
        self.happened += 1
        return event.__name__.replace("_", " "), event

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
        self.link.loses_answers = True
        await self._a_while()
        self.link.loses_answers = False

    async def the_gateway_is_killed(self) -> None:
        await self.gateway.kill()
        await self.gateway.start()

    async def the_gateway_is_killed_while_the_receiver_is_away(self) -> None:
        await self.receiver.stop()
        await self._a_while()
        await self.the_gateway_is_killed()
        await self.receiver.start()

    async def the_gateway_is_killed_when_answers_were_lost(self) -> None:
        self.link.loses_answers = True
        await self._a_while()
        await self.gateway.kill()
        self.link.loses_answers = False
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
