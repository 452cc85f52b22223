"""Commands to devices, as CONTRACT and firmware have them: what is sent, and what comes back.

A device is told `{"method", "params", "deadline"}` (the deadline in unix seconds) and answers `{"state", "result"}`,
first `executing`, then `successful` or `failed`.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import BaseModel, ValidationError

from gateway.model.errors import BadInput
from gateway.model.wire import WIRE, Json

State = Literal["queued", "sent", "executing", "successful", "failed", "expired"]
"""`queued`: it waits for the device; `sent`: the device was told; `expired`: there was no result by the deadline."""
Answered = Literal["executing", "successful", "failed"]

PENDING: frozenset[State] = frozenset({"queued", "sent", "executing"})

PAYLOAD_BYTES = 3_500
"""At most. A board reads packets of 4,096 bytes, and the topic is in there too."""
RESULT_BYTES = 16_384
"""At most, of what is kept of an answer."""
SHORTEST_MS = 1_000
LONGEST_MS = 24 * 3_600_000
"""From a command to its deadline: what is to happen later than that is no command but a plan."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_METHOD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}")


class Answer(BaseModel):
    """What a device says to a command."""

    model_config = WIRE

    state: Answered
    result: Json = None

    @classmethod
    def read(cls, payload: bytes) -> Self | None:
        """Read it; None when it is none. Of a result that is too long only that is kept."""
        try:
            answer = cls.model_validate_json(payload)
        except ValidationError:
            return None
        if len(payload) > RESULT_BYTES:
            answer.result = f"a result of {len(payload):,} bytes is not kept; at most {RESULT_BYTES:,}"
        return answer


@dataclass(slots=True, frozen=True)
class Late:
    """What a device has said after the deadline."""

    state: Answered
    result: Json
    at_ms: int


@dataclass(slots=True, frozen=True)
class Command:
    """A command, and what has become of it."""

    number: int
    """Grows; 0 while it is not written down."""
    organization_id: str
    device_id: str
    id: str
    method: str
    params: dict[str, Any]
    actor: str
    """Who sent it, as the activity log names them."""
    created_at_ms: int
    deadline_ms: int
    """Whole seconds, as devices are told them."""
    state: State = "queued"
    result: Json = None
    sent_at_ms: int | None = None
    finished_at_ms: int | None = None
    late: Late | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What there is one of."""
        return self.organization_id, self.device_id, self.id

    @property
    def is_pending(self) -> bool:
        """Whether something may still become of it."""
        return self.state in PENDING

    def payload(self) -> bytes:
        """Return what the device is told."""
        told = {"method": self.method, "params": self.params, "deadline": self.deadline_ms // 1000}
        return json.dumps(told, separators=(",", ":")).encode()

    def says_the_same(self, other: "Command") -> bool:
        """Whether both ask for the same."""
        return (self.method, self.params) == (other.method, other.params)

    def answered(self, answer: Answer, at_ms: int, *, is_late: bool) -> "Command | None":
        """Return the command after an answer; None when that changes nothing."""
        if is_late or self.state == "expired":
            late = Late(answer.state, answer.result, at_ms)
            if self.state == "expired" and (self.late is None or self.late.state == "executing"):
                return replace(self, late=late)
            return replace(self.expired(at_ms), late=late) if self.is_pending else None
        if not self.is_pending or (answer.state == self.state == "executing"):
            return None
        if answer.state == "executing":
            return replace(self, state="executing")
        return replace(self, state=answer.state, result=answer.result, finished_at_ms=at_ms)

    def expired(self, at_ms: int) -> "Command":
        """Return the command without a result."""
        return replace(self, state="expired", finished_at_ms=at_ms)


def check_command(command: Command) -> None:
    """Raise BadInput for one that no device could be told."""
    if not _ID.fullmatch(command.id):
        raise BadInput(
            "invalid_command_id",
            f"{command.id[:100]!r} cannot be the id of a command: it becomes part of a topic.",
            hint="Use letters, digits, '_' and '-', at most 64; or leave it out.",
        )
    if not _METHOD.fullmatch(command.method):
        raise BadInput(
            "invalid_method",
            f"{command.method[:100]!r} cannot be a method.",
            hint="Use letters, digits, '_', '.', ':' and '-', at most 64; for example identify.",
        )
    if (size := len(command.payload())) > PAYLOAD_BYTES:
        raise BadInput(
            "command_too_large",
            f"The command has {size:,} bytes.",
            hint=f"A board reads {PAYLOAD_BYTES:,} at most: send less in params.",
        )
