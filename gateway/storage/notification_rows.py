"""What a notification is in `state.db`: as it is handed in, and what became of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import to_json

from gateway.model.errors import BadInput
from gateway.model.priorities import Priority
from gateway.model.text import is_clean_text

Status = Literal["pending", "sent", "failed", "retrying"]

MESSAGE_CHARACTERS = 8_000
SUBJECT_CHARACTERS = 200
DATA_BYTES = 16_000
RECIPIENTS = 50
ADDRESS_CHARACTERS = 254  # RFC 5321, 4.5.3.1.3
KEY_CHARACTERS = 200
_KIND = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_KIND_CHARACTERS = 100

_JSON_PLACES = (11, 12, 13, 16)
COLUMNS = """id, organization_id, integration_id, integration_type, kind, subject, message, priority, status,
    created_at, updated_at, data, recipients, metadata, repeats, message_id, recipients_left, attempts, retry_count,
    next_attempt_at, error_message, sent_at, failed_at, seq, urgency"""
"""As the fields of NotificationRow; JSON is in those of `_JSON_PLACES`."""


@dataclass(slots=True, frozen=True)
class NewNotification:
    """A notification as it is handed in, for one integration."""

    organization_id: str
    integration_id: str
    integration_type: str
    message: str
    priority: Priority = "medium"
    kind: str = "message"
    """Words with dots between: `alert.raised`."""
    subject: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    recipients: Sequence[str] = ()
    dedupe_key: str | None = None
    """What is told once within a while."""
    by: str = ""
    """Who has handed it in, as in the activity log."""

    def check(self) -> None:
        """Raise BadInput for what could not be told."""
        if not self.message.strip() or len(self.message) > MESSAGE_CHARACTERS or not _is_text(self.message):
            raise _invalid("message", f"is no text of at most {MESSAGE_CHARACTERS:,} characters")
        if len(self.subject) > SUBJECT_CHARACTERS or not is_clean_text(self.subject):
            raise _invalid("subject", f"is no line of at most {SUBJECT_CHARACTERS} characters")
        if len(self.kind) > _KIND_CHARACTERS or not _KIND.fullmatch(self.kind):
            raise _invalid("kind", "is no words with dots between, such as alert.raised")
        if self.dedupe_key is not None and not (0 < len(self.dedupe_key) <= KEY_CHARACTERS):
            raise _invalid("dedupe_key", f"is empty, or longer than {KEY_CHARACTERS} characters")
        if len(self.recipients) > RECIPIENTS:
            raise _invalid("recipients", f"are more than {RECIPIENTS}")
        for one in self.recipients:
            if not 0 < len(one) <= ADDRESS_CHARACTERS or not is_clean_text(one):
                raise _invalid("recipients", "are no addresses")
        if len(self.data_json) > DATA_BYTES:
            raise _invalid("data", f"is larger than {DATA_BYTES:,} bytes")

    @property
    def data_json(self) -> str:
        """What programs may want to know, as JSON."""
        return to_json(dict(self.data), inf_nan_mode="null").decode()

    @property
    def device_id(self) -> str | None:
        """The device that it is about, if it says so: it is erased with that."""
        named = self.data.get("device_id")
        return named if isinstance(named, str) else None


@dataclass(slots=True, frozen=True)
class NotificationRow:
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
    created_at_ms: int
    updated_at_ms: int
    data: dict[str, Any]
    recipients: list[str]
    metadata: dict[str, Any]
    """`by`: who has handed it in. `refused`: which recipients will never take it, and why."""
    repeats: int
    """How often it was handed in again by its `dedupe_key`, and not told again."""
    message_id: str | None
    """The message that it went in, or goes: its own id if it is alone there."""
    recipients_left: list[str] | None
    """Who has not got it yet; None for all."""
    attempts: int
    """Of those that count."""
    retry_count: int
    next_attempt_at_ms: int | None
    error_message: str
    sent_at_ms: int | None
    failed_at_ms: int | None
    seq: int
    """Grows."""
    urgency: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> "NotificationRow":
        """Read COLUMNS."""
        fields = list(row)
        for place in _JSON_PLACES:
            fields[place] = None if fields[place] is None else json.loads(fields[place])
        return cls(*fields)


def _is_text(text: str) -> bool:
    return is_clean_text(text.translate({ord("\n"): " ", ord("\r"): " ", ord("\t"): " "}))


def _invalid(what: str, words: str) -> BadInput:
    return BadInput("invalid_notification", f"{what} {words}.", hint="Correct or shorten it.")
