"""The activity log: who changed what, and when."""

from typing import Any

import aiosqlite

from gateway.operations.site import Site
from gateway.storage.activity_log import ActivityRow, note, read_activity


async def page_activity(
    site: Site, *, organization_id: str | None, everybodys: bool = False, before_id: int | None = None, limit: int
) -> list[ActivityRow]:
    """Return the newest changes below an id: an organisation's (None: the site's), or everybody's."""
    state = await site.state()
    return await read_activity(state.fetch, organization_id, everybodys=everybodys, before_id=before_id, limit=limit)


async def note_change(
    site: Site, organization_id: str | None, action: str, subject: str, after: dict[str, Any] | None = None
) -> None:
    """Note what is changed elsewhere than in the state, or by a transaction of its own: there is none for both."""
    state = await site.state()

    async def write(db: aiosqlite.Connection) -> None:
        await note(db, state.now_ms(), site.actor, organization_id, action, subject, None, after)

    await state.change(write)
