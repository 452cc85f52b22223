"""`send-notification` and `notification-log`: what people are told, and what became of it.

- `POST …/send-notification` `{integration_type, integration_id?, subject?, message, priority?, data?, recipients?}`:
  202 when it is on disk; it goes out by the integration that is named, or the first active one of its type
- `GET …/notification-log?status&integration_id&limit&cursor`, `GET …/notification-log/{id}`
- `POST …/notification-log/{id}/resend`: one that has failed, once more
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from gateway.callers import Caller
from gateway.model.priorities import Priority
from gateway.model.wire import Json
from gateway.operations.logged_notification import LoggedNotification, logged
from gateway.operations.notifications import hand_in, page_notifications, resend_notification, show_notification
from gateway.operations.site import SharedSite
from gateway.storage.notification_rows import NewNotification, Status
from gateway.web.authorization import Authorization
from gateway.web.parameters import Above0, RowNumber
from gateway.web.requests import Query, Request
from gateway.web.routes import Accepted, Route

_AT_MOST = 1_000


class NotificationRequest(Request):
    """What is to be told, and by what."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"integration_type": "email", "message": "The pump is off.", "priority": "high"}]
        }
    )

    integration_type: str = Field(min_length=1, max_length=50, description="`email`, `slack` or `webhook`.")
    integration_id: str | None = Field(
        None, max_length=100, description="Which one; without it, the first active one of its type."
    )
    subject: str | None = Field(None, description="One line; a mail has it as its own.")
    message: str = Field(description="What is told.")
    priority: Priority = "medium"
    data: dict[str, Json] | None = Field(
        None, description="What goes with it; `device_id` says which device it is about."
    )
    recipients: list[str] | None = Field(None, description="Addresses of a mail, instead of those in its settings.")
    kind: str = Field("message", description="What kind of thing it tells; templates are chosen by it.")
    dedupe_key: str | None = Field(None, description="Within a while, what has the same key is told once.")


class AcceptedNotification(TypedDict):
    """It is on disk, and goes out."""

    id: str
    status: Status
    integration_id: str
    integration_type: str
    duplicate: bool


class LogQuery(Query):
    """Which of them, and which page."""

    status: Literal["pending", "sent", "failed", "retrying"] | None = Field(None, description="Only those.")
    integration_id: str | None = Field(None, description="Only what went, or goes, by this one.")
    limit: Above0 = Field(100, description="In one page; 1,000 at most, however much is asked for.")
    cursor: RowNumber | None = Field(None, description="`next_cursor` of the page before.")


class LoggedNotifications(TypedDict):
    """One page of them."""

    notifications: list[LoggedNotification]
    next_cursor: str | None


class Notifications:
    """The routes and their handlers."""

    def __init__(self, authorization: Authorization, site: SharedSite) -> None:
        self._authorization = authorization
        self._site = site

    def routes(self) -> Iterable[Route]:
        """Return the routes."""
        changes, reads = self._authorization.changes, self._authorization.reads
        yield Route("POST", "send-notification", self.send, changes, (404,))
        yield Route("GET", "notification-log", self.list, reads, is_large=True)
        yield Route("GET", "notification-log/{id}", self.show, reads, (404,))
        yield Route("POST", "notification-log/{id}/resend", self.resend, changes, (404, 409))

    async def send(self, who: Caller, body: NotificationRequest) -> Accepted[AcceptedNotification]:
        """Hand in a notification: it is on disk when this answers, and goes out at least once."""
        new = NewNotification(
            who.organization_id,
            body.integration_id or "",
            body.integration_type,
            body.message,
            body.priority,
            body.kind,
            body.subject or "",
            body.data or {},
            body.recipients or (),
            body.dedupe_key,
            by=who.actor,
        )
        sent = await hand_in(self._site, new)
        return Accepted(
            {
                "id": sent.id,
                "status": sent.status,
                "integration_id": sent.integration_id,
                "integration_type": sent.integration_type,
                "duplicate": sent.is_repeated,
            }
        )

    async def list(self, who: Caller, query: LogQuery) -> LoggedNotifications:
        """Return a page of notifications, the newest first."""
        limit = min(query.limit, _AT_MOST)
        rows = await page_notifications(
            self._site,
            organization_id=who.organization_id,
            status=query.status,
            integration_id=query.integration_id,
            before=query.cursor,
            limit=limit + 1,
        )
        page = rows[:limit]
        next_cursor = str(page[-1].seq) if len(rows) > limit else None
        return {"notifications": [logged(row) for row in page], "next_cursor": next_cursor}

    async def show(self, who: Caller, id: str) -> LoggedNotification:  # noqa: A002 - its name in the path
        """Return one notification."""
        found = await show_notification(self._site, organization_id=who.organization_id, notification_id=id)
        return logged(found)

    async def resend(self, who: Caller, id: str) -> LoggedNotification:  # noqa: A002 - its name in the path
        """Send one again that has failed, with all that is in the same message."""
        site = self._site.acting(who.actor)
        return logged(await resend_notification(site, organization_id=who.organization_id, notification_id=id))
