"""What a parser is, and what it makes of a message.

A parser is one file of this folder that ends with its `Parser`, and one line in `routes.py`. It is pure: bytes and a
topic in, readings out, or BadInput for the whole message. It does not validate sensors, find devices or know the time:
`in_standard_shape`, access and ingest do.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.model.errors import BadInput
from gateway.parsers.standard import Parsed, parse_object

MAX_READINGS = 1_000
"""In one message: while it is read, nobody else is served."""


def check_count(readings: int) -> None:
    """Raise BadInput when a message holds more readings than are taken at once; a parser asks before it reads them."""
    if readings > MAX_READINGS:
        raise BadInput("too_many_readings", "Too many readings in one message.", hint=f"Send at most {MAX_READINGS}.")


@dataclass(slots=True, frozen=True)
class Found:
    """One reading that was found in a message, and what the message calls its device."""

    fields: dict[str, Any]
    """A reading in the standard shape, not validated yet; its `device_id` is left out or does not count."""
    device_id: str | None = None
    """None when nothing is said of the device: then the reading is the sender's."""
    hardware_ids: tuple[str, ...] = ()
    """By these a registered device is looked for first."""
    serial_number: str = ""
    """By this, second; by `device_id` third."""
    payload: bytes | None = None
    """The message, if it is in the standard shape as it is."""
    piece: Any = None
    """What of the message it was made of, as JSON; None: `fields` says all of it."""
    problem: BadInput | None = None
    """Why `piece` is no reading; then nothing else counts."""


class Reply(NamedTuple):
    """What the sender waits for; it is sent when everything of the message is on disk, also in quarantine."""

    topic: str
    payload: bytes


Parse = Callable[[bytes, str], Sequence[Found]]
"""(message, topic) → what was found in it, at least one. Raises BadInput."""


def _every(_: str) -> bool:
    return True


def _never(_: str) -> bool:
    return False


def _nobodys(_: str) -> str | None:
    return None


def _no_reply(_: str) -> Reply | None:
    return None


def _nothing_more(_: str | None) -> tuple[str, ...]:
    return ()


@dataclass(slots=True, frozen=True)
class Parser:
    """A parser as a route has it."""

    name: str
    parse: Parse
    reads: Callable[[str], bool] = _every
    """Whether messages on a topic of the route are for it; others are messages like any."""
    ignores: Callable[[str], bool] = _never
    """Whether what comes on a topic is an echo of ours: it is acknowledged, and nothing else."""
    speaker: Callable[[str], str | None] = _nobodys
    """The only device that may publish on a topic, besides a hub of its organisation; None when any of them may."""
    reply: Callable[[str], Reply | None] = _no_reply
    """What is answered to a message on the topic."""
    heard_by: Callable[[str | None], tuple[str, ...]] = _nothing_more
    """Topic filters that a device (None: a hub of the whole organisation) subscribes to for its replies."""
    named: Callable[[str], str | None] | None = None
    """What the topic calls the device that a message there is about; None when that is not said by topics."""


def each_of(items: Iterable[Any], read: Callable[[Any], Found]) -> list[Found]:
    """Read each item of a message; one that cannot be read spoils no other."""

    def found(item: Any) -> Found:  # noqa: ANN401 - JSON
        try:
            return read(item)
        except BadInput as error:
            return Found({}, piece=item, problem=error)

    return [found(item) for item in items]


def in_standard_shape(found: Found, device_id: str) -> Parsed:
    """Validate what was found as a reading of this device. Raises BadInput."""
    if found.problem is not None:
        raise found.problem
    body = found.fields
    if found.payload is not None and body.get("device_id") == device_id:
        return parse_object(body, found.payload)
    return parse_object({**body, "device_id": device_id}, None)
