"""What a message from elsewhere is to us: by which parser it is read, and in whose name.

The organisation is the integration's, whatever a message says. What names another one's device, in a topic of our own
form, is quarantined: it would be mixed with a device of the same name. It does not: read payloads (parsers), or store.
"""

from dataclasses import dataclass

from cloud_sync.contract import Hearing, Incoming
from gateway.access import Access, Routed
from gateway.model.errors import BadInput
from gateway.model.topics import addressed_device, is_of_devices, is_telemetry, matches
from gateway.parsers.contract import Reply
from gateway.parsers.routes import STANDARD, parser_named

LONGEST_TOPIC = 1_000
"""It is kept with what is quarantined, and logged."""


@dataclass(slots=True, frozen=True)
class Read:
    """How one message is read."""

    routed: Routed
    problem: BadInput | None
    """Why it is not read at all, but quarantined."""
    reply: Reply | None
    """What its sender waits for, when it is on disk."""


class Reader:
    """See the module's own words."""

    def __init__(self, access: Access, organization_id: str, hearing: Hearing) -> None:
        self._access = access
        self._organization_id = organization_id
        self._topics = tuple(name for one in hearing.topics for name in _names_of(one))
        self._parser = parser_named(hearing.parser, hearing.mapping)

    def read(self, message: Incoming) -> Read | None:
        """Return how a message is read; None when it is none that is to be read."""
        topic, parser = message.topic, self._parser
        if parser.ignores(topic) or not parser.reads(topic):
            return None
        if not any(matches(topic, one) for one in self._topics):
            return None
        if len(topic) > LONGEST_TOPIC:
            words = f"The topic has {len(topic):,} characters."
            return self._aside(BadInput("topic_too_long", words, hint=f"At most {LONGEST_TOPIC} are taken."), None)
        if message.cut_bytes:
            words = f"The message has {message.cut_bytes:,} bytes, more than are taken, and was not kept."
            return self._aside(BadInput("payload_too_large", words, hint="Send less at a time."), parser.reply(topic))
        if parser is STANDARD and is_of_devices(topic):
            return self._of_device(topic)
        return Read(self._access.sent_within(self._organization_id, parser), None, parser.reply(topic))

    def _of_device(self, topic: str) -> Read | None:
        """Return how a message on a topic of our own form is read: it names its device, and what it carries."""
        if not is_telemetry(topic):
            return None
        device_id = addressed_device(self._organization_id, topic)
        if device_id is None:
            words = f"{topic[:200]!r} is no topic of a device of {self._organization_id}, whose integration this is."
            hint = "Give the integration to that organisation, or correct the topic."
            return self._aside(BadInput("foreign_topic", words, hint=hint), None)
        device = self._access.heard(self._organization_id, device_id)
        return Read(self._access.sent_by(device, self._parser), None, None)

    def _aside(self, problem: BadInput, reply: Reply | None) -> Read:
        return Read(self._access.sent_within(self._organization_id, self._parser), problem, reply)


def _names_of(topic_filter: str) -> tuple[str, ...]:
    """Return what the topics of its messages match: also what is behind the sign of a subscription of its own kind.

    Such are shared ones (MQTT 5, 4.8.2), EMQX's `$queue`, and those that only one may have, its `$exclusive`.
    """
    match topic_filter.split("/"):
        case ["$share", _, *heard] | ["$queue" | "$exclusive", *heard]:
            return topic_filter, "/".join(heard)
        case _:
            return (topic_filter,)
