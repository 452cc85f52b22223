"""Where each reader of the log stands: cursors are opened, split in two where readings wait, and forgotten.

A destination has a cursor and, while it catches up with the newest readings first, another one for its backlog. How a
cursor moves with a commit is in group_commit.py.
"""

from abc import abstractmethod

from gateway.model.errors import StoreFailed
from gateway.model.selection import EVERYTHING, Selection
from gateway.storage.append import MOVE
from gateway.storage.commit_thread import Statement
from gateway.storage.cursors import Cursor, backlog_of
from gateway.storage.dead_letters import CONFIRM, FORGET_PROVISIONAL, DeadLetters
from gateway.storage.group_commit import GroupCommit
from gateway.storage.log_reader import LogReader
from gateway.storage.repair.exchange import CURSORS_LOST

_BEGIN_BACKLOG = "INSERT INTO cursors (name, position, until_row) VALUES (?, ?, ?)"
_FORGET_CURSOR = "DELETE FROM cursors WHERE name = ?"
_OF_DESTINATIONS = ("dead_letters", "losses", "dead_letter_losses")


class LogCursors(GroupCommit, LogReader):
    """See the module's own words. The part of `Log` that knows its readers; for the event loop's thread."""

    dead_letters: DeadLetters

    def __init__(self) -> None:
        """Know no cursor yet; `GroupCommit` and `LogReader` are there."""
        self._opened: set[str] = set()
        """Cursors that are on disk."""
        self._ends: dict[str, int] = {}
        """Of the cursors that are a backlog's."""
        self._newest = 0
        """The newest row of the log; readers may not see it yet."""
        self._cursors_lost = False
        """Whether a damaged log took cursors with it that nobody could read."""
        self._all_cursors_opened = False

    @abstractmethod
    async def _execute(self, *statements: Statement) -> None:
        """Carry out statements as one transaction; returns when it is on disk. Raises StoreFailed."""

    async def open_cursor(self, name: str, *, start: str, selection: Selection = EVERYTHING) -> Cursor:
        """Return the cursor of that name; a new one starts `now` or at the `oldest` stored row.

        Only what the selection wants can be lost to it.
        """
        self.bounds.selections[name] = self.bounds.selections[backlog_of(name)] = selection
        backlog, opened = await self.open_backlog(name), await self._known_cursor(name)
        if backlog is None and opened is not None and opened.position and self._cursors_lost:
            # Whether it had one that cannot be read any more, nothing tells: rather all of it twice than not at all.
            await self._execute((_BEGIN_BACKLOG, [(backlog_of(name), 0, opened.position)]))
            backlog = await self.open_backlog(name)
        if opened is not None:
            if backlog is None or backlog.until is None or opened.position >= backlog.until:
                return opened
            # The log was exchanged in the middle of a split: what the backlog has, this has not.
            self.move_cursor(name, backlog.until)
            return Cursor(name, backlog.until, None)
        position = 0 if start == "oldest" or self._cursors_lost else self._newest
        if backlog is not None and backlog.until is not None:
            position = backlog.until  # its own is unreadable: it was behind the backlog's end
        await self._execute(("INSERT OR IGNORE INTO cursors (name, position) VALUES (?, ?)", [(name, position)]))
        self._opened.add(name)
        self.bounds.readers[name] = position
        return Cursor(name, position, None)

    async def open_backlog(self, name: str) -> Cursor | None:
        """Return the cursor of a destination's backlog; None when it has none."""
        return await self._known_cursor(backlog_of(name))

    async def _known_cursor(self, name: str) -> Cursor | None:
        for cursor in await self.cursors():
            if cursor.name == name:
                opened = self._up_to_date(cursor)
                self._opened.add(name)
                self.bounds.readers[name] = opened.position
                if opened.until is not None:
                    self._ends[name] = opened.until
                return opened
        return None

    async def split_cursor(self, name: str, at: int) -> None:
        """Make a backlog of what the cursor still has before it up to row `at`, and go on with it behind that.

        Both at once, and nothing of that may be under way. Raises StoreFailed.
        """
        backlog, position = backlog_of(name), self.bounds.readers[name]
        self._opened.add(backlog)
        self.bounds.readers[backlog], self._ends[backlog] = position, at  # before it is on disk: it is needed at once
        try:
            await self._execute((_BEGIN_BACKLOG, [(backlog, position, at)]), (MOVE, [(at, name)]))
        except StoreFailed:
            self._forget_cursor(backlog)
            raise
        self.bounds.readers[name] = at
        self._waiting.move_again(name, at)

    async def end_backlog(self, name: str) -> None:
        """Forget a backlog that has been dealt with. Raises StoreFailed."""
        backlog = backlog_of(name)
        end = self._ends.get(backlog, 0)
        await self._execute((CONFIRM, [(name, end)]), (_FORGET_CURSOR, [(backlog,)]))
        self._forget_cursor(backlog)

    def _forget_cursor(self, name: str) -> None:
        self._waiting.forget_move(name)
        self.bounds.readers.pop(name, None)
        self._ends.pop(name, None)
        self._opened.discard(name)

    async def all_cursors_opened(self) -> None:
        """Hear that every destination has opened its cursor: one that is new from now on is no lost one."""
        self._cursors_lost, self._all_cursors_opened = False, True
        await self._execute(("DELETE FROM meta WHERE key = ?", [(CURSORS_LOST,)]))

    def _up_to_date(self, stored: Cursor) -> Cursor:
        """Add the move that may not be on disk yet: a reader that is restarted goes on where it was."""
        position = max(stored.position, self.bounds.readers.get(stored.name, 0))
        attempt = stored.attempt
        if attempt is not None and attempt.last_row <= position:
            attempt = None
        return Cursor(stored.name, position, attempt, stored.until)

    async def drop_cursor(self, name: str) -> None:
        """Give up a reader's place; should it come back, it starts anew. Its dead letters stay."""
        cursors = name, backlog_of(name)
        for cursor in cursors:
            self._forget_cursor(cursor)
            self.bounds.selections.pop(cursor, None)
        await self._execute((_FORGET_CURSOR, [(one,) for one in cursors]), (FORGET_PROVISIONAL, [(name,)]))

    async def forget_destination(self, name: str) -> None:
        """Forget a reader that is removed for good: its place, its dead letters, and what it has lost."""
        await self.drop_cursor(name)
        await self._execute(
            *((f"DELETE FROM {table} WHERE destination = ?", [(name,)]) for table in _OF_DESTINATIONS)  # noqa: S608 - constants
        )
        self.dead_letters.note_settled()
