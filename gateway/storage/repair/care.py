"""What a log does about damage while it works: checks itself when asked to, replaces itself, salvages.

One task, one thing at a time. What fails (a full disk, say) is tried again after a while; until then nothing that waits
for the damaged log is acknowledged.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from gateway.model.errors import NeurogateError
from gateway.storage.repair.check import quick_check
from gateway.storage.repair.damage import beside
from gateway.storage.repair.salvage import Chunk, SalvageState, chunks, layout
from gateway.storage.repair.sqlite_file import Stopped
from gateway.storage.repair.wreck import Table
from gateway.storage.space import WAL_BYTES

logger = logging.getLogger(__name__)

_RETRY_S = 5.0
_CHECK_AGAIN_S = 60.0
_ROOM_CHECK_S = 0.2  # while readers wait for every chunk: some thousand readings a second
_TURN_S = 0.05
"""A salvage works so long and rests as long: half of a processor at most, readings come first."""

Tell = Callable[[str], None]
"""Takes a sentence that is shown until the next clean stop."""


class Patient(Protocol):
    """The log, as its care sees it."""

    salvages: list[SalvageState]

    @property
    def has_plenty(self) -> bool:
        """Whether there is so much room that somebody who can wait may use some."""
        ...

    def halt(self) -> None:
        """Begin no commit any more."""
        ...

    async def exchange(self, reason: str) -> None:
        """Go on with a fresh log. Raises StoreFailed, OSError or sqlite3.Error, and refuses what waits."""
        ...

    async def salvage(self, chunk: Chunk) -> bool:
        """Commit what there is room for; False when some of it has to wait. Raises StoreFailed."""
        ...


class Care:
    """See the module's own words."""

    def __init__(self, log: Patient, path: Path, tell: Tell) -> None:
        self._log = log
        self._path = path
        self._tell = tell
        self._damage = ""
        self._check = False
        self._check_from = 0.0
        self._check_wal_bytes = WAL_BYTES
        self._wanted = asyncio.Event()
        self._stop = asyncio.Event()
        self._interrupt = asyncio.Event()
        """Set by damage and by the stop: what is under way ends soon."""
        self._problem = ""
        self._waits = False
        self._turn_began = 0.0

    @property
    def is_damaged(self) -> bool:
        """Whether damage has been found, and nothing been done about it yet."""
        return bool(self._damage)

    @property
    def notices(self) -> list[str]:
        """What is under way, as sentences."""
        said = [self._problem] if self._problem else []
        if self._check:
            said.append(f"{self._path.name} is being checked after an unclean stop.")
        said += [
            f"Readings are being salvaged from {salvage.file}: {salvage.rescued:,} so far."
            for salvage in self._log.salvages
        ]
        if self._waits:
            said.append("The salvage goes on when destinations have taken more, or the store has room again.")
        return said

    def report(self, damage: str) -> None:
        """Take note of damage: the log is exchanged as soon as the commit under way has ended."""
        if not self._damage:
            self._damage = damage
            self._log.halt()
            self._interrupt.set()
            self._wanted.set()

    def check(self) -> None:
        """Ask for a check of the whole file."""
        self._check = True
        self._wanted.set()

    async def run(self) -> None:
        """Look after the log until stopped."""
        for salvage in self._log.salvages:
            self._found(salvage)
        while not self._stop.is_set():
            try:
                await self._next()
                self._problem = ""
            except (NeurogateError, sqlite3.Error, OSError) as error:
                if not self._problem:
                    logger.error("%s could not be repaired yet: %s", self._path.name, error)  # noqa: TRY400 - no fault of ours
                await self._pause(error)
            except Exception as error:
                logger.exception("%s could not be repaired, by a fault of ours", self._path.name)
                await self._pause(error)

    async def _pause(self, error: Exception) -> None:
        self._problem = f"{self._path.name} could not be repaired yet: {error}"
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), _RETRY_S)

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stop.set()
        self._interrupt.set()
        self._wanted.set()

    async def _next(self) -> None:
        if self._damage:
            await self._exchange()
        elif self._check and time.monotonic() >= self._check_from:
            await self._quick_check()
        elif self._log.salvages:
            await self._salvage(self._log.salvages[0])
        else:
            until_check_s = self._check_from - time.monotonic() if self._check else None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), until_check_s)
            self._wanted.clear()

    async def _exchange(self) -> None:
        await self._log.exchange(self._damage)
        self._damage = ""
        if not self._stop.is_set():
            self._interrupt.clear()
        self._check = False  # the log that was to be checked is gone
        self._found(self._log.salvages[-1])

    def _found(self, salvage: SalvageState) -> None:
        logger.error(
            "%s is damaged; a fresh one takes its place, and readings are salvaged",
            self._path.name,
            extra={"reason": salvage.reason, "file": salvage.file},
        )
        self._tell(f"{self._path.name} was damaged ({salvage.reason}) and has been set aside as {salvage.file}.")

    async def _quick_check(self) -> None:
        logger.info("checking %s after an unclean stop", self._path.name)
        found = await quick_check(self._path, self._interrupt, self._check_may_go_on)
        if self._interrupt.is_set():
            return
        if found is None:
            self._check_from = time.monotonic() + _CHECK_AGAIN_S
            self._check_wal_bytes *= 2  # so that it ends some day where it is never quiet
            logger.info("the check of %s is put off: too much is written meanwhile", self._path.name)
            return
        self._check = False
        if found:
            self.report(found)
        else:
            logger.info("checked %s: it is sound", self._path.name)

    def _check_may_go_on(self) -> bool:
        """Whether the write-ahead log, which grows while the check reads, may take what it takes now."""
        wal = beside(self._path, "-wal")
        size = wal.stat().st_size if wal.exists() else 0
        return size <= WAL_BYTES or (size <= self._check_wal_bytes and self._log.has_plenty)

    async def _salvage(self, salvage: SalvageState) -> None:
        steps = chunks(salvage, self._path, *await asyncio.to_thread(_layout, self._path), self._checkpoint)
        try:
            while chunk := await asyncio.to_thread(self._take_turn, steps):
                while not await self._log.salvage(chunk):
                    self._waits = True
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._interrupt.wait(), _ROOM_CHECK_S)
                        return
                self._waits = False
                if chunk.is_last:
                    break  # also when it is to stop: no later start would tell of it
                if self._interrupt.is_set():
                    return
        except Stopped:
            return
        finally:
            self._waits = False
            await asyncio.to_thread(steps.close)
        self._log.salvages.remove(salvage)
        words = (
            f"{salvage.rescued:,} readings were salvaged from {salvage.file}; "
            f"{salvage.unreadable_rows:,} readings and {salvage.unreadable_pages:,} pages in it cannot be read."
        )
        logger.warning(words)
        self._tell(f"{words} The file is not needed any more.")

    def _take_turn(self, steps: Iterator[Chunk]) -> Chunk | None:
        """Make the next chunk, in a thread."""
        self._turn_began = time.monotonic()
        chunk = next(steps, None)
        time.sleep(min(_TURN_S, time.monotonic() - self._turn_began))
        return chunk

    def _checkpoint(self) -> None:
        """Rest now and then; called for every page, as a look at all of them takes minutes. Raises Stopped."""
        if self._interrupt.is_set():
            raise Stopped
        now = time.monotonic()
        if now - self._turn_began > _TURN_S:
            time.sleep(_TURN_S)
            self._turn_began = time.monotonic()


def _layout(path: Path) -> tuple[dict[str, Table], list[str]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        return layout(db)
