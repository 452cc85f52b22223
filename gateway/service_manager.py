"""What a service manager is told of this process: that it is ready, how it goes, and that it still gets on.

sd_notify(3), by datagrams to `$NOTIFY_SOCKET`; without that nothing is done. The watchdog is fed only while the event
loop turns and readings get to the disk, or are refused for a reason that is known: a destination that is away, a full
disk and a damaged log are no failure that a restart could mend. While the store is opened, which may mean a long repair
or migration, the manager is asked for patience, for an hour at most.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from gateway.model.status import GatewayStatus

logger = logging.getLogger(__name__)

_PATIENCE_S = 30.0  # asked for again and again while the store is opened
_ASK_EVERY_S = 10.0
_LONGEST_START_S = 3_600.0
_STATUS_EVERY_S = 30.0
_STATUS_TIMEOUT_S = 5.0
_MICROSECONDS = 1_000_000


class ServiceManager:
    """See the module's own words. `makes_progress` may take as long as it likes: until it answers, nothing is fed."""

    def __init__(
        self,
        environ: Mapping[str, str],
        makes_progress: Callable[[], Awaitable[bool]],
        status: Callable[[], Awaitable[GatewayStatus]],
    ) -> None:
        self._socket = environ.get("NOTIFY_SOCKET", "")
        self._makes_progress = makes_progress
        self._status = status
        fed_within_s = _watchdog_s(environ)
        self._feeds = fed_within_s is not None
        self._every_s = _STATUS_EVERY_S if fed_within_s is None else fed_within_s / 2

    async def keep_told(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Tell the manager of the start, then how it goes, until `stop` is set."""
        if not self._socket:
            return
        await self._ask_for_patience(ready)
        self._tell("READY=1", f"STATUS={await self._words()}")
        going = asyncio.create_task(self._keep_going(), name="watchdog")
        try:
            await stop.wait()
            self._tell("STOPPING=1", "STATUS=Stopping: what has been taken in is written to disk.")
        finally:
            going.cancel()

    async def _ask_for_patience(self, ready: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not ready.is_set():
            if loop.time() - started < _LONGEST_START_S:
                self._tell(
                    "STATUS=Starting: the store is opened.", f"EXTEND_TIMEOUT_USEC={round(_PATIENCE_S * _MICROSECONDS)}"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(ready.wait(), _ASK_EVERY_S)

    async def _keep_going(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            if await self._has_progress():
                self._tell(*(["WATCHDOG=1"] if self._feeds else []), f"STATUS={await self._words()}")
            else:
                logger.error("readings wait and no commit ends: the watchdog is not fed")

    async def _has_progress(self) -> bool:
        asked = asyncio.ensure_future(self._makes_progress())
        try:
            done, _ = await asyncio.wait([asked], timeout=self._every_s)
            if not done:
                logger.error(
                    "the log's writer does not answer: the watchdog is not fed", extra={"waited_s": self._every_s}
                )
                self._tell("STATUS=Stuck: the disk does not answer.")
            return await asked
        finally:
            asked.cancel()

    async def _words(self) -> str:
        """Return how it goes, in one line."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                status = await self._status()
        except Exception:  # noqa: BLE001 - words for a person are not worth a restart
            return "Running; how it goes cannot be said now."
        if status.problems:
            return " ".join(status.problems).replace("\n", " ")
        waiting = sum(one.undelivered for one in status.destinations)
        return (
            f"Takes in readings: {status.ingested:,} since the start, {status.connections} connections;"
            f" {waiting:,} still to be delivered to {len(status.destinations)} destinations."
        )

    def _tell(self, *fields: str) -> None:
        address = f"\0{self._socket[1:]}" if self._socket.startswith("@") else self._socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(fields).encode(), address)
        except OSError as error:
            logger.warning("the service manager cannot be told: %s", error)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return within which time the watchdog wants to be fed; None if it is not for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / _MICROSECONDS if microseconds.isdecimal() and int(microseconds) else None
