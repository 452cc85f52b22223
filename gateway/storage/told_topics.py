"""Where Home Assistant has heard what a device is: it must hear there when that device is no more.

On disk, as it or the gateway may be away meanwhile. It is not worth a copy of its own: what is missing is told again.
"""

from collections.abc import Iterable

import aiosqlite

from gateway.storage.state import State


class ToldTopics:
    """See the module's own words. Topics are those behind the door."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def all(self) -> set[str]:
        """Return all of them."""
        return {topic for (topic,) in await self._state.fetch("SELECT topic FROM home_assistant_topics")}

    async def change(self, new: Iterable[str], over: Iterable[str]) -> None:
        """Note where it has heard of a device, and where that this is over. Raises StoreFailed."""

        async def write(db: aiosqlite.Connection) -> None:
            await db.executemany("INSERT OR IGNORE INTO home_assistant_topics VALUES (?)", [(one,) for one in new])
            await db.executemany("DELETE FROM home_assistant_topics WHERE topic = ?", [(one,) for one in over])

        await self._state.change(write, copied=False)
