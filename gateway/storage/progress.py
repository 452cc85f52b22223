"""Whether the log still gets on with what it is given: for a watchdog, which ends what does not.

- a disk that is full or failing, a log that is being exchanged: all that is told to whoever asks, and no restart helps;
  it counts as progress
- a writing thread that answers nobody any more, or readings that wait while no commit ends: those do not

It costs no write.
"""

import sqlite3
from contextlib import suppress

from gateway.model.errors import StoreFailed
from gateway.storage.log import Log


class Progress:
    """See the module's own words."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting_since_commit: int | None = None
        """How many commits had ended when readings were seen to wait; None while none did."""

    async def is_made(self) -> bool:
        """Return when the writing thread has answered: False if what waited last time still waits for a first commit.

        To be asked more than 10 s apart: `storage.commit_max_delay_ms` lets readings wait for so long.
        """
        with suppress(StoreFailed):
            await self._log.outside_transaction(_nothing)
        commits = self._log.commits
        is_stuck = bool(self._log.waiting) and commits == self._waiting_since_commit
        self._waiting_since_commit = commits if self._log.waiting else None
        return not is_stuck


def _nothing(_: sqlite3.Connection) -> None:
    """Whoever has come to this has done all that was before it."""
