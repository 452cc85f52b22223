"""Notifications: sent, shown, sent again, previewed.

- what is handed in is on disk before the answer; it goes out while a gateway runs
- one that is to be sent again without a gateway goes out after the next start
"""

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from cloud_sync.notifier import EXAMPLE, Notifier
from gateway.model.errors import Conflict
from gateway.model.priorities import Priority
from gateway.operations.site import Site
from gateway.storage.notification_log import NotificationLog
from gateway.storage.notification_rows import NewNotification, NotificationRow, Status

_PAGE = 200


@dataclass(slots=True, frozen=True)
class SentNotification:
    """A notification that was handed in."""

    id: str
    status: Status
    integration_id: str
    integration_type: str
    is_repeated: bool
    """It was told already, by its `dedupe_key`: this is the one from before."""


async def page_notifications(
    site: Site,
    *,
    organization_id: str,
    status: Status | None = None,
    integration_id: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[NotificationRow]:
    """Return the newest notifications of an organisation below a number."""
    log = await _log(site)
    return await log.page(organization_id, status=status, integration_id=integration_id, before=before, limit=limit)


async def show_notification(site: Site, *, organization_id: str, notification_id: str) -> NotificationRow:
    """Return one notification. Raises NotFound."""
    return await (await _log(site)).get(organization_id, notification_id)


async def send_notification(
    site: Site,
    *,
    organization_id: str,
    message: str,
    integration_type: str = "",
    integration_id: str = "",
    kind: str = "message",
    subject: str = "",
    priority: Priority = "medium",
) -> SentNotification:
    """Hand one in for the integration that is named, or the first active one of a type.

    Raises NotFound, BadInput, StoreFull, and Conflict when no gateway runs.
    """
    new = NewNotification(
        organization_id, integration_id, integration_type, message, priority, kind, subject, by=site.actor
    )
    return await hand_in(site, new)


async def hand_in(site: Site, new: NewNotification) -> SentNotification:
    """Hand one in. Raises as `send_notification`."""
    accepted = await _notifier(site).send(new)
    added = accepted.added
    return SentNotification(
        added.id, added.status, accepted.integration_id, accepted.integration_type, added.is_repeated
    )


async def follow_notification(
    site: Site, *, organization_id: str, notification_id: str
) -> AsyncGenerator[NotificationRow, None]:
    """Yield what becomes of it, until it is sent or has failed. Raises NotFound, and Conflict when no gateway runs."""
    log = _notifier(site).log
    while True:
        changed = log.changed
        row = await log.get(organization_id, notification_id)
        yield row
        if row.status in ("sent", "failed"):
            return
        await changed.wait()


async def resend_notification(site: Site, *, organization_id: str, notification_id: str) -> NotificationRow:
    """Send one again that has failed, with all that is in the same message. Raises NotFound and Conflict."""
    if site.live is not None:
        return await site.live.notifier.resend(organization_id, notification_id, by=site.actor)
    return await (await _log(site)).resend(organization_id, notification_id, by=site.actor)


async def resend_failed_notifications(site: Site, *, organization_id: str) -> int:
    """Send all of an organisation again that have failed, and return how many these are."""
    log = await _log(site)
    count, before = 0, None
    while page := await log.page(organization_id, status="failed", before=before, limit=_PAGE):
        for row in page:
            with suppress(Conflict):  # it has gone with another one of its message
                await resend_notification(site, organization_id=organization_id, notification_id=row.id)
            count += 1
        before = page[-1].seq
    return count


async def preview_notification(
    site: Site,
    *,
    organization_id: str,
    integration_id: str,
    kind: str = "message",
    subject: str = "",
    message: str = EXAMPLE,
    priority: Priority = "medium",
) -> str:
    """Return what an integration that runs would send. Raises NotFound, BadInput, and Conflict when no gateway runs."""
    new = NewNotification(organization_id, integration_id, "", message, priority, kind, subject)
    return _notifier(site).preview(new)


async def _log(site: Site) -> NotificationLog:
    if site.live is not None:
        return site.live.notifier.log
    return NotificationLog(await site.state(), site.settings.notifications)


def _notifier(site: Site) -> Notifier:
    if site.live is None:
        raise Conflict("No gateway runs, so nothing can be sent.", hint="Start it: neurogate run")
    return site.live.notifier
