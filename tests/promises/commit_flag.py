"""Whether a writing process is inside a commit, to be read by another process, also after a kill -9.

One byte of shared memory, set by the thread that commits: from after BEGIN until COMMIT has returned, or while the one
statement runs that is a transaction by itself. The product knows nothing of it; `announce_commits` wraps what the log
hands to its commit thread.
"""

import mmap
import os
import sqlite3
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from unittest.mock import patch

from gateway.storage import log_files
from gateway.storage.commit_thread import AtOnce, CommitThread, Transaction


class Phase(IntEnum):
    """Where the commit thread is."""

    OUTSIDE = 0
    WRITING = 1
    """BEGIN has returned; statements are executed."""
    COMMITTING = 2
    """COMMIT, or the only statement, has not returned: pages and the sync are on their way to the disk."""


class CommitFlag:
    """The byte; it outlives the process that sets it."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, 1)
            self._byte = mmap.mmap(descriptor, 1)
        finally:
            os.close(descriptor)

    @property
    def phase(self) -> Phase:
        """Where the writer is, or was when it died."""
        return Phase(self._byte[0])

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._byte[0] = phase


@dataclass(slots=True, frozen=True)
class _Announced:
    """A transaction that says how far it is."""

    transaction: Transaction
    flag: CommitFlag

    def write(self, db: sqlite3.Connection) -> None:
        self.flag.phase = Phase.WRITING
        self.transaction.write(db)
        self.flag.phase = Phase.COMMITTING

    def write_at_once(self, db: sqlite3.Connection) -> bool:
        if not isinstance(self.transaction, AtOnce):
            return False
        self.flag.phase = Phase.COMMITTING
        done = self.transaction.write_at_once(db)
        if not done:
            self.flag.phase = Phase.OUTSIDE
        return done

    def rolled_back(self) -> None:
        self.transaction.rolled_back()


def announce_commits(flag: CommitFlag) -> None:
    """Let every log that is opened from now on in this process show its commits in `flag`."""

    class AnnouncingThread(CommitThread):
        def _attempt(self, transaction: Transaction) -> Exception | None:
            try:
                return super()._attempt(_Announced(transaction, flag))
            finally:
                flag.phase = Phase.OUTSIDE

    flag.phase = Phase.OUTSIDE
    patch.object(log_files, "CommitThread", AnnouncingThread).start()
