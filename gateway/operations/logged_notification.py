"""A notification and what became of it, as the API and the command line show it in JSON."""

from typing_extensions import TypedDict

from gateway.model.priorities import Priority
from gateway.model.reading import rfc3339, rfc3339_or_null
from gateway.model.wire import Json
from gateway.storage.notification_rows import NotificationRow, Status


class LoggedNotification(TypedDict):
    """A notification, and what became of it."""

    id: str
    organization_id: str
    integration_id: str
    integration_type: str
    kind: str
    subject: str
    message: str
    priority: Priority
    status: Status
    data: dict[str, Json]
    recipients: list[str]
    sent_at: str | None
    failed_at: str | None
    next_attempt_at: str | None
    retry_count: int
    error_message: str
    message_id: str | None
    repeats: int
    metadata: dict[str, Json]
    created_at: str
    updated_at: str


def logged(row: NotificationRow) -> LoggedNotification:
    """Return the document."""
    return {
        "id": row.id,
        "organization_id": row.organization_id,
        "integration_id": row.integration_id,
        "integration_type": row.integration_type,
        "kind": row.kind,
        "subject": row.subject,
        "message": row.message,
        "priority": row.priority,
        "status": row.status,
        "data": row.data,
        "recipients": row.recipients,
        "sent_at": rfc3339_or_null(row.sent_at_ms),
        "failed_at": rfc3339_or_null(row.failed_at_ms),
        "next_attempt_at": rfc3339_or_null(row.next_attempt_at_ms),
        "retry_count": row.retry_count,
        "error_message": row.error_message,
        "message_id": row.message_id,
        "repeats": row.repeats,
        "metadata": row.metadata,
        "created_at": rfc3339(row.created_at_ms),
        "updated_at": rfc3339(row.updated_at_ms),
    }
