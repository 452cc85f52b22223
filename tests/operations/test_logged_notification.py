"""A notification in JSON: each of its columns under its own name."""

from gateway.operations.logged_notification import logged
from gateway.storage.notification_rows import NotificationRow


def test_each_column_is_under_its_own_name_and_a_time_that_there_is_not_is_null() -> None:
    texts = {
        name: f"the {name}"
        for name in ("id", "organization_id", "integration_id", "integration_type", "kind", "subject", "message")
    }
    row = NotificationRow(
        **texts,
        priority="high",
        status="failed",
        created_at_ms=1,
        updated_at_ms=2,
        data={"is": "data"},
        recipients=["a@example.org"],
        metadata={"by": "cli"},
        repeats=3,
        message_id="m",
        recipients_left=["nobody hears of it"],
        attempts=4,
        retry_count=5,
        next_attempt_at_ms=None,
        error_message="why",
        sent_at_ms=0,
        failed_at_ms=6,
        seq=7,
        urgency=8,
    )
    assert logged(row) == texts | {
        "priority": "high",
        "status": "failed",
        "created_at": "1970-01-01T00:00:00.001Z",
        "updated_at": "1970-01-01T00:00:00.002Z",
        "data": {"is": "data"},
        "recipients": ["a@example.org"],
        "metadata": {"by": "cli"},
        "repeats": 3,
        "message_id": "m",
        "retry_count": 5,
        "next_attempt_at": None,
        "error_message": "why",
        "sent_at": "1970-01-01T00:00:00.000Z",
        "failed_at": "1970-01-01T00:00:00.006Z",
    }
