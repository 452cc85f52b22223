"""What a notification says in each channel: templates by its kind, and which kinds a channel wants by itself.

A template is text with fields such as `{{title}}` or `{{data.device_id}}`, and nothing that runs. A line that is
nothing but references is left out when they are all empty.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud_sync.contract import Notification
from cloud_sync.payload.readings_batch import as_json
from cloud_sync.payload.template import filled_text
from gateway.model.priorities import Priority, rank_of
from gateway.model.reading import rfc3339

FIELDS = (
    *("title", "body", "subject", "message", "priority", "kind", "time", "details", "data", "count"),
    *("id", "organization_id", "gateway_id"),
)
"""`title` is the subject, or else the first line of the message, and `body` the rest; `details` is `data` in lines."""

_ONLY_REFERENCES = re.compile(r"\s*(\{\{[^{}]*\}\}\s*)+")
_DETAILS = 20
_DETAIL_CHARACTERS = 200

Kind = Annotated[str, Field(pattern=r"^[a-z0-9_.*?-]+$", max_length=100)]
"""Of a notification, or a pattern of such: `alert.*`."""


class MessageTemplate(BaseModel):
    """How notifications of a kind are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str = Field("", description="The subject, where a channel has such; empty for the usual one.")
    text: str = Field("", description="The text; empty for the usual one.")


class Notify(BaseModel):
    """Which notifications it gets by itself, and how they are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[Kind, ...] = Field(
        ("*",),
        description="What it is told when it happens: kinds, or patterns such as `alert.*`; none: only what is sent to"
        " it by name.",
    )
    min_priority: Priority = Field("low", description="Nothing less urgent than this.")
    templates: dict[Kind, MessageTemplate] = Field(
        default_factory=dict,
        description="By kind, or pattern of kinds, how it is written: the first that fits. Text with fields such as"
        " `{{title}}`.",
    )

    @model_validator(mode="after")
    def _are_templates(self) -> Self:
        for kind, template in self.templates.items():
            for part in (template.subject, template.text):
                try:
                    filled_text(part, FIELDS)
                except ValueError as error:
                    msg = f"the template of {kind}: {error}"
                    raise ValueError(msg) from None
        return self

    def wants(self, kind: str, priority: Priority) -> bool:
        """Whether it is to be told by itself."""
        return rank_of(priority) >= rank_of(self.min_priority) and any(fnmatchcase(kind, one) for one in self.kinds)


@dataclass(slots=True, frozen=True)
class Written:
    """A notification as people read it."""

    subject: str
    text: str


class Writer:
    """Writes notifications by the templates of a channel, else by its usual one."""

    def __init__(self, notify: Notify, usual: MessageTemplate, quote: Callable[[str], str] = str) -> None:
        """`quote` makes a value harmless where it is put into the text; what a template says itself stays as it is."""
        self._quote = quote
        templates = [*notify.templates.items(), ("*", MessageTemplate())]
        self._templates = [
            (kind, self._lines(one.subject or usual.subject), self._lines(one.text or usual.text))
            for kind, one in templates
        ]

    def write(self, notification: Notification) -> Written:
        """Return what it says."""
        fields = fields_of(notification)
        _, subject, text = next(one for one in self._templates if fnmatchcase(notification.kind, one[0]))
        return Written(" ".join(subject(fields).split()), text(fields).strip())

    def _lines(self, template: str) -> Callable[[Mapping[str, Any]], str]:
        lines = [
            (filled_text(line, FIELDS, self._quote), _ONLY_REFERENCES.fullmatch(line) is not None)
            for line in template.split("\n")
        ]

        def write(fields: Mapping[str, Any]) -> str:
            written = [(line(fields), may_be_left_out) for line, may_be_left_out in lines]
            return "\n".join(text for text, may_be_left_out in written if text.strip() or not may_be_left_out)

        return write


def fields_of(notification: Notification) -> dict[str, Any]:
    """Return what a template may refer to."""
    first, _, rest = notification.message.strip().partition("\n")
    return {
        "title": notification.subject or first,
        "body": notification.message.strip() if notification.subject else rest.strip(),
        "subject": notification.subject,
        "message": notification.message,
        "priority": notification.priority,
        "kind": notification.kind,
        "time": rfc3339(notification.at_ms),
        "details": _details(notification.data),
        "data": notification.data,
        "count": max(len(notification.parts), 1),
        "id": notification.id,
        "organization_id": notification.organization_id,
        "gateway_id": notification.gateway_id,
    }


def _details(data: Mapping[str, Any]) -> str:
    lines = [f"{name}: {_short(value)}" for name, value in list(data.items())[:_DETAILS]]
    return "\n".join([*lines, "…"] if len(data) > _DETAILS else lines)


def _short(value: object) -> str:
    text = " ".join((value if isinstance(value, str) else as_json(value).decode()).split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[: _DETAIL_CHARACTERS - 1] + "…"
